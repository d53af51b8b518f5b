"""A lake in a folder of a local disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import duckdb

from airflow_provider_chatexport.lake.storage.fingerprint import file_sha256
from airflow_provider_chatexport.lake.storage.store import FILES_FOLDER, LakeStore

STAGING_FOLDER: Final = "_staging"
_CHUNK_BYTES: Final = 4 * 1024 * 1024
# The temporary names that ``_temporary_name`` gives, so that no file of anyone else is ever taken for ours.
_TEMPORARY_NAME: Final = re.compile(r"\..+\.[0-9a-f]{32}")
_PLACES_OF_OBJECTS: Final = ("", "_*/", "*/*=*/", f"{FILES_FOLDER}/*/*=*/")
_ATTEMPTS: Final = 100
_LONGEST_TURN_S: Final = 10.0
_ASK_EVERY_S: Final = 0.02
_MAY_WRITE: Final = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH

_Result = TypeVar("_Result")


class LocalStore(LakeStore):
    """A lake in a local folder.

    :param root: the folder's absolute path, without a slash at the end.
    """

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.root = Path(root or "/")
        self._created: list[Path] = []

    def local_path(self, path: str) -> Path:
        """Return the path of an object in the file system."""
        return self.root / path

    @contextlib.contextmanager
    def taking_turns(self) -> Iterator[None]:
        """Hold a context that processes enter one after another. None waits longer than ``_LONGEST_TURN_S``.

        The system ends the lock of a process that dies. Some network drives have no such locks.
        """
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                folder = os.open(self.root, os.O_RDONLY)
                stack.callback(os.close, folder)
                self._lock(folder)
            yield

    @staticmethod
    def _lock(folder: int) -> None:
        until = time.monotonic() + _LONGEST_TURN_S
        while time.monotonic() < until:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_ASK_EVERY_S)
            else:
                return

    def let_read(
        self,
        con: duckdb.DuckDBPyConnection,
        sizes: Mapping[str, int] | None = None,
        contents: Mapping[str, bytes] | None = None,
    ) -> None:
        """Do nothing: DuckDB reads local files by itself."""

    def prepare(self) -> None:
        """Create the lake's folder."""
        with self.io_errors("write"):
            self._created += [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
            self.root.mkdir(parents=True, exist_ok=True)
            if not os.access(self.root, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def require_safe_commits(self) -> None:
        """Do nothing: a system that cannot make a name once and for all refuses to make it."""

    def drop_if_empty(self) -> None:
        """Remove the folders that ``prepare`` created, unless there is something in them now."""
        for folder in self._created:
            with contextlib.suppress(OSError):  # another load is at work in it
                folder.rmdir()
        self._created.clear()

    def exists(self, path: str) -> bool:
        """Return whether there is a file at the path."""
        with self.io_errors("read"):
            return self.local_path(path).exists()

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        with self.io_errors("read"):
            return self.local_path(path).read_bytes()

    def chunks(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file in chunks."""
        with self.local_path(path).open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk

    def walk(self, folder: str, suffix: str) -> Iterator[tuple[str, datetime]]:
        """Yield every file at any depth below a folder, with the time of its last change (aware, UTC)."""
        found: list[tuple[str, datetime]] = []
        with self.io_errors("read"):
            for parent, _, names in os.walk(self.local_path(folder)):
                for path in (f"{parent}/{name}" for name in names if name.endswith(suffix)):
                    with contextlib.suppress(FileNotFoundError):  # another process has just deleted it
                        modified_at = datetime.fromtimestamp(os.lstat(path).st_mtime, UTC)
                        found.append((path.removeprefix(f"{self.uri}/"), modified_at))
        yield from sorted(found)

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size of every file at any depth below a folder, in bytes, by path."""
        found = {}
        with self.io_errors("read"):
            for parent, _, names in os.walk(self.local_path(folder)):
                for path in (f"{parent}/{name}" for name in names):
                    with contextlib.suppress(FileNotFoundError):  # another process has just deleted it
                        found[path.removeprefix(f"{self.uri}/")] = os.lstat(path).st_size
        return found

    def list_folder(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted paths of the files directly in a folder; none where there is no such folder."""
        with self.io_errors("read"):
            try:
                names = os.listdir(self.local_path(folder))  # noqa: PTH208 - names are all we need
            except FileNotFoundError:
                return []
        return sorted(f"{folder}/{name}" for name in names if name.endswith(suffix))

    def publish(self, local: Path, path: str) -> None:
        """Move a finished local file into the lake."""
        target = self.local_path(path)
        with self.io_errors("write"):
            _sync(local)
            try:
                create_in_folder(target, lambda: local.replace(target))
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # The file is on another disk: copy it next to the target first, then rename the copy.
                copy = _temporary_name(target)
                with _removed_on_error(copy):
                    shutil.copyfile(local, copy)
                    _sync(copy)
                    copy.replace(target)

    def put_new(self, path: str, content: bytes) -> bool:
        """Write a file unless there is one, and return whether it was written."""
        target = self.local_path(path)
        with self.io_errors("write"):
            temporary = self._write_temporary(target, content)
            try:
                # The system makes a hard link only where no such name is: one commit cannot overwrite another.
                os.link(temporary, target)
            except FileExistsError:
                return False
            finally:
                temporary.unlink()
            _sync(target.parent)
            return True

    def replace(self, path: str, content: bytes, *, is_read_only: bool = False) -> None:
        """Write a file in one step over the one that may be there.

        To replace a file takes no permission to write it, only one to write its folder.
        """
        target = self.local_path(path)
        with self.io_errors("write"):
            temporary = self._write_temporary(target, content)
            with _removed_on_error(temporary):
                if is_read_only:
                    # A mounted share may have no permissions to set; it is then as before.
                    with contextlib.suppress(OSError):
                        temporary.chmod(temporary.stat().st_mode & ~_MAY_WRITE)
                temporary.replace(target)

    def delete(self, paths: Iterable[str]) -> None:
        """Delete files, and the folders that are empty then."""
        with self.io_errors("write"):
            for path in map(self.local_path, paths):
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # the folder has other files, or is gone
                    path.parent.rmdir()

    def local_copy(self, path: str, folder: Path) -> Path:  # noqa: ARG002 - nothing has to be copied
        """Return the path of the file itself."""
        return self.local_path(path)

    def has_moved_from(self, uri: str) -> bool:
        """Return whether the lake's folder is another one. Symbolic links and mounts give one folder several names."""
        return not (Path(uri).exists() and self.root.samefile(uri))

    def empty_file(self, folder: str, name: str) -> str:
        """Return the path in the table's folder, so that a glob over a table without rows finds a file."""
        return f"{folder}/{name}.parquet"

    def data_copies(self, path: str) -> list[str]:
        """Return the path of a live file in its table's folder, and the one below ``_files`` if these are two files."""
        data_path = self.data_path(path)
        try:
            is_linked = self.local_path(data_path).samefile(self.local_path(path))
        except FileNotFoundError:
            is_linked = False
        return [path] if is_linked else [path, data_path]

    def restore_data(self, path: str, sha256: str) -> bool:
        """Link the bytes back from the table's folder, where globs find them, if they are still there."""
        data, link = self.local_path(self.data_path(path)), self.local_path(path)
        with self.io_errors("write"):
            if not link.exists() or (data.exists() and data.samefile(link)) or file_sha256(link) != sha256:
                return False
            other = _temporary_name(data)
            create_in_folder(other, lambda: os.link(link, other))
            other.replace(data)
            return True

    def data_files(self) -> Iterator[tuple[str, datetime]]:
        """Yield every data file below ``_files``, by its path in its table's folder, with its last change."""
        for path, modified_at in self.walk(FILES_FOLDER, ".pq"):
            yield self.path_in_table(path), modified_at

    @property
    def staging(self) -> Path:
        """The folder for work in progress."""
        return self.root / STAGING_FOLDER

    def unfinished_writes(self) -> Iterator[Path]:
        """Yield the temporary files that broken-off writes left next to their targets."""
        for place in _PLACES_OF_OBJECTS:
            yield from (path for path in matching(self.root, f"{place}.*") if _TEMPORARY_NAME.fullmatch(path.name))

    @staticmethod
    def _write_temporary(target: Path, content: bytes) -> Path:
        temporary = _temporary_name(target)
        with _removed_on_error(temporary):
            create_in_folder(temporary, lambda: temporary.write_bytes(content))
            _sync(temporary)
        return temporary


def matching(folder: Path, pattern: str) -> list[Path]:
    """Return the paths below a folder that match a pattern, without those of folders that go while they are listed.

    ``Path.glob`` raises an error for these, and other processes delete empty folders at any moment.
    """
    return [folder / name for name in glob.glob(pattern, root_dir=folder, include_hidden=True)]  # noqa: PTH207


def create_in_folder(path: Path, create: Callable[[], _Result]) -> _Result:
    """Create something at a path whose folder may not exist.

    Another process may delete the folder at any moment because it is empty, so this tries again.
    """
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return create()
    return create()


def _temporary_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}")


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    """Remove a half-written file: on a full disk it would take the room of the next one."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
