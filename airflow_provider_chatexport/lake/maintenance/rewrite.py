"""Putting other files in the place of live ones, by one record: what compaction and the removal of a person share.

The record replaces every record that owned one of those files. It takes over their coverage entries, each with its own
``exported_at``, and their other files as they are. So a rewrite costs only what it changes. The record says that the
truth rule was applied among its own entries and files: all rows of them that it hides have to be left out.

Records of rewrites are numbered. If two rewrites started from the same lake, the second finds its number taken. It then
has to read the lake again.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self

import pyarrow as pa

from airflow_provider_chatexport.lake.commits import coverage_tables, visibility
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry, without_superseded
from airflow_provider_chatexport.lake.commits.file_state import FileState, FileStatus
from airflow_provider_chatexport.lake.commits.lost_coverage import LostSpan
from airflow_provider_chatexport.lake.commits.record import WRITER, DataFile, LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.duckdb_session import Database
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import TABLE_BY_NAME, TABLES
from airflow_provider_chatexport.lake.schema.types import Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore

MEMORY_LIMIT: Final = "400MB"
# The table in a rewriter's database with the coverage entries that hide rows of live files.
MASKING: Final = "masking_coverage"
_NUMBERED: Final = re.compile(r"rewrite-(\d{6,})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """Files that come and go together.

    :param gone: paths of the live files that the new ones replace.
    :param settled: paths of other live files whose records this one replaces, too, and takes over as they are: they
        have no row with the key of a row in another file of the record.
    :param records: ids of further records that this one replaces. It takes over their live files as they are.
    :param remaining: ids of records that are not replaced: of their files, only those of ``gone`` and ``settled`` leave
        them. ``coverage`` then has all entries that overlap these files.
    :param coverage: what the record covers; None for what the replaced records cover.
    :param written: the new files, and where each lies now.
    :param history: those of the new files that only ``messages_history`` reads.
    :param purged: paths of files, live or not, that nothing may read any more.
    :param lost: what the purged files leave uncovered, because they are lost.
    :param has_unique_keys: no two rows of the record's event tables will have one key.
    :param facts: what the record says of the rewrite, without personal data.
    """

    gone: Collection[str]
    settled: Collection[str] = ()
    records: Collection[str] = ()
    remaining: Collection[str] = ()
    coverage: Sequence[CoverageEntry] | None = None
    written: Mapping[DataFile, Path] = field(default_factory=dict)
    history: Collection[DataFile] = ()
    purged: Collection[str] = ()
    lost: Collection[LostSpan] = ()
    has_unique_keys: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)


class Rewriter:
    """Reads files of a lake by the truth rule, and writes others. A context manager.

    :param folder: the work folder.
    :param threads: how many cores the database uses; by default all.
    """

    def __init__(self, store: LakeStore, snapshot: Snapshot, folder: Path, *, threads: int | None = None) -> None:
        self._store = store
        self._snapshot = snapshot
        self._files_folder = folder / "files"
        # Two rewrites of one number may be under way: each has files of its own, and the record says whose count.
        self._stem = f"{number_of_next(snapshot)}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
        self._metadata = {"chatexport.load_id": number_of_next(snapshot), "chatexport.writer": WRITER}
        self._database = Database(folder, memory_limit=MEMORY_LIMIT, threads=threads)
        # By table, the name of a table with the newest row of each key in loose files.
        self._newest: dict[str, str] = {}
        # By table, days with rows that are older than another row of the same key.
        self._outdated_days: dict[str, set[str]] = defaultdict(set)

    def __enter__(self) -> Self:
        sizes = visibility.sizes_of(self._store, self._snapshot.readable_states)
        self._store.let_read(self._database.connection, sizes)
        self._create_coverage(MASKING, self._masking_coverage())
        for table in TABLES:
            self._compare_keys(table)
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def _compare_keys(self, table: Table) -> None:
        """Create the table with the newest row of each loose key, and find the days with rows that are not those."""
        contested = [each for each in self._files_of(table) if each.is_contested]
        newest = visibility.newest_of_loose_keys(self._store, table, contested, MASKING)
        if newest is None:
            return
        self._newest[table.name] = f"newest_of_loose_{table.name}"
        self._database.execute(f"CREATE TABLE {self._newest[table.name]} AS {newest}")
        keys = visibility.scan_files(self._store, table, contested)
        self._outdated_days[table.name] |= {
            day
            for (day,) in self._database.all(
                f"""
                SELECT DISTINCT strftime({table.date_column}, '%Y-%m-%d') FROM {keys} rows
                WHERE {visibility.outdated(table, self._newest[table.name])}
                """
            )
        }

    def _masking_coverage(self) -> Collection[CoverageEntry]:
        """Return the entries that may hide rows of those files."""
        return self._snapshot.masking_coverage

    def _files_of(self, table: Table) -> Iterable[FileState]:
        """Return the live files of a table that may be rewritten."""
        return self._snapshot.live_files_of(table)

    def _is_visible(self, table: Table) -> str:
        """Return a condition on ``rows`` of a table's live files: newer exports do not hide the row."""
        if table.placement is not Placement.EVENT:
            return "true"
        condition = f"NOT {visibility.masked(table, MASKING)}"
        if table.name in self._newest:
            condition += f" AND NOT {visibility.outdated(table, self._newest[table.name])}"
        return condition

    def _may_have_hidden_rows(self, each: FileState) -> bool:
        """Return whether newer exports may hide rows of a live file."""
        return each.is_masked or (each.is_contested and each.file.has_any(self._outdated_days[each.file.table]))

    def _create_coverage(self, name: str, entries: Collection[CoverageEntry]) -> None:
        """Create a table of coverage entries."""
        coverage_tables.create_table(self._database, name, entries)


