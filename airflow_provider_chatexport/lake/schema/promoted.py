"""Promoted columns: keys of ``custom`` that have a typed column of their own as well.

A promoted column is a function of ``custom`` alone. So the views have it for every row: they read it from the files
that hold it, and compute it from ``custom`` for files that were written without it. It has one type throughout a lake.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.schema.tables import CUSTOM, TABLE_BY_NAME, TABLES
from airflow_provider_chatexport.lake.schema.types import Column, Kind, PersonalData, Table

# Names that the query of ``messages_history`` uses next to the table's columns.
HISTORY_NAMES: Final = frozenset(
    {"valid_from", "valid_to", "_version", "_found_gone"}
    | {"_told", "_rank", "_next", "_gone", "_told_before", "_gone_before", "_exported_before"}
)
# The day of a row, the folders' keys, what cuts rows into days, and the name of a day in the macro ``activity``.
_RESERVED_NAMES: Final = frozenset({"event_date", "event_month", "export_date", "_day", "day"}) | HISTORY_NAMES


def tables_with(promote: Mapping[str, Mapping[str, str]]) -> tuple[Table, ...]:
    """Return the registry's tables, with promoted columns.

    :param promote: types by table and key, as in ``LoadOptions``, with the values of ``Kind``.
    :raises CallError: there is no such table, it has no ``custom``, or the column's name is taken.
    """
    for name in promote:
        if name not in TABLE_BY_NAME or CUSTOM not in TABLE_BY_NAME[name].columns:
            known = ", ".join(table.name for table in TABLES if CUSTOM in table.columns)
            raise CallError(f"{name!r} is not a table with custom fields to promote; those are {known}")
    return tuple(_with(table, promote.get(table.name, {})) for table in TABLES)


def check(promote: Mapping[str, Mapping[str, str]], in_use: Mapping[str, Mapping[str, str]]) -> None:
    """Check that the lake has promoted none of these keys to another type.

    :param promote: types by table and key.
    :param in_use: the columns that the lake has promoted, in the same form.
    :raises CallError: it has.
    """
    for table, columns in in_use.items():
        for name, kind in columns.items():
            wanted = promote.get(table, {}).get(name, kind)
            if wanted != kind:
                raise CallError(
                    f"{table}.{name} is {kind} in this lake, and cannot be {wanted} as well; promote it to {kind}, or "
                    "load into another lake"
                )


def held_by(table: Table, promoted: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return the promoted columns of the table that a file holds. The others have to be computed.

    :param promoted: the file's promoted columns, each with its type.
    """
    kinds = {column.name: column.kind.value for column in table if column.promoted}
    return frozenset(name for name, kind in promoted if kinds.get(name) == kind)


def _with(table: Table, columns: Mapping[str, str]) -> Table:
    taken = {column.name.casefold() for column in table} | _RESERVED_NAMES
    for name in columns:
        if name.casefold() in taken:
            raise CallError(f"{table.name}.{name} cannot be promoted, because {table.name} has a column of that name")
        taken.add(name.casefold())
    promoted = (
        Column(
            name=name,
            kind=Kind(kind),
            doc=f"The custom field `{name}`; null if it is not of this type.",
            promoted=True,
            personal=PersonalData.JSON,
        )
        for name, kind in columns.items()
    )
    return replace(table, columns=(*table.columns, *promoted))
