"""The database that a load is converted in: in memory, held to a limit, spilling to a folder of the load's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.errors import LakeError

# For rows of ten kilobytes and more, of which every core holds thousands at a time: one core, and more room.
ROOMY_LIMIT: Final = "550MB"

_Result = TypeVar("_Result")


@contextlib.contextmanager
def lake_errors(failed: str, *, hint: str, out_of_memory: str | None = None) -> Iterator[None]:
    """Raise every error of DuckDB as a ``LakeError``: ``<failed> (<kind of error>); <hint>``.

    DuckDB's own message may quote the value at fault, which may be a person's text. Only its kind is passed on.

    :param failed: what failed and where, such as ``the lake at ./lake cannot be compacted``.
    :param hint: what to do.
    :param out_of_memory: the whole sentence where the work did not fit into the memory limit.
    :raises LakeError: DuckDB raised an error.
    """
    try:
        yield
    except duckdb.Error as error:
        if out_of_memory is not None and isinstance(error, duckdb.OutOfMemoryException):
            raise LakeError(out_of_memory) from None
        raise LakeError(f"{failed} ({type(error).__name__}); {hint}") from None


class Database:
    """:param folder: for what spills. :param memory_limit: as DuckDB writes it."""

    def __init__(self, folder: Path, *, memory_limit: str) -> None:
        # In memory, because a database file would write every row twice; what does not fit spills to the folder.
        self._con = duckdb.connect(
            config={
                "memory_limit": memory_limit,
                "temp_directory": str(folder / "spill"),
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        self._con.execute("SET GLOBAL TimeZone = 'UTC'")
        _quiet(self._con)
        self._is_roomy = False

    def execute(self, statement: str, parameters: Mapping[str, Any] | None = None) -> duckdb.DuckDBPyConnection:
        """Runs a statement; one that does not fit into the memory limit is run once more in ``make_room``.

        :raises duckdb.Error: it does not fit there either, or the folder is full. So does every other call.
        """
        return self._with_room(lambda: self._con.execute(statement, parameters))

    def _with_room(self, run: Callable[[], _Result]) -> _Result:
        try:
            return run()
        except duckdb.OutOfMemoryException:
            if self._is_roomy:
                raise
        self.make_room()
        return run()

    def make_room(self) -> None:
        """From now on one core and a higher limit: slower, for rows that are very large."""
        self._is_roomy = True
        self._con.cursor().execute(f"SET threads = 1; SET memory_limit = '{ROOMY_LIMIT}'")

    def one(self, query: str) -> tuple[Any, ...]:
        return self.execute(query).fetchall()[0]

    def all(self, query: str) -> list[tuple[Any, ...]]:
        return self.execute(query).fetchall()

    def query(self, query: str) -> duckdb.DuckDBPyRelation:
        """A result that is read as it is asked for, also beside others and from other threads."""
        return _quiet(self._con.cursor()).sql(query)

    def fetched(self, query: str) -> list[tuple[Any, ...]]:
        """Rows, also beside others and from other threads."""
        return self._with_room(lambda: _quiet(self._con.cursor()).execute(query).fetchall())

    @contextlib.contextmanager
    def registered(self, name: str, rows: pa.Table) -> Iterator[None]:
        """Arrow rows as a table, for as long as it takes."""
        self._con.register(name, rows)
        try:
            yield
        finally:
            self._con.unregister(name)

    @contextlib.contextmanager
    def on_one_core(self) -> Iterator[None]:
        """Leaves the others to Python."""
        self._con.execute("SET threads = 1")
        try:
            yield
        finally:
            if not self._is_roomy:
                self._con.execute("RESET threads")

    @contextlib.contextmanager
    def reader_streamed(self) -> Iterator[None]:
        """The optimizer takes a reader of lines for a handful of rows, and would have a join hold all of them."""
        self._con.execute("SET disabled_optimizers = 'build_side_probe_side'")
        try:
            yield
        finally:
            self._con.execute("RESET disabled_optimizers")

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """For those with queries of their own."""
        return self._con

    def close(self) -> None:
        self._con.close()


def _quiet(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    # Where it takes its process for an interactive one, it would draw a bar into our output.
    return con.execute("SET enable_progress_bar = false")
