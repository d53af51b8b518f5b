"""Fewer, larger files, with the truth rule applied for good: afterwards a glob over the files equals the views.

A day of a table is written anew where it has several small files, or a file of which newer exports hide rows. All else
is taken over as it is. Loads, readers and other compactions may be at work meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import duckdb

from airflow_provider_chatexport.core.progress import COMPACT, Progress, silent
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.record import WRITER, DataFile
from airflow_provider_chatexport.lake.commits.snapshot import FileState, FileStatus, Snapshot
from airflow_provider_chatexport.lake.commits.visibility import coverage_rows
from airflow_provider_chatexport.lake.maintenance.rewrite import (
    Rewrite,
    Rewriter,
    RowsOfDay,
    commit_rewrite,
    coverage_after,
    number_of_next,
)
from airflow_provider_chatexport.lake.parquet import write_table
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import USER_EXPORT_USERS
from airflow_provider_chatexport.lake.schema.types import Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import work_folder

log = logging.getLogger(__name__)

# Files of this size are not worth merging: a scan reads them as fast as a larger one.
LARGE_BYTES: Final = 256 * 1024 * 1024
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionReport(Report):
    """What a compaction did. ``rows_hidden``: rows that newer exports had hidden, and that are gone now."""

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
        return {
            "record": self.record_id,
            "days": self.days,
            "files_before": self.files_before,
            "files_after": self.files_after,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "rows": self.rows,
            "rows_hidden": self.rows_hidden,
            "seconds": round(self.seconds, 3),
        }


def compact(
    store: LakeStore, *, work_dir: Path | None = None, large_bytes: int = LARGE_BYTES, progress: Progress = silent
) -> CompactionReport:
    """Merges what is worth merging, and commits it as one.

    :param large_bytes: files of this size are left alone, unless newer exports hide rows of them.
    :raises LakeError: the lake cannot be read or written, or other compactions were first time and again.
    """
    catalog_file.require_lake(store)
    for _ in range(_ATTEMPTS):
        done = commit_log.on_latest(store, lambda: _attempt(store, work_dir, large_bytes, progress))
        if done is not None:
            refresh(store)
            log.info("lake compacted record=%s days=%d seconds=%.1f", done.record_id, done.days, done.seconds)
            return done
    raise LakeError(f"the lake at {store.uri} is being compacted by others; nothing was changed, try again later")


def _attempt(store: LakeStore, work_dir: Path | None, large_bytes: int, tell: Progress) -> CompactionReport | None:
    """None where another rewrite was committed meanwhile."""
    began = time.monotonic()
    snapshot = Snapshot(commit_log.all_loads(store))
    with work_folder(store, work_dir) as folder:
        return _merged(store, snapshot, folder, large_bytes, began, tell)


def _merged(
    store: LakeStore, snapshot: Snapshot, folder: Path, large_bytes: int, began: float, tell: Progress
) -> CompactionReport | None:
    with Merge(store, snapshot, folder) as merge:
        days = [day for table in snapshot.tables for day in merge.worth_merging(table, large_bytes)]
        if not days:
            return CompactionReport(seconds=time.monotonic() - began)
        gone = {each.file.path for day in days for each in day.files}
        merge.claim(gone)
        written: dict[DataFile, Path] = {}
        for number, day in enumerate(days):
            tell(COMPACT, number, len(days))
            written.update(merge.write(day))
    n_rows, n_before = sum(file.rows for file in written), sum(each.file.rows for day in days for each in day.files)
    seconds = time.monotonic() - began
    facts = {"kind": "compaction", "rows_read": n_before, "rows_hidden": n_before - n_rows}
    record = commit_rewrite(store, snapshot, Rewrite(gone=gone, written=written, facts=facts), seconds=seconds)
    if record is None:
        return None
    return CompactionReport(
        record_id=record.load_id,
        days=len(days),
        files_before=len(gone),
        files_after=len(written),
        bytes_before=sum(each.file.size_bytes for day in days for each in day.files),
        bytes_after=sum(file.size_bytes for file in written),
        rows=n_rows,
        rows_hidden=n_before - n_rows,
        seconds=seconds,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The files of one table and day folder that are to become one."""

    table: Table
    day: str
    files: tuple[FileState, ...]


