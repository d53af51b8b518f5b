"""Writing rows as Parquet: one file per table and day, sorted, in a layout that is fast to read.

The layout's choices (compression, row groups, sort order, bloom filters, no dictionary for ids and text) are measured.
The measurements are in ``docs/decisions/parquet-layout.md``.
"""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.commits.record import DataFile
from airflow_provider_chatexport.lake.schema.arrow import ARROW_TYPES, arrow_schema
from airflow_provider_chatexport.lake.schema.tables import SCHEMA_VERSION
from airflow_provider_chatexport.lake.schema.types import Column, Kind, Table
from airflow_provider_chatexport.lake.storage.fingerprint import file_sha256

BATCH_ROWS: Final = 20_000
ZSTD_LEVEL: Final = 3
MIN_ROW_GROUP: Final = 30_000
MAX_ROW_GROUP: Final = 122_880
# Rows wait in memory until their group is full; a group of unusually long rows is closed at this size.
MAX_GROUP_BYTES: Final = 64 * 1024 * 1024
# The size of a Parquet file is not known before it is written. A compressed row of chat has about 150 bytes.
MAX_FILE_ROWS: Final = 3_500_000
# How many files are compressed at a time, and how many batches may wait for that.
COMPRESSORS: Final = 2
MAX_WAITING: Final = 3


