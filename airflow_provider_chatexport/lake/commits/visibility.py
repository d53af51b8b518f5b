"""The truth rule as SQL: what a query over a table's files leaves out.

The catalog's views and compaction use the same conditions, so a compacted lake shows what its views showed before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import pyarrow as pa

from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.commits.snapshot import FileState, FileStatus
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.arrow import UTC_TIME, arrow_rows
from airflow_provider_chatexport.lake.schema.types import Column, Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore

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
    """Return coverage entries as rows of ``cid, since, until, exported_at, load_id``, without nulls."""
    return arrow_rows(
        ({name: getattr(entry, name) for name in COVERAGE_SCHEMA.names} for entry in entries), COVERAGE_SCHEMA
    )


def path_in(store: LakeStore, each: FileState) -> str:
    """Return where the bytes of a file lie: those of history where no glob over the tables finds them."""
    path = each.file.path
    return store.history_path(path) if each.status is FileStatus.HISTORY else store.data_path(path)


def scan_files(store: LakeStore, table: Table, files: Iterable[FileState]) -> str:
    """Return a relation over files of a lake, with their day folder as a column.

    Columns that a file's version of the schema did not have yet are null.
    """
    groups: dict[tuple[Column, ...], list[str]] = defaultdict(list)
    for each in files:
        lacking = tuple(column for column in table if column.added_in > each.file.schema_version)
        groups[lacking].append(store.url(path_in(store, each)))
    if not any(groups):
        return scan(table, [url for urls in groups.values() for url in urls])
    parts = [f"SELECT *{_nulls(lacking)} FROM {scan(table, urls)}" for lacking, urls in groups.items()]
    return f"({' UNION ALL BY NAME '.join(parts)})"


def _nulls(columns: Iterable[Column]) -> str:
    return "".join(f", NULL::{column.kind.value} AS {sql.name(column.name)}" for column in columns)


def scan(table: Table, urls: Sequence[str]) -> str:
    """Return a table function that reads data files by their addresses, with their day folder as a column."""
    quoted = ", ".join(sql.quoted(url) for url in urls)
    return f"read_parquet([{quoted}], hive_partitioning = true, hive_types = {{'{table.partition}': DATE}})"


def columns(table: Table, held: Collection[str] = ()) -> str:
    """Return the select list of a table's columns and its day folder, from a relation with the alias ``rows``.

    :param held: the promoted columns that the relation has; the others are computed from ``custom``.
    """
    return ", ".join([*(_column(column, held) for column in table), f"rows.{sql.name(table.partition)}"])


def _column(column: Column, held: Collection[str]) -> str:
    if column.promoted and column.name not in held:
        return f"{sql.promoted(column, 'rows.custom')} AS {sql.name(column.name)}"
    return f"rows.{sql.name(column.name)}"


def hidden(table: Table, coverage: str) -> str:
    """Return a condition on ``rows`` of an event table: a newer coverage entry contains the row's moment.

    :param coverage: a relation with the columns of ``coverage_rows``.
    """
    return f"""
        EXISTS (
            SELECT 1 FROM {coverage} newer
            WHERE newer.cid = rows.cid
              AND rows.{table.day_column} >= newer.since
              AND rows.{table.day_column} < newer.until
              AND (
                  newer.exported_at > rows._exported_at
                  OR (newer.exported_at = rows._exported_at AND newer.load_id > rows._load_id)
              )
        )
    """


def uncovered(table: Table, coverage: str) -> str:
    """Return a condition on ``rows`` of an event table: no entry of the row's own export contains its moment.

    :param coverage: a relation with the columns of ``coverage_rows``.
    """
    return f"""
        NOT EXISTS (
            SELECT 1 FROM {coverage} own
            WHERE own.cid = rows.cid
              AND rows.{table.day_column} >= own.since
              AND rows.{table.day_column} < own.until
              AND own.exported_at = rows._exported_at
              AND own.load_id = rows._load_id
        )
    """


def newest(table: Table, owners: str | None = None) -> str:
    """Return the clause that keeps the newest row of each key of a snapshot table; nothing for other tables.

    :param owners: for a table that has owners, a relation with a row for each export of an owner. All rows of an owner
        then come from their newest export. One without messages takes the messages of an older one away.
    """
    if table.placement is not Placement.SNAPSHOT:
        return ""
    if table.owned_by is not None and owners is not None:
        return f"""
            WHERE EXISTS (
                SELECT 1 FROM (
                    SELECT {table.owned_by}, _exported_at, _load_id FROM {owners}
                    QUALIFY row_number() OVER (
                        PARTITION BY {table.owned_by} ORDER BY _exported_at DESC, _load_id DESC
                    ) = 1
                ) newest
                WHERE newest.{table.owned_by} = rows.{table.owned_by}
                  AND newest._exported_at = rows._exported_at
                  AND newest._load_id = rows._load_id
            )
        """
    key = ", ".join(sql.name(column) for column in table.key)
    return f"""
        QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY _exported_at DESC, _load_id DESC) = 1
    """
