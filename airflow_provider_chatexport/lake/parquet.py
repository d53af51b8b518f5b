"""Writing rows as Parquet: files by size, cut at the borders of days, sorted, in a layout that is fast to read.

A load of some days writes a file per day: the next load, which looks back, then retires whole files. A load of a long
history, and a compaction, write a file per month, or several where a month exceeds the target size.

The other choices (compression, row groups, sort order, bloom filters, no dictionary for ids and text) are measured.
The measurements are in ``docs/decisions/parquet-layout.md``.
"""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_chatexport.core.times import EPOCH, format_rfc3339
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.commits.record import DataFile
from airflow_provider_chatexport.lake.duckdb_session import suspects
from airflow_provider_chatexport.lake.schema.arrow import arrow_schema, as_type
from airflow_provider_chatexport.lake.schema.tables import SCHEMA_VERSION
from airflow_provider_chatexport.lake.schema.types import Column, Kind, Placement, Table
from airflow_provider_chatexport.lake.storage.fingerprint import file_sha256

BATCH_ROWS: Final = 20_000
ZSTD_LEVEL: Final = 3
MIN_ROW_GROUP: Final = 30_000
MAX_ROW_GROUP: Final = 122_880
# Rows wait in memory until their group is full; a group of unusually long rows is closed at this size.
MAX_GROUP_BYTES: Final = 64 * 1024 * 1024
# A file of a month ends at the border of a day once it has this size. A scan reads larger ones no faster.
TARGET_BYTES: Final = 256 * 1024 * 1024
# A day goes on in another file after so many rows. A compressed row of chat has about 150 bytes.
MAX_FILE_ROWS: Final = 3_500_000
# The most days that a load writes a file each for: a window with its lookback.
MAX_DAY_FILES: Final = 14
# The most channels that the bloom filter of a row group has room for.
MAX_CHANNELS: Final = 5_000
# Longer text is not kept as a bound of a file.
MAX_BOUND: Final = 200
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
    docs = {table.date_column: table.date_doc, **{column.name: column.doc for column in table}}
    described = [field.with_metadata({"description": docs[field.name]}) for field in arrow_schema(table)]
    # Nothing is written: a table without rows consists of arrays, for which pyarrow imports pandas if it can.
    pq.ParquetWriter(path, pa.schema(described), compression="zstd").close()


