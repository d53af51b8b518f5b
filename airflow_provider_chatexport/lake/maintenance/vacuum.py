"""Vacuum: delete the data files that no reader needs, and what broken-off work left behind.

On a local disk, a file that a newer load superseded stays for a while where no glob sees it: a reader may have a
catalog open that still names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.snapshot import FileStatus
from airflow_provider_chatexport.lake.maintenance.rewrite import Rewrite, commit_rewrite
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import UNKNOWN_AFTER, drop_leftovers


@dataclass(frozen=True, slots=True, kw_only=True)
class VacuumReport(Report):
    """What was deleted.

    :param superseded: data files that newer loads or rewrites had superseded.
    :param unknown: data files that are in no record.
    :param n_leftovers: work folders and half-written files of broken-off work.
    """

    superseded: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    n_leftovers: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "superseded": list(self.superseded),
            "unknown": list(self.unknown),
            "leftovers": self.n_leftovers,
        }


def vacuum(store: LakeStore, *, keep: timedelta, now: datetime, history: bool = False) -> VacuumReport:
    """Delete data files that have been dead for some time, and leftovers that are older than that and than a day.

    :param keep: how long a superseded file stays, for readers who opened the catalog before.
    :param now: aware.
    :param history: delete also what is kept for ``messages_history``.
    :raises LakeError: the lake cannot be read or written.
    """
    catalog_file.require_lake(store)
    if history:
        _end_history(store, before=now - keep)
    snapshot = commit_log.read_snapshot(store, known={})
    superseded = commit_log.delete_dead_files(store, snapshot, before=now - keep)
    before = now - max(keep, UNKNOWN_AFTER)
    unknown = tuple(commit_log.unknown_files(store, snapshot, before=before))
    store.drop_data(unknown)
    return VacuumReport(superseded=superseded, unknown=unknown, n_leftovers=drop_leftovers(store, before=before))


def _end_history(store: LakeStore, *, before: datetime) -> None:
    """Record which files ``messages_history`` no longer reads, so that no catalog names them."""
    while True:
        snapshot = commit_log.read_snapshot(store)
        ended = {
            each.file.path
            for each in snapshot.file_states
            if each.status is FileStatus.HISTORY and each.died_before(before)
        }
        if not ended:
            return
        rewrite = Rewrite(gone=(), written={}, purged=ended, facts={"kind": "end of history"})
        if commit_rewrite(store, snapshot, rewrite, seconds=0.0) is not None:
            refresh(store)
            return
