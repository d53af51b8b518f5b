"""A table as it is read from the objects of one file: without the columns that would be empty.

The longer a query, the longer it takes to plan: of a small load, that is more than its rows take.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from airflow_provider_chatexport.lake.schema.columns import first_of
from airflow_provider_chatexport.lake.schema.types import Column, Table

# The value of another column, which a query computes once.
_VALUE: Final = re.compile(r"\b_([a-z]\w*)")


def narrowed(table: Table, keys: Collection[str]) -> Table:
    """Return the table as it is read from objects that have no other keys than these.

    What every row needs remains: its key, its channel, its time and its user.
    """
    keys = {*keys, *table.user_paths[:1]}
    required = {*table.key, "cid", "created_at", table.day_column}
    read = (*table.columns, *table.staged)
    used = {column.name: _values_used(column, read) for column in read}
    keys_of = {column.name: column.keys.union(*(each.keys for each in used[column.name])) for column in read}
    kept = {
        column.name
        for column in read
        if column.name in required or not column.is_read or not keys_of[column.name].isdisjoint(keys)
    }
    kept |= {each.name for name in kept for each in used[name]}
    return replace(
        table,
        columns=tuple(_column(column, keys) for column in table.columns if column.name in kept),
        staged=tuple(_column(column, keys) for column in table.staged if column.name in kept),
        nested_lists=tuple(key for key in table.nested_lists if key in keys),
        user_paths=tuple(path for path in table.user_paths if path.partition(".")[0] in keys),
        user_list_paths=tuple(path for path in table.user_list_paths if path.partition(".")[0] in keys),
    )


def _column(column: Column, keys: Collection[str]) -> Column:
    fails_on = tuple((key, condition) for key, condition in column.fails_on if key in keys)
    if not column.alternatives:
        return replace(column, fails_on=fails_on)
    alternatives = tuple((key, value) for key, value in column.alternatives if key in keys)
    return replace(column, fails_on=fails_on, alternatives=alternatives, sql=first_of(alternatives))


def _values_used(column: Column, columns: Iterable[Column]) -> list[Column]:
    """Return the other columns whose values the SQL of a column uses."""
    names = set(_VALUE.findall(f"{column.sql} {column.otherwise}")) - {column.name}
    return [each for each in columns if each.name in names]
