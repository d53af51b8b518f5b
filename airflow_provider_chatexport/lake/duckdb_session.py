"""One in-memory DuckDB for a piece of work: held to a memory limit, spilling to a work folder, with times in UTC."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.errors import LakeError

# Where a data file lies, without its ending: in its table's folder, or below ``_files``.
_DATA_FILE: Final = re.compile(r"([a-z_]+/[a-z_]+=[\d-]+/[\w-]+)\.(?:parquet|pq)\b")
# Errors that damaged bytes do not lead to. An IO error names the file.
_NOT_OF_FILES: Final = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.IOException,
    duckdb.InterruptException,
    duckdb.OutOfMemoryException,
    duckdb.ParserException,
)
# Rows of ten kilobytes and more need more memory: every core holds thousands of them at a time.
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
        raise LakeError(f"{failed} ({type(error).__name__}); {hint}", suspects=suspects(error)) from None


def suspects(error: Exception) -> tuple[str, ...] | None:
    """Return the paths of the data files that an error names; none if any may be damaged, None if that is no cause.

    DuckDB and Arrow do not always say which file they read. A message may quote values, and this takes nothing else
    from it.
    """
    if named := tuple(dict.fromkeys(f"{path}.parquet" for path in _DATA_FILE.findall(str(error)))):
        return named
    return None if isinstance(error, _NOT_OF_FILES) else ()


class Database:
    """An in-memory database. Every method raises ``duckdb.Error`` where a statement fails.

    :param folder: the work folder. What does not fit into memory spills to it.
    :param memory_limit: as DuckDB writes it, such as ``400MB``.
    :param threads: how many cores it uses; by default all.
    """

    def __init__(self, folder: Path, *, memory_limit: str, threads: int | None = None) -> None:
        # In memory, because a database file would write every row twice.
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
        quiet(self._con)
        self._is_roomy = False
        self._set_threads = f"SET threads = {threads}" if threads else "RESET threads"
        self._con.execute(self._set_threads)

    def execute(self, statement: str, parameters: Mapping[str, Any] | None = None) -> duckdb.DuckDBPyConnection:
        """Run a statement. If it does not fit into the memory limit, run it once more after ``make_room``."""
        return self._with_room(lambda: self._con.execute(statement, parameters))

    def one(self, query: str) -> tuple[Any, ...]:
        """Return the only row of a query."""
        return self.execute(query).fetchall()[0]

    def all(self, query: str) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        return self.execute(query).fetchall()

    def query(self, query: str) -> duckdb.DuckDBPyRelation:
        """Return a query whose rows are read as they are asked for, next to other queries and from any thread.

        It sees no temporary tables and no registered rows.
        """
        return quiet(self._con.cursor()).sql(query)

    def fetched(self, query: str) -> list[tuple[Any, ...]]:
        """Return all rows of a query that runs next to others and from any thread, and sees what ``query`` sees."""
        return self._with_room(lambda: quiet(self._con.cursor()).execute(query).fetchall())

    def make_room(self) -> None:
        """Use one core and a higher memory limit from now on: slower, for very large rows."""
        self._is_roomy = True
        self._con.cursor().execute(f"SET threads = 1; SET memory_limit = '{ROOMY_LIMIT}'")

    @contextlib.contextmanager
    def registered(self, name: str, rows: pa.Table) -> Iterator[None]:
        """Let statements read Arrow rows as a table while the context lasts."""
        self._con.register(name, rows)
        try:
            yield
        finally:
            self._con.unregister(name)

    @contextlib.contextmanager
    def on_one_core(self) -> Iterator[None]:
        """Use one core while the context lasts, and leave the others to Python."""
        self._con.execute("SET threads = 1")
        try:
            yield
        finally:
            if not self._is_roomy:
                self._con.execute(self._set_threads)

    @contextlib.contextmanager
    def reader_streamed(self) -> Iterator[None]:
        """Let a join stream an Arrow reader while the context lasts.

        The optimizer estimates a reader of lines at a handful of rows, and would make the join hold all of them.
        """
        self._con.execute("SET disabled_optimizers = 'build_side_probe_side'")
        try:
            yield
        finally:
            self._con.execute("RESET disabled_optimizers")

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection, for callers with queries of their own."""
        return self._con

    def close(self) -> None:
        """Close the database, and free its memory."""
        self._con.close()

    def _with_room(self, run: Callable[[], _Result]) -> _Result:
        try:
            return run()
        except duckdb.OutOfMemoryException:
            if self._is_roomy:
                raise
        self.make_room()
        return run()


def quiet(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Return the connection, without DuckDB's progress bar.

    DuckDB draws it into stdout when a query takes two seconds and it believes that its process is interactive, such as
    ``python -c``.
    """
    return con.execute("SET enable_progress_bar = false")