def write_table(
    source: RowSource,
    table: Table,
    folder: Path,
    *,
    stem: str,
    metadata: dict[str, str],
    by_month: bool | None = None,
    target_bytes: int = TARGET_BYTES,
    max_file_rows: int = MAX_FILE_ROWS,
) -> Iterator[tuple[DataFile, Path]]:
    """Write a table's rows below a folder, laid out as in the lake. Yield each finished file, and where it lies.

    Rows come sorted by day. So two writers are open at a time, however many files there are.

    :param stem: the start of each file's name.
    :param metadata: goes into the files' key-value metadata, in addition to the schema version.
    :param by_month: write a file per month, and not per day; by default if there are more than ``MAX_DAY_FILES`` days.
        Only event tables have files of several days.
    :param target_bytes: a file of a month ends with the day in which it exceeds this size.
    :param max_file_rows: a file ends after so many rows, wherever it is.
    :raises LakeError: the work folder is full.
    """
    days = source.days(table)
    is_event = table.placement is Placement.EVENT
    by_month = is_event and (len(days) > MAX_DAY_FILES if by_month is None else by_month)
    sizes = _Sizes(by_month=by_month, target_bytes=target_bytes, max_file_rows=max_file_rows)
    layout = _Layout(table, folder, stem, metadata, days, sizes)
    try:
        yield from layout.written(source)
    except (OSError, pa.ArrowException) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise LakeError(
            f"writing {table.name} failed in the work folder: {why}; make sure that it has room for the load's files",
            # An error without a number is not the system's: the rows may come from a damaged file of the lake.
            suspects=suspects(error) if getattr(error, "errno", None) is None else None,
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """Where files end: the arguments of ``write_table``."""

    by_month: bool
    target_bytes: int
    max_file_rows: int


class _Layout:
    """Cuts the sorted rows of a table into files."""

    def __init__(
        self,
        table: Table,
        folder: Path,
        stem: str,
        metadata: dict[str, str],
        days: Mapping[str, int],
        sizes: _Sizes,
    ) -> None:
        self._table = table
        self._folder = folder
        self._stem = stem
        self._schema = arrow_schema(table).with_metadata({"chatexport.schema_version": str(SCHEMA_VERSION), **metadata})
        self._sizes = sizes
        self._n_rows: dict[str, int] = {}
        for day, n_rows in days.items():
            self._n_rows[self._unit(day)] = self._n_rows.get(self._unit(day), 0) + n_rows
        self._writer: _FileWriter | None = None
        self._names: set[str] = set()
        self._waiting: deque[Future[None]] = deque()

    def written(self, source: RowSource) -> Iterator[tuple[DataFile, Path]]:
        """Write all rows, and yield the files."""
        # The database sorts the next rows while these are compressed; neither holds Python's lock. A file has one
        # thread.
        with ExitStack() as stack:
            threads = itertools.cycle([stack.enter_context(ThreadPoolExecutor(1)) for _ in range(COMPRESSORS)])
            thread = next(threads)
            closed: list[Future[tuple[DataFile, Path]]] = []
            for batch in source.rows(self._table, BATCH_ROWS):
                begin, row_bytes = 0, batch.nbytes / max(batch.num_rows, 1)
                for day, start, end in _runs(batch):
                    if self._writer is None or self._is_at_end(self._writer, day):
                        if self._writer is not None:
                            self._waiting.append(thread.submit(self._writer.write, batch.slice(begin, start - begin)))
                            closed.append(thread.submit(self._writer.close))
                        thread, begin = next(threads), start
                        self._writer = self._next_file(day)
                    self._writer.expect(day, end - start, row_bytes)
                if self._writer is not None:
                    self._waiting.append(thread.submit(self._writer.write, batch.slice(begin)))
                self._wait(MAX_WAITING)
            self._wait(0)
            if self._writer is not None:
                closed.append(thread.submit(self._writer.close))
            for file in closed:
                yield file.result()

    def _unit(self, day: str) -> str:
        return day[:7] if self._sizes.by_month else day

    def _is_at_end(self, writer: _FileWriter, day: str) -> bool:
        """Return whether rows of a day go into another file than the one that is open."""
        if self._unit(day) != self._unit(writer.first_day) or writer.n_rows >= self._sizes.max_file_rows:
            return True
        # Compressed, rows are smaller. So the size on disk, which is known later, is looked at only now.
        if day == writer.last_day or writer.n_bytes < self._sizes.target_bytes:
            return False
        self._wait(0)
        return writer.size_bytes >= self._sizes.target_bytes

    def _wait(self, n_batches: int) -> None:
        """Wait until no more than so many batches are left to write."""
        while len(self._waiting) > n_batches:
            self._waiting.popleft().result()

    def _next_file(self, day: str) -> _FileWriter:
        names = (f"{self._stem}-{day}-{number}.parquet" for number in itertools.count())
        name = next(each for each in names if each not in self._names)
        self._names.add(name)
        path = f"{self._table.folder_of(day)}/{name}"
        n_rows = min(self._n_rows.get(self._unit(day), MAX_FILE_ROWS), self._sizes.max_file_rows)
        return _FileWriter(self._table, self._schema, self._folder, path, day, n_rows)


_EPOCH: Final = date(1970, 1, 1)


def _runs(batch: pa.RecordBatch) -> Iterator[tuple[str, int, int]]:
    """Yield the days of a batch, which is sorted by ``_day``, each with its first row and the one after its last."""
    days = batch.column("_day").view(pa.int32())
    start = 0
    while start < batch.num_rows:
        day = days[start].as_py()
        end = bisect.bisect_right(range(batch.num_rows), day, lo=start, key=lambda row: days[row].as_py())
        yield (_EPOCH + timedelta(days=day)).isoformat(), start, end
        start = end


class _FileWriter:
    """One Parquet file that is being written. It gathers batches into row groups of the right size.

    :param n_rows: how many rows it is expected to have.
    """

    def __init__(self, table: Table, schema: pa.Schema, folder: Path, path: str, first_day: str, n_rows: int) -> None:
        self.first_day = self.last_day = first_day
        self.n_rows = 0
        self.n_bytes = 0.0
        self._table = table
        self._schema = schema
        self._group_rows = row_group_rows(n_rows)
        self._path = path
        self._local = folder / path
        self._local.parent.mkdir(parents=True, exist_ok=True)
        self._waiting: list[pa.RecordBatch] = []
        self._n_waiting = 0
        self._waiting_bytes = 0
        self._sink = pa.OSFile(str(self._local), "wb")
        most = min(self._group_rows, max(n_rows, 1))
        self._writer = pq.ParquetWriter(
            self._sink,
            schema,
            compression={_leaf(column): _compression(column) for column in table},
            compression_level={_leaf(column): ZSTD_LEVEL for column in table if _compression(column) == "zstd"},
            use_dictionary=[column.name for column in table if _has_dictionary(table, column)],
            write_statistics=True,
            write_page_index=True,
            write_page_checksum=True,
            sorting_columns=pq.SortingColumn.from_ordering(
                pa.schema(list(schema)), [(name, "ascending") for name in _order(table)]
            ),
            bloom_filter_options={
                name: {"ndv": min(most, MAX_CHANNELS) if name == "cid" else most, "fpp": 0.01} for name in table.bloom
            },
            store_schema=True,
        )

    def expect(self, day: str, n_rows: int, row_bytes: float) -> None:
        """Count rows of a day that are about to be written."""
        self.last_day = day
        self.n_rows += n_rows
        self.n_bytes += n_rows * row_bytes

    @property
    def size_bytes(self) -> int:
        """How much is on disk."""
        return int(self._sink.tell())

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
        self._sink.close()
        bounded = [self._table.day_column or "_exported_at", "cid"]
        written = DataFile(
            path=self._path,
            table=self._table.name,
            first_day=self.first_day,
            last_day=self.last_day,
            rows=self.n_rows,
            size_bytes=self._local.stat().st_size,
            sha256=file_sha256(self._local),
            promoted=tuple((column.name, column.kind.value) for column in self._table if column.promoted),
            schema_version=SCHEMA_VERSION,
            bounds=tuple(_bounds(self._writer.writer.metadata, bounded)),
            below_files=True,
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
        columns: list[pa.ChunkedArray] = []
        for field in self._schema:
            column = table.column("_day" if field.name == self._table.date_column else field.name)
            columns.append(as_type(column, field.type))
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=self._group_rows)
        self._waiting, self._n_waiting, self._waiting_bytes = [], 0, 0


def _order(table: Table) -> Sequence[str]:
    """Return the columns that a file's rows are sorted by: a file of several days has one after the other."""
    return (table.date_column, *table.sort) if table.placement is Placement.EVENT else table.sort


def _bounds(footer: pq.FileMetaData, names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield columns of a file with their least and greatest value, as far as its statistics say them."""
    for at in range(footer.num_columns):
        name = footer.schema.column(at).path
        if name not in names:
            continue
        found = [footer.row_group(group).column(at).statistics for group in range(footer.num_row_groups)]
        found = [each for each in found if each is not None and each.has_min_max]
        if len(found) < footer.num_row_groups or not found:
            continue
        bounds = [_text(min(each.min_raw for each in found)), _text(max(each.max_raw for each in found))]
        if max(map(len, bounds)) <= MAX_BOUND:
            yield name, *bounds


def _text(raw: int | bytes) -> str:
    """Return a bound as text: of a time the microseconds, of text its bytes.

    Statistics say their values as Python's objects as well. For a time, that imports pandas, which takes a second.
    """
    return format_rfc3339(EPOCH + timedelta(microseconds=raw)) if isinstance(raw, int) else raw.decode()


def _leaf(column: Column) -> str:
    return f"{column.name}.list.element" if column.kind is Kind.TEXTS else column.name


def _compression(column: Column) -> str:
    """Return a column's codec. LZ4 decompresses several times faster; JSON is long and repetitive, and seldom read."""
    return "zstd" if column.kind is Kind.JSON else "lz4"


def _has_dictionary(table: Table, column: Column) -> bool:
    return column.name not in table.plain_encoded and column.kind in (Kind.TEXT, Kind.JSON)
