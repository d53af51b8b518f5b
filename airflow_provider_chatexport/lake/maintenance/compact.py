"""Compaction: fewer, larger files, with the truth rule applied for good. Afterwards a glob gives what the views give.

A day of a table is rewritten if it has several small files, or a file with rows that newer exports hide. All other
files are taken over as they are. Loads, readers and other compactions may be at work at the same time.

Loose rows go into a file of their own (``snapshot``), so that later loads are compared with those rows, and not with
the whole day. Days with files of several records are settled: of all rows of one key, only the newest remains, in
whatever channels they are. Then one record takes over the files, and its files are not compared with each other again.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from airflow_provider_chatexport.core.progress import COMPACT, Progress, silent
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.record import DataFile
from airflow_provider_chatexport.lake.commits.snapshot import FileState, FileStatus, Snapshot
from airflow_provider_chatexport.lake.duckdb_session import lake_errors
from airflow_provider_chatexport.lake.maintenance.forget import finish_removals
from airflow_provider_chatexport.lake.maintenance.rewrite import (
    Rewrite,
    Rewriter,
    RowsOfDay,
    commit_rewrite,
    coverage_after,
)
from airflow_provider_chatexport.lake.parquet import write_table
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import USER_EXPORT_USERS
from airflow_provider_chatexport.lake.schema.types import Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import work_folder

log = logging.getLogger(__name__)

# Files of this size are not worth merging: a scan reads them as fast as larger ones.
LARGE_BYTES: Final = 256 * 1024 * 1024
# The table with the coverage entries that the rewritten files will have.
_COVERAGE: Final = "coverage_after"
# The table with the keys that several rows of a day have.
_DOUBLED: Final = "doubled_keys"
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionReport(Report):
    """What a compaction did.

    :param record_id: of its record; None if there was nothing to do.
    :param days: how many days of tables were rewritten.
    :param rows_hidden: rows that newer exports had hidden, and that are gone now.
    """

    record_id: str | None = None
    days: int = 0
    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    rows: int = 0
    rows_hidden: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        facts = asdict(self)
        return {"record": facts.pop("record_id"), **facts, "seconds": round(self.seconds, 3)}


def _is_small(each: FileState) -> bool:
    return each.file.size_bytes < LARGE_BYTES


def _is_all_loose(file: DataFile) -> bool:
    return file.n_uncovered + file.n_unplaced >= file.rows


def compact(store: LakeStore, *, work_dir: Path | None = None, progress: Progress = silent) -> CompactionReport:
    """Rewrite the days that are worth it, and commit them as one.

    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :raises LakeError: the lake cannot be read or written, or other compactions were first several times.
    """
    catalog_file.require_lake(store)
    finish_removals(store, now=datetime.now(UTC), work_dir=work_dir)
    for _ in range(_ATTEMPTS):
        report = commit_log.on_latest(store, lambda: _attempt(store, work_dir, progress))
        if report is not None:
            refresh(store)
            log.info("lake compacted record=%s days=%d seconds=%.1f", report.record_id, report.days, report.seconds)
            return report
    raise LakeError(f"others are compacting the lake at {store.uri}; nothing was changed, try again later")


def _attempt(store: LakeStore, work_dir: Path | None, progress: Progress) -> CompactionReport | None:
    """Compact the lake as its records are now. Return None if another rewrite was committed meanwhile."""
    started = time.monotonic()
    snapshot = commit_log.read_snapshot(store)
    with (
        lake_errors(
            f"the lake at {store.uri} cannot be compacted",
            hint="run chatexport verify to see which file cannot be read, and make sure that the work folder has room",
        ),
        work_folder(store, work_dir) as folder,
        _Compactor(store, snapshot, folder, threads=2) as compactor,
    ):
        days = [day for table in snapshot.tables for day in compactor.days_to_rewrite(table)]
        if not days and not compactor.settled:
            return CompactionReport(seconds=time.monotonic() - started)
        before = [each.file for day in days for each in day.files]
        gone = {file.path for file in before}
        written = compactor.write(days, gone, progress)
        n_rows = sum(file.rows for file in written)
        n_hidden = sum(file.rows for file in before) - n_rows
        seconds = time.monotonic() - started
        facts = {"kind": "compaction", "rows_read": n_rows + n_hidden, "rows_hidden": n_hidden}
        rewrite = Rewrite(gone=gone, settled=compactor.settled - gone, written=written, facts=facts)
        record = commit_rewrite(store, snapshot, rewrite, seconds=seconds)
    if record is None:
        return None
    return CompactionReport(
        record_id=record.load_id,
        days=len(days),
        files_before=len(before),
        files_after=len(written),
        bytes_before=sum(file.size_bytes for file in before),
        bytes_after=sum(file.size_bytes for file in written),
        rows=n_rows,
        rows_hidden=n_hidden,
        seconds=seconds,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Day:
    """The files of one table and day folder that are to become one."""

    table: Table
    day: str
    files: tuple[FileState, ...]


class _Compactor(Rewriter):
    """Reads days of a lake as its views show them, and writes each as one file, or two if some rows are loose.

    :ivar settled: after ``days_to_rewrite``, paths of files that were compared with those of other records. Once the
        days are rewritten, these files and the new ones have one row per key together.
    """

    def __init__(self, store: LakeStore, snapshot: Snapshot, folder: Path, *, threads: int) -> None:
        super().__init__(store, snapshot, folder, threads=threads)
        self.settled: set[str] = set()

    def days_to_rewrite(self, table: Table) -> Iterator[_Day]:
        """Yield the days with several files, or with rows that no view shows."""
        days: dict[str, list[FileState]] = defaultdict(list)
        for each in self._snapshot.live_files_of(table):
            days[each.file.day].append(each)
        match table.placement:
            case Placement.SNAPSHOT:
                # The newest row of a key is looked for among all files.
                outdated = self._days_with_superseded_rows(table, days)
                chosen = [(name, files) for name, files in days.items() if len(files) > 1 or name in outdated]
            case Placement.LOG:
                small = {name: [each for each in files if _is_small(each)] for name, files in days.items()}
                chosen = [(name, files) for name, files in small.items() if len(files) > 1]
            case Placement.EVENT:
                chosen = [(name, found) for name, files in days.items() if (found := self._to_rewrite(table, files))]
                self.settled |= {each.file.path for files in days.values() for each in files if each.is_contested}
        yield from (_Day(table=table, day=name, files=tuple(files)) for name, files in sorted(chosen))

    def _to_rewrite(self, table: Table, files: Sequence[FileState]) -> list[FileState]:
        """Return which files of a day of an event table have to be rewritten."""
        merged = [each for each in files if _is_small(each) or each.status is FileStatus.PARTLY_HIDDEN]
        n_loose = sum(_is_all_loose(each.file) for each in merged)
        is_worth_it = n_loose > 1 or len(merged) - n_loose > 1
        if len({each.record.load_id for each in files}) > 1:
            self.settled |= {each.file.path for each in files}
            # Where all files are merged, one row per key remains anyway.
            if not (is_worth_it and len(merged) == len(files)) and self._has_doubled_keys(table, files):
                return list(files)
        if is_worth_it or (any(map(self._may_have_hidden_rows, merged)) and self._has_hidden_rows(table, merged)):
            return merged
        return []

    def write(self, days: Sequence[_Day], gone: set[str], progress: Progress) -> dict[DataFile, Path]:
        """Write the new files of these days, and return where each lies. A day without visible rows has none.

        :param gone: paths of all files of these days.
        :raises LakeError: the work folder is full.
        """
        self._create_coverage(_COVERAGE, coverage_after(self._snapshot, gone | self.settled))
        written: dict[DataFile, Path] = {}
        for number, day in enumerate(days):
            progress(COMPACT, number, len(days))
            match day.table.placement:
                case Placement.EVENT:
                    written.update(self._write_events(day))
                case Placement.SNAPSHOT:
                    written.update(self._write_rows(day, self._newest_rows(day)))
                case Placement.LOG:
                    written.update(self._write_rows(day, self._unexpired_rows(day)))
        return written

    def _write_events(self, day: _Day) -> Iterator[tuple[DataFile, Path]]:
        """Write a day of an event table: of each key the newest row, and loose rows apart."""
        table = day.table
        rows = self._visible_rows(table, day.files, visibility.columns(table))
        if len(day.files) > 1:
            self._database.execute(f"CREATE OR REPLACE TABLE {_DOUBLED} AS {self._doubled_keys(table, day.files)}")
            rows = visibility.unless_outdated(table, rows, _DOUBLED)
        is_uncovered = visibility.uncovered(table, _COVERAGE)
        is_unplaced = visibility.unplaced(table) if any(each.file.n_unplaced for each in day.files) else "false"
        n_rows, n_loose, n_uncovered, n_unplaced = self._database.one(
            f"""
            SELECT count(*), count(*) FILTER (is_uncovered OR is_unplaced),
                count(*) FILTER (is_uncovered), count(*) FILTER (is_unplaced)
            FROM (SELECT {is_uncovered} AS is_uncovered, {is_unplaced} AS is_unplaced FROM ({rows}) rows)
            """
        )
        is_loose = f"({is_uncovered} OR {is_unplaced})"
        if not n_loose:
            yield from self._write_rows(day, rows)
            return
        if n_loose < n_rows:
            yield from self._write_rows(day, f"SELECT * FROM ({rows}) rows WHERE NOT {is_loose}")
        for file, local in self._write_rows(day, f"SELECT * FROM ({rows}) rows WHERE {is_loose}", suffix="-loose"):
            yield replace(file, n_uncovered=n_uncovered, n_unplaced=n_unplaced), local

    def _write_rows(self, day: _Day, rows: str, suffix: str = "") -> Iterator[tuple[DataFile, Path]]:
        source = RowsOfDay(self._database, day.day, rows)
        stem = f"{self._stem}{suffix}"
        return write_table(source, day.table, self._files_folder, stem=stem, metadata=self._metadata)

    def _has_hidden_rows(self, table: Table, files: Sequence[FileState]) -> bool:
        (n_rows,) = self._database.one(f"SELECT count(*) FROM ({self._visible_rows(table, files)})")
        return bool(n_rows < sum(each.file.rows for each in files))

    def _has_doubled_keys(self, table: Table, files: Sequence[FileState]) -> bool:
        (n_keys,) = self._database.one(f"SELECT count(*) FROM ({self._doubled_keys(table, files)})")
        return bool(n_keys)

    def _doubled_keys(self, table: Table, files: Sequence[FileState]) -> str:
        """Return the query for the keys that several visible rows of a day have, each with the newest rank."""
        return visibility.newest_of_keys(table, self._visible_rows(table, files), at_least=2)

    def _visible_rows(self, table: Table, files: Sequence[FileState], select: str | None = None) -> str:
        """Return the query over a day's files of an event table that gives what the views show.

        :param select: the select list; by default keys and ranks.
        """
        return f"""
            SELECT {select or visibility.keys_and_ranks(table)}
            FROM {visibility.scan_files(self._store, table, files)} rows
            WHERE {self._is_visible(table)}
        """

    def _newest_rows(self, day: _Day) -> str:
        """Return the query for the rows of a snapshot table's day that are the newest of their key."""
        return f"SELECT * FROM newest_{day.table.name} WHERE {day.table.partition} = DATE {sql.quoted(day.day)}"

    def _unexpired_rows(self, day: _Day) -> str:
        """Return the query for a day's rejects or other entities, without those of expired loads."""
        expired = ", ".join(sql.quoted(load_id) for load_id in sorted(self._snapshot.expired_loads)) or "''"
        return f"""
            SELECT {visibility.columns(day.table)}
            FROM {visibility.scan_files(self._store, day.table, day.files)} rows
            WHERE _load_id NOT IN ({expired})
        """

    def _days_with_superseded_rows(self, table: Table, days: Mapping[str, Sequence[FileState]]) -> set[str]:
        """Return the days with rows that newer rows of the same key outdate. Leaves the newest rows in a table."""
        n_files = sum(len(files) for files in days.values())
        # A single file has the newest rows of its keys, unless an owner's newer export has no row in this table.
        if not n_files or (n_files < 2 and table.owned_by is None):
            return set()
        owners = self._scan_live_files(USER_EXPORT_USERS) if table.owned_by else None
        self._database.execute(
            f"""
            CREATE TABLE newest_{table.name} AS
            SELECT {visibility.columns(table)}
            FROM {self._scan_live_files(table)} rows
            {visibility.newest(table, owners)}
            """
        )
        n_newest = dict(
            self._database.all(
                f"""
                SELECT strftime({table.partition}, '%Y-%m-%d'), count(*)
                FROM newest_{table.name}
                GROUP BY ALL
                """
            )
        )
        return {day for day, files in days.items() if n_newest.get(day, 0) < sum(each.file.rows for each in files)}

    def _scan_live_files(self, table: Table) -> str:
        return visibility.scan_files(self._store, table, self._snapshot.live_files_of(table))
