"""A lake in an object store, or wherever else fsspec reaches."""

from __future__ import annotations

import contextlib
import inspect
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import duckdb

from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.storage.store import EMPTY_FILE_PREFIX, FILES_FOLDER, LakeStore
from airflow_provider_chatexport.lake.storage.store_errors import http_status

_CHUNK_BYTES: Final = 4 * 1024 * 1024
# The names that loads and rewrites of older versions gave, so that no other Parquet file is ever taken for ours.
_DATA_FILE: Final = re.compile(
    r"[a-z_]+/[a-z_]+=\d{4}-\d\d(-\d\d)?/([0-9a-f]{24}|rewrite-\d+)-[0-9a-f]{8}(-\d+|-loose)+\.parquet"
)
# Stores of buckets and objects: they have no folders, and would create a bucket instead.
WITHOUT_FOLDERS: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl"})
_SAME_STORE: Final = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}
# Shows that the store has been tried out. It lies where every load lists anyway, and is not taken for a record.
PROOF: Final = "_loads/_conditional_put"
_PROOF_TEXT: Final = b"This store does not overwrite an object if it is asked not to. Loads rely on that.\n"
# S3 may refuse a conditional write because another one is under way, and asks to repeat it.
_CONFLICT_PAUSES_S: Final = (0.1, 0.2, 0.4, 0.8, 1.6)


