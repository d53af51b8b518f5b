"""The truth rule as SQL: what a query over a table's files leaves out.

A row of an event table is hidden in two steps:

1. By coverage: a newer coverage entry of its channel contains its moment (``masked``).
2. By key: of the rows of one key that coverage leaves, the newest is right (``outdated``). Where one channel and moment
   have several rows of a key, coverage leaves one, unless rows are loose. So only contested files are compared
   (``snapshot``), and of those only the keys that loose files have (``newest_of_loose_keys``).

Views, compaction, the removal of people and the guard against lost data use the same queries. So a compacted lake shows
what its views showed before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from airflow_provider_chatexport.lake.commits.contested import ACROSS_DAYS
from airflow_provider_chatexport.lake.commits.file_state import FileState, FileStatus
from airflow_provider_chatexport.lake.commits.record import DataFile
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import DAYS_SINCE_VERSION
from airflow_provider_chatexport.lake.schema.types import Column, Kind, Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore

# Time zones would need an extension of DuckDB, which not every build has.
_EXPORT_DAY: Final = "(DATE '1970-01-01' + (epoch_us(_exported_at) // 86400000000)::INTEGER)"
# What decides between two rows, as it decides between two coverage entries.
_RANK: Final = "struct_pack(exported_at := rows._exported_at, load_id := rows._load_id)"


def path_in(store: LakeStore, each: FileState) -> str:
    """Return where the bytes of a file lie."""
    in_table = is_in_table(store, each) and each.status is not FileStatus.HISTORY
    return each.file.path if in_table else store.data_path(each.file.path)


def is_in_table(store: LakeStore, each: FileState) -> bool:
    """Return whether an older version put the bytes of a file into the folder of its table, and nowhere else.

    A refresh copies them to below ``_files`` when only history reads them.
    """
    return store.is_remote and not each.file.below_files


def shown_path(store: LakeStore, file: DataFile) -> str:
    """Return where people find a live file: on a disk in the folder of its table."""
    return store.data_path(file.path) if store.is_remote and file.below_files else file.path


def sizes_of(store: LakeStore, files: Iterable[FileState]) -> dict[str, int]:
    """Return the size of each file that can be read, in bytes, by where its bytes lie."""
    return {path_in(store, each): each.file.size_bytes for each in files if each.is_readable}


def scan_files(store: LakeStore, table: Table, files: Iterable[FileState], *, address_as: str | None = None) -> str:
    """Return a relation over files of a lake, with the day of each row as a column.

    Columns that a file's version of the schema did not have yet are null.

    :param address_as: the name of a further column: the address of the row's file.
    """
    groups: dict[tuple[tuple[Column, ...], bool], list[str]] = defaultdict(list)
    for each in files:
        lacking = tuple(column for column in table if column.added_in > each.file.schema_version)
        has_days = each.file.schema_version >= DAYS_SINCE_VERSION
        groups[lacking, has_days].append(store.url(path_in(store, each)))
    parts = [
        (lacking, scan(table, urls, has_days=has_days, address_as=address_as))
        for (lacking, has_days), urls in groups.items()
    ]
    if not parts:
        return scan(table, [])
    if len(parts) == 1 and not parts[0][0]:
        return parts[0][1]
    queries = (f"SELECT *{_nulls(lacking)} FROM {relation}" for lacking, relation in parts)
    return f"({' UNION ALL BY NAME '.join(queries)})"


def _nulls(columns: Iterable[Column]) -> str:
    return "".join(f", NULL::{column.kind.value} AS {sql.name(column.name)}" for column in columns)


def scan(table: Table, urls: Sequence[str], *, has_days: bool = True, address_as: str | None = None) -> str:
    """Return a relation that reads data files by their addresses, with the day of each row as a column.

    :param has_days: the files have that column, if it is an event table. If not, their folder's name is their day.
    :param address_as: the name of a further column: the address of the row's file.
    """
    files = f"[{', '.join(sql.quoted(url) for url in urls)}]"
    if address_as is not None:
        files += f", filename = {sql.quoted(address_as)}"
    if table.placement is not Placement.EVENT:
        rows = f"read_parquet({files}, hive_partitioning = false)"
        return f"(SELECT *, {_EXPORT_DAY} AS {table.date_column} FROM {rows})"
    if has_days:
        return f"read_parquet({files}, hive_partitioning = false)"
    return f"read_parquet({files}, hive_partitioning = true, hive_types = {{'{table.date_column}': DATE}})"


def columns(table: Table, held: Collection[str] = ()) -> str:
    """Return the select list of a table's columns and the day, from a relation with the alias ``rows``.

    JSON is text in the files, and becomes JSON here.

    :param held: the promoted columns that the relation has; the others are computed from ``custom``.
    """
    return ", ".join([*(_column(column, held) for column in table), f"rows.{sql.name(table.date_column)}"])


def _column(column: Column, held: Collection[str]) -> str:
    if column.promoted and column.name not in held:
        return f"{sql.promoted(column, 'rows.custom')} AS {sql.name(column.name)}"
    value = f"rows.{sql.name(column.name)}"
    return f"{value}::JSON AS {sql.name(column.name)}" if column.kind is Kind.JSON else value


def unmasked(store: LakeStore, table: Table, files: Sequence[FileState], coverage: str, select: str = "rows.*") -> str:
    """Return the query for the rows of an event table's files that no newer coverage entry hides.

    :param files: at least one.
    :param coverage: a relation with the columns of ``coverage_tables.per_channel``.
    :param select: the select list, from ``rows``.
    """
    return " UNION ALL ".join(
        f"SELECT {select} FROM {scan_files(store, table, of_kind)} rows{condition}"
        for of_kind, condition in by_mask(table, files, coverage)
    )


def by_mask(table: Table, files: Sequence[FileState], coverage: str) -> Iterator[tuple[list[FileState], str]]:
    """Yield the files of an event table that need no condition, and those that do, each with its clause on ``rows``.

    :param coverage: a relation with the columns of ``coverage_tables.per_channel``.
    """
    for is_masked in (False, True):
        if of_kind := [each for each in files if each.is_masked is is_masked]:
            yield of_kind, f" WHERE NOT {masked(table, coverage)}" * is_masked


def masked(table: Table, coverage: str) -> str:
    """Return a condition on ``rows`` of an event table: a newer coverage entry contains the row's moment.

    :param coverage: a relation with the columns of ``coverage_tables.per_channel``.
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


