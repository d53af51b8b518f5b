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
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa

from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry, without_superseded
from airflow_provider_chatexport.lake.commits.record import WRITER, DataFile, LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import FileState, Snapshot
from airflow_provider_chatexport.lake.commits.visibility import coverage_rows
from airflow_provider_chatexport.lake.duckdb_session import Database
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import TABLES
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
    :param written: the new files, and where each lies now.
    :param history: those of the new files that only ``messages_history`` reads.
    :param purged: paths of files, live or not, that nothing may read any more.
    :param facts: what the record says of the rewrite, without personal data.
    """

    gone: Collection[str]
    settled: Collection[str] = ()
    written: Mapping[DataFile, Path]
    history: Collection[DataFile] = ()
    purged: Collection[str] = ()
    facts: Mapping[str, Any]


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
        # Tables and days with rows that are older than another row of the same key.
        self._outdated_days: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        self._store.let_read(self._database.connection)
        self._create_coverage(MASKING, self._snapshot.masking_coverage)
        for table in TABLES:
            self._compare_keys(table)
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def _compare_keys(self, table: Table) -> None:
        """Create the table with the newest row of each loose key, and find the days with rows that are not those."""
        contested = [each for each in self._snapshot.live_files_of(table) if each.is_contested]
        newest = visibility.newest_of_loose_keys(self._store, table, contested, MASKING)
        if newest is None:
            return
        self._newest[table.name] = f"newest_of_loose_{table.name}"
        self._database.execute(f"CREATE TABLE {self._newest[table.name]} AS {newest}")
        keys = visibility.scan_files(self._store, table, contested)
        self._outdated_days |= {
            (table.name, day)
            for (day,) in self._database.all(
                f"""
                SELECT DISTINCT strftime({table.partition}, '%Y-%m-%d') FROM {keys} rows
                WHERE {visibility.outdated(table, self._newest[table.name])}
                """
            )
        }

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
        return each.is_masked or (each.is_contested and (each.file.table, each.file.day) in self._outdated_days)

    def _create_coverage(self, name: str, entries: Collection[CoverageEntry]) -> None:
        """Create a table of coverage entries."""
        with self._database.registered(f"{name}_rows", coverage_rows(entries)):
            self._database.execute(f"CREATE TABLE {name} AS FROM {name}_rows")


def number_of_next(snapshot: Snapshot) -> str:
    """Return the id of the next rewrite of this lake."""
    numbers = [int(match.group(1)) for record in snapshot.records if (match := _NUMBERED.fullmatch(record.load_id))]
    return f"rewrite-{max(numbers, default=0) + 1:06d}"


def coverage_after(snapshot: Snapshot, paths: Collection[str]) -> list[CoverageEntry]:
    """Return the coverage that the record of a rewrite will have. It replaces the records of these files."""
    return without_superseded(entry for record in _owners(snapshot, paths) for entry in record.coverage)


def commit_rewrite(store: LakeStore, snapshot: Snapshot, rewrite: Rewrite, *, seconds: float) -> LoadRecord | None:
    """Commit a rewrite, and return its record.

    Return None, and change nothing, if another rewrite was committed first: the caller reads the lake again.

    :param snapshot: the lake that the rewrite started from.
    :raises LakeError: the lake cannot be written.
    """
    replaced = {*rewrite.gone, *rewrite.settled}
    owners = _owners(snapshot, replaced)
    taken_over = [each.file for each in _live_files_of(snapshot, owners) if each.file.path not in rewrite.gone]
    files = (*taken_over, *(file for file in rewrite.written if file not in rewrite.history))
    rows = {table.name: sum(file.rows for file in files if file.table == table.name) for table in TABLES}
    record = LoadRecord(
        load_id=number_of_next(snapshot),
        exported_at=max((owner.exported_at for owner in owners), default=datetime.now(UTC)),
        committed_at=datetime.now(UTC),
        since=None,
        until=None,
        flags={},
        sources=(),
        coverage=tuple(coverage_after(snapshot, replaced)),
        files=files,
        counts={"rows": rows},
        seconds=seconds,
        keep_superseded=any(owner.keep_superseded for owner in owners),
        replaces=tuple(owner.load_id for owner in owners),
        history=tuple(rewrite.history),
        purged=tuple(sorted(rewrite.purged)),
        facts=dict(rewrite.facts),
    )
    committed = commit_log.commit(store, record, {file.path: local for file, local in rewrite.written.items()})
    return record if committed else None


def _owners(snapshot: Snapshot, paths: Collection[str]) -> list[LoadRecord]:
    """Return the current records that files belong to."""
    ids = {each.record.load_id for each in snapshot.file_states if each.file.path in paths}
    return [record for record in snapshot.current if record.load_id in ids]


def _live_files_of(snapshot: Snapshot, owners: Sequence[LoadRecord]) -> list[FileState]:
    ids = {owner.load_id for owner in owners}
    return [each for each in snapshot.file_states if each.is_live and each.record.load_id in ids]


class RowsOfDay:
    """The rows of one table and day, as ``write_table`` takes them.

    :param query: the rows, with the table's columns.
    """

    def __init__(self, database: Database, day: str, query: str) -> None:
        self._database = database
        self._day = day
        self._query = query

    def days(self, table: Table) -> Mapping[str, int]:  # noqa: ARG002 - there is one table, as there is one day
        """Return the day with its number of rows; nothing if there are none."""
        (n_rows,) = self._database.one(f"SELECT count(*) FROM ({self._query})")
        return {self._day: n_rows} if n_rows else {}

    def rows(self, table: Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows in the table's order."""
        order = ", ".join(sql.name(column) for column in table.sort)
        yield from self._database.query(
            f"""
            SELECT DATE {sql.quoted(self._day)} AS _day, {sql.arrow_columns(table)}
            FROM ({self._query})
            ORDER BY {order}
            """
        ).to_arrow_reader(batch_rows)