def number_of_next(snapshot: Snapshot) -> str:
    """Return the id of the next rewrite of this lake."""
    ids = [*(record.load_id for record in snapshot.records), *(PurePosixPath(path).stem for path in snapshot.damaged)]
    numbers = [int(match.group(1)) for each in ids if (match := _NUMBERED.fullmatch(each))]
    return f"rewrite-{max(numbers, default=0) + 1:06d}"


def coverage_after(snapshot: Snapshot, paths: Collection[str], ids: Collection[str] = ()) -> list[CoverageEntry]:
    """Return the coverage that the record of a rewrite will have. It replaces these records and those of these files.

    :param paths: of files.
    :param ids: of records.
    """
    return without_superseded(entry for record in _owners(snapshot, paths, ids) for entry in record.coverage)


def coverage_of(snapshot: Snapshot, rewrite: Rewrite) -> Sequence[CoverageEntry]:
    """Return what the record of a rewrite will cover."""
    if rewrite.coverage is not None:
        return rewrite.coverage
    return coverage_after(snapshot, {*rewrite.gone, *rewrite.settled}, rewrite.records)


def commit_rewrite(store: LakeStore, snapshot: Snapshot, rewrite: Rewrite, *, seconds: float) -> LoadRecord | None:
    """Commit a rewrite, and return its record.

    Return None, and change nothing, if another rewrite was committed first: the caller reads the lake again.

    :param snapshot: the lake that the rewrite started from.
    :raises LakeError: the lake cannot be written.
    """
    record = record_of(snapshot, rewrite, seconds=seconds)
    committed = commit_log.commit(store, record, {file.path: local for file, local in rewrite.written.items()})
    return record if committed else None


def record_of(snapshot: Snapshot, rewrite: Rewrite, *, seconds: float) -> LoadRecord:
    """Return the record of a rewrite, as of now. Pure.

    :param snapshot: the lake that the rewrite started from.
    """
    replaced = {*rewrite.gone, *rewrite.settled}
    involved = _owners(snapshot, replaced, rewrite.records)
    owners = [owner for owner in involved if owner.load_id not in rewrite.remaining]
    taken = _taken(snapshot, rewrite, replaced)
    kept = [
        each
        for each in _files_to_keep(snapshot, involved)
        if each.file.path not in rewrite.gone
        and (each.record.load_id not in rewrite.remaining or each.file.path in rewrite.settled)
    ]
    taken_over = [each.file for each in kept]
    lost = [each.file.path for each in kept if each.status is FileStatus.LOST]
    facts = {**rewrite.facts, "n_loads": sum(owner.n_loads for owner in owners)}
    files = (*taken_over, *(file for file in rewrite.written if file not in rewrite.history))
    rows = {table.name: sum(file.rows for file in files if file.table == table.name) for table in TABLES}
    unread = sorted(PurePosixPath(path).stem for path in snapshot.damaged)
    return LoadRecord(
        load_id=number_of_next(snapshot),
        exported_at=max((owner.exported_at for owner in involved), default=datetime.now(UTC)),
        committed_at=datetime.now(UTC),
        since=None,
        until=None,
        flags={},
        sources=(),
        coverage=tuple(coverage_of(snapshot, rewrite)),
        files=files,
        counts={"rows": rows},
        seconds=seconds,
        keep_superseded=any(owner.keep_superseded for owner in involved),
        replaces=tuple(owner.load_id for owner in owners),
        taken=taken,
        has_unique_keys=rewrite.has_unique_keys,
        history=tuple(rewrite.history),
        purged=tuple(sorted(rewrite.purged)),
        lost=tuple(rewrite.lost),
        facts=facts | ({"as_they_were": lost} if lost else {}) | ({"unread": unread} if unread else {}),
    )


