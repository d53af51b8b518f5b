"""Compaction: fewer, larger files, with the truth rule applied for good. Afterwards a glob gives what the views give.

A month of an event table is rewritten if it has several small files, a file with rows that newer exports hide, or a
file in the folder of a day, where older versions wrote it. Of a snapshot table, one file is left, with the newest row
of each key. All other files are taken over as they are. Loads, readers and other compactions may be at work at the same
time.

Days with files of several records are settled: of all rows of one key, only the newest remains, in whatever channels
they are. Then one record takes over the files, and its files are not compared with each other again.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from airflow_provider_chatexport.core.progress import Progress, silent
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits.contested import unsettled_files
from airflow_provider_chatexport.lake.commits.file_state import FileState, FileStatus
from airflow_provider_chatexport.lake.commits.losses import Losses
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.maintenance.forget import finish_removals
from airflow_provider_chatexport.lake.maintenance.merge import (
    Merge,
    Merger,
    in_portions,
    is_all_loose,
    is_small,
    merging,
)
from airflow_provider_chatexport.lake.maintenance.rewrite import Rewrite, commit_rewrite, coverage_after
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.schema.tables import DAYS_SINCE_VERSION
from airflow_provider_chatexport.lake.schema.types import Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionReport(Report):
    """What a compaction did.

    :param record_id: of its record; None if there was nothing to do.
    :param merges: how many groups of files were rewritten: a month of an event table, or another table.
    :param rows_hidden: rows that newer exports had hidden, and that are gone now.
    """

    record_id: str | None = None
    merges: int = 0
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
    """Rewrite the months and tables that are worth it, and commit them as one.

    It reads the checkpoint and the records since then, the files that it rewrites, and the keys of contested files.

    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :raises LakeError: the lake cannot be read or written, or other compactions were first several times.
    """
    catalog_file.require_lake(store)
    losses = Losses(store)
    finish_removals(store, now=datetime.now(UTC), work_dir=work_dir, losses=losses)
    for _ in range(_ATTEMPTS):
        report = losses.on_latest(lambda snapshot: _attempt(store, snapshot, work_dir, progress))
        if report is not None:
            refresh(store, losses=losses)
            log.info("lake compacted record=%s merges=%d seconds=%.1f", report.record_id, report.merges, report.seconds)
            return report
    raise LakeError(f"others are compacting the lake at {store.uri}; nothing was changed, try again later")


def _attempt(
    store: LakeStore, snapshot: Snapshot, work_dir: Path | None, progress: Progress
) -> CompactionReport | None:
    """Compact a lake as a snapshot shows it. Return None if another rewrite was committed meanwhile."""
    started = time.monotonic()
    with merging(
        store, work_dir, lambda folder: Compactor(store, snapshot, folder, threads=2), fails="be compacted"
    ) as compactor:
        merges = [merge for table in snapshot.tables for merge in compactor.merges_of(table)]
        if not merges and not compactor.settled:
            return CompactionReport(seconds=time.monotonic() - started)
        before = [file for merge in merges for file in merge.data_files]
        gone = {file.path for file in before}
        merged = compactor.write(merges, coverage_after(snapshot, gone | compactor.settled), progress)
        written = merged.files
        facts = merged.facts("compaction", before)
        seconds = time.monotonic() - started
        rewrite = Rewrite(gone=gone, settled=compactor.settled - gone, written=written, facts=facts)
        record = commit_rewrite(store, snapshot, rewrite, seconds=seconds)
    if record is None:
        return None
    return CompactionReport(
        record_id=record.load_id,
        merges=len(merges),
        files_before=len(before),
        files_after=len(written),
        bytes_before=sum(file.size_bytes for file in before),
        bytes_after=sum(file.size_bytes for file in written),
        rows=sum(file.rows for file in written),
        rows_hidden=facts["rows_hidden"],
        seconds=seconds,
    )


class Compactor(Merger):
    """Finds out what is worth merging in all of a lake.

    :ivar settled: after ``merges_of``, paths of files that were compared with those of other records. Once the merges
        are written, these files and the new ones have one row per key together.
    """

    # Files of event tables of older versions of the schema are rewritten.
    least_version = DAYS_SINCE_VERSION

    def __init__(self, store: LakeStore, snapshot: Snapshot, folder: Path, *, threads: int) -> None:
        super().__init__(store, snapshot, folder, threads=threads)
        self.settled: set[str] = set()

    def merges_of(self, table: Table) -> Iterator[Merge]:
        """Yield the groups of several files, or with rows that no view shows."""
        # A record with a loss stays as it is: a rewrite of its other files would hide that something is missing.
        losses = self._snapshot.with_losses
        live = [each for each in self._snapshot.live_files_of(table) if each.record.load_id not in losses]
        match table.placement:
            case Placement.SNAPSHOT:
                if sum(map(is_small, live)) > 1 or self._has_superseded_rows(table, live):
                    yield Merge(table=table, files=tuple(live))
            case Placement.LOG:
                for group in in_portions(filter(is_small, live)):
                    if len(group) > 1:
                        yield Merge(table=table, files=tuple(group))
            case Placement.EVENT:
                months: dict[str, list[FileState]] = defaultdict(list)
                for each in live:
                    months[each.file.first_day[:7]].append(each)
                for _, files in sorted(months.items()):
                    if chosen := self.to_rewrite(table, files):
                        yield Merge(table=table, files=tuple(chosen))
                self.settled |= {each.file.path for each in live if each.is_contested}

    def to_rewrite(self, table: Table, files: Sequence[FileState]) -> list[FileState]:
        """Return which files of a month of an event table have to be rewritten."""
        outgrown = [each for each in files if each.file.schema_version < self.least_version]
        merged = [
            each for each in files if is_small(each) or each.status is FileStatus.PARTLY_HIDDEN or each in outgrown
        ]
        n_loose = sum(is_all_loose(each.file) for each in merged)
        is_worth_it = bool(outgrown) or n_loose > 1 or len(merged) - n_loose > 1
        shared = unsettled_files(files)
        self.settled |= {each.file.path for each in shared}
        paths = {each.file.path for each in merged}
        # Where all files are merged, one row per key remains anyway.
        is_settled = is_worth_it and all(each.file.path in paths for each in shared)
        if shared and not is_settled and self._find_doubled_keys(table, shared):
            return [*merged, *(each for each in shared if each.file.path not in paths)]
        if is_worth_it or (any(map(self._may_have_hidden_rows, merged)) and self._has_hidden_rows(table, merged)):
            return merged
        return []

    def _has_superseded_rows(self, table: Table, live: Sequence[FileState]) -> bool:
        """Return whether files of a snapshot table have rows that newer rows of the same key outdate."""
        # A single file has the newest rows of its keys, unless an owner's newer export has no row in this table.
        if not live or (len(live) < 2 and table.owned_by is None):
            return False
        newest = self._newest_rows(Merge(table=table, files=tuple(live)))
        (n_rows,) = self._database.one(f"SELECT count(*) FROM ({newest})")
        return bool(n_rows < sum(each.file.rows for each in live))
