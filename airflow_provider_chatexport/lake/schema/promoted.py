"""Keys of ``custom`` with a typed column of their own, beside it.

A promoted column is a function of ``custom`` alone. So the views have it for every row: from the files that hold it,
and for those that were written without it worked out from ``custom``. Its type is the same throughout a lake.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.schema.tables import CUSTOM, TABLE_BY_NAME, TABLES
from airflow_provider_chatexport.lake.schema.types import Column, Kind, Table

# What the query of ``messages_history`` calls things beside the table's columns.
HISTORY_NAMES: Final = frozenset(
    {"valid_from", "valid_to", "_version", "_found_gone"}
    | {"_told", "_rank", "_next", "_gone", "_told_before", "_gone_before", "_exported_before"}
)
# The day folders, the column that rows are cut into them by, and what the catalog's macro ``activity`` calls a day.
_TAKEN: Final = frozenset({"event_date", "export_date", "_day", "day"}) | HISTORY_NAMES


def tables_with(promote: Mapping[str, Mapping[str, str]]) -> tuple[Table, ...]:
    """The registry's tables, those named here with their promoted columns.

    :param promote: as in ``LoadOptions``, with types as ``Kind`` has them.
    :raises CallError: there is no such table, it has no ``custom``, or the column's name is taken.
    """
    for name in promote:
        if name not in TABLE_BY_NAME or CUSTOM not in TABLE_BY_NAME[name].columns:
            known = ", ".join(table.name for table in TABLES if CUSTOM in table.columns)
            raise CallError(f"{name!r} is no table with custom fields to promote; those are {known}")
    return tuple(_with(table, promote.get(table.name, {})) for table in TABLES)


def check(promote: Mapping[str, Mapping[str, str]], in_use: Mapping[str, Mapping[str, str]]) -> None:
    """:param in_use: the columns that the lake has promoted, by table, with their types.
    :raises CallError: the lake has promoted one of these keys to another type.
    """
    for table, columns in in_use.items():
        for name, kind in columns.items():
            wanted = promote.get(table, {}).get(name, kind)
            if wanted != kind:
                raise CallError(
                    f"{table}.{name} is {kind} in this lake, and cannot be {wanted} as well; promote it to {kind}, or "
                    "begin another lake"
                )


def held_by(table: Table, promoted: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The promoted columns of the table that a file holds; others have to be worked out.

    :param promoted: the file's own, each with its type.
    """
    kinds = {column.name: column.kind.value for column in table if column.promoted}
    return frozenset(name for name, kind in promoted if kinds.get(name) == kind)


def _with(table: Table, columns: Mapping[str, str]) -> Table:
    taken = {column.name.casefold() for column in table} | _TAKEN
    for name in columns:
        if name.casefold() in taken:
            raise CallError(f"{table.name}.{name} cannot be promoted, because {table.name} has a column of that name")
        taken.add(name.casefold())
    promoted = (
        Column(
            name=name,
            kind=Kind(kind),
            doc=f"The custom field `{name}`; where it is none of this type, null.",
            promoted=True,
        )
        for name, kind in columns.items()
    )
    return replace(table, columns=(*table.columns, *promoted))
