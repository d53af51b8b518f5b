"""Compaction after a load: a bounded portion of the small files that earlier loads have left behind.

How it works
------------
Loads leave small files behind: per table one for each of their days. This module merges them in tiers, as
log-structured stores do. What it merges is records: the files of some records become those of one, which replaces them.
A record of ``n`` loads is merged with others only if the new record has half as many loads again. So a row is rewritten
a logarithmic number of times, and a lake of ``n`` loads has some ``log n`` records. Their files of event tables are
mostly of different months, so that nearly all of them are taken over as they are::

    loads     1 1 1 1 1 1 1 1 | the eighth load merges them
    records   8               |
    records   8 1 1 1 1 1 1 1 | eight again, and 8 is small enough to go with them
    records   15              |

A load merges only what is behind it: records without a row in the time that it covers. The next load, which looks back
just as far, then retires whole files, and hides no part of what was merged.

It reads the records and the files that it merges. It rewrites at most about twice as many bytes as the load wrote, or
``LEAST_BYTES`` if that is more, so that loads of a few rows get merged at all.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.core.progress import silent
from airflow_provider_chatexport.lake.commits.contested import unsettled_files
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry, TimeSpan, merged_spans
from airflow_provider_chatexport.lake.commits.file_state import FileState, FileStatus
from airflow_provider_chatexport.lake.commits.losses import Losses
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.maintenance.merge import (
    Merge,
    Merged,
    Merger,
    in_portions,
    is_all_loose,
    is_small,
    merging,
)
from airflow_provider_chatexport.lake.maintenance.rewrite import Rewrite, commit_rewrite, coverage_after
from airflow_provider_chatexport.lake.schema.tables import TABLE_BY_NAME
from airflow_provider_chatexport.lake.schema.types import Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore

log = logging.getLogger(__name__)

# So many records are merged at a time, unless they are too large together.
LEAST_RECORDS: Final = 8
MOST_RECORDS: Final = 64
# So much may be rewritten after any load. It takes a fraction of a second.
LEAST_BYTES: Final = 16 * 1024 * 1024
# How much more than it wrote itself a load may rewrite.
COST_FACTOR: Final = 2
# A record is merged only into one with at least half as many loads again.
_LARGEST_SHARE: Final = 2 / 3


def compact_behind(
    store: LakeStore,
    load: LoadRecord,
    *,
    work_dir: Path | None = None,
    least_records: int = LEAST_RECORDS,
    losses: Losses | None = None,
) -> LoadRecord | None:
    """Merge a portion of what earlier loads left behind. Return the record of the rewrite; None if there is none.

    It reads the records that this store object has not read, and the files that it rewrites.

    There is none if too little has gathered, or if another rewrite was committed first: then the next load tries again.

    :param load: the load that was committed last. Files of the time that it covers are not touched.
    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :param least_records: how many records have to gather before they are merged.
    :param losses: the files that the load has found lost.
    :raises LakeError: the lake cannot be read or written.
    """
    return (losses or Losses(store)).on_latest(lambda latest: _attempt(store, latest, load, work_dir, least_records))


def _attempt(
    store: LakeStore, snapshot: Snapshot, load: LoadRecord, work_dir: Path | None, least_records: int
) -> LoadRecord | None:
    started = time.monotonic()
    portion = portion_behind(snapshot, load, least_records)
    if not portion:
        return None
    with merging(
        store, work_dir, lambda folder: _PortionMerger(store, snapshot, folder, portion), fails="be compacted"
    ) as merger:
        live = live_files(snapshot, portion)
        merges = merges_of(snapshot, live)
        before = [file for merge in merges for file in merge.data_files]
        ids = {record.load_id for record in portion}
        merged = merger.write(merges, coverage_after(snapshot, (), ids), silent)
        rewrite = rewrite_of(portion, live, before, merged)
        record = commit_rewrite(store, snapshot, rewrite, seconds=time.monotonic() - started)
    if record is not None:
        log.info(
            "lake compacted after a load record=%s records=%d files=%d into=%d seconds=%.1f",
            record.load_id,
            len(portion),
            len(before),
            len(merged.files),
            time.monotonic() - started,
        )
    return record


def portion_behind(snapshot: Snapshot, load: LoadRecord, least_records: int = LEAST_RECORDS) -> list[LoadRecord]:
    """Return the records that are worth merging after a load; none if too few have gathered. Pure."""
    hot = _hot_spans(load)
    by_owner: dict[str, list[FileState]] = defaultdict(list)
    hot_ids = {load.load_id}
    for each in snapshot.readable_states:
        by_owner[each.record.load_id].append(each)
        # The loss of a file has to stay with its record until it is repaired.
        if each.status is FileStatus.LOST or (each.is_live and _is_hot(each, hot)):
            hot_ids.add(each.record.load_id)
    # What is kept of superseded loads would be kept of the others, too.
    alike = [record for record in snapshot.current if record.keep_superseded == load.keep_superseded]
    behind = [record for record in alike if record.load_id not in hot_ids]
    behind = sorted(behind, key=lambda each: (each.n_loads, each.exported_at, each.load_id))[:MOST_RECORDS]
    if len(behind) < 2:
        return []
    budget = max(LEAST_BYTES, COST_FACTOR * sum(file.size_bytes for file in load.files))

    def cost(n_records: int) -> int:
        live = [each for record in behind[:n_records] for each in by_owner[record.load_id] if each.is_live]
        return sum(file.size_bytes for merge in merges_of(snapshot, live) for file in merge.data_files)

    # Of loads that are large themselves, the budget allows few.
    fewest = least_records if len(behind) < least_records or cost(least_records) <= budget else 2
    for n_records in range(len(behind), fewest - 1, -1):
        n_loads = sum(record.n_loads for record in behind[:n_records])
        if behind[n_records - 1].n_loads <= _LARGEST_SHARE * n_loads and cost(n_records) <= budget:
            return behind[:n_records]
    return []


def rewrite_of(
    portion: Collection[LoadRecord], live: Collection[FileState], before: Collection[DataFile], merged: Merged
) -> Rewrite:
    """Return the rewrite that puts files in the place of others, and one record in that of a portion. Pure.

    :param live: the live files of the portion.
    :param before: those of them that were merged.
    """
    gone = {file.path for file in before}
    taken_over = [each.file for each in live if each.file.path not in gone]
    return Rewrite(
        gone=gone,
        records={record.load_id for record in portion},
        written=merged.files,
        # Without loose rows, coverage leaves one row per key. With some, only a comparison of all files would.
        has_unique_keys=not any(file.is_loose for file in (*merged.files, *taken_over)) and _are_compared(live, gone),
        facts=merged.facts("compaction after a load", before),
    )


def _are_compared(live: Collection[FileState], gone: Collection[str]) -> bool:
    """Return whether all event files with common days were merged, and so have one row of a key that moved."""
    return all(
        each.file.path in gone
        for table in TABLE_BY_NAME.values()
        if table.placement is Placement.EVENT
        for each in unsettled_files(each for each in live if each.file.table == table.name)
    )


def merges_of(snapshot: Snapshot, live: Sequence[FileState]) -> list[Merge]:
    """Return the merges among the live files of some records that one record is going to replace.

    Rows that the records' own entries hide have to go: so every file that may have some is among them.
    """
    merges = []
    for table in snapshot.tables:
        files = [each for each in live if each.file.table == table.name]
        groups: Iterable[list[FileState]]
        match table.placement:
            case Placement.EVENT:
                groups = _events_to_merge(files)
            case Placement.SNAPSHOT:
                groups = [group for group in [list(filter(is_small, files))] if len(group) > 1]
            case Placement.LOG:
                groups = [group for group in in_portions(filter(is_small, files)) if len(group) > 1]
        merges += [Merge(table=table, files=tuple(group)) for group in groups]
    return merges


def _events_to_merge(files: Sequence[FileState]) -> Iterable[list[FileState]]:
    months: dict[str, list[FileState]] = defaultdict(list)
    for each in files:
        months[each.file.first_day[:7]].append(each)
    for _, of_month in sorted(months.items()):
        merged = [each for each in of_month if is_small(each) or each.is_masked]
        n_loose = sum(is_all_loose(each.file) for each in merged)
        if n_loose > 1 or len(merged) - n_loose > 1:
            yield merged
        elif masked := [each for each in merged if each.is_masked]:
            yield masked


class _PortionMerger(Merger):
    """Merges the files of some records, and reads no others."""

    def __init__(self, store: LakeStore, snapshot: Snapshot, folder: Path, portion: Collection[LoadRecord]) -> None:
        super().__init__(store, snapshot, folder, threads=1)
        self._live = live_files(snapshot, portion)

    def _files_of(self, table: Table) -> Iterable[FileState]:
        return [each for each in self._live if each.file.table == table.name]

    def _masking_coverage(self) -> Collection[CoverageEntry]:
        spans = [each.span for each in self._live if each.is_masked]
        return [
            entry
            for entry in self._snapshot.masking_coverage
            if any(entry.overlaps(span.since, span.until) for span in spans)
        ]


def live_files(snapshot: Snapshot, records: Collection[LoadRecord]) -> list[FileState]:
    """Return the live files of some records."""
    ids = {record.load_id for record in records}
    return [each for each in snapshot.readable_states if each.is_live and each.record.load_id in ids]


def _hot_spans(load: LoadRecord) -> list[TimeSpan]:
    """Return the time that a load covers or has rows of."""
    spans = [file.span for file in load.files if TABLE_BY_NAME[file.table].placement is Placement.EVENT]
    return merged_spans([*load.coverage, *spans])


def _is_hot(each: FileState, hot: Iterable[TimeSpan]) -> bool:
    if TABLE_BY_NAME[each.file.table].placement is not Placement.EVENT:
        return False
    span = each.span
    return any(span.since < other.until and other.since < span.until for other in hot)
