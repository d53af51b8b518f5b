"""Rewriting the files of a lake that cannot be published as they are, so that each live file is whole.

A list of whole files cannot leave out single rows. So files with hidden rows are rewritten without them, and each
snapshot table becomes one file with the newest row of each key. All other files are taken over as they are, by one
record that stands for all others. It has applied their coverage among themselves, so nothing of it is hidden any more.

That record is among the last ones that a load overlaps, and the compaction after a load leaves it alone. So this
merges the small files of a month itself, once the loads have left that month behind (``COLD_DAYS``).
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.core.progress import Progress
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits.contested import unsettled_files
from airflow_provider_chatexport.lake.commits.file_state import FileState, FileStatus
from airflow_provider_chatexport.lake.commits.losses import Losses
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.maintenance.compact import Compactor
from airflow_provider_chatexport.lake.maintenance.merge import Merge, in_portions, is_small, merging
from airflow_provider_chatexport.lake.maintenance.rewrite import Rewrite, commit_rewrite, coverage_after
from airflow_provider_chatexport.lake.publish.plan import has_newest_rows_only, is_unfit, unfit
from airflow_provider_chatexport.lake.schema.tables import TEXT_SINCE_VERSION
from airflow_provider_chatexport.lake.schema.types import Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 5
# A month whose last day is so long before the newest day of the lake is behind the lookback of most loads.
COLD_DAYS: Final = 14
# So many small files of rejects or other entities are merged.
_MOST_SMALL_LOGS: Final = 30


def settle(store: LakeStore, *, losses: Losses, work_dir: Path | None, progress: Progress) -> tuple[Snapshot, int]:
    """Rewrite what cannot be published, and return a snapshot of which each live file is whole; and how many were not.

    The snapshot may be older than the latest by the loads that were committed meanwhile.

    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :raises LakeError: the lake cannot be read or written, files are lost, or other rewrites were first several times.
    """
    n_rewritten = 0
    for _ in range(_ATTEMPTS):
        found = losses.on_latest(lambda snapshot: _attempt(store, snapshot, work_dir, progress))
        if found is None:
            continue
        snapshot, n_files = found
        n_rewritten += n_files
        if n_files:
            refresh(store, losses=losses)
        if not any(unfit(snapshot)):
            return snapshot, n_rewritten
    raise LakeError(f"others are rewriting files of the lake at {store.uri}; nothing was published, try again later")


def _attempt(
    store: LakeStore, snapshot: Snapshot, work_dir: Path | None, progress: Progress
) -> tuple[Snapshot, int] | None:
    """Rewrite what cannot be published of a snapshot. Return None if another rewrite was committed meanwhile."""
    if snapshot.with_losses:
        raise LakeError(
            f"files of the lake at {store.uri} are lost, and publishing would hide that; run chatexport repair, or "
            "restore them, then publish again",
            retryable=False,
        )
    if not any(unfit(snapshot)):
        return snapshot, 0
    started = time.monotonic()
    with merging(
        store, work_dir, lambda folder: Settler(store, snapshot, folder, threads=2), fails="be published"
    ) as settler:
        merges = [merge for table in snapshot.tables for merge in settler.merges_of(table)]
        before = [file for merge in merges for file in merge.data_files]
        gone, records = {file.path for file in before}, {record.load_id for record in snapshot.current}
        merged = settler.write(merges, coverage_after(snapshot, gone, records), progress)
        facts = merged.facts("settling before a publication", before)
        rewrite = Rewrite(gone=gone, records=records, written=merged.files, facts=facts)
        record = commit_rewrite(store, snapshot, rewrite, seconds=time.monotonic() - started)
    if record is None:
        return None
    log.info(
        "files rewritten to be published record=%s files=%d into=%d seconds=%.1f",
        record.load_id,
        len(before),
        len(merged.files),
        time.monotonic() - started,
    )
    return Snapshot([*snapshot.records, record], snapshot.unreadable, snapshot.damaged), len(before)


class Settler(Compactor):
    """Finds out which files cannot be published as they are."""

    least_version = TEXT_SINCE_VERSION

    def merges_of(self, table: Table) -> Iterator[Merge]:
        """Yield the groups of files to rewrite. Afterwards, one record can have all live files of the lake."""
        live = list(self._snapshot.live_files_of(table))
        if not live:
            return
        match table.placement:
            case Placement.SNAPSHOT:
                if not has_newest_rows_only(self._snapshot, table) or any(map(is_unfit, live)):
                    yield Merge(table=table, files=tuple(live))
            case Placement.LOG:
                outgrown = [each for each in live if is_unfit(each)]
                small = list(filter(is_small, live))
                for group in in_portions(small if len(small) > _MOST_SMALL_LOGS else outgrown):
                    yield Merge(table=table, files=tuple(group))
            case Placement.EVENT:
                newest = max(each.file.last_day for each in self._events())
                months: dict[str, list[FileState]] = defaultdict(list)
                for each in live:
                    months[each.file.first_day[:7]].append(each)
                for month, files in sorted(months.items()):
                    chosen = self.to_rewrite(table, files) if _is_cold(month, newest) else []
                    if chosen := _united(chosen, self._hidden(table, files), self._with_doubled_keys(table, files)):
                        yield Merge(table=table, files=tuple(chosen))

    def _events(self) -> Iterator[FileState]:
        events = (table for table in self._snapshot.tables if table.placement is Placement.EVENT)
        return (each for table in events for each in self._snapshot.live_files_of(table))

    def _hidden(self, table: Table, files: Sequence[FileState]) -> list[FileState]:
        """Return the files with hidden rows, and those with columns of types that other readers refuse."""
        return [
            each
            for each in files
            if each.file.schema_version < self.least_version
            or (
                each.status is FileStatus.PARTLY_HIDDEN
                and self._may_have_hidden_rows(each)
                and self._has_hidden_rows(table, [each])
            )
        ]

    def _with_doubled_keys(self, table: Table, files: Sequence[FileState]) -> list[FileState]:
        """Return the files among which a key may be doubled, because its row moved from one to another."""
        shared = unsettled_files(files)
        return shared if shared and self._find_doubled_keys(table, shared) else []


def _is_cold(month: str, newest_day: str) -> bool:
    """Return whether loads have left a month behind: ``newest_day`` is long after its end."""
    next_month = (date.fromisoformat(f"{month}-01") + timedelta(days=31)).replace(day=1)
    return next_month + timedelta(days=COLD_DAYS) <= date.fromisoformat(newest_day)


def _united(*groups: Sequence[FileState]) -> list[FileState]:
    """Return the files of several groups, each file once."""
    return list({each.file.path: each for group in groups for each in group}.values())
