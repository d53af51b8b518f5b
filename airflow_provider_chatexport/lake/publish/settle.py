"""Rewriting the files of a lake that cannot be published as they are, so that each live file is whole.

A list of whole files cannot leave out single rows. So files with hidden rows are rewritten without them, and each
snapshot table becomes one file with the newest row of each key.

The record of a settlement takes these files, and no others, from the records that have them (``LoadRecord.taken``). It
has copies of all coverage entries that overlap them, and has applied these, so nothing in its files is hidden any more.
The other records remain, without those files. A record that would have nothing left is replaced. So a publication costs
what it rewrites, however large the lake is::

                    Mon            Tue            Wed
    A   exported Tue               [===========)                 files A.tue, A.channels
    B   exported Wed                      [============)         files B.tue, B.wed, B.channels
    S   settles: takes A.tue, A.channels, B.channels             files S.tue, S.channels; coverage of A and B

Here A is replaced, and B remains with B.tue and B.wed. Its entry is in both B and S.

Loose rows, and files of older versions, are settled together with all of the lake, by a record that stands for all
others: coverage does not say which files have newer rows of their keys (``_is_local``).
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.core.progress import Progress
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits.contested import unsettled_files
from airflow_provider_chatexport.lake.commits.coverage import (
    merged_spans,
    overlaps_any,
    without_superseded,
)
from airflow_provider_chatexport.lake.commits.file_state import FileState, FileStatus
from airflow_provider_chatexport.lake.commits.losses import Losses
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.maintenance.compact import Compactor
from airflow_provider_chatexport.lake.maintenance.merge import Merge, in_portions, is_small, merging
from airflow_provider_chatexport.lake.maintenance.rewrite import Rewrite, commit_rewrite, coverage_of
from airflow_provider_chatexport.lake.publish.plan import has_newest_rows_only, is_unfit, unfit
from airflow_provider_chatexport.lake.schema.tables import TABLE_BY_NAME, TEXT_SINCE_VERSION, USER_EXPORT_USERS
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
        rewrite = settler.rewrite({file.path for file in before})
        merged = settler.write(merges, coverage_of(snapshot, rewrite), progress)
        facts = merged.facts("settling before a publication", before)
        rewrite = replace(rewrite, written=merged.files, facts=facts)
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


def rewrite_of_all(snapshot: Snapshot, gone: set[str]) -> Rewrite:
    """Return the rewrite in which one record replaces all others, without its new files. Pure."""
    return Rewrite(gone=gone, records={record.load_id for record in snapshot.current})


def rewrite_of_some(snapshot: Snapshot, gone: set[str]) -> Rewrite:
    """Return the rewrite that takes files with hidden rows from their records, without its new files. Pure.

    :param gone: paths of the files that are rewritten. Others with hidden rows are taken as they are.
    """
    live: dict[str, list[FileState]] = defaultdict(list)
    for each in snapshot.readable_states:
        if each.is_live:
            live[each.record.load_id].append(each)
    masked = [each for of_record in live.values() for each in of_record if each.is_masked]
    as_they_are = {each.file.path for each in masked} - gone
    taken = gone | as_they_are
    spans = merged_spans(each.span for each in masked)
    overlapping = {entry for record in snapshot.current for entry in record.coverage if overlaps_any(entry, spans)}
    replaced = {
        record.load_id
        for record in snapshot.current
        if overlapping.issuperset(record.coverage) and all(each.file.path in taken for each in live[record.load_id])
    }
    others = [record for record in snapshot.current if record.load_id not in replaced]
    # What other records still cover has to be known here, too, although newer entries hide all of it.
    of_others = {entry for record in others for entry in record.coverage}
    deciding = set(without_superseded(overlapping))
    return Rewrite(
        gone=gone,
        settled=as_they_are,
        records=replaced,
        remaining={record.load_id for record in others},
        coverage=sorted(
            (entry for entry in overlapping if entry in deciding or entry in of_others),
            key=lambda entry: (entry.since, entry.until, entry.rank),
        ),
        # Files that are taken as they are were not compared with others.
        has_unique_keys=not as_they_are,
    )


class Settler(Compactor):
    """Finds out which files cannot be published as they are."""

    least_version = TEXT_SINCE_VERSION

    def merges_of(self, table: Table) -> Iterator[Merge]:
        """Yield the groups of files of a table to rewrite."""
        live = list(self._snapshot.live_files_of(table))
        if not live:
            return
        match table.placement:
            case Placement.SNAPSHOT:
                if not self._is_newest(table) or any(map(is_unfit, live)):
                    yield Merge(table=table, files=tuple(live))
            case Placement.LOG:
                # They live as long as their record's coverage decides anything, so only a record with that has them.
                if self._is_local:
                    return
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
                    chosen = self._hidden(table, files)
                    if self._is_local:
                        # They have to be listed anyway, and a month would get more of them with each publication.
                        small = [each for each in files if each.is_masked and is_small(each)]
                        chosen = _united(chosen, small) if chosen or len(small) > 1 else []
                    else:
                        # The record of all files is one that loads overlap, so they leave its files alone.
                        outgrown = self.to_rewrite(table, files) if _is_cold(month, newest) else []
                        chosen = _united(chosen, outgrown, self._with_doubled_keys(table, files))
                    if chosen:
                        yield Merge(table=table, files=tuple(chosen))

    def _is_newest(self, table: Table) -> bool:
        """Return whether a snapshot table has the newest rows only. Tables with owners are settled together."""
        owned = [each for each in self._snapshot.tables if each.owned_by is not None]
        group = [USER_EXPORT_USERS, *owned] if table.owned_by or table.name == USER_EXPORT_USERS.name else [table]
        return all(has_newest_rows_only(self._snapshot, each) for each in group)

    def _events(self) -> Iterator[FileState]:
        events = (table for table in self._snapshot.tables if table.placement is Placement.EVENT)
        return (each for table in events for each in self._snapshot.live_files_of(table))

    def rewrite(self, gone: set[str]) -> Rewrite:
        """Return the rewrite of the settlement, without its new files.

        :param gone: paths of the files that are rewritten.
        """
        return (rewrite_of_some if self._is_local else rewrite_of_all)(self._snapshot, gone)

    @property
    def by_month(self) -> bool:
        """Whether to write a file for a month. Of days that loads still change, only those days are rewritten next."""
        return not self._is_local

    @cached_property
    def _is_local(self) -> bool:
        """Whether coverage alone says which rows of the files are hidden, so that no others have to be looked at."""
        return not any(
            each.is_contested or each.file.is_loose or each.file.schema_version < self.least_version
            for each in unfit(self._snapshot)
            if TABLE_BY_NAME[each.file.table].placement is not Placement.SNAPSHOT
        )

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
