"""Vacuum: delete the data files that no reader needs, and what broken-off work left behind.

On a local disk, a file that a newer load superseded stays for a while where no glob sees it: a reader may have a
catalog open that still names it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import published
from airflow_provider_chatexport.lake.commits.file_state import FileStatus
from airflow_provider_chatexport.lake.maintenance.cleanup import VacuumReport, delete_unneeded
from airflow_provider_chatexport.lake.maintenance.forget import finish_removals
from airflow_provider_chatexport.lake.maintenance.rewrite import Rewrite, commit_rewrite
from airflow_provider_chatexport.lake.storage.store import LakeStore


def vacuum(store: LakeStore, *, keep: timedelta, now: datetime, history: bool = False) -> VacuumReport:
    """Delete data files that have been dead for some time, and leftovers that are older than that and than a day.

    If a load was killed while a person was removed, the removal is finished first.

    It reads every record from its own file, and lists all data files. It reads no rows. What published tables name
    stays until the next publication.

    :param keep: how long a superseded file stays, for readers who opened the catalog before.
    :param now: aware.
    :param history: delete also what is kept for ``messages_history``.
    :raises LakeError: the lake cannot be read or written.
    """
    catalog_file.require_lake(store)
    finish_removals(store, now=now)
    if history:
        before = now - keep
        _end_history(store, before=min(before, published.needed_since(store) or before))
    return delete_unneeded(store, keep=keep, now=now)


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
