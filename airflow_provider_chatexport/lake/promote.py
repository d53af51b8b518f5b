"""Keys of ``custom`` with a typed column of their own, beside it.

A promoted column is a function of ``custom`` alone. So the views have it for every row: from the files that hold it,
and for those that were written without it worked out from ``custom``. Its type is the same throughout a lake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake import history, schema
from airflow_provider_chatexport.lake.state import LakeState
from airflow_provider_chatexport.lake.table import Column, Kind, Table
from airflow_provider_chatexport.lake.write import DataFile

# The day folders, the column that rows are cut into them by, and what the catalog's macro ``activity`` calls a day.
_TAKEN: Final = frozenset({"event_date", "export_date", "_day", "day"}) | history.NAMES


def tables_with(promote: Mapping[str, Mapping[str, str]]) -> tuple[Table, ...]:
    """The registry's tables, those named here with their promoted columns.

    :param promote: as in ``LoadOptions``, with types as ``Kind`` has them.
    :raises CallError: there is no such table, it has no ``custom``, or the column's name is taken.
    """
    for name in promote:
        if name not in schema.BY_NAME or schema.CUSTOM not in schema.BY_NAME[name].columns:
            known = ", ".join(table.name for table in schema.TABLES if schema.CUSTOM in table.columns)
            raise CallError(f"{name!r} is no table with custom fields to promote; those are {known}")
    return tuple(_with(table, promote.get(table.name, {})) for table in schema.TABLES)


def types_in(state: LakeState) -> dict[str, dict[str, str]]:
    """Which columns a lake has promoted, by table, with their types: of the file that was first to have it."""
    found: dict[str, dict[str, str]] = {}
    for record in sorted(state.records, key=lambda record: (record.committed_at, record.load_id)):
        for file in (*record.files, *record.history):
            for name, kind in file.promoted:
                found.setdefault(file.table, {}).setdefault(name, kind)
    return found


def tables_of(state: LakeState) -> tuple[Table, ...]:
    """The registry's tables, with the columns that the lake has promoted."""
    return tables_with(types_in(state))


def check(promote: Mapping[str, Mapping[str, str]], state: LakeState) -> None:
    """:raises CallError: the lake has promoted one of these keys to another type."""
    for table, columns in types_in(state).items():
        for name, kind in columns.items():
            wanted = promote.get(table, {}).get(name, kind)
            if wanted != kind:
                raise CallError(
                    f"{table}.{name} is {kind} in this lake, and cannot be {wanted} as well; promote it to {kind}, or "
                    "begin another lake"
                )


def held_by(table: Table, file: DataFile) -> frozenset[str]:
    """The promoted columns of the table that a file holds; others have to be worked out."""
    kinds = {column.name: column.kind.value for column in table if column.promoted}
    return frozenset(name for name, kind in file.promoted if kinds.get(name) == kind)


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