class Merge(Rewriter):
    """Reads days of a lake as its views show them, and writes each as one file."""

    def __init__(self, store: LakeStore, snapshot: Snapshot, folder: Path) -> None:
        super().__init__(store, snapshot, folder, threads=2)

    def __enter__(self) -> Self:
        with _explained(self._store):
            return super().__enter__()

    def claim(self, gone: set[str]) -> None:
        """Says which files will go, and so what the new ones will be claimed by."""
        self._con.register("claim_rows", coverage_rows(coverage_after(self._snapshot, gone)))
        self._con.execute("CREATE TABLE claims AS FROM claim_rows")

    def worth_merging(self, table: Table, large_bytes: int) -> Iterator[Day]:
        """Days with several files, or with rows that no view shows."""
        days: dict[str, list[FileState]] = defaultdict(list)
        for each in self._snapshot.live(table):
            # Of snapshots all, because a row's newest version is looked for among all of them.
            if (
                each.file.size_bytes < large_bytes
                or each.status is FileStatus.PARTLY_HIDDEN
                or table.placement is Placement.SNAPSHOT
            ):
                days[each.file.day].append(each)
        outdated = self._with_outdated(table, days) if table.placement is Placement.SNAPSHOT else set()
        for day, files in sorted(days.items()):
            of_day = Day(table=table, day=day, files=tuple(files))
            if (
                len(files) > 1
                or day in outdated
                or (files[0].status is FileStatus.PARTLY_HIDDEN and self._hides_rows(of_day))
            ):
                yield of_day

    def write(self, day: Day) -> dict[DataFile, Path]:
        """The day's new files and where they lie; none where no row is left.

        :raises LakeError: a file cannot be read, or the work folder is full.
        """
        with _explained(self._store):
            rows = RowsOfDay(self._con, day.day, self._visible(day))
            n_uncovered = self._n_uncovered(day)
            metadata = {"chatexport.load_id": number_of_next(self._snapshot), "chatexport.writer": WRITER}
            written = write_table(rows, day.table, self._folder / "files", stem=self._stem, metadata=metadata)
            return {replace(file, n_uncovered=n_uncovered): local for file, local in written}

    def _hides_rows(self, day: Day) -> bool:
        with _explained(self._store):
            (n_rows,) = self._con.execute(f"SELECT count(*) FROM ({self._visible(day)})").fetchall()[0]
        return bool(n_rows < sum(each.file.rows for each in day.files))

    def _n_uncovered(self, day: Day) -> int:
        if day.table.placement is not Placement.EVENT:
            return 0
        (n_rows,) = self._con.execute(
            f"SELECT count(*) FROM ({self._visible(day)}) rows WHERE {visibility.uncovered(day.table, 'claims')}"
        ).fetchall()[0]
        return int(n_rows)

    def _visible(self, day: Day) -> str:
        table = day.table
        shown = f"SELECT {visibility.columns(table)} FROM {visibility.scan_files(self._store, table, day.files)} rows"
        if table.placement is Placement.EVENT:
            return f"{shown} WHERE NOT {visibility.hidden(table, 'hiding')}"
        if table.placement is Placement.SNAPSHOT:
            return f"SELECT * FROM newest_{table.name} WHERE {table.partition} = DATE {sql.quoted(day.day)}"
        dead = ", ".join(sql.quoted(load_id) for load_id in sorted(self._snapshot.expired_loads)) or "''"
        return f"{shown} WHERE _load_id NOT IN ({dead})"

    def _scan(self, table: Table) -> str:
        """All that is live of a table."""
        return visibility.scan_files(self._store, table, self._snapshot.live(table))

    def _with_outdated(self, table: Table, days: Mapping[str, Sequence[FileState]]) -> set[str]:
        """Days with rows of which a newer one of the same key is elsewhere. Leaves the newest rows in a table."""
        file_states = [each for of_day in days.values() for each in of_day]
        # Where rows have an owner, it is a row of that owner's elsewhere that takes them away.
        if not file_states or (len(file_states) < 2 and table.owned_by is None):
            return set()
        with _explained(self._store):
            owners = self._scan(USER_EXPORT_USERS) if table.owned_by else None
            self._con.execute(
                f"CREATE TABLE newest_{table.name} AS SELECT {visibility.columns(table)} "
                f"FROM {self._scan(table)} rows{visibility.newest(table, owners)}"
            )
            kept = dict(
                self._con.execute(
                    f"SELECT strftime({table.partition}, '%Y-%m-%d'), count(*) FROM newest_{table.name} GROUP BY 1"
                ).fetchall()
            )
        return {day for day, files in days.items() if kept.get(day, 0) < sum(each.file.rows for each in files)}


@contextlib.contextmanager
def _explained(store: LakeStore) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise LakeError(
            f"the lake at {store.uri} cannot be compacted ({type(error).__name__}); run chatexport verify to see which "
            "file cannot be read, and make sure that the work folder has room"
        ) from None
