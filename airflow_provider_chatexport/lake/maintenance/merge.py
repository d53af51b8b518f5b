"""Merging files of a lake into fewer, by the truth rule: what a compaction of all and one after a load share.

Where records say that nothing is hidden (``_is_plain``), rows go from file to file as they are. Files that have no day
in common are copied one after the other. Where files share days and a comparison of their keys finds no doubled ones,
their rows are sorted.

Otherwise rows go through the truth rule. Loose rows go into a file of their own (``snapshot``), so that later loads are
compared with those rows, and not with all of the month.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa

from airflow_provider_chatexport.core.progress import COMPACT, Progress
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.contested import overlapping_days, unsettled_files
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.commits.file_state import FileState, FileStatus
from airflow_provider_chatexport.lake.commits.record import DataFile
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.duckdb_session import lake_errors
from airflow_provider_chatexport.lake.maintenance.rewrite import (
    QueriedRows,
    Rewriter,
    expected_rows,
    rows_of,
    with_days_of,
)
from airflow_provider_chatexport.lake.parquet import TARGET_BYTES, RowSource, write_table
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, USER_EXPORT_USERS
from airflow_provider_chatexport.lake.schema.types import Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import work_folder

# The table with the coverage entries that the rewritten files will have.
_COVERAGE: Final = "coverage_after"
# The table with the keys that several rows of a merge have.
_DOUBLED: Final = "doubled_keys"
# How much Arrow sorts at a time.
_BYTES_IN_MEMORY: Final = 16 * 1024 * 1024
_ROWS_IN_MEMORY: Final = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """Files of one table that are to become one, or several by size: of an event table those of one month."""

    table: Table
    files: tuple[FileState, ...]

    @property
    def data_files(self) -> list[DataFile]:
        """What the records say of the files."""
        return [each.file for each in self.files]


@dataclass(slots=True, kw_only=True)
class Merged:
    """What was written.

    :ivar files: the new files, and where each lies now.
    :ivar rewritten: of messages, old paths with the paths of the files that have all of their rows now.
    """

    files: dict[DataFile, Path]
    rewritten: dict[str, list[str]]

    def facts(self, kind: str, before: Collection[DataFile]) -> dict[str, Any]:
        """Return what the record of the rewrite says of it.

        :param before: the files that were merged.
        """
        n_read, n_rows = (sum(file.rows for file in files) for files in (before, self.files))
        return {"kind": kind, "rows_read": n_read, "rows_hidden": n_read - n_rows, "rewritten": self.rewritten}


def is_small(each: FileState) -> bool:
    """Return whether a file is worth merging: a scan reads larger ones as fast as any."""
    return each.file.size_bytes < TARGET_BYTES


def is_all_loose(file: DataFile) -> bool:
    """Return whether all rows of a file are loose."""
    return file.n_uncovered + file.n_unplaced >= file.rows


def in_portions(files: Iterable[FileState]) -> Iterator[list[FileState]]:
    """Yield files in groups of about the target size, in the order of their days."""
    group: list[FileState] = []
    for each in sorted(files, key=lambda each: (each.file.last_day, each.file.path)):
        group.append(each)
        if sum(other.file.size_bytes for other in group) >= TARGET_BYTES:
            yield group
            group = []
    if group:
        yield group


class Merger(Rewriter):
    """Reads files of a lake as its views show them, and writes them as fewer."""

    def __init__(self, store: LakeStore, snapshot: Snapshot, folder: Path, *, threads: int) -> None:
        super().__init__(store, snapshot, folder, threads=threads)
        self._database.execute("SET preserve_insertion_order = true")
        self._n_written = 0

    @property
    def by_month(self) -> bool:
        """Whether to write a file for a month, and not for each day."""
        return True

    def write(self, merges: Sequence[Merge], coverage: Collection[CoverageEntry], progress: Progress) -> Merged:
        """Write the new files of some merges. A merge without visible rows has none.

        :param coverage: what the record of the rewrite will cover.
        :raises LakeError: the work folder is full.
        """
        self._create_coverage(_COVERAGE, coverage)
        merged = Merged(files={}, rewritten={})
        for number, merge in enumerate(merges):
            progress(COMPACT, number, len(merges))
            files = dict(self._write(merge))
            merged.files.update(files)
            if merge.table.name == MESSAGES.name and sum(file.rows for file in files) == sum(
                file.rows for file in merge.data_files
            ):
                merged.rewritten |= {file.path: [new.path for new in files] for file in merge.data_files}
        return merged

    def _write(self, merge: Merge) -> Iterator[tuple[DataFile, Path]]:
        match merge.table.placement:
            case Placement.EVENT:
                yield from self._write_events(merge)
            case Placement.SNAPSHOT:
                yield from self._write_query(merge, self._newest_rows(merge))
            case Placement.LOG:
                yield from self._write_query(merge, self._unexpired_rows(merge))

    def _write_events(self, merge: Merge) -> Iterator[tuple[DataFile, Path]]:
        """Write files of an event table: of each key the newest row, and loose rows apart."""
        table, files = merge.table, merge.files
        shared = unsettled_files(files)
        has_doubled = bool(shared) and self._find_doubled_keys(table, shared)
        if not has_doubled and all(map(_is_plain, files)):
            yield from self._write_rows(merge, _PlainRows(self, merge))
            return
        rows = self._visible_rows(table, files, visibility.columns(table))
        if has_doubled:
            rows = visibility.unless_outdated(table, rows, _DOUBLED)
        if not any(each.file.is_loose for each in files):
            yield from self._write_query(merge, rows)
            return
        is_uncovered = visibility.uncovered(table, _COVERAGE)
        is_unplaced = visibility.unplaced(table) if any(each.file.n_unplaced for each in files) else "false"
        n_rows, n_loose, n_uncovered, n_unplaced = self._database.one(
            f"""
            SELECT count(*), count(*) FILTER (is_uncovered OR is_unplaced),
                count(*) FILTER (is_uncovered), count(*) FILTER (is_unplaced)
            FROM (SELECT {is_uncovered} AS is_uncovered, {is_unplaced} AS is_unplaced FROM ({rows}) rows)
            """
        )
        is_loose = f"({is_uncovered} OR {is_unplaced})"
        if n_loose < n_rows:
            yield from self._write_query(merge, f"SELECT * FROM ({rows}) rows WHERE NOT {is_loose}")
        if n_loose:
            loose = f"SELECT * FROM ({rows}) rows WHERE {is_loose}"
            for file, local in self._write_query(merge, loose, suffix="-loose"):
                # Which of several files has which of them is not counted.
                counts = min(file.rows, n_uncovered), min(file.rows, n_unplaced)
                yield replace(file, n_uncovered=counts[0], n_unplaced=counts[1]), local

    def _write_query(self, merge: Merge, rows: str, suffix: str = "") -> Iterator[tuple[DataFile, Path]]:
        return self._write_rows(merge, QueriedRows(self._database, [rows], merge.data_files), suffix)

    def _write_rows(self, merge: Merge, source: RowSource, suffix: str = "") -> Iterator[tuple[DataFile, Path]]:
        self._n_written += 1
        stem = f"{self._stem}-{self._n_written}{suffix}"
        for file, local in write_table(
            source, merge.table, self._files_folder, stem=stem, metadata=self._metadata, by_month=self.by_month
        ):
            yield with_days_of(file, merge.data_files), local

    def _has_hidden_rows(self, table: Table, files: Sequence[FileState]) -> bool:
        (n_rows,) = self._database.one(f"SELECT count(*) FROM ({self._visible_rows(table, files)})")
        return bool(n_rows < sum(each.file.rows for each in files))

    def _find_doubled_keys(self, table: Table, files: Sequence[FileState]) -> bool:
        """Create the table of the keys that several visible rows have, each with the newest rank; return if any has."""
        keys = visibility.newest_of_keys(table, self._visible_rows(table, files), at_least=2)
        self._database.execute(f"CREATE OR REPLACE TABLE {_DOUBLED} AS {keys}")
        (n_keys,) = self._database.one(f"SELECT count(*) FROM {_DOUBLED}")
        return bool(n_keys)

    def _visible_rows(self, table: Table, files: Sequence[FileState], select: str | None = None) -> str:
        """Return the query over files of an event table that gives what the views show.

        :param select: the select list; by default keys and ranks.
        """
        hidden = [each for each in files if self._may_have_hidden_rows(each)]
        whole = [each for each in files if not self._may_have_hidden_rows(each)]
        return " UNION ALL ".join(
            f"""
            SELECT {select or visibility.keys_and_ranks(table)}
            FROM {visibility.scan_files(self._store, table, some)} rows WHERE {condition}
            """
            for some, condition in ((hidden, self._is_visible(table)), (whole, "true"))
            if some
        )

    def _newest_rows(self, merge: Merge) -> str:
        """Return the query for the rows of a snapshot table's files that are the newest of their key there.

        Of a table with owners: those that are from the newest export of their owner in the lake.
        """
        table = merge.table
        owners = None
        if table.owned_by is not None:
            owners = self._scan(USER_EXPORT_USERS, self._snapshot.live_files_of(USER_EXPORT_USERS))
        return f"""
            SELECT {visibility.columns(table)} FROM {self._scan(table, merge.files)} rows
            {visibility.newest(table, owners)}
        """

    def _unexpired_rows(self, merge: Merge) -> str:
        """Return the query for rejects or other entities, without those of expired loads."""
        expired = ", ".join(sql.quoted(load_id) for load_id in sorted(self._snapshot.expired_loads)) or "''"
        return f"""
            SELECT {visibility.columns(merge.table)} FROM {self._scan(merge.table, merge.files)} rows
            WHERE _load_id NOT IN ({expired})
        """

    def _scan(self, table: Table, files: Iterable[FileState]) -> str:
        return visibility.scan_files(self._store, table, files)

    def plain_rows(self, table: Table, portion: Sequence[FileState], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield all rows of files in the order of a file. No two rows have one key.

        :param portion: the files, by day.
        """
        # JSON stays text: as JSON, every value would be parsed.
        query = f"FROM {self._scan(table, portion)}"
        files = [each.file for each in portion]
        is_sorted = _follow_one_another(portion)
        if is_sorted or not _fits_in_memory(files):
            yield from rows_of(self._database, table, files, query, batch_rows, is_sorted=is_sorted)
            return
        # Most loads merge nothing, and this takes a tenth of the time of a small load to import.
        import pyarrow.compute as pc  # noqa: PLC0415

        # Arrow sorts rows that fit into memory by their keys alone, in a third of the time that DuckDB takes.
        rows = pa.Table.from_batches(rows_of(self._database, table, files, query, batch_rows, is_sorted=True))
        keys = ["_day", *table.sort]
        in_order = pc.sort_indices(rows.select(keys), sort_keys=[(name, "ascending") for name in keys])
        yield from rows.take(in_order).to_batches(batch_rows)


