"""Compaction: fewer, larger files, with the truth rule applied for good. Afterwards a glob gives what the views give.

A day of a table is rewritten if it has several small files, or a file with rows that newer exports hide. All other
files are taken over as they are. Loads, readers and other compactions may be at work at the same time.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from airflow_provider_chatexport.core.progress import COMPACT, Progress, silent
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.record import DataFile
from airflow_provider_chatexport.lake.commits.snapshot import FileState, FileStatus
from airflow_provider_chatexport.lake.duckdb_session import lake_errors
from airflow_provider_chatexport.lake.maintenance.rewrite import (
    MASKING,
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


def compact(store: LakeStore, *, work_dir: Path | None = None, progress: Progress = silent) -> CompactionReport:
    """Rewrite the days that are worth it, and commit them as one.

    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :raises LakeError: the lake cannot be read or written, or other compactions were first several times.
    """
    catalog_file.require_lake(store)
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
        if not days:
            return CompactionReport(seconds=time.monotonic() - started)
        before = [each.file for day in days for each in day.files]
        gone = {file.path for file in before}
        written = compactor.write(days, gone, progress)
        n_rows = sum(file.rows for file in written)
        n_hidden = sum(file.rows for file in before) - n_rows
        seconds = time.monotonic() - started
        facts = {"kind": "compaction", "rows_read": n_rows + n_hidden, "rows_hidden": n_hidden}
        record = commit_rewrite(store, snapshot, Rewrite(gone=gone, written=written, facts=facts), seconds=seconds)
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
    """Reads days of a lake as its views show them, and writes each as one file."""

    def days_to_rewrite(self, table: Table) -> Iterator[_Day]:
        """Yield the days with several files, or with rows that no view shows."""
        days: dict[str, list[FileState]] = defaultdict(list)
        for each in self._snapshot.live_files_of(table):
            # A snapshot table needs all of its files: the newest row of a key is looked for among all of them.
            if (
                each.file.size_bytes < LARGE_BYTES
                or each.status is FileStatus.PARTLY_HIDDEN
                or table.placement is Placement.SNAPSHOT
            ):
                days[each.file.day].append(each)
        outdated = self._days_with_outdated_rows(table, days) if table.placement is Placement.SNAPSHOT else set()
        for name, files in sorted(days.items()):
            day = _Day(table=table, day=name, files=tuple(files))
            if (
                len(files) > 1
                or name in outdated
                or (files[0].status is FileStatus.PARTLY_HIDDEN and self._has_hidden_rows(day))
            ):
                yield day

    def write(self, days: Sequence[_Day], gone: set[str], progress: Progress) -> dict[DataFile, Path]:
        """Write the new files of these days, and return where each lies. A day without visible rows has none.

        :param gone: paths of all files of these days.
        :raises LakeError: the work folder is full.
        """
        self._create_coverage(_COVERAGE, coverage_after(self._snapshot, gone))
        written: dict[DataFile, Path] = {}
        for number, day in enumerate(days):
            progress(COMPACT, number, len(days))
            rows = RowsOfDay(self._database, day.day, self._visible_rows(day))
            n_uncovered = self._n_uncovered(day)
            files = write_table(rows, day.table, self._files_folder, stem=self._stem, metadata=self._metadata)
            written.update({replace(file, n_uncovered=n_uncovered): local for file, local in files})
        return written

    def _has_hidden_rows(self, day: _Day) -> bool:
        (n_rows,) = self._database.one(f"SELECT count(*) FROM ({self._visible_rows(day)})")
        return bool(n_rows < sum(each.file.rows for each in day.files))

    def _n_uncovered(self, day: _Day) -> int:
        if day.table.placement is not Placement.EVENT:
            return 0
        (n_rows,) = self._database.one(
            f"""
            SELECT count(*) FROM ({self._visible_rows(day)}) rows
            WHERE {visibility.uncovered(day.table, _COVERAGE)}
            """
        )
        return int(n_rows)

    def _visible_rows(self, day: _Day) -> str:
        """Return the query over a day's files that gives what the views show."""
        table = day.table
        match table.placement:
            case Placement.SNAPSHOT:
                return f"SELECT * FROM newest_{table.name} WHERE {table.partition} = DATE {sql.quoted(day.day)}"
            case Placement.EVENT:
                condition = f"NOT {visibility.hidden(table, MASKING)}"
            case Placement.LOG:
                expired = ", ".join(sql.quoted(load_id) for load_id in sorted(self._snapshot.expired_loads)) or "''"
                condition = f"_load_id NOT IN ({expired})"
        return f"""
            SELECT {visibility.columns(table)}
            FROM {visibility.scan_files(self._store, table, day.files)} rows
            WHERE {condition}
        """

    def _days_with_outdated_rows(self, table: Table, days: Mapping[str, Sequence[FileState]]) -> set[str]:
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
