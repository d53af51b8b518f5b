"""The files of a lake, behind the few calls that a lake needs. Paths are relative to the lake, and written with ``/``.

Every store keeps two promises: an object appears whole or not at all, and ``put_new`` says whether it was first.

A data file is known by its path in its table's folder, such as ``messages/event_month=2026-01/x.parquet``. Its bytes
lie below ``_files`` (``data_path``), where the catalog's views read them and no glob for a table finds them. So a file
can cease to be live, and readers who opened the catalog earlier still have it.

- ``LocalStore``: while the file is live, its path in the table's folder is a hard link to the same bytes, for readers
  that use a glob.
- ``ObjectStore``: there are no links, and nothing in the tables' folders. Older versions put the bytes there. The
  record of such a file does not say that they are below ``_files``.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import duckdb

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.storage.store_errors import explain

FILES_FOLDER: Final = "_files"
# The name of a table's file without rows, which lets people query the table while it has no data.
EMPTY_FILE_PREFIX: Final = "empty-v"


class LakeStore(ABC):
    """The objects below one lake address. ``storage.address.open_store`` chooses the implementation.

    Every method raises ``LakeError`` where the store cannot be read or written.

    :param uri: the lake's address, absolute, without a slash at the end.
    """

    # Whether each question to the store is a request over a network.
    is_remote = False
    # Whether a write may take effect after the call for it has failed or was interrupted.
    writes_may_land_late = False

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def url(self, path: str) -> str:
        """Return the absolute address of an object, as DuckDB and people read it."""
        return f"{self.uri}/{path}"

    @abstractmethod
    def let_read(
        self,
        con: duckdb.DuckDBPyConnection,
        sizes: Mapping[str, int] | None = None,
        contents: Mapping[str, bytes] | None = None,
    ) -> None:
        """Enable a connection to read the lake's addresses.

        :param sizes: of data files, in bytes, by path. An object store is not asked about these files.
        :param contents: of objects that the connection needs, by path. An object store is not asked for these.
        """

    @abstractmethod
    def prepare(self) -> None:
        """Create the lake's folder where the store has folders."""

    def drop_if_empty(self) -> None:  # noqa: B027 - where folders come and go with their objects, nothing is left
        """Remove what ``prepare`` created, unless there is something in it now."""

    @contextlib.contextmanager
    def taking_turns(self) -> Iterator[None]:
        """Hold a context that processes enter one after another, where the store can arrange that.

        It saves work, and nothing is wrong without it: another process may be in the same context after all.
        """
        yield

    @abstractmethod
    def require_safe_commits(self) -> None:
        """Raise unless ``put_new`` can be trusted here, and unless what was written is listed.

        :raises LakeError: the store overwrites what it should not, does not list what it has, or cannot be written.
        """

    def check_writable(self) -> None:
        """Raise unless a load could write the lake. What did not exist before does not exist afterwards.

        :raises LakeError: it cannot be written, or the store does not keep what a lake needs.
        """
        try:
            self.prepare()
            self.require_safe_commits()
        finally:
            self.drop_if_empty()

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Return whether there is an object at the path."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Return the content of an object."""

    def read_if_there(self, path: str) -> bytes | None:
        """Return the content of an object, or None if there is none."""
        return self.read(path) if self.exists(path) else None

    @abstractmethod
    def chunks(self, path: str) -> Iterator[bytes]:
        """Yield the content of an object in chunks of a few megabytes.

        :raises OSError: the object cannot be read; ``FileNotFoundError`` where there is none.
        """

    @abstractmethod
    def walk(self, folder: str, suffix: str) -> Iterator[tuple[str, datetime]]:
        """Yield every object at any depth below a folder, with the time of its last change (aware, UTC)."""

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size of every object at any depth below a folder, in bytes, by path."""

    @abstractmethod
    def list_folder(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted paths of the objects directly in a folder; none where there is no such folder."""

    @abstractmethod
    def publish(self, local: Path, path: str) -> None:
        """Move a finished local file into the lake."""

    @abstractmethod
    def put_new(self, path: str, content: bytes) -> bool:
        """Write an object unless there is one, and return whether it was written."""

    @abstractmethod
    def replace(self, path: str, content: bytes, *, is_read_only: bool = False) -> None:
        """Write an object in one step over the one that may be there.

        :param is_read_only: where files have permissions, no process may write it in place.
        """

    @abstractmethod
    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects; those that are gone already are skipped."""

    @abstractmethod
    def local_copy(self, path: str, folder: Path) -> Path:
        """Return a local file with the content of an object: the object itself, or a copy in the folder."""

    @abstractmethod
    def has_moved_from(self, uri: str) -> bool:
        """Return whether this lake lies elsewhere than at an address that it once had."""

    # Data files

    @abstractmethod
    def data_files(self) -> Iterator[tuple[str, datetime]]:
        """Yield every data file that there is, in a record or not, with the time of its last change (aware, UTC)."""

    @abstractmethod
    def empty_file(self, folder: str, name: str) -> str:
        """Return where a table's file without rows lies.

        :param folder: of the table, with the day or month that the file has.
        :param name: of the file, without its ending.
        """

    @staticmethod
    def data_path(path: str) -> str:
        """Return where the bytes of a data file lie. No glob for a table or for ``*.parquet`` matches it."""
        return f"{FILES_FOLDER}/{path.removesuffix('.parquet')}.pq"

    @staticmethod
    def path_in_table(data_path: str) -> str:
        """Return the path of a data file in its table's folder; the inverse of ``data_path``."""
        return f"{data_path.removeprefix(FILES_FOLDER + '/').removesuffix('.pq')}.parquet"

    def put_data(self, local: Path, path: str) -> None:
        """Move a finished data file into the lake."""
        self.publish(local, self.data_path(path))

    def has_data(self, path: str) -> bool:
        """Return whether the bytes of a data file are there."""
        return self.exists(self.data_path(path))

    def drop_data(self, paths: Iterable[str]) -> None:
        """Delete data files under all their names."""
        self.delete(name for path in paths for name in (path, self.data_path(path)))

    def restore_data(self, path: str, sha256: str) -> bool:  # noqa: ARG002 - by default a file has one name
        """Bring the bytes of a data file back where they belong, if they are still there under another name.

        :param sha256: of the bytes.
        :return: whether they were.
        """
        return False

    # Work in progress

    @property
    @abstractmethod
    def staging(self) -> Path | None:
        """The folder for work in progress on the lake's own disk, so that publishing is a rename; None without one."""

    def drop_unfinished_uploads(self, *, before: datetime) -> int:  # noqa: ARG002 - there are none by default
        """End uploads in parts that began before a moment and never ended, and return how many there were.

        :param before: the moment, aware.
        """
        return 0

    @abstractmethod
    def unfinished_writes(self) -> Iterator[Path]:
        """Yield the local files that broken-off writes left among the lake's objects."""

    @contextlib.contextmanager
    def io_errors(self, verb: str) -> Iterator[None]:
        """Raise every error as a ``LakeError``.

        :param verb: what is being done to the lake: ``read`` or ``write``.
        """
        try:
            yield
        except LakeError:
            raise
        except Exception as error:  # noqa: BLE001 - the libraries of object stores have error trees of their own
            problem = explain(error, verb)
            message = f"cannot {verb} the lake at {self.uri}: {problem.what}; {problem.cure}"
            raise LakeError(message, retryable=not problem.is_final) from None
