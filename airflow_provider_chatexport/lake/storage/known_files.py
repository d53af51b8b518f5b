"""A file system that answers for data files of which everything is known.

DuckDB asks about each file of a query before it reads one: does it exist, how large is it, when was it changed. On an
object store each question is a request. But data files never change, and the records say how large they are. So these
questions need no request, and a query sends requests for the bytes that it reads only.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

_NEVER_CHANGED: Final = datetime(1970, 1, 1, tzinfo=UTC)
# DuckDB asks for a file in pieces, and opens it several times. A small file is one request, and is kept for a while.
_SMALL_BYTES: Final = 1024 * 1024
_KEPT_BYTES: Final = 32 * 1024 * 1024


class KnownFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Answers for known files, and leaves all others to another file system.

    :param fs: the file system.
    :param sizes: of known files, in bytes, by path as the file system names it.
    :param contents: of files that are not read from the file system at all.
    """

    cachable = False

    def __init__(
        self, fs: AbstractFileSystem, sizes: Mapping[str, int], contents: Mapping[str, bytes] | None = None
    ) -> None:
        super().__init__(skip_instance_cache=True)
        self.protocol = fs.protocol
        self._fs = fs
        self._sizes = sizes
        self._contents = contents or {}
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._n_kept_bytes = 0
        self._lock = threading.Lock()  # DuckDB reads from several threads

    def _strip(self, path: str) -> str:
        return str(self._fs._strip_protocol(path))

    def _size(self, path: str) -> int | None:
        name = self._strip(path)
        content = self._contents.get(name)
        return self._sizes.get(name) if content is None else len(content)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Return a known file's size without a request."""
        size = self._size(path)
        if size is None:
            return dict(self._fs.info(path, **options))
        return {"name": self._strip(path), "size": size, "type": "file"}

    def exists(self, path: str, **options: Any) -> bool:
        """Return whether there is a file; known ones are there."""
        return self._size(path) is not None or bool(self._fs.exists(path, **options))

    def isfile(self, path: str) -> bool:
        """Return whether a path is a file; known ones are."""
        return self._size(path) is not None or bool(self._fs.isfile(path))

    def glob(self, path: str, **options: Any) -> Any:
        """Return the files of a pattern; the path of a known file is no pattern."""
        return [self._strip(path)] if self._size(path) is not None else self._fs.glob(path, **options)

    def modified(self, path: str) -> datetime:
        """Return when a file was changed; known ones never are."""
        return _NEVER_CHANGED if self._size(path) is not None else self._fs.modified(path)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open a file. For a known one, only its bytes are asked for."""
        name = self._strip(path)
        if (content := self._contents.get(name)) is not None:
            return io.BytesIO(content)
        size = self._sizes.get(name)
        if size is None or mode != "rb":
            return self._fs.open(path, mode, **options)
        if size <= _SMALL_BYTES:
            return io.BytesIO(self._small(name, size))
        return _KnownFile(self._fs, name, mode, size=size, block_size=_SMALL_BYTES)

    def _small(self, name: str, size: int) -> bytes:
        """Return the content of a small file."""
        with self._lock:
            if (content := self._kept.get(name)) is not None:
                self._kept.move_to_end(name)
                return content
        content = _bytes_of(self._fs, name, 0, size)
        with self._lock:
            if name not in self._kept:
                self._kept[name] = content
                self._n_kept_bytes += len(content)
            while self._n_kept_bytes > _KEPT_BYTES:
                self._n_kept_bytes -= len(self._kept.popitem(last=False)[1])
        return content


class _KnownFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file whose size is known, so that opening it sends no request."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return _bytes_of(self.fs, self.path, start, end)


def _bytes_of(fs: AbstractFileSystem, name: str, start: int, end: int) -> bytes:
    """Return a part of a file. An error names the file: that of a store may not.

    Without an end, some file systems ask for the size first.
    """
    try:
        return bytes(fs.cat_file(name, start=start, end=end))
    except FileNotFoundError:
        raise FileNotFoundError(name) from None