class RowSource(Protocol):
    """Where the rows to write come from."""

    def days(self, table: Table) -> Mapping[str, int]:
        """Return the number of rows of each day, by day (``2026-01-31``), ascending."""

    def rows(self, table: Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows: ``_day``, a date, and the table's columns; sorted by day, and within a day in table order."""


def row_group_rows(n_rows: int) -> int:
    """Return the size of row groups in rows: about four per file, so that readers can skip some, but none too small."""
    return max(MIN_ROW_GROUP, min(MAX_ROW_GROUP, n_rows // 4))


def write_empty(table: Table, path: Path) -> None:
    """Write a file without rows. It lets people query an empty table, and fixes the types that readers see.

    Only this file has the columns' descriptions. Every query reads the footers of all files, and descriptions would
    double their size.
    """
    described = [
        pa.field(column.name, ARROW_TYPES[column.kind], metadata={"description": column.doc}) for column in table
    ]
    # Nothing is written: a table without rows consists of arrays, for which pyarrow imports pandas if it can.
    pq.ParquetWriter(path, pa.schema(described), compression="zstd").close()


def write_table(
    source: RowSource,
    table: Table,
    folder: Path,
    *,
    stem: str,
    metadata: dict[str, str],
    max_file_rows: int = MAX_FILE_ROWS,
) -> Iterator[tuple[DataFile, Path]]:
    """Write a table's rows below a folder, laid out as in the lake. Yield each finished file, and where it lies.

    Rows come sorted by day. So two writers are open at a time, however many days there are.

    :param stem: the start of each file's name.
    :param metadata: goes into the files' key-value metadata, in addition to the schema version.
    :raises LakeError: the work folder is full.
    """
    try:
        yield from _written(source, table, folder, stem, metadata, max_file_rows)
    except (OSError, pa.ArrowException) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise LakeError(
            f"writing {table.name} failed in the work folder: {why}; make sure that it has room for the load's files"
        ) from None


def _written(
    source: RowSource, table: Table, folder: Path, stem: str, metadata: dict[str, str], max_file_rows: int
) -> Iterator[tuple[DataFile, Path]]:
    rows_of_day = source.days(table)
    schema = arrow_schema(table).with_metadata({"chatexport.schema_version": str(SCHEMA_VERSION), **metadata})
    writer: _DayWriter | None = None
    # The database sorts the next rows while these are compressed; neither holds Python's lock. A file has one thread.
    with ExitStack() as stack:
        threads = itertools.cycle([stack.enter_context(ThreadPoolExecutor(1)) for _ in range(COMPRESSORS)])
        thread = next(threads)
        waiting: deque[Future[None]] = deque()
        closed: list[Future[tuple[DataFile, Path]]] = []
        for batch in source.rows(table, BATCH_ROWS):
            for day, part in _by_day(batch):
                if writer is None or writer.day != day or writer.n_rows >= max_file_rows:
                    if writer is not None:
                        closed.append(thread.submit(writer.close))
                    thread = next(threads)
                    part_number = writer.part + 1 if writer is not None and writer.day == day else 0
                    writer = _DayWriter(table, schema, folder, stem, day, part_number, rows_of_day[day])
                writer.n_rows += part.num_rows
                waiting.append(thread.submit(writer.write, part))
            while len(waiting) > MAX_WAITING:
                waiting.popleft().result()
        for batch_written in waiting:
            batch_written.result()
        if writer is not None:
            closed.append(thread.submit(writer.close))
        for file in closed:
            yield file.result()


def _by_day(batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Split a batch, which is sorted by ``_day``, into runs of one day without that column."""
    days = [day.isoformat() for day in batch.column("_day").to_pylist()]
    rest = batch.drop_columns(["_day"])
    start = 0
    while start < batch.num_rows:
        end = bisect.bisect_right(days, days[start], start)
        yield days[start], rest.slice(start, end - start)
        start = end


class _DayWriter:
    """One Parquet file that is being written. It gathers batches into row groups of the right size."""

    def __init__(
        self, table: Table, schema: pa.Schema, folder: Path, stem: str, day: str, part: int, n_rows: int
    ) -> None:
        self.day = day
        self.part = part
        self._table = table
        self._schema = schema
        self._group_rows = row_group_rows(n_rows)
        self._path = f"{table.name}/{table.partition}={day}/{stem}-{part}.parquet"
        self._local = folder / self._path
        self._local.parent.mkdir(parents=True, exist_ok=True)
        self._waiting: list[pa.RecordBatch] = []
        self._n_waiting = 0
        self._waiting_bytes = 0
        self.n_rows = 0
        self._writer = pq.ParquetWriter(
            self._local,
            schema,
            compression={_leaf(column): _compression(column) for column in table},
            compression_level={_leaf(column): ZSTD_LEVEL for column in table if _compression(column) == "zstd"},
            use_dictionary=[column.name for column in table if _has_dictionary(table, column)],
            write_statistics=True,
            write_page_index=True,
            write_page_checksum=True,
            sorting_columns=pq.SortingColumn.from_ordering(
                pa.schema(list(schema)), [(name, "ascending") for name in table.sort]
            ),
            bloom_filter_options={
                name: {"ndv": min(self._group_rows, max(n_rows, 1)), "fpp": 0.01} for name in table.bloom
            },
            store_schema=True,
        )

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows to the file."""
        while self._n_waiting + batch.num_rows >= self._group_rows:
            room = self._group_rows - self._n_waiting
            self._take(batch.slice(0, room))
            self._flush()
            batch = batch.slice(room)
        if batch.num_rows:
            self._take(batch)
        if self._waiting_bytes >= MAX_GROUP_BYTES:
            self._flush()

    def close(self) -> tuple[DataFile, Path]:
        """Finish the file, and return it with its digest and where it lies."""
        self._flush()
        self._writer.close()
        written = DataFile(
            path=self._path,
            table=self._table.name,
            day=self.day,
            rows=self.n_rows,
            size_bytes=self._local.stat().st_size,
            sha256=file_sha256(self._local),
            promoted=tuple((column.name, column.kind.value) for column in self._table if column.promoted),
            schema_version=SCHEMA_VERSION,
        )
        return written, self._local

    def _take(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self._n_waiting += batch.num_rows
        self._waiting_bytes += batch.nbytes

    def _flush(self) -> None:
        if not self._n_waiting:
            return
        table = pa.Table.from_batches(self._waiting)
        columns: list[Any] = []
        for field in self._schema:
            column = table.column(field.name)
            # DuckDB gives JSON as text; the file's schema says that it is JSON.
            text = column.cast(pa.string()) if isinstance(field.type, pa.JsonType) else column
            columns.append(text.cast(field.type))
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=self._group_rows)
        self._waiting, self._n_waiting, self._waiting_bytes = [], 0, 0


def _leaf(column: Column) -> str:
    return f"{column.name}.list.element" if column.kind is Kind.TEXTS else column.name


def _compression(column: Column) -> str:
    """Return a column's codec. LZ4 decompresses several times faster; JSON is long and repetitive, and seldom read."""
    return "zstd" if column.kind is Kind.JSON else "lz4"


def _has_dictionary(table: Table, column: Column) -> bool:
    return column.name not in table.plain_encoded and column.kind in (Kind.TEXT, Kind.JSON)
