"""What is made from the records: the tables' folders, the catalog, the checkpoint. Brought up to them after a commit.

None of it is needed for the lake to be right: whoever died before getting here left a committed load behind, and the
next one to come by shows it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

from airflow_provider_chatexport.lake.catalog import catalog_file, folders
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.log import DEFAULT_KEEP, sweep
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.storage.store import LakeStore

# So many records are read one by one before the checkpoint is written anew: writing it costs as much as reading it all.
CHECKPOINT_EVERY: Final = 50


def refresh(store: LakeStore, *, full: bool = False) -> Snapshot:
    """Brings folders, catalog and checkpoint up to the records; the snapshot that they show.

    Two loads may finish at once. Each looks at the records again afterwards, so the last one has seen them all.

    :param full: look at every folder, rather than at those that records outside the checkpoint touch, and make
        the catalog from nothing.
    :raises LakeError: the lake cannot be read or written.
    """
    catalog_file.write_empty_files(store)
    # Read once: another process may write it between two rounds, and what is not in it has to be looked at in each.
    known = commit_log.read_checkpoint(store, commit_log.names(store))

    def show() -> Snapshot:
        snapshot = Snapshot(commit_log.all_loads(store, known=known))
        folders.bring_up(store, snapshot, None if full else _fresh(snapshot, known))
        catalog_file.publish(store, snapshot, anew=full)
        return snapshot

    while True:
        before = commit_log.names(store)
        snapshot = commit_log.on_latest(store, show)
        if commit_log.names(store) == before:
            break
    if len(_fresh(snapshot, known)) >= CHECKPOINT_EVERY:
        commit_log.write_checkpoint(store, snapshot.records)
        sweep(store, snapshot, before=datetime.now(UTC) - DEFAULT_KEEP)
    return snapshot


def _fresh(snapshot: Snapshot, known: Collection[str]) -> list[LoadRecord]:
    """The records that are not in the checkpoint."""
    return [record for record in snapshot.records if record.path not in known]
