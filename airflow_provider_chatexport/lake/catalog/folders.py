"""Table folders: a reader who uses a glob finds exactly the live files there, and never a state in between.

On a local disk, a folder holds hard links to the data files of a month, or of a day. If several links come or go at
once, a new folder with all links takes the place of the old one in one step (``renameat2``). So a listing shows the
folder before the change or after it, and never a mixture. A reader may still list a folder and open its files after the
change: DuckDB silently leaves out files that are gone by then.

On an object store, there are no links, and the folders hold nothing but data files of older versions.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.file_state import FileState, FileStatus
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.storage.local_store import LocalStore, create_in_folder, matching
from airflow_provider_chatexport.lake.storage.object_store import ObjectStore
from airflow_provider_chatexport.lake.storage.store import EMPTY_FILE_PREFIX, FILES_FOLDER, LakeStore
from airflow_provider_chatexport.lake.storage.workdir import work_folder

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


def sync(store: LakeStore, snapshot: Snapshot, records: Iterable[LoadRecord] | None = None) -> None:
    """Make the folders show the live files.

    :param records: check only the folders that these records can have changed; by default all folders.
    :raises LakeError: the lake cannot be written.
    """
    by_folder = _by_folder(snapshot.readable_states)
    wanted = set(by_folder) if records is None else _touched_by(list(records), snapshot)
    match store:
        case LocalStore():
            if records is None:
                wanted |= {str(path.relative_to(store.root)) for path in _folders(store)}
            for folder in sorted(wanted):
                _show(store, folder, [each for each in by_folder.get(folder, ()) if each.is_live])
        case ObjectStore():
            for folder in sorted(wanted):
                kept = [each for each in by_folder.get(folder, ()) if each.status is FileStatus.HISTORY]
                if in_table := [each for each in kept if visibility.is_in_table(store, each)]:
                    _copy_history(store, folder, in_table)


def shown(store: LocalStore) -> set[str]:
    """Return the paths of the data files that a glob finds on a local disk."""
    return {
        str(path.relative_to(store.root))
        for folder in _folders(store)
        for path in matching(folder, "*.parquet")
        if not path.name.startswith(EMPTY_FILE_PREFIX)
    }


def _by_folder(file_states: Iterable[FileState]) -> Mapping[str, list[FileState]]:
    grouped: dict[str, list[FileState]] = defaultdict(list)
    for each in file_states:
        grouped[_folder(each)].append(each)
    return grouped


def _folder(each: FileState) -> str:
    return each.file.path.rpartition("/")[0]


def _touched_by(records: list[LoadRecord], snapshot: Snapshot) -> set[str]:
    """Return the folders that these records can have changed: of their own files, and of files that they ended."""
    ids = {record.load_id for record in records}
    # Several records can supersede a file together, and the latest of them may already be in the checkpoint. So the
    # folder of every file counts that was superseded at or after the commit of the first new record.
    first = min((record.committed_at for record in records), default=datetime.max.replace(tzinfo=UTC))
    return {
        _folder(each)
        for each in snapshot.states_since(first)
        if each.record.load_id in ids or (each.dead_since is not None and each.dead_since >= first)
    }


def _folders(store: LocalStore) -> list[Path]:
    """Return the folders of all tables; event tables of older versions of the schema have a folder per day."""
    return [
        folder
        for table in TABLES
        for key in dict.fromkeys((table.folder_key, table.date_column))
        for folder in matching(store.local_path(table.name), f"{key}=*")
        if folder.is_dir()
    ]


def _show(store: LocalStore, folder: str, live: list[FileState]) -> None:
    """Make a folder hold links to these files, and to no other data file."""
    target = store.local_path(folder)
    wanted = {PurePosixPath(each.file.path).name: store.local_path(store.data_path(each.file.path)) for each in live}
    there = {name for name in _names_in(target) if name.endswith(".parquet") and not name.startswith(EMPTY_FILE_PREFIX)}
    new, gone = wanted.keys() - there, there - wanted.keys()
    try:
        if len(new) + len(gone) < 2 or not _replaced(store, target, wanted):
            for name in new:
                _link(wanted[name], target / name)
            for name in gone:
                (target / name).unlink(missing_ok=True)
        if gone and not wanted:
            with contextlib.suppress(OSError):  # the empty file of a table keeps its folder
                target.rmdir()
    except OSError as error:
        raise LakeError(
            f"the folder {folder} of the lake at {store.uri} cannot be brought up to date: "
            f"{error.strerror or type(error).__name__}; fix that, then run chatexport catalog"
        ) from None


def _replaced(store: LocalStore, target: Path, wanted: Mapping[str, Path]) -> bool:
    """Put a folder of the wanted links in the target's place in one step; False if the system cannot do that."""
    with work_folder(store) as folder:
        other = folder / target.name
        other.mkdir()
        # The new folder keeps the empty file, and files of other kinds that people have put there.
        kept = {
            name: target / name
            for name in _names_in(target)
            if name.startswith(EMPTY_FILE_PREFIX) or not name.endswith(".parquet")
        }
        if any(file.is_dir() for file in kept.values()):
            return False
        for name, file in (kept | dict(wanted)).items():
            _link(file, other / name)
        if _exchanged(other, target):
            return True
        with contextlib.suppress(OSError):
            create_in_folder(target, lambda: other.rename(target))  # the first files of this folder
            return True
        return False


def _link(data: Path, link: Path) -> None:
    with contextlib.suppress(FileExistsError):  # another process has just linked the same file
        create_in_folder(link, lambda: os.link(data, link))


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step: a system call of Linux that Python has no function for."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    done = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return bool(done == 0)


def _names_in(folder: Path) -> set[str]:
    try:
        return {name for name in os.listdir(folder) if not name.startswith(".")}  # noqa: PTH208 - names are all we need
    except FileNotFoundError:
        return set()


def _copy_history(store: ObjectStore, folder: str, files: Iterable[FileState]) -> None:
    """Copy files of history to below ``_files``, if an older version has not moved them there."""
    copies = store.sizes(f"{FILES_FOLDER}/{folder}")
    for each in files:
        if (copy := store.data_path(each.file.path)) not in copies:
            store.copy(each.file.path, copy)
