"""Deletes what is known to be dead: data files that no record has live, and what broken-off work left behind.

On a local disk a file that a newer load replaced stays for a while where no glob sees it, because a catalog that
someone has open may still name it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_chatexport.lake import loads
from airflow_provider_chatexport.lake.state import Fate, LakeState
from airflow_provider_chatexport.lake.store import LakeStore

DEFAULT_KEEP: Final = timedelta(days=1)
# A file that no record knows may belong to a load that is being written.
UNKNOWN_AFTER: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What was deleted: data files by why, and folders of broken-off loads."""

    superseded: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    n_work_folders: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "superseded": list(self.superseded),
            "unknown": list(self.unknown),
            "work_folders": self.n_work_folders,
        }


def vacuum(store: LakeStore, *, keep: timedelta, now: datetime, history: bool = False) -> Swept:
    """Deletes data files that have been dead for so long, and leftovers older than that and than a day.

    :param keep: how long a superseded file stays for those who opened the catalog before.
    :param history: those kept for ``messages_history`` as well.
    :param now: aware.
    :raises LakeError: the lake cannot be read or written.
    """
    state = LakeState(loads.all_loads(store, from_checkpoint=False))
    superseded = sweep(store, state, before=now - keep, history=history)
    unknown = tuple(unknown_files(store, state, before=now - max(keep, UNKNOWN_AFTER)))
    store.drop_data(unknown)
    n_work_folders = store.drop_old_work_folders(before=now - max(keep, UNKNOWN_AFTER))
    return Swept(superseded=superseded, unknown=unknown, n_work_folders=n_work_folders)


def sweep(store: LakeStore, state: LakeState, *, before: datetime, history: bool = False) -> tuple[str, ...]:
    """Deletes what died before a moment; the files."""
    there = {path for path, _ in store.data_files()}
    fates = {Fate.DEAD, Fate.HISTORY} if history else {Fate.DEAD}
    gone = tuple(
        each.file.path
        for each in state.standings
        if each.file.path in there
        and (each.fate is Fate.PURGED or (each.fate in fates and each.dead_since and each.dead_since < before))
    )
    store.drop_data(gone)
    return gone


def unknown_files(store: LakeStore, state: LakeState, *, before: datetime) -> Iterator[str]:
    """Data files that no record has, last changed before a moment: work that was broken off left them."""
    known = {each.file.path for each in state.standings}
    for path, modified_at in store.data_files():
        if path not in known and modified_at < before:
            yield path
