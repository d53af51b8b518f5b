"""Deleting data files that no reader needs, and what broken-off work left behind."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import UNKNOWN_AFTER, drop_leftovers


@dataclass(frozen=True, slots=True, kw_only=True)
class VacuumReport(Report):
    """What was deleted.

    :param superseded: data files that newer loads or rewrites had superseded.
    :param unknown: data files that are in no record.
    :param n_leftovers: work folders, half-written files and unfinished uploads of broken-off work.
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


def delete_unneeded(store: LakeStore, *, keep: timedelta, now: datetime) -> VacuumReport:
    """Delete data files that have been dead for some time, and leftovers that are older than that and than a day.

    :param keep: how long a superseded file stays, for readers who opened the catalog before.
    :param now: aware.
    :raises LakeError: the lake cannot be read or written.
    """
    snapshot = commit_log.read_snapshot(store, afresh=True)
    # Before files go that a damaged record would bring back, all records go into the checkpoint; and before that, what
    # they say into the table folders, because a refresh looks at the folders of other records only.
    refresh(store)
    commit_log.write_checkpoint(store, snapshot.records)
    superseded = commit_log.delete_dead_files(store, snapshot, before=now - keep)
    before = now - max(keep, UNKNOWN_AFTER)
    unknown = tuple(commit_log.unknown_files(store, snapshot, before=before))
    store.drop_data(unknown)
    return VacuumReport(superseded=superseded, unknown=unknown, n_leftovers=drop_leftovers(store, before=before))
