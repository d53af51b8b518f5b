"""Which data files are dead for good, or belong to nothing, and which work folders are nobody's; deleting them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.lake.state import Fate, LakeState, Standing
from airflow_provider_chatexport.lake.store import LakeStore

# How long a superseded file stays for those who opened the catalog before.
DEFAULT_KEEP: Final = timedelta(days=1)
# A file that no record knows may belong to a load that is being written.
UNKNOWN_AFTER: Final = timedelta(days=1)
# As ``LakeStore.work_folder`` names those that do not lie in a lake.
_WORK_FOLDER: Final = re.compile(r"chatexport-[0-9a-f]{32}")


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


def drop_work_left_in(place: Path, *, before: datetime) -> int:
    """Deletes work folders, below a place where loads work, in which nothing changed since a moment; how many.

    A load that was killed left them, and they hold exports as they came. Others may keep folders in the same place.
    """
    n_dropped = 0
    for folder in place.glob("chatexport-*"):
        with contextlib.suppress(OSError):  # whoever works there may delete it meanwhile
            if _WORK_FOLDER.fullmatch(folder.name) and _is_ours(folder) and _changed_at(folder) < before:
                shutil.rmtree(folder, ignore_errors=True)
                n_dropped += not folder.exists()
    return n_dropped


def _is_ours(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid()


def _changed_at(folder: Path) -> datetime:
    """When anything within changed last: a folder's own time says nothing of a file that grows in it."""
    return datetime.fromtimestamp(max(each.lstat().st_mtime for each in (folder, *folder.rglob("*"))), UTC)