def unless_outdated(table: Table, rows: str, newest: str) -> str:
    """Return the query for rows of an event table without those of which there is a newer one of the same key.

    :param rows: a query.
    :param newest: a relation with the columns of ``newest_of_keys``.
    """
    # A join, because DuckDB applies a query's condition on the day to both of its sides. For a NOT EXISTS, it would
    # read the files of all days.
    return f"""
        SELECT rows.* FROM ({rows}) rows
        LEFT JOIN {newest} newest ON {_same_identity(table, "newest")}
        WHERE newest._rank IS NULL OR newest._rank <= {_RANK}
    """


def outdated(table: Table, newest: str) -> str:
    """Return a condition on ``rows`` of an event table: there is a newer row of the same key.

    :param newest: a relation with the columns of ``newest_of_keys``.
    """
    return f"""
        EXISTS (SELECT 1 FROM {newest} newest WHERE {_same_identity(table, "newest")} AND newest._rank > {_RANK})
    """


def newest_of_keys(table: Table, rows: str, *, among: str | None = None, at_least: int = 1) -> str:
    """Return the query for the rank of the newest row of each key.

    :param rows: a query for rows of an event table that coverage does not hide.
    :param among: a relation with the keys to look at; by default all.
    :param at_least: only keys with as many rows.
    """
    names = ", ".join(f"rows.{name}" for name in _identity(table))
    only = f"SEMI JOIN {among} wanted ON {_same_identity(table, 'wanted')}" if among else ""
    return f"""
        SELECT {names}, max({_RANK}) AS _rank FROM ({rows}) rows {only} GROUP BY {names} HAVING count(*) >= {at_least}
    """


def newest_of_loose_keys(store: LakeStore, table: Table, files: Iterable[FileState], coverage: str) -> str | None:
    """Return the query for the rank of the newest row of each key in loose files; None if none of these is contested.

    :param files: live files of an event table. A file among them may be contested by a loose file that is not.
    :param coverage: a relation with the columns of ``coverage_tables.per_channel``.
    """
    contested = [each for each in files if each.is_contested]
    loose = [each for each in contested if each.file.is_loose]
    if not loose:
        return None
    keys = f"(SELECT {', '.join(_identity(table))} FROM {scan_files(store, table, loose)})"
    return newest_of_keys(table, unmasked(store, table, contested, coverage, keys_and_ranks(table)), among=keys)


def keys_and_ranks(table: Table) -> str:
    """Return the select list of what ``rows`` of an event table are compared by."""
    return ", ".join(f"rows.{name}" for name in (*_identity(table), "_exported_at", "_load_id"))


def _identity(table: Table) -> tuple[str, ...]:
    """Return the columns by which rows of an event table are compared; with the day if all rows of a key have the same.

    With it, a query of one day compares the rows of that day only.
    """
    day = () if table.name in ACROSS_DAYS else (table.date_column,)
    return (*(sql.name(column) for column in table.key), *day)


def _same_identity(table: Table, other: str) -> str:
    return " AND ".join(f"{other}.{name} = rows.{name}" for name in _identity(table))


def uncovered(table: Table, coverage: str, *, span: tuple[str, str] | None = None) -> str:
    """Return a condition on ``rows`` of an event table: no entry of the row's own export contains its moment.

    :param coverage: a relation with the columns of ``coverage_tables.per_channel``.
    :param span: the columns with the first and the last moment, if ``rows`` stand for all rows of a span.
    """
    first, last = span or (table.day_column, table.day_column)
    return f"""
        NOT EXISTS (
            SELECT 1 FROM {coverage} own
            WHERE own.cid = rows.cid
              AND rows.{first} >= own.since
              AND rows.{last} < own.until
              AND own.exported_at = rows._exported_at
              AND own.load_id = rows._load_id
        )
    """


def unplaced(table: Table) -> str:
    """Return a condition on ``rows`` of an event table: the row may lie at its own moment, and not at its message's."""
    return "rows.message_created_at = rows.created_at" if table.name in ACROSS_DAYS else "false"


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
