"""The tables' folders: for whoever reads the lake by a glob, exactly the live files, and nothing half done.

On a local disk a day's folder holds links to the data files. Where several come or go at once, a new folder is made and
exchanged with the old one in one step, so that a listing shows the day before or after, never both. (What a glob makes
of names that have gone since it listed them is its own affair: DuckDB leaves them out without a word.) On an object
store the folders hold the files themselves; what is dead is deleted from there.
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
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import FileState, FileStatus, Snapshot
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.storage.local_store import LocalStore, create_in_folder
from airflow_provider_chatexport.lake.storage.object_store import ObjectStore
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import work_folder

# Files without rows, which let an empty table be queried, whatever the records say.
ANCHOR_PREFIX: Final = "empty-v"
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


def bring_up(store: LakeStore, snapshot: Snapshot, records: Iterable[LoadRecord] | None = None) -> None:
    """Makes the folders show what is live.

    :param records: look only at what these records added, hid or replaced; by default at all there is.
    :raises LakeError: the lake cannot be written.
    """
    days = _by_day(snapshot.file_states)
    wanted = set(days) if records is None else _touched_by(list(records), snapshot)
    match store:
        case LocalStore():
            if records is None:
                wanted |= {str(path.relative_to(store.root)) for path in _day_folders(store)}
            for folder in sorted(wanted):
                _show(store, folder, [each for each in days.get(folder, ()) if each.is_live])
        case ObjectStore():
            _delete_dead(store, [each for folder in wanted for each in days.get(folder, ())])


def shown(store: LocalStore) -> set[str]:
    """Paths of the data files that a glob finds on a local disk."""
    return {
        str(path.relative_to(store.root))
        for folder in _day_folders(store)
        for path in folder.glob("*.parquet")
        if not path.name.startswith(ANCHOR_PREFIX)
    }


def _by_day(file_states: Iterable[FileState]) -> Mapping[str, list[FileState]]:
    grouped: dict[str, list[FileState]] = defaultdict(list)
    for each in file_states:
        grouped[str(PurePosixPath(each.file.path).parent)].append(each)
    return grouped


def _touched_by(records: list[LoadRecord], snapshot: Snapshot) -> set[str]:
    """Day folders that may have to change for these records: of their own files, and of those that they ended."""
    ids = {record.load_id for record in records}
    # What ended a file may have been several records together, of which the latest is an older acquaintance.
    first = min((record.committed_at for record in records), default=datetime.max.replace(tzinfo=UTC))
    return {
        str(PurePosixPath(each.file.path).parent)
        for each in snapshot.file_states
        if each.record.load_id in ids or (each.dead_since is not None and each.dead_since >= first)
    }


def _day_folders(store: LocalStore) -> list[Path]:
    return [
        folder
        for table in TABLES
        for folder in store.local_path(table.name).glob(f"{table.partition}=*")
        if folder.is_dir()
    ]


def _show(store: LocalStore, folder: str, live: list[FileState]) -> None:
    target = store.local_path(folder)
    wanted = {PurePosixPath(each.file.path).name: store.local_path(store.data_path(each.file.path)) for each in live}
    there = {name for name in _names_in(target) if name.endswith(".parquet") and not name.startswith(ANCHOR_PREFIX)}
    new, gone = wanted.keys() - there, there - wanted.keys()
    try:
        if len(new) + len(gone) < 2 or not _replaced(store, target, wanted):
            for name in new:
                _link(wanted[name], target / name)
            for name in gone:
                (target / name).unlink(missing_ok=True)
        if gone and not wanted:
            with contextlib.suppress(OSError):  # an anchor keeps its folder
                target.rmdir()
    except OSError as error:
        raise LakeError(
            f"the folder {folder} of the lake at {store.uri} cannot be brought up to date: "
            f"{error.strerror or type(error).__name__}; mend that, then run chatexport catalog"
        ) from None


def _replaced(store: LocalStore, target: Path, wanted: Mapping[str, Path]) -> bool:
    """Puts a folder of the wanted links in the target's place at once; False where the system cannot do that."""
    with work_folder(store) as folder:
        other = folder / target.name
        other.mkdir()
        # Anchors, and what others have put there that is no Parquet file.
        kept = {
            name: target / name
            for name in _names_in(target)
            if name.startswith(ANCHOR_PREFIX) or not name.endswith(".parquet")
        }
        if any(file.is_dir() for file in kept.values()):
            return False
        for name, file in (kept | dict(wanted)).items():
            _link(file, other / name)
        if _exchanged(other, target):
            return True
        with contextlib.suppress(OSError):
            create_in_folder(target, lambda: other.rename(target))  # where there is none
            return True
        return False


def _link(data: Path, link: Path) -> None:
    with contextlib.suppress(FileExistsError):  # another process is showing the same file at this moment
        create_in_folder(link, lambda: os.link(data, link))


def _exchanged(one: Path, other: Path) -> bool:
    """Exchanges two folders in one step, which Linux can do and Python has no name for."""
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


def _delete_dead(store: ObjectStore, file_states: Iterable[FileState]) -> None:
    """Where a glob sees the data files themselves, dead ones go at once; history moves out of its sight before."""
    for each in file_states:
        if each.status is FileStatus.HISTORY and store.exists(each.file.path):
            store.copy(each.file.path, store.history_path(each.file.path))
        if not each.is_live:
            store.delete([each.file.path])
