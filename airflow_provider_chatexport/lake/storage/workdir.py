"""Temporary work folders: where a load or a rewrite works until it is committed, and what killed ones left.

A work folder lies in ``_staging`` on the lake's own disk, so that publishing a file is a rename. Where the lake has no
disk, or the user names a ``work_dir``, it is ``chatexport-<32 hex digits>`` in ``work_dir`` or in the system's
temporary folder. It may hold an export as it came, so only its owner may read it, and it has to go in the end.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from stat import S_ISDIR
from typing import Final

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.storage.local_store import STAGING_FOLDER, create_in_folder, matching
from airflow_provider_chatexport.lake.storage.store import LakeStore

# A file that is in no record may belong to a load that is being written.
UNKNOWN_AFTER: Final = timedelta(days=1)
# Outside of a lake, others may keep folders of their own in the same place.
_OUTSIDE_A_LAKE: Final = re.compile(r"chatexport-[0-9a-f]{32}")
_ATTEMPTS: Final = 100


@contextlib.contextmanager
def work_folder(store: LakeStore, work_dir: Path | None = None) -> Iterator[Path]:
    """Yield a new work folder, and delete it at the end.

    Also deletes the old work folders that killed processes left in the same place.

    :raises LakeError: the folder cannot be created.
    """
    folder = _create_work_folder(store, work_dir)
    drop_work_left_in(folder.parent, before=datetime.now(UTC) - UNKNOWN_AFTER)
    try:
        yield folder
    finally:
        _drop_work_folder(folder)


def drop_leftovers(store: LakeStore, *, before: datetime) -> int:
    """Delete what killed processes left of work on a lake, if nothing in it changed since a moment.

    :param before: the moment, aware.
    :return: how many folders and files were deleted.
    :raises LakeError: the lake cannot be written.
    """
    staging = store.staging
    if staging is None:  # loads into this lake work in the temporary folder, unless the user named another
        n_dropped = drop_work_left_in(Path(tempfile.gettempdir()), before=before)
        return n_dropped + store.drop_unfinished_uploads(before=before)
    with store.io_errors("write"):
        folders = [folder for folder in matching(staging, "*") if _is_older(folder, before)]
        files = [path for path in store.unfinished_writes() if _is_older(path, before)]
        for folder in folders:
            _drop_work_folder(folder)
        for path in files:
            path.unlink(missing_ok=True)
    return len(folders) + len(files)


def drop_work_left_in(place: Path, *, before: datetime) -> int:
    """Delete this user's work folders in a place outside of a lake, if nothing in them changed since a moment.

    :param before: the moment, aware.
    :return: how many folders were deleted.
    """
    n_dropped = 0
    for folder in matching(place, "chatexport-*"):
        if _OUTSIDE_A_LAKE.fullmatch(folder.name) and _is_ours(folder) and _is_older(folder, before):
            shutil.rmtree(folder, ignore_errors=True)
            n_dropped += not folder.exists()
    return n_dropped


def _create_work_folder(store: LakeStore, work_dir: Path | None) -> Path:
    if work_dir is not None:
        _check_writable(work_dir)
    if work_dir is None and store.staging is not None:
        folder = store.staging / uuid.uuid4().hex
    else:
        folder = (work_dir or Path(tempfile.gettempdir())) / f"chatexport-{uuid.uuid4().hex}"
    with store.io_errors("write"):
        create_in_folder(folder, lambda: folder.mkdir(mode=0o700))
    return folder


def _drop_work_folder(folder: Path) -> None:
    # A process that opened a table's folder before it was swapped out may still add files: delete until it is gone.
    for _ in range(_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
    if folder.parent.name == STAGING_FOLDER:
        with contextlib.suppress(OSError):  # another load is at work in it
            folder.parent.rmdir()


def _is_ours(folder: Path) -> bool:
    """Return whether this user created the folder; False where another process has just deleted it."""
    try:
        stat = folder.lstat()
    except OSError:
        return False
    return S_ISDIR(stat.st_mode) and stat.st_uid == os.geteuid()


def _is_older(path: Path, before: datetime) -> bool:
    """Return whether neither a path nor anything below it changed since a moment.

    A folder's own time says nothing of a file that grows in it. False where another process has just deleted the path.
    """
    try:
        changed_at = max(each.lstat().st_mtime for each in (path, *path.rglob("*")))
    except OSError:
        return False
    return datetime.fromtimestamp(changed_at, UTC) < before


def _check_writable(work_dir: Path) -> None:
    """Create ``work_dir``, and a file in it.

    :raises LakeError: that fails; the sentence names the work folder, because nothing is wrong with the lake.
    """
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work_dir):
            pass
    except OSError as error:
        raise LakeError(
            f"the work folder {work_dir} (work_dir) cannot be used: {error.strerror or error}; check that the place "
            "exists, has room, and may be written by this user"
        ) from None
