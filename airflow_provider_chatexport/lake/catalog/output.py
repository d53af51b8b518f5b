"""A query's result as people take it away: rows that stream, a drawn table, a Parquet file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.errors import CallError, LakeError
from airflow_provider_chatexport.lake.catalog.query import interruptible, query_errors, relation
from airflow_provider_chatexport.lake.catalog.values import is_plain, plain, readable

# Rows that are in memory at a time: some megabytes of messages.
BATCH_ROWS: Final = 10_000


class QueryResult(NamedTuple):
    """Column names, and rows of plain values: see ``plain``."""

    columns: list[str]
    rows: list[list[Any]]


class QueryOutput:
    """One query over the catalog, checked and bound. Each method runs it; Ctrl-C ends it at any moment.

    :raises CallError: the query is wrong as it stands, is not one query, or would change something.
    :raises LakeError: a file that the query reads is missing.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, query: str) -> None:
        self._con = con
        self._bound = interruptible(con, lambda: relation(con, query))
        self.columns: list[str] = list(self._bound.columns)

    def fetch(self) -> QueryResult:
        """Return all rows.

        :raises LakeError: a file that the query reads is missing, or the query fails on a value.
        """
        return QueryResult(self.columns, [row for batch in self.batches() for row in batch])

    def batches(self, n_rows: int = BATCH_ROWS) -> Iterator[list[list[Any]]]:
        """Yield the rows as plain values, this many at a time, while the query runs.

        :raises LakeError: a file that the query reads is missing, or the query fails on a value.
        """
        with query_errors():
            reader = interruptible(self._con, lambda: readable(self._bound).to_arrow_reader(n_rows))
        try:
            while True:
                with query_errors():
                    batch = interruptible(self._con, lambda: next(reader, None))
                if batch is None:
                    return
                yield _plain_rows(batch)
        finally:
            # An open reader owns the connection.
            reader.close()

    def box(self, *, width: int, rows: int) -> str:
        """Return the result as DuckDB draws it: with types, and without the columns and rows that have no room.

        :param width: how many characters a line may have.
        :param rows: how many rows to draw: the first ones, and the last ones of at most 10000.
        :raises LakeError: a file that the query reads is missing, or the query fails on a value.
        """

        def draw() -> str:
            # A relation has no other public way to be drawn at a given width.
            with contextlib.redirect_stdout(io.StringIO()) as drawn:
                self._bound.show(max_width=width, max_rows=rows)
            return drawn.getvalue().rstrip("\n")

        with query_errors():
            return interruptible(self._con, draw)

    def write_parquet(self, path: Path) -> None:
        """Write the result to a Parquet file, with the types that it has.

        :raises CallError: the file cannot be written.
        :raises LakeError: a file that the query reads is missing, or the query fails on a value.
        """
        with query_errors():
            try:
                interruptible(self._con, lambda: self._bound.write_parquet(str(path), compression="zstd"))
            except duckdb.IOException as error:
                if str(path) not in str(error):
                    raise
                raise CallError(f"cannot write {path}; make room on its disk, or name a file elsewhere") from None


def _plain_rows(batch: pa.RecordBatch) -> list[list[Any]]:
    try:
        columns = [column.to_pylist() for column in batch.columns]
    except (ValueError, OverflowError):
        raise LakeError("the query's result has a time outside of the years 1 to 9999; cast it to text") from None
    columns = [
        values if is_plain(field.type) else [plain(value) for value in values]
        for values, field in zip(columns, batch.schema, strict=True)
    ]
    return [list(row) for row in zip(*columns, strict=True)]
