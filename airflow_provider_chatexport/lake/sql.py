"""SQL made from the registry: how to read objects of a table from JSON, and how to turn them into its columns.

In every fragment ``d`` is the object as a STRUCT of the fields that the registry reads, ``flat`` the JSON object of
the keys that it does not (null where there are none).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.lake.table import Column, Kind, Placement, Table

DEFAULT_OBJECT_BYTES: Final = 16 * 1024 * 1024


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def instant(moment: datetime) -> str:
    return f"TIMESTAMPTZ '{format_rfc3339(moment)}'"


def read_lines(path: Path, columns: Mapping[str, str], longest_bytes: int = 0) -> str:
    """A table function over JSON lines. A line that it cannot read becomes a row of nulls."""
    # The reader's buffers are multiples of this size, so it follows the longest line that there is.
    size = max(DEFAULT_OBJECT_BYTES, 2 * longest_bytes)
    typed = ", ".join(f"{column}: {quoted(kind)}" for column, kind in columns.items())
    return (
        f"read_json({quoted(str(path))}, format='newline_delimited', records=true, ignore_errors=true, "
        f"maximum_object_size={size}, columns={{{typed}}})"
    )


def taken_apart(table: Table, element: str, extra_fields: Collection[str] = ()) -> str:
    """``d`` and ``flat`` of an object given as JSON.

    Every field is read as text or JSON text, so no value of an unexpected type can fail a line.
    """
    spec = json.dumps(fields(table, extra_fields))
    # A merge patch of nulls strips the known keys in one pass, and takes keys of any spelling for what they are.
    patch = json.dumps(dict.fromkeys(table.known_keys))
    return (
        f"json_transform({element}, {quoted(spec)}) AS d, "
        f"nullif(json_merge_patch({element}, {quoted(patch)})::VARCHAR, '{{}}')::JSON AS flat{_created_at(table)}"
    )


def taken_as_read(table: Table, flat: str) -> str:
    """The same of an object ``d`` that was read as a STRUCT already."""
    return f"d, {flat} AS flat{_created_at(table)}"


def fields(table: Table, extra_fields: Collection[str] = ()) -> dict[str, str]:
    """The members of ``d``, and the type that each is read as."""
    return table.fields | dict.fromkeys([*extra_fields, "custom"], "JSON")


def struct(members: Mapping[str, str]) -> str:
    return f"STRUCT({', '.join(f'{name(key)} {kind}' for key, kind in members.items())})"


def _created_at(table: Table) -> str:
    created_at = time("struct_extract(d, 'created_at')")
    return f", {created_at} AS {CREATED_AT}" if "created_at" in table.fields else ""


def time(text: str) -> str:
    """RFC3339 text or unix nanoseconds, as TIMESTAMPTZ; null where it is neither."""
    return f"coalesce(TRY_CAST({text} AS TIMESTAMPTZ), make_timestamptz(TRY_CAST({text} AS BIGINT) // 1000))"


# The time that places an object, cast once beside ``d`` and ``flat``: several columns and conditions ask for it.
CREATED_AT: Final = "_created_at"

# What core.times.parse_instant takes. DuckDB by itself takes "infinity", "epoch", a date alone and naive times as well.
_INSTANT: Final = (
    r"\d{4}-\d\d-\d\d[Tt ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"
    r"|-?\d+(\.\d+)?([eE]\+?\d+)?"
)


def complete(table: Table) -> str:
    """A condition on ``d``: it has what a row of the table cannot do without, and a time that readers can hold."""
    needed = [f"({_value(column)}) <> ''" for column in table if column.name in table.key and column.is_read]
    if table.owned_by is not None:
        needed.append(f"{table.owned_by} <> ''")
    if table.placed_by is not None:
        # The usual spelling is told by its places, which is cheaper than a regular expression; the cast does the rest,
        # but for hour 24, which it takes for the next day.
        needed.append(
            "CASE WHEN d.created_at LIKE '____-__-__T__:__:__%Z' AND d.created_at NOT LIKE '%T24:%' THEN true "
            f"ELSE regexp_full_match(d.created_at, {quoted(_INSTANT)}) END"
        )
        needed.append(f"{CREATED_AT} >= TIMESTAMPTZ '0001-01-01 00:00:00Z'")
        needed.append(f"{CREATED_AT} < TIMESTAMPTZ '10000-01-01 00:00:00Z'")
    if table.placed_by == "created_at":
        needed.append("d.cid <> ''")
    return " AND ".join(needed)


def _value(column: Column) -> str:
    if column.sql is not None:
        return column.sql
    field = f"d.{name(column.field or '')}"
    if column.field == "created_at":
        return CREATED_AT
    match column.kind:
        case Kind.TIME:
            return time(field)
        case Kind.BOOL | Kind.INT:
            return f"TRY_CAST({field} AS {column.kind.value})"
        case _:
            return field


# Flat and nested keys are joined as text: no number or escape in them is read and written anew. Where the same key
# stands in both, the two objects are left side by side, for ``convert`` to join.
CUSTOM: Final = """CASE
    WHEN d.custom IS NULL OR d.custom::VARCHAR IN ('{}', 'null') THEN coalesce(flat, '{}')
    WHEN json_type(d.custom) <> 'OBJECT'
        THEN coalesce(left(flat::VARCHAR, -1) || ',', '{') || '"custom":' || d.custom::VARCHAR || '}'
    WHEN flat IS NULL THEN d.custom
    WHEN list_has_any(json_keys(flat), json_keys(d.custom))
        THEN '[' || flat::VARCHAR || ',' || d.custom::VARCHAR || ']'
    ELSE left(flat::VARCHAR, -1) || ',' || substr(d.custom::VARCHAR, 2)
END::JSON"""


def columns(table: Table, *, leave_out: Collection[str] = ()) -> str:
    """The select list that turns ``d`` and ``flat`` into those columns of the table that come from the object."""
    made = [
        f"{_value(column)} AS {name(column.name)}"
        for column in table
        if column.is_read and column.name not in leave_out
    ]
    return ", ".join([*made, f"{CUSTOM} AS custom"])


def arrow_columns(table: Table) -> str:
    """The table's columns as Arrow takes them: JSON as text."""
    return ", ".join(
        f"{name(column.name)}::VARCHAR AS {name(column.name)}" if column.kind is Kind.JSON else name(column.name)
        for column in table
    )


def create_stage(table: Table, extra: str = "") -> str:
    """The table that a load is staged in: the registry's columns, and where each row came from."""
    made = ", ".join(f"{name(column.name)} {column.kind.value}" for column in table)
    return f"CREATE TABLE stage_{table.name} ({made}, _input INTEGER, _n BIGINT, _line BIGINT{extra})"


def day(table: Table) -> str:
    """The day folder of a row, as text: the UTC day of its moment, or of its export."""
    return f"strftime({_moment(table)} AT TIME ZONE 'UTC', '%Y-%m-%d')"


def in_days(table: Table, first: str, last: str) -> str:
    """A condition: the row's day folder is one of these or between them."""
    moment = _moment(table)
    return f"{moment} >= TIMESTAMPTZ '{first} 00:00:00Z' AND {moment} < TIMESTAMPTZ '{last} 00:00:00Z' + INTERVAL 1 DAY"


def _moment(table: Table) -> str:
    return table.placed_by if table.placement is Placement.EVENT and table.placed_by else "_exported_at"
