"""Where a lake lies: a local folder or any fsspec address, behind the few calls that a lake needs.

Two promises hold on all of them: an object appears whole or not at all, and ``put_new`` tells whether it was first.

A data file has two addresses on a local disk, which are the same file (hard links): one in its table's folder, where a
glob finds it while it is live, and one below ``_files``, which the catalog's views read. So what a glob sees can change
without taking a file away from someone who opened the catalog before. An object store has no such thing: there, a data
file has its address in the table's folder alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import fsspec
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.schema.tables import COLUMN_NAMES

_STAGING: Final = "_staging"
_FILES: Final = "_files"
# Files without rows, that let an empty table be queried, whatever the records say.
ANCHOR_PREFIX: Final = "empty-v"
# Our own names, so that nothing else that lies in the lake's folder is ever taken for ours.
_DATA_FILE: Final = re.compile(
    r"[a-z_]+/[a-z_]+=\d{4}-\d\d-\d\d/([0-9a-f]{24}|rewrite-\d+)-[0-9a-f]{8}(-\d+)+\.parquet"
)
_BESIDE: Final = re.compile(r"\..+\.[0-9a-f]{32}")
# Stores of buckets and objects: they have no folders to make, and what they would make instead is a bucket.
_OF_OBJECTS: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl"})
# What fsspec takes for a folder and nobody means as one; it does know file:/.
_ONE_SLASH: Final = re.compile(r"(?!file:|local:)[A-Za-z][\w+.-]+:/(?!/)")
_ATTEMPTS: Final = 100

_Done = TypeVar("_Done")


class LakeStore:
    """The objects below one lake address; paths are relative to it, with ``/``.

    :raises LakeError: no file system serves the address.
    """

    def __init__(self, uri: str | Path) -> None:
        if (scheme := _ONE_SLASH.match(str(uri))) and not Path(scheme.group()).exists():
            raise LakeError(
                f"the lake address {uri} lacks a slash; write {scheme.group()}/..., or ./{uri} for a folder"
            )
        try:
            fs, root = fsspec.core.url_to_fs(str(uri), use_listings_cache=False)
        except Exception as error:  # noqa: BLE001 - each file system refuses in its own way
            why = error if isinstance(error, (ImportError, ValueError)) else type(error).__name__
            raise LakeError(
                f"no file system serves the lake address {uri}: {why}; give a folder, or an address such as "
                "s3://bucket/lake, for which there is airflow-provider-chatexport[s3]"
            ) from None
        named = {part.partition("=")[0].lower() for part in str(root).split("/") if "=" in part}
        if taken := sorted(named & COLUMN_NAMES):
            raise LakeError(
                f"the lake address {uri} has a folder {taken[0]}=..., which readers of Parquet take for that column; "
                "choose another folder"
            )
        if isinstance(fs, LocalFileSystem) and "\\" in str(root):
            raise LakeError(
                f"the lake address {uri} has a backslash, and DuckDB opens no catalog in such a folder; choose another"
            )
        self._fs: Any = fs
        self._root = str(root).rstrip("/")
        self.is_local = isinstance(fs, LocalFileSystem)
        self.uri = self._root if self.is_local else str(uri).rstrip("/")

    def url(self, path: str) -> str:
        """The address of an object, as DuckDB and people read it: absolute."""
        return f"{self.uri}/{path}"

    def let_read(self, con: duckdb.DuckDBPyConnection) -> None:
        """Lets a connection read the lake's addresses: DuckDB's own way to object stores is an extension."""
        if not self.is_local:
            con.register_filesystem(self._fs)

    def prepare(self) -> None:
        """Makes the lake's folder.

        :raises LakeError: it cannot be written.
        """
        with self._explained("write"):
            names = self._fs.protocol
            if _OF_OBJECTS.isdisjoint([names] if isinstance(names, str) else names):
                self._fs.makedirs(self._root, exist_ok=True)
            if self.is_local and not os.access(self._root, os.W_OK):
                raise PermissionError(13, "Permission denied")

    def work_folder(self, work_dir: Path | None) -> Path:
        """A new folder for a load in the making: on the lake's own disk where that is local, so that publishing is a
        rename; else below ``work_dir`` or the system's temporary folder."""
        with self._explained("write"):
            if self.is_local and work_dir is None:
                folder = Path(self._root) / _STAGING / uuid.uuid4().hex
            else:
                base = work_dir or Path(tempfile.gettempdir())
                folder = base / f"chatexport-{uuid.uuid4().hex}"
            in_its_folder(folder, lambda: folder.mkdir(mode=0o700))
            return folder

    def drop_work_folder(self, folder: Path) -> None:
        for _ in range(_ATTEMPTS):
            shutil.rmtree(folder, ignore_errors=True)
            # Whoever had opened a day's folder before another took its place may put a file into it until it is gone.
            if not folder.exists():
                break
        if folder.parent.name == _STAGING:
            with contextlib.suppress(OSError):  # another load may be at work beside this one
                folder.parent.rmdir()

    def drop_leftovers(self, *, before: datetime) -> int:
        """Removes what work that was broken off before a moment left beside the lake's objects; how much."""
        if not self.is_local:
            return 0
        with self._explained("write"):
            root = self.local_path(".")
            work = list((root / _STAGING).glob("*"))
            places = (".*", "_*/.*", "*/*=*/.*", f"{_FILES}/*/*=*/.*")
            beside = [path for place in places for path in root.glob(place) if _BESIDE.fullmatch(path.name)]
            old = [path for path in work + beside if datetime.fromtimestamp(path.lstat().st_mtime, UTC) < before]
            for path in old:
                if path.is_dir():
                    self.drop_work_folder(path)
                else:
                    path.unlink(missing_ok=True)
            return len(old)

    def exists(self, path: str) -> bool:
        with self._explained("read"):
            return bool(self._fs.exists(self._full(path)))

    def read(self, path: str) -> bytes:
        with self._explained("read"):
            return bytes(self._fs.cat_file(self._full(path)))

    def chunks(self, path: str, size_bytes: int = 4 * 1024 * 1024) -> Iterator[bytes]:
        """An object's bytes, piece by piece.

        :raises FileNotFoundError: there is no such object.
        """
        with self._fs.open(self._full(path), "rb") as stream:
            while chunk := stream.read(size_bytes):
                yield chunk

    def walk(self, folder: str, suffix: str) -> Iterator[tuple[str, datetime]]:
        """Every object below a folder, with the time of its last change (aware, UTC)."""
        with self._explained("read"):
            self._fs.invalidate_cache()
            found = self._fs.find(self._full(folder), detail=True)
        for name, facts in sorted(found.items()):
            if name.endswith(suffix):
                yield name.removeprefix(f"{self._root}/"), _modified_at(facts)

    def list(self, folder: str, suffix: str) -> list[str]:
        """Paths of the objects directly below a folder, sorted; none where there is no such folder."""
        with self._explained("read"):
            try:
                names = self._fs.ls(self._full(folder), detail=False)
            except FileNotFoundError:
                return []
        return sorted(f"{folder}/{name.rsplit('/', 1)[1]}" for name in names if name.endswith(suffix))

    def data_path(self, path: str) -> str:
        """Where a data file is read, apart from what its table's folder shows. No glob for Parquet files matches it."""
        return self.history_path(path) if self.is_local else path

    @staticmethod
    def history_path(path: str) -> str:
        """Where a data file is read that no table's folder shows any more."""
        return f"{_FILES}/{path.removesuffix('.parquet')}.pq"

    def put_data(self, local: Path, path: str) -> None:
        """Moves a finished data file into the lake; on a local disk, to where no glob sees it yet."""
        self.publish(local, self.data_path(path))

    def drop_data(self, paths: Iterable[str]) -> None:
        """Removes data files for good."""
        self.delete(name for path in paths for name in (path, self.history_path(path)))

    def has_data(self, path: str) -> bool:
        return self.exists(self.data_path(path))

    def data_files(self) -> Iterator[tuple[str, datetime]]:
        """Every data file that there is, in a record or not, by its path, with the time of its last change.

        On a local disk, not those that only a table's folder has; elsewhere, one may be in both places for a moment.
        """
        if not self.is_local:
            for path, modified_at in self.walk("", ".parquet"):
                if _DATA_FILE.fullmatch(path):
                    yield path, modified_at
        for path, modified_at in self.walk(_FILES, ".pq"):
            yield f"{path.removeprefix(_FILES + '/').removesuffix('.pq')}.parquet", modified_at

    def local_path(self, path: str) -> Path:
        """An object of a local lake as a path."""
        return Path(self._full(path))

    def publish(self, local: Path, path: str) -> None:
        """Moves a finished file into the lake."""
        with self._explained("write"):
            if self.is_local:
                _sync(local)
                target = Path(self._full(path))
                try:
                    in_its_folder(target, lambda: local.replace(target))
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    # Another disk: a copy beside the target, then the rename.
                    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
                    with _gone_on_error(beside):
                        shutil.copyfile(local, beside)
                        _sync(beside)
                        beside.replace(target)
            else:
                self._fs.put_file(str(local), self._full(path))

    def copy(self, path: str, to_path: str) -> None:
        """Copies an object, on the store's own side where it can do that."""
        with self._explained("write"):
            self._fs.cp_file(self._full(path), self._full(to_path))

    def put_new(self, path: str, content: bytes) -> bool:
        """Writes an object unless it exists; whether it was written."""
        with self._explained("write"):
            if not self.is_local:
                try:
                    self._fs.pipe_file(self._full(path), content, mode="create")
                except FileExistsError:
                    return False
                return True
            beside = self._write_beside(path, content)
            try:
                # A hard link is made only where no such name is: the one commit that cannot overwrite another.
                os.link(beside, self._full(path))
            except FileExistsError:
                return False
            finally:
                beside.unlink()
            _sync(Path(self._full(path)).parent)
            return True

    def replace(self, path: str, content: bytes) -> None:
        """Writes an object over whatever is there, at once."""
        with self._explained("write"):
            if self.is_local:
                self._write_beside(path, content).replace(self._full(path))
            else:
                self._fs.pipe_file(self._full(path), content)

    def delete(self, paths: Iterable[str]) -> None:
        """Removes objects; one that is gone already is as good as removed."""
        with self._explained("write"):
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm_file(self._full(path))
                if self.is_local:
                    with contextlib.suppress(OSError):  # the day folder, when it is empty now
                        Path(self._full(path)).parent.rmdir()

    def _write_beside(self, path: str, content: bytes) -> Path:
        target = Path(self._full(path))
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with _gone_on_error(beside):
            in_its_folder(beside, lambda: beside.write_bytes(content))
            _sync(beside)
        return beside

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextlib.contextmanager
    def _explained(self, verb: str) -> Any:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the libraries of object stores have error trees of their own
            what = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            raise LakeError(
                f"cannot {verb} the lake at {self.uri}: {what}; check that the place exists, has room, and may be "
                "written by this user"
            ) from None


def in_its_folder(path: Path, put: Callable[[], _Done]) -> _Done:
    """Puts something where a path says, in a folder that is made if it has to be, and that others may take away at any
    moment because it is empty."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return put()
    return put()


@contextlib.contextmanager
def _gone_on_error(path: Path) -> Iterator[None]:
    """Half a file of a disk that is full takes the room of what would come after it."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _modified_at(facts: dict[str, Any]) -> datetime:
    """File systems have no common name for it: local ones say mtime, object stores LastModified or updated."""
    found = next((facts[name] for name in ("mtime", "LastModified", "last_modified", "updated") if name in facts), None)
    match found:
        case datetime():
            return found.astimezone(UTC)
        case int() | float():
            return datetime.fromtimestamp(found, UTC)
        case str():
            return parse_rfc3339(found)
        case _:
            return datetime.now(UTC)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