_AMerger = TypeVar("_AMerger", bound=Merger)


@contextlib.contextmanager
def merging(
    store: LakeStore, work_dir: Path | None, merger_in: Callable[[Path], _AMerger], *, fails: str
) -> Iterator[_AMerger]:
    """Yield a merger with a work folder.

    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :param merger_in: returns the merger for a folder.
    :param fails: what fails if its database does, such as ``be compacted``.
    :raises LakeError: its database failed.
    """
    with (
        lake_errors(
            f"the lake at {store.uri} cannot {fails}",
            hint="run chatexport verify to see which file cannot be read, and make sure that the work folder has room",
        ),
        work_folder(store, work_dir) as folder,
        merger_in(folder) as merger,
    ):
        yield merger


class _PlainRows:
    """All rows of files of an event table, of which no two have one key, as ``write_table`` takes them."""

    def __init__(self, merger: Merger, merge: Merge) -> None:
        self._merger = merger
        self._merge = merge

    def days(self, table: Table) -> Mapping[str, int]:
        """Return a day of the month with the number of rows."""
        return expected_rows(table, self._merge.data_files)

    def rows(self, table: Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows, by day."""
        for portion in _portions(self._merge.files):
            yield from self._merger.plain_rows(table, portion, batch_rows)


def _portions(files: Iterable[FileState]) -> Iterator[list[FileState]]:
    """Yield files to read by one query, by day: no two files of different portions have a day in common.

    A query costs more than the rows of a small file.
    """
    portion: list[FileState] = []
    for group in overlapping_days(files):
        if portion and not _fits_in_memory(each.file for each in (*portion, *group)):
            yield portion
            portion = []
        portion += group
    if portion:
        yield portion


def _follow_one_another(files: Sequence[FileState]) -> bool:
    """Return whether a query over files, which are by day, gives their rows in the order of a file."""
    versions = {each.file.schema_version for each in files}
    return len(versions) == 1 and not any(one.file.shares_days(other.file) for one, other in pairwise(files))


def _fits_in_memory(files: Iterable[DataFile]) -> bool:
    """Return whether all rows of some files take some 100 MB of memory at most."""
    files = list(files)
    return sum(file.size_bytes for file in files) <= _BYTES_IN_MEMORY and sum(file.rows for file in files) <= (
        _ROWS_IN_MEMORY
    )


def _is_plain(each: FileState) -> bool:
    """Return whether views show all rows of a file, without a comparison by key."""
    return each.status is FileStatus.WHOLE and not each.file.is_loose
