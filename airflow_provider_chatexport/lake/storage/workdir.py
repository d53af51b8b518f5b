"""Where a load or a rewrite works until it is committed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.storage.store import LakeStore

# A file that no record knows may belong to a load that is being written.
UNKNOWN_AFTER: Final = timedelta(days=1)
# As ``LakeStore.work_folder`` names those that do not lie in a lake.
_WORK_FOLDER: Final = re.compile(r"chatexport-[0-9a-f]{32}")


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


class WorkFolder:
    """The folder of work in the making; it goes when the work is done or has failed, and those go that were left beside
    it by what was killed."""

    def __init__(self, store: LakeStore, work_dir: Path | None) -> None:
        self._store = store
        if work_dir is not None:
            _make(work_dir)
        self._folder = store.work_folder(work_dir)
        drop_work_left_in(self._folder.parent, before=datetime.now(UTC) - UNKNOWN_AFTER)

    def __enter__(self) -> Path:
        return self._folder

    def __exit__(self, *_: object) -> None:
        self._store.drop_work_folder(self._folder)


def _make(work_dir: Path) -> None:
    """:raises LakeError: nothing can be written there; it is not the lake that is at fault."""
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work_dir):
            pass
    except OSError as error:
        raise LakeError(
            f"no work can be done in {work_dir} (work_dir): {error.strerror or error}; check that the place exists, "
            "has room, and may be written by this user"
        ) from None
