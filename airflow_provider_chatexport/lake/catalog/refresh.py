"""The refresh after a commit: table folders, catalog and checkpoint are brought up to date with the records.

The lake is right without it. A process that dies between its commit and its refresh leaves a committed load behind,
and the next refresh shows that load.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.catalog import catalog_writer, empty_files, folders
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.log import DEFAULT_KEEP
from airflow_provider_chatexport.lake.commits.losses import Losses
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.storage.store import LakeStore

# How many records outside of the checkpoint a refresh reads one by one before it writes a new checkpoint. Writing the
# checkpoint costs about as much as reading every record once.
CHECKPOINT_EVERY: Final = 50


def refresh(store: LakeStore, *, full: bool = False, losses: Losses | None = None) -> Snapshot:
    """Bring folders, catalog and checkpoint up to date with the records, and return the snapshot that they show.

    It reads the checkpoint and the records since then, unless this store object has read them, and the last catalog. It
    opens no data file. It writes what records outside of the checkpoint can have changed.

    Two loads may finish at the same time. Each reads the list of records once more at the end, so the last one of them
    has seen all records.

    :param full: check every folder, and not only those that records outside of the checkpoint touch; and build the
        catalog from nothing.
    :param losses: the files that the same work has found lost. Those that are found here are added.
    :raises LakeError: the lake cannot be read or written.
    """
    losses = losses or Losses(store)
    # Every round checks the folders of all records that were not in the checkpoint at the start, whatever others
    # add to it meanwhile.
    known = commit_log.checkpointed(store)

    def show(snapshot: Snapshot) -> tuple[Snapshot, bool]:
        folders.sync(store, snapshot, None if full else _fresh(snapshot, known))
        try:
            is_shown = catalog_writer.publish(store, snapshot, full=full)
        except LakeError:
            if not empty_files.write_missing(store, check=True):
                raise
            is_shown = catalog_writer.publish(store, snapshot, full=full)
        return snapshot, is_shown

    while True:
        # Loads that finish together would all write a catalog for each that comes. In turns, one of them shows all.
        with store.taking_turns():
            snapshot, is_shown = losses.on_latest(show)
        if commit_log.is_latest(store, snapshot):
            break
    if not is_shown:  # a record is gone that the catalog still shows
        catalog_writer.publish(store, snapshot, full=True)
    fresh = _fresh(snapshot, known)
    commit_log.gather(store, fresh)
    if len(fresh) >= CHECKPOINT_EVERY:
        commit_log.write_checkpoint(store, snapshot.records)
        commit_log.delete_dead_files(store, snapshot, before=datetime.now(UTC) - DEFAULT_KEEP)
    return snapshot


def _fresh(snapshot: Snapshot, known: Collection[str]) -> list[LoadRecord]:
    """Return the records that are not in the checkpoint."""
    return [record for record in snapshot.records if record.path not in known]
