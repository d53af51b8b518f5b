"""``Lake``: the front door to a lake, for Python, notebooks and the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import duckdb

from airflow_provider_chatexport.core.arguments import GIVE_LAKE, require_text
from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.plan import parse_cids
from airflow_provider_chatexport.core.progress import Progress, silent
from airflow_provider_chatexport.core.sinks import Sink, parse_published
from airflow_provider_chatexport.core.window import Moment, Window, parse_moment
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog import query as catalog_query
from airflow_provider_chatexport.lake.catalog.output import QueryOutput, QueryResult
from airflow_provider_chatexport.lake.catalog.query import CoverageReport, Parameters
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.catalog.table_query import channels_from, table_query
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.coverage import CoverageRun, TimeSpan, channels_of, coverage_runs
from airflow_provider_chatexport.lake.commits.gaps import gaps
from airflow_provider_chatexport.lake.commits.log import DEFAULT_KEEP
from airflow_provider_chatexport.lake.commits.lost_coverage import without_lost
from airflow_provider_chatexport.lake.load.job import DEFAULT_OPTIONS, load_files
from airflow_provider_chatexport.lake.load.report import LoadReport
from airflow_provider_chatexport.lake.maintenance.cleanup import VacuumReport
from airflow_provider_chatexport.lake.maintenance.compact import CompactionReport, compact
from airflow_provider_chatexport.lake.maintenance.forget import forget_user
from airflow_provider_chatexport.lake.maintenance.removal import ForgetReport
from airflow_provider_chatexport.lake.maintenance.repair import RepairReport, repair
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.maintenance.verify import VerifyReport, verify
from airflow_provider_chatexport.lake.publish import publisher
from airflow_provider_chatexport.lake.publish.driver import PublishReport
from airflow_provider_chatexport.lake.storage.address import Storage, open_store
from airflow_provider_chatexport.lake.storage.fingerprint import Fingerprint
from airflow_provider_chatexport.lake.storage.local_store import LocalStore

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class Lake:
    """A lake of chat exports: query it, load files into it, check it, and keep it in order.

    ::

        from airflow_provider_chatexport.lake import Lake

        with Lake("s3://chat/lake") as lake:
            lake.load("export.ndjson.gz")
            january = lake.table("messages", channels="team:x", since="2026-01-01", until="2026-02-01")
            print(january.df(), lake.coverage())

    Nothing is opened before the first call. Queries share one read-only connection, so they all show one state of the
    lake: that of the first query, or that of the last load or maintenance through this object. To see what other
    processes have committed since, call ``close`` and go on. An object is for one thread at a time.

    :param uri: a folder, or an address such as ``s3://bucket/lake``.
    :param storage_options: fsspec's options for the address, such as ``{"key": ..., "secret": ..., "endpoint_url":
        ...}``; by default the environment says how to reach the store (docs/object-storage.md).
    :param filesystem: a file system of fsspec for the address, instead of ``storage_options``. Its cache of listings is
        switched off.
    :param work_dir: where loads and maintenance work until they commit; by default on the lake's own disk, or in the
        system's temporary folder if the lake has none.
    :raises CallError: the address is empty, or the options or the file system do not fit it.
    :raises LakeError: no file system serves the address.
    """

    def __init__(
        self,
        uri: str | Path,
        *,
        work_dir: str | Path | None = None,
        storage_options: Mapping[str, Any] | None = None,
        filesystem: AbstractFileSystem | None = None,
    ) -> None:
        if filesystem is not None and storage_options is not None:
            raise CallError("both storage_options and filesystem are given; give one of them")
        self._storage: Storage = storage_options if filesystem is None else filesystem
        self._store = open_store(require_text(str(uri), "the lake's address", GIVE_LAKE), self._storage)
        self._work_dir = Path(work_dir) if work_dir is not None else None
        self._con: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Lake({self.uri!r})"

    def close(self) -> None:
        """Close the connection, and with it the relations that came from it. The next query opens another one."""
        if self._con is not None:
            self._con.close()
            self._con = None

    @property
    def uri(self) -> str:
        """The lake's address; of a local lake, the absolute path."""
        return self._store.uri

    @property
    def catalog(self) -> str:
        """The address of ``catalog.duckdb``, for DuckDB shells and BI tools."""
        return self._store.url(catalog_file.NAME)

    @property
    def is_local(self) -> bool:
        """Whether the lake lies on a local disk."""
        return isinstance(self._store, LocalStore)

    def exists(self) -> bool:
        """Return whether there is a lake at the address, empty or not.

        :raises LakeError: the place cannot be read.
        """
        return catalog_file.is_lake(self._store)

    def require(self) -> None:
        """Raise unless there is a lake at the address.

        :raises LakeError: there is no lake, or the place cannot be read.
        """
        catalog_file.require_lake(self._store)

    def create(self) -> None:
        """Create the lake's folder if it is missing, and check that it can be written. A load does so, too.

        :raises LakeError: it cannot be written.
        """
        self._store.prepare()
        self._store.require_safe_commits()

    def n_loads(self) -> int:
        """Return how many loads are committed, those included that newer ones superseded.

        :raises LakeError: the lake cannot be read.
        """
        return sum(record.is_load for record in commit_log.read_snapshot(self._store).records)

    def catalog_problem(self) -> str | None:
        """Return why readers do not see all of the lake in its catalog, as a sentence; None if they do.

        :raises LakeError: the lake cannot be read.
        """
        problem = catalog_file.fault(self._store, commit_log.read_snapshot(self._store))
        if problem is None and self.is_local and (writer := catalog_file.writer(self._store)):
            return (
                f"{self.catalog} is locked: {writer} has opened it to write it, so DuckDB refuses other readers; close "
                "it there, and open it with -readonly"
            )
        return problem

    def check_writable(self) -> None:
        """Raise unless a load could write the lake. A lake that does not exist is not created.

        :raises LakeError: it cannot be written.
        """
        self._store.check_writable()

    # Queries

    def sql(self, query: str, parameters: Parameters | None = None) -> duckdb.DuckDBPyRelation:
        """Return a query over the catalog's views as a DuckDB relation, with times in UTC.

        The query is checked and bound here. DuckDB reads the rows when the relation is asked for them, with ``df()``,
        ``pl()``, ``arrow()``, ``fetchall()`` or by printing it; from then on errors are DuckDB's own, and their text
        may quote a value from the data. A query with parameters is run here, and the relation holds its result.

        ::

            lake.sql("SELECT cid, count(*) AS n FROM messages GROUP BY cid").df()
            lake.sql("FROM messages WHERE user_id = $who", {"who": "ann-17"}).fetchall()

        The tables are described in docs/tables.md. Table names in the query are those of the catalog, and never Python
        variables.

        :param query: one query that only reads.
        :param parameters: values for ``$1``, ``$2``, ... as a sequence, or for ``$name`` as a mapping.
        :raises CallError: the query is wrong as it stands, is not one query, or would change something.
        :raises LakeError: there is no lake, or a file that the query needs is missing.
        """
        return catalog_query.relation(self._connection(), query, parameters)

    def fetch(self, query: str) -> QueryResult:
        """Return all rows of a query over the catalog's views, as the command line prints them.

        Values are plain: times are RFC3339 text in UTC, lists and structs are lists and dictionaries. Errors quote no
        value from the data, and Ctrl-C ends the query.

        ::

            columns, rows = lake.fetch("SELECT cid, count(*) FROM messages GROUP BY cid")

        :raises CallError: the query is wrong as it stands, is not one query, or would change something.
        :raises LakeError: there is no lake, a file that the query needs is missing, or the query fails on a value.
        """
        return self.output(query).fetch()

    def output(self, query: str) -> QueryOutput:
        """Return a query whose result can be streamed, drawn for a terminal or written to a Parquet file.

        Values are those of ``fetch``. While rows are streamed, the lake answers no other query.

        ::

            for rows in lake.output("FROM messages").batches():
                ...

        :raises CallError: the query is wrong as it stands, is not one query, or would change something.
        :raises LakeError: there is no lake, or a file that the query needs is missing.
        """
        return QueryOutput(self._connection(), query)

    def table(
        self,
        name: str,
        *,
        channels: str | Iterable[str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """Return a table as a DuckDB relation, narrowed to channels and a window. Files of other days are not read.

        ::

            lake.table("messages", channels=["team:x"], since="2026-01-01", until="2026-02-01").df()

        The window is on ``created_at`` of messages, on ``message_created_at`` of reactions and attachments, and on the
        time of the export (``_exported_at``) of rejects and other entities. The other tables show the newest state, and
        have no time to choose by.

        :param name: a table or a view of the catalog: ``messages``, ``users``, ``loads``, ...
        :param channels: one channel or several, as ``TYPE:ID``; None for all.
        :param since: start of the window (inclusive): an aware datetime, ISO 8601 text with an offset, or a date for
            its UTC midnight. None for no start.
        :param until: end of the window (exclusive), written in the same ways. None for no end.
        :raises CallError: there is no such table, it has no channels or no time, or a channel is not ``TYPE:ID``.
        :raises WindowError: a time is naive or is not a time, or since is not before until.
        :raises LakeError: there is no lake, or a file of the table is missing.
        """
        return self.sql(table_query(name, channels=channels, since=since, until=until))

    def coverage(self, channels: str | Iterable[str] | None = None) -> CoverageReport:
        """Return which spans of time are covered without a gap, by channel.

        ::

            for span in lake.coverage("team:x").spans:
                print(span.since, span.until, span.messages)

        :param channels: one channel or several, as ``TYPE:ID``; None for all.
        :raises CallError: a channel is not ``TYPE:ID``.
        :raises LakeError: there is no lake, or it cannot be read.
        """
        return catalog_query.coverage(self._connection(), _some(channels))

    def coverage_runs(self, channels: str | Iterable[str] | None = None) -> dict[str, list[CoverageRun]]:
        """Return how often each moment of each channel was loaded, loads that newer ones superseded included.

        A gap between two covered spans is a run with 0 loads. This is what ``chatexport coverage --png`` draws.

        :param channels: one channel or several, as ``TYPE:ID``; None for all.
        :raises CallError: a channel is not ``TYPE:ID``.
        :raises LakeError: there is no lake, or it cannot be read.
        """
        catalog_file.require_lake(self._store)
        chosen = _some(channels)
        snapshot = commit_log.read_snapshot(self._store)
        entries = [entry for record in snapshot.records if record.is_load for entry in record.coverage]
        runs = coverage_runs(without_lost(entries, snapshot.lost))
        return runs if chosen is None else {cid: runs[cid] for cid in chosen if cid in runs}

    def gaps(
        self,
        channels: str | Iterable[str] | None = None,
        *,
        since: Moment | None = None,
        until: Moment,
        lookback: timedelta = timedelta(0),
        grace_period: timedelta = timedelta(0),
    ) -> dict[str, list[TimeSpan]]:
        """Return which spans of time no export covers, by channel. Channels without a gap are left out.

        ::

            for cid, spans in lake.gaps(until="2026-01-01").items():
                print(cid, [(span.since, span.until) for span in spans])

        :param channels: one channel or several, as ``TYPE:ID``; None for all that an export covers.
        :param since: start of what should be covered: an aware datetime, ISO 8601 text with an offset, or a date for
            its UTC midnight. None for the first covered moment of each channel. A channel that no export covers then
            misses everything since the beginning of time.
        :param until: end of what should be covered, written in the same ways.
        :param lookback: for a channel that is not covered up to ``until``, count also this much before its newest
            covered moment, to export late changes again.
        :param grace_period: how long messages may be on their way. An export of an open window, or of the whole
            history, does not count for the last ``grace_period`` before it was made. A gap before ``until`` that is
            shorter does not count either.
        :raises CallError: a channel is not ``TYPE:ID``.
        :raises WindowError: a time is naive or is not a time.
        :raises LakeError: there is no lake, or it cannot be read.
        """
        catalog_file.require_lake(self._store)
        chosen = _some(channels)
        snapshot = commit_log.read_snapshot(self._store)
        return gaps(
            snapshot.coverage,
            sorted(channels_of(snapshot.coverage)) if chosen is None else dict.fromkeys(chosen),
            since=None if since is None else parse_moment(since, "since"),
            until=parse_moment(until, "until"),
            lookback=lookback,
            grace_period=grace_period,
            lost=snapshot.lost,
        )

    # Loads

    def load(
        self,
        files: str | Path | Iterable[str | Path],
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        exported_at: Moment | None = None,
        kind: ExportKind | str | None = None,
        channels: str | Iterable[str] = (),
        options: LoadOptions = DEFAULT_OPTIONS,
        fingerprints: Sequence[Fingerprint] | None = None,
        progress: Progress = silent,
    ) -> LoadReport:
        """Commit export files that are already here as one load. Creates the lake if there is none.

        Files may be exports of channels (v1, or v2 in any known shape) or of users, plain or gzip. A second load of the
        same files changes nothing.

        ::

            lake.load("export.ndjson.gz")
            lake.load(Path("exports").glob("*.ndjson"), since="2026-01-01", until="2026-01-02")
            lake.load("export.ndjson.gz", options=LoadOptions(max_rejected=0))

        :param files: one path or several.
        :param since: start of the window that the files cover (inclusive), if it is known: rows outside of the window
            are left out, and the window counts as covered. An aware datetime, ISO 8601 text with an offset, or a date
            for its UTC midnight. Exports of users have no window.
        :param until: end of that window (exclusive). Give both ends, or neither.
        :param exported_at: when the service made the files; by default the modification time of each.
        :param kind: ``channels`` or ``users``; by default each file's content says what it is.
        :param channels: one channel or several, as ``TYPE:ID``, that each of the files is an export of. The window
            counts as covered for them even if the files do not name them, because nothing was written there: the export
            of a quiet window may be an empty file. It needs a window.
        :param options: what the load allows and does, such as ``LoadOptions(max_rejected=0)``.
        :param fingerprints: of the files, if the caller has computed them already.
        :param progress: is called with a stage, how much of it is done, and of how much.
        :raises CallError: there is no file, only one end of the window, or channels without a window.
        :raises WindowError: a time is naive or is not a time, or since is not before until.
        :raises InputError: a file is not an export, or has more rejects than allowed.
        :raises ShrinkError: the load would leave a channel without messages that it has now.
        :raises LakeError: the lake cannot be read or written.
        """
        paths = [Path(files)] if isinstance(files, str | Path) else [Path(each) for each in files]
        try:
            return load_files(
                paths,
                lake_uri=self.uri,
                storage=self._storage,
                window=_window(since, until),
                exported_at=None if exported_at is None else parse_moment(exported_at, "exported_at"),
                kind=None if kind is None else _kind(kind),
                channels=parse_cids(channels),
                fingerprints=fingerprints,
                work_dir=self._work_dir,
                options=options,
                progress=progress,
            )
        finally:
            self._show_new_state()

    # Maintenance

    def verify(self) -> VerifyReport:
        """Check every record and every file, and change nothing. ``ok`` says whether the lake is as it should be.

        Faults are gaps between covered windows, files that are missing or differ from their recorded sha256, and rows
        that the counts of a load do not account for.

        ::

            report = lake.verify()
            assert report.ok, report

        :raises LakeError: there is no lake, or it cannot be read.
        """
        return verify(self._store, now=datetime.now(UTC))

    def compact(self, *, progress: Progress = silent) -> CompactionReport:
        """Merge small files into larger ones, without the rows that newer exports hide. Queries show the same.

        ::

            print(lake.compact())

        :param progress: is called with a stage, how much of it is done, and of how much.
        :raises LakeError: there is no lake, it cannot be read or written, or other compactions got there first.
        """
        try:
            return compact(self._store, work_dir=self._work_dir, progress=progress)
        finally:
            self._show_new_state()

    def publish(
        self,
        format: str | Sink,  # noqa: A002 - as the word is in every table format
        *,
        catalog: str | None = None,
        progress: Progress = silent,
    ) -> PublishReport:
        """Make the lake's data files the tables of another format, so that its readers see what the views show.

        No data is copied. Files with hidden rows and the tables of users, channels and the like are rewritten first.
        A second call does nothing. Tables are published one after another.

        ::

            print(lake.publish("delta"))
            lake.publish("iceberg", catalog="prod")

        :param format: ``delta`` or ``iceberg``.
        :param catalog: of Iceberg: the name of a catalog in pyiceberg's configuration. Default: a SQLite file in the
            lake.
        :param progress: is called with a stage, how much of it is done, and of how much.
        :raises CallError: there is no such format, its library is not installed, or the catalog does not fit.
        :raises LakeError: there is no lake, files of it are lost, or a table cannot be read or written.
        """
        sink = parse_published(format)
        try:
            return publisher.publish(self._store, sink, catalog=catalog, work_dir=self._work_dir, progress=progress)
        finally:
            self._show_new_state()

    def repair(self, *, full: bool = False, dry_run: bool = False) -> RepairReport:
        """Record which files are missing or damaged, and rebuild what can be rebuilt. Everything else goes on.

        What was in them is not covered any more. ``sync`` exports it again, or ``load`` takes the same exports again.

        ::

            print(lake.repair(dry_run=True))
            for window in lake.repair().windows:
                print(window.span.since, window.span.until, window.cids)

        It does not ask. A file that is restored later does not come back, and ``vacuum`` deletes what is damaged.

        :param full: read every file and compare it with its recorded sha256; by default, only sizes are compared.
        :param dry_run: change nothing, and report what is lost.
        :raises LakeError: there is no lake, or it cannot be read or written.
        """
        try:
            return repair(self._store, full=full, dry_run=dry_run)
        finally:
            self._show_new_state()

    def vacuum(self, *, keep: timedelta = DEFAULT_KEEP, history: bool = False) -> VacuumReport:
        """Delete data files that no query needs, and what broken-off work left behind.

        ::

            lake.vacuum(keep=timedelta(days=7))

        :param keep: how long a superseded file stays, for readers who opened the catalog before it was superseded.
        :param history: delete also what ``keep_superseded`` kept for ``messages_history``.
        :raises LakeError: there is no lake, or it cannot be read or written.
        """
        try:
            return vacuum(self._store, keep=keep, now=datetime.now(UTC), history=history)
        finally:
            self._show_new_state()

    def forget_user(
        self,
        user_id: str,
        *,
        keep_messages: bool = False,
        names: bool = False,
        even_if_unknown: bool = False,
        dry_run: bool = False,
        pseudonym_key: str | None = None,
        progress: Progress = silent,
    ) -> ForgetReport:
        """Remove a person from every file of the lake, and keep them out of every later load.

        If the lake was published, its tables are published again before files are deleted.

        ::

            print(lake.forget_user("ann-17", dry_run=True))
            print(lake.forget_user("ann-17"))

        It does not ask, and there is no way back.

        :param user_id: the id by which the service knows the person.
        :param keep_messages: keep the rows of the messages that they sent, without author and text, so that threads
            and counts stay whole.
        :param names: take names of one word out of what others wrote, too, and the id even if it is an ordinary word.
        :param even_if_unknown: if the lake does not know the id, put it on the suppression list and change nothing
            else.
        :param dry_run: change nothing, and report what would change.
        :param pseudonym_key: the key of loads with ``hash_users``: the person's pseudonym is removed, too.
        :param progress: is called with a stage, how much of it is done, and of how much.
        :raises CallError: the user id is empty.
        :raises UnknownUserError: the lake does not know the id.
        :raises LakeError: there is no lake, or it cannot be read or written.
        """
        try:
            return forget_user(
                self._store,
                user_id,
                now=datetime.now(UTC),
                keep_messages=keep_messages,
                names=names,
                even_if_unknown=even_if_unknown,
                dry_run=dry_run,
                pseudonym_key=pseudonym_key,
                work_dir=self._work_dir,
                publish_again=lambda: [
                    each.format for each in publisher.publish_again(self._store, work_dir=self._work_dir)
                ],
                progress=progress,
            )
        finally:
            self._show_new_state()

    def rebuild_catalog(self) -> None:
        """Rebuild ``catalog.duckdb`` from the records of loads, and repair the table folders.

        Needed only after files were lost, or after the lake was moved. Creates an empty lake if there is none.

        :raises LakeError: the lake cannot be read or written.
        """
        self.create()
        try:
            refresh(self._store, full=True)
        finally:
            self._show_new_state()

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._con is None:
            catalog_file.require_lake(self._store)
            self._con = catalog_file.connect(self._store)
        return self._con

    def _show_new_state(self) -> None:
        """Let the next query open the catalog again.

        The connection is dropped and not closed: relations that came from it keep it alive, and go on showing the lake
        as it was.
        """
        self._con = None


def _some(channels: str | Iterable[str] | None) -> list[str] | None:
    return None if channels is None else channels_from(channels)


def _window(since: Moment | None, until: Moment | None) -> Window | None:
    if since is None and until is None:
        return None
    if since is None or until is None:
        raise CallError("only one end of the window is given; give both since and until, or neither")
    return Window.parse(since, until)


def _kind(kind: ExportKind | str) -> ExportKind:
    try:
        return ExportKind(kind)
    except ValueError:
        raise CallError(f"kind is {str(kind)[:40]!r}; give {' or '.join(each.value for each in ExportKind)}") from None
