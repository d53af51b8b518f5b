"""SQL made from the registry: how to read objects of a table from JSON, and how to turn them into its columns.

In every fragment ``d`` is the object as a STRUCT of the fields that the registry reads, ``flat`` the JSON object of
the keys that it does not (null where there are none).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.lake.schema import Column, Kind, Placement, Table

DEFAULT_OBJECT_BYTES: Final = 16 * 1024 * 1024


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def instant(moment: datetime) -> str:
    return f"TIMESTAMPTZ '{format_rfc3339(moment)}'"


def text_list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(quoted(text) for text in texts) + "]::VARCHAR[]"


def read_objects(path: Path, data_type: str, longest_bytes: int) -> str:
    """A table function over a sifted file: ``n, line, pos, data``. Objects that it cannot read become rows of nulls."""
    # The reader's buffers are multiples of this size, so it follows the longest line that there is.
    size = max(DEFAULT_OBJECT_BYTES, 2 * longest_bytes)
    columns = f"{{n: 'BIGINT', line: 'BIGINT', pos: 'BIGINT', data: {quoted(data_type)}}}"
    return (
        f"read_json({quoted(str(path))}, format='newline_delimited', records=true, ignore_errors=true, "
        f"maximum_object_size={size}, columns={columns})"
    )


def struct_type(table: Table, extra_json: Collection[str]) -> str:
    """The type to read an object as. All is text or JSON text, so no value of an unexpected type can fail a line."""
    fields = table.fields | dict.fromkeys([*extra_json, "custom"], "JSON")
    return "STRUCT(" + ", ".join(f"{name(field)} {kind}" for field, kind in fields.items()) + ")"


def from_element(table: Table, element: str) -> str:
    """``d`` and ``flat`` of an object that stands inside another, as JSON."""
    spec = json.dumps(table.fields | {"custom": "JSON"})
    known = text_list(table.known_keys)
    return (
        f"json_transform({element}, {quoted(spec)}) AS d, "
        f"CASE WHEN NOT list_has_all({known}, json_keys({element})) THEN {without_known(table, element)} END AS flat"
    )


def without_known(table: Table, element: str) -> str:
    """The object's keys that no column reads. A merge patch of nulls strips the others in one pass."""
    return f"json_merge_patch({element}, {quoted(json.dumps(dict.fromkeys(table.known_keys)))})"


def time(text: str) -> str:
    """RFC3339 text or unix nanoseconds, as TIMESTAMPTZ; null where it is neither."""
    return f"coalesce(TRY_CAST({text} AS TIMESTAMPTZ), make_timestamptz(TRY_CAST({text} AS BIGINT) // 1000))"


def _value(column: Column) -> str:
    if column.sql is not None:
        return column.sql
    field = f"d.{name(column.field or '')}"
    match column.kind:
        case Kind.TIME:
            return time(field)
        case Kind.BOOL | Kind.INT:
            return f"TRY_CAST({field} AS {column.kind.value})"
        case _:
            return field


# Flat and nested keys are joined as text: no number or escape in them is read and written anew.
CUSTOM: Final = """CASE
    WHEN d.custom IS NULL OR d.custom::VARCHAR IN ('{}', 'null') THEN coalesce(flat, '{}')
    WHEN json_type(d.custom) <> 'OBJECT'
        THEN coalesce(left(flat::VARCHAR, -1) || ',', '{') || '"custom":' || d.custom::VARCHAR || '}'
    WHEN flat IS NULL THEN d.custom
    ELSE left(flat::VARCHAR, -1) || ',' || substr(d.custom::VARCHAR, 2)
END::JSON"""


def columns(table: Table, *, leave_out: Collection[str] = ()) -> str:
    """The select list that turns ``d`` and ``flat`` into those columns of the table that come from the object."""
    made = [
        f"{_value(column)} AS {name(column.name)}"
        for column in table
        if (column.field is not None or column.sql is not None) and column.name not in leave_out
    ]
    return ", ".join([*made, f"{CUSTOM} AS custom"])


def create_stage(table: Table, extra: str = "") -> str:
    """The table that a load is staged in: the registry's columns, and where each row came from."""
    made = ", ".join(f"{name(column.name)} {column.kind.value}" for column in table)
    return f"CREATE TABLE stage_{table.name} ({made}, _input INTEGER, _n BIGINT, _line BIGINT{extra})"


def day(table: Table) -> str:
    """The day folder of a row, as text: the UTC day of its moment, or of its export."""
    moment = table.placed_by if table.placement is Placement.EVENT and table.placed_by else "_exported_at"
    return f"strftime({moment} AT TIME ZONE 'UTC', '%Y-%m-%d')"