def _taken(snapshot: Snapshot, rewrite: Rewrite, paths: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return which of some files leave records that remain, by the record's id."""
    taken: dict[str, list[str]] = defaultdict(list)
    for each in snapshot.readable_states:
        if each.file.path in paths and each.record.load_id in rewrite.remaining:
            taken[each.record.load_id].append(each.file.path)
    return {load_id: tuple(sorted(of_record)) for load_id, of_record in sorted(taken.items())}


def _owners(snapshot: Snapshot, paths: Collection[str], ids: Collection[str] = ()) -> list[LoadRecord]:
    """Return the current records that live or lost files belong to, and those of some ids."""
    ids = {*ids, *(each.record.load_id for each in snapshot.readable_states if each.file.path in paths)}
    return [record for record in snapshot.current if record.load_id in ids]


def _files_to_keep(snapshot: Snapshot, owners: Sequence[LoadRecord]) -> list[FileState]:
    """Return the live files of records, and those that are lost: a repair has to find them."""
    ids = {owner.load_id for owner in owners}
    return [
        each
        for each in snapshot.readable_states
        if each.record.load_id in ids and (each.is_live or each.status is FileStatus.LOST)
    ]


class QueriedRows:
    """The rows of queries, as ``write_table`` takes them.

    :param queries: each with the table's columns, and no two with rows of one day. Ascending by day.
    :param files: the files that the rows are from.
    """

    def __init__(self, database: Database, queries: Iterable[str], files: Sequence[DataFile]) -> None:
        self._database = database
        self._queries = queries
        self._files = files

    def days(self, table: Table) -> Mapping[str, int]:
        """Return a day with the most rows that there can be. All rows go into one folder."""
        return expected_rows(table, self._files)

    def rows(self, table: Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows in the table's order."""
        for query in self._queries:
            yield from rows_of(self._database, table, self._files, query, batch_rows)


def expected_rows(table: Table, files: Sequence[DataFile]) -> Mapping[str, int]:
    """Return the day that decides the folder of what is written from some files, and how many rows these have."""
    return {folder_day(table, files): sum(file.rows for file in files)}


def folder_day(table: Table, files: Sequence[DataFile]) -> str:
    """Return a day of the folder for what is written from some files: of one month, or up to their last export."""
    if table.placement is Placement.EVENT:
        return min(file.first_day for file in files)
    return max(file.last_day for file in files)


def rows_of(
    database: Database,
    table: Table,
    files: Sequence[DataFile],
    query: str,
    batch_rows: int,
    *,
    is_sorted: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query in the order of a file.

    :param files: the files that the rows are from.
    :param is_sorted: the query gives them in that order.
    """
    is_event = table.placement is Placement.EVENT
    day = sql.name(table.date_column) if is_event else f"DATE {sql.quoted(folder_day(table, files))}"
    order = ", ".join([*(["_day"] if is_event else []), *map(sql.name, table.sort)])
    in_order = "" if is_sorted else f" ORDER BY {order}"
    yield from database.query(
        f"SELECT {day} AS _day, {sql.arrow_columns(table)} FROM ({query}){in_order}"
    ).to_arrow_reader(batch_rows)


def with_days_of(file: DataFile, files: Sequence[DataFile]) -> DataFile:
    """Return a file that was written from others, with the days of those if its folder does not say its own days."""
    if TABLE_BY_NAME[file.table].placement is Placement.EVENT:
        return file
    return replace(file, first_day=min(each.first_day for each in files))
