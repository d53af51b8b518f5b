"""Which data files are dead for good, or belong to nothing; deleting them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from airflow_provider_chatexport.lake.state import Fate, LakeState, Standing
from airflow_provider_chatexport.lake.store import LakeStore

# How long a superseded file stays for those who opened the catalog before.
DEFAULT_KEEP: Final = timedelta(days=1)
# A file that no record knows may belong to a load that is being written.
UNKNOWN_AFTER: Final = timedelta(days=1)


def died(each: Standing, before: datetime) -> bool:
    return each.dead_since is not None and each.dead_since < before


def sweep(store: LakeStore, state: LakeState, *, before: datetime) -> tuple[str, ...]:
    """Deletes what died before a moment; the files."""
    there = {path for path, _ in store.data_files()}
    gone = tuple(
        each.file.path
        for each in state.standings
        if each.file.path in there and (each.fate is Fate.PURGED or (each.fate is Fate.DEAD and died(each, before)))
    )
    store.drop_data(gone)
    return gone


def unknown_files(store: LakeStore, state: LakeState, *, before: datetime) -> Iterator[str]:
    """Data files that no record has, last changed before a moment: work that was broken off left them."""
    known = {each.file.path for each in state.standings}
    for path, modified_at in store.data_files():
        if path not in known and modified_at < before:
            yield path
