"""The truth rule as SQL: what a query over a table's files has to leave out.

The catalog's views and compaction use the same words, so that a compacted lake shows what its views showed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

import pyarrow as pa

from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.commits.snapshot import FileState, FileStatus
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.arrow import UTC_TIME, arrow_rows
from airflow_provider_chatexport.lake.schema.types import Column, Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore


def path_in(store: LakeStore, each: FileState) -> str:
    """Where a file is read; what only history reads lies where no glob over the tables finds it."""
    path = each.file.path
    return store.history_path(path) if each.status is FileStatus.HISTORY else store.data_path(path)


def scan_files(store: LakeStore, table: Table, files: Iterable[FileState]) -> str:
    """The same over files of a lake, wherever they lie."""
    return scan(table, [store.url(path_in(store, each)) for each in files])


def scan(table: Table, urls: Sequence[str]) -> str:
    """A table function over data files, with their day folder as a column."""
    listed = ", ".join(sql.quoted(url) for url in urls)
    return f"read_parquet([{listed}], hive_partitioning = true, hive_types = {{'{table.partition}': DATE}})"


def columns(table: Table, held: Collection[str] = ()) -> str:
    """The table's columns and its day folder, of rows that are named ``rows``.

    :param held: the promoted columns that the rows have; the others come from ``custom``.
    """
    return ", ".join([*(_column(column, held) for column in table), f"rows.{sql.name(table.partition)}"])


def _column(column: Column, held: Collection[str]) -> str:
    if column.promoted and column.name not in held:
        return f"{sql.promoted(column, 'rows.custom')} AS {sql.name(column.name)}"
    return f"rows.{sql.name(column.name)}"


def hidden(table: Table, claims: str) -> str:
    """A condition on ``rows`` of an event table: a newer claim covers the row's moment.

    :param claims: a relation with the columns of ``coverage``; no begin is null.
    """
    return (
        f"EXISTS (SELECT 1 FROM {claims} newer WHERE newer.cid = rows.cid AND rows.{table.day_column} >= newer.since "
        f"AND rows.{table.day_column} < newer.until AND (newer.exported_at > rows._exported_at "
        "OR (newer.exported_at = rows._exported_at AND newer.load_id > rows._load_id)))"
    )


def uncovered(table: Table, claims: str) -> str:
    """A condition on ``rows`` of an event table: no claim of the row's own export contains its moment.

    :param claims: a relation with the columns of ``coverage``; no begin is null.
    """
    return (
        f"NOT EXISTS (SELECT 1 FROM {claims} own WHERE own.cid = rows.cid AND rows.{table.day_column} >= own.since "
        f"AND rows.{table.day_column} < own.until AND own.exported_at = rows._exported_at "
        "AND own.load_id = rows._load_id)"
    )


def newest(table: Table, owners: str | None = None) -> str:
    """For a snapshot table, the clause that keeps the newest row of each key; nothing for others.

    :param owners: where the table has owners, a relation with a row for each of their exports. Then all rows of an
        owner come from the newest: one without messages takes the messages of an older one away.
    """
    if table.placement is not Placement.SNAPSHOT:
        return ""
    if table.owned_by is not None and owners is not None:
        return (
            f" WHERE EXISTS (SELECT 1 FROM (SELECT {table.owned_by}, _exported_at, _load_id FROM {owners} QUALIFY "
            f"row_number() OVER (PARTITION BY {table.owned_by} ORDER BY _exported_at DESC, _load_id DESC) = 1) newest "
            f"WHERE newest.{table.owned_by} = rows.{table.owned_by} AND newest._exported_at = rows._exported_at "
            "AND newest._load_id = rows._load_id)"
        )
    key = ", ".join(sql.name(column) for column in table.key)
    return f" QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY _exported_at DESC, _load_id DESC) = 1"


COVERAGE_SCHEMA: Final = pa.schema(
    [
        ("cid", pa.string()),
        ("since", UTC_TIME),
        ("until", UTC_TIME),
        ("exported_at", UTC_TIME),
        ("load_id", pa.string()),
    ]
)


def coverage_rows(entries: Iterable[CoverageEntry]) -> pa.Table:
    """``cid``, ``since`` (never null), ``until``, ``exported_at``, ``load_id``."""
    return arrow_rows(
        ({name: getattr(entry, name) for name in COVERAGE_SCHEMA.names} for entry in entries), COVERAGE_SCHEMA
    )
