"""Deletes what is known to be dead: data files that no record has live, and what broken-off work left behind.

On a local disk a file that a newer load replaced stays for a while where no glob sees it, because a catalog that
someone has open may still name it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.log import died, sweep, unknown_files
from airflow_provider_chatexport.lake.commits.snapshot import FileStatus, Snapshot
from airflow_provider_chatexport.lake.maintenance.rewrite import Rewrite, commit_rewrite
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import UNKNOWN_AFTER, drop_leftovers


@dataclass(frozen=True, slots=True, kw_only=True)
class VacuumReport(Report):
    """What was deleted: data files by why, and leftovers of broken-off work."""

    superseded: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    n_leftovers: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "superseded": list(self.superseded),
            "unknown": list(self.unknown),
            "leftovers": self.n_leftovers,
        }


def vacuum(store: LakeStore, *, keep: timedelta, now: datetime, history: bool = False) -> VacuumReport:
    """Deletes data files that have been dead for so long, and leftovers older than that and than a day.

    :param keep: how long a superseded file stays for those who opened the catalog before.
    :param history: those kept for ``messages_history`` as well.
    :param now: aware.
    :raises LakeError: the lake cannot be read or written.
    """
    catalog_file.require_lake(store)
    if history:
        _end_history(store, before=now - keep)
    snapshot = Snapshot(commit_log.all_loads(store, known={}))
    superseded = sweep(store, snapshot, before=now - keep)
    before = now - max(keep, UNKNOWN_AFTER)
    unknown = tuple(unknown_files(store, snapshot, before=before))
    store.drop_data(unknown)
    n_leftovers = drop_leftovers(store, before=before)
    return VacuumReport(superseded=superseded, unknown=unknown, n_leftovers=n_leftovers)


def _end_history(store: LakeStore, *, before: datetime) -> None:
    """Says in a record which files ``messages_history`` no longer reads, so that no catalog names them."""
    while True:
        snapshot = Snapshot(commit_log.all_loads(store))
        ended = {
            each.file.path for each in snapshot.file_states if each.status is FileStatus.HISTORY and died(each, before)
        }
        if not ended:
            return
        rewrite = Rewrite(gone=(), written={}, purged=ended, facts={"kind": "end of history"})
        if commit_rewrite(store, snapshot, rewrite, seconds=0.0) is not None:
            refresh(store)
            return