class ObjectStore(LakeStore):
    """A lake that fsspec reads and writes.

    :param fs: the file system. From now on it caches no listings: other processes write to the lake, too.
    :param root: the lake's folder, as the file system names it.
    """

    is_remote = True
    # A request that has been sent goes on after the process has stopped to wait for its answer.
    writes_may_land_late = True

    def __init__(self, uri: str, fs: Any, root: str) -> None:
        super().__init__(uri)
        self._fs = fs
        self._root = root
        fs.invalidate_cache()
        fs.dircache.use_listings_cache = False
        self._is_proven = False
        # Several requests for parts of one object may get parts of two versions of it.
        reader = inspect.signature(getattr(fs, "_cat_file", fs.cat_file))
        self._in_one_request = {"max_concurrency": 1} if "max_concurrency" in reader.parameters else {}

    @property
    def file_system(self) -> Any:
        """The file system that reaches the store."""
        return self._fs

    def let_read(
        self,
        con: duckdb.DuckDBPyConnection,
        sizes: Mapping[str, int] | None = None,
        contents: Mapping[str, bytes] | None = None,
    ) -> None:
        """Register the file system: DuckDB's own way to object stores is an extension that has to be downloaded."""
        # A process with a local lake does not need fsspec.
        from airflow_provider_chatexport.lake.storage.known_files import KnownFiles  # noqa: PLC0415

        names = self._fs.protocol
        for name in (names,) if isinstance(names, str) else names:
            if con.filesystem_is_registered(name):
                con.unregister_filesystem(name)
        con.register_filesystem(
            KnownFiles(
                self._fs,
                {self._full(path): size for path, size in (sizes or {}).items()},
                {self._full(path): content for path, content in (contents or {}).items()},
            )
        )

    def prepare(self) -> None:
        """Create the lake's folder, except in stores that have none."""
        if not is_without_folders(self._fs):
            with self.io_errors("write"):
                self._fs.makedirs(self._root, exist_ok=True)

    def require_safe_commits(self) -> None:
        """Try the store out, unless a listing has shown that this has been done.

        A store that ignores the condition of a write would let a load overwrite the record of another one. This costs
        one request in a lake that has been tried out, and three in a new one.
        """
        if self._is_proven:
            return
        if self.put_new(PROOF, _PROOF_TEXT):
            if self.put_new(PROOF, _PROOF_TEXT):
                self.delete([PROOF])
                raise LakeError(
                    f"the store of the lake at {self.uri} ignores the condition If-None-Match, so two loads at the "
                    "same time could overwrite each other; use a store (or a newer version of it, and of the fsspec "
                    "package for it) that knows conditional writes",
                    retryable=False,
                )
            folder, _, name = PROOF.rpartition("/")
            if PROOF not in self.list_folder(folder, name):
                self.delete([PROOF])
                raise LakeError(
                    f"the store of the lake at {self.uri} does not list what has just been written there; check the "
                    "address, and use a store with consistent listings",
                    retryable=False,
                )
        self._is_proven = True

    def exists(self, path: str) -> bool:
        """Return whether there is an object at the path."""
        with self.io_errors("read"):
            return bool(self._fs.exists(self._full(path)))

    def read(self, path: str) -> bytes:
        """Return the content of an object."""
        with self.io_errors("read"):
            return bytes(self._fs.cat_file(self._full(path), **self._in_one_request))

    def read_if_there(self, path: str) -> bytes | None:
        """Return the content of an object, or None if there is none. This is one request."""
        with self.io_errors("read"):
            try:
                return bytes(self._fs.cat_file(self._full(path), **self._in_one_request))
            except FileNotFoundError:
                return None

    def chunks(self, path: str) -> Iterator[bytes]:
        """Yield the content of an object in chunks."""
        with self._fs.open(self._full(path), "rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk

    def walk(self, folder: str, suffix: str) -> Iterator[tuple[str, datetime]]:
        """Yield every object at any depth below a folder, with the time of its last change (aware, UTC)."""
        with self.io_errors("read"):
            found = self._fs.find(self._full(folder), detail=True)
        for name, facts in sorted(found.items()):
            # Some stores have folders, too, and keep them when they are empty.
            if name.endswith(suffix) and facts["type"] != "directory":
                yield name.removeprefix(f"{self._root}/"), _modified_at(facts)

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size of every object at any depth below a folder, in bytes, by path."""
        with self.io_errors("read"):
            found = self._fs.find(self._full(folder), detail=True)
        return {name.removeprefix(f"{self._root}/"): int(facts["size"] or 0) for name, facts in found.items()}

    def list_folder(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted paths of the objects directly in a folder; none where there is no such folder."""
        with self.io_errors("read"):
            try:
                names = self._fs.ls(self._full(folder), detail=False)
            except FileNotFoundError:
                return []
        paths = sorted(f"{folder}/{name.rsplit('/', 1)[1]}" for name in names)
        self._is_proven |= PROOF in paths
        return [path for path in paths if path.endswith(suffix)]

    def publish(self, local: Path, path: str) -> None:
        """Copy a finished local file into the lake."""
        with self.io_errors("write"):
            self._fs.put_file(str(local), self._full(path))

    def copy(self, path: str, to_path: str) -> None:
        """Copy an object, on the store's own side where the store can do that."""
        with self.io_errors("write"):
            self._fs.cp_file(self._full(path), self._full(to_path))

    def put_new(self, path: str, content: bytes) -> bool:
        """Write an object unless there is one, and return whether it was written."""
        with self.io_errors("write"):
            for pause_s in _CONFLICT_PAUSES_S:
                try:
                    return self._put_new(path, content)
                except OSError as error:
                    if http_status(error) != HTTPStatus.CONFLICT:
                        raise
                time.sleep(pause_s)
            return self._put_new(path, content)

    def _put_new(self, path: str, content: bytes) -> bool:
        try:
            self._fs.pipe_file(self._full(path), content, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            # Stores that are not Amazon's do not name the condition that failed, and s3fs then does not translate it.
            if http_status(error) != HTTPStatus.PRECONDITION_FAILED:
                raise
            return False
        return True

    def replace(self, path: str, content: bytes, *, is_read_only: bool = False) -> None:  # noqa: ARG002 - no object can
        """Write an object over the one that may be there. No object can be written in place."""
        with self.io_errors("write"):
            self._fs.pipe_file(self._full(path), content)

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects; those that are gone already are skipped."""
        with self.io_errors("write"):
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm_file(self._full(path))

    def local_copy(self, path: str, folder: Path) -> Path:
        """Return a copy of an object in the folder."""
        copy = folder / path.rsplit("/", 1)[-1]
        copy.write_bytes(self.read(path))
        return copy

    def has_moved_from(self, uri: str) -> bool:
        """Return whether the address is another one. Some schemes are names of one store."""
        return _place(uri) != _place(self.uri)

    def empty_file(self, folder: str, name: str) -> str:
        """Return the path below ``_files``: a glob over a table's folder has to fail, because no live file is there."""
        return f"{FILES_FOLDER}/{folder}/{name}.pq"

    def data_files(self) -> Iterator[tuple[str, datetime]]:
        """Yield every data file; one that lies both below ``_files`` and in its table's folder comes twice."""
        for path, modified_at in self.walk("", ""):
            if path.startswith(f"{FILES_FOLDER}/") and path.endswith(".pq"):
                if f"/{EMPTY_FILE_PREFIX}" not in path:
                    yield self.path_in_table(path), modified_at
            elif _DATA_FILE.fullmatch(path):
                yield path, modified_at

    @property
    def staging(self) -> None:
        """None: the lake has no local disk."""

    def drop_unfinished_uploads(self, *, before: datetime) -> int:
        """End uploads in parts that killed processes left. No listing shows their parts, and they cost money.

        It does nothing in a store other than S3, and where the credentials do not allow it to list uploads.
        """
        if not hasattr(self._fs, "call_s3"):
            return 0
        bucket, key, _ = self._fs.split_path(self._full(""))
        n_ended = 0
        with self.io_errors("write"):
            try:
                found = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key)
            except PermissionError:
                return 0
            for each in found.get("Uploads", ()):
                if each["Key"].startswith(key) and each["Initiated"] < before:
                    with contextlib.suppress(FileNotFoundError):  # it has just ended
                        self._fs.call_s3(
                            "abort_multipart_upload", Bucket=bucket, Key=each["Key"], UploadId=each["UploadId"]
                        )
                        n_ended += 1
        return n_ended

    def unfinished_writes(self) -> Iterator[Path]:
        """Yield nothing: a write that breaks off leaves no object."""
        yield from ()

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}"


def _place(uri: str) -> tuple[str, str]:
    scheme, _, rest = uri.partition("://")
    return _SAME_STORE.get(scheme, scheme), rest


def is_without_folders(fs: Any) -> bool:
    """Return whether a file system is of buckets and objects, and has no folders."""
    names = fs.protocol
    return not WITHOUT_FOLDERS.isdisjoint([names] if isinstance(names, str) else names)


def _modified_at(facts: dict[str, Any]) -> datetime:
    """Return when an object last changed. File systems name that differently, and give it in different types."""
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
