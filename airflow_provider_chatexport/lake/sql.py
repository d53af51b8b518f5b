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

from airflow_provider_chatexport.core.times import LATEST, format_rfc3339
from airflow_provider_chatexport.lake.table import Column, Kind, Placement, Table, not_a_list

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
        f"compression='none', hive_partitioning=false, maximum_object_size={size}, columns={{{typed}}})"
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
        f"nullif(json_merge_patch({element}, {quoted(patch)})::VARCHAR, '{{}}')::JSON AS flat"
    )


def with_values(table: Table, query: str) -> str:
    """The query with the values beside ``d`` and ``flat`` that more than one column or condition asks for."""
    values = [f"{cast(_field(column), column.kind)} AS {_cast_once(column)}" for column in table if _may_fail(column)]
    return f"SELECT {', '.join(['*', *values])} FROM ({query})"


def fields(table: Table, extra_fields: Collection[str] = ()) -> dict[str, str]:
    """The members of ``d``, and the type that each is read as."""
    return table.fields | dict.fromkeys([*extra_fields, "custom"], "JSON")


def struct(members: Mapping[str, str]) -> str:
    return f"STRUCT({', '.join(f'{name(key)} {kind}' for key, kind in members.items())})"


def _field(column: Column) -> str:
    return f"d.{name(column.field or '')}"


def _may_fail(column: Column) -> bool:
    """Text and JSON columns hold anything that a field may be."""
    return column.field is not None and column.kind in (Kind.TIME, Kind.BOOL, Kind.INT)


def _cast_once(column: Column) -> str:
    return f"_{column.name}"


def time(text: str) -> str:
    """RFC3339 text or unix nanoseconds, as TIMESTAMPTZ; null where it is neither.

    The usual spelling is told by its places, which is cheaper than a regular expression. The cast does the rest, but
    for what it takes beside: hour 24, the year 0 and those before it, spaces, and more than nine digits of a second.
    """
    usual = (
        f"{text} LIKE '____-__-__T__:__:__._%Z' AND strlen({text}) <= 30 AND {text} >= '0001' "
        f"AND {text} NOT LIKE '%T24:%' AND NOT contains({text}, ' ')"
    )
    number = f"make_timestamptz(TRY_CAST({text} AS BIGINT) // 1000)"
    return (
        f"CASE WHEN {usual} THEN TRY_CAST({text} AS TIMESTAMPTZ) WHEN regexp_full_match({text}, {quoted(_INSTANT)}) "
        f"THEN coalesce(TRY_CAST(upper({text}) AS TIMESTAMPTZ), {number}) END"
    )


# The casts take more: "0x10" and "1_000", fractions, which they round, and "infinity", "epoch" and years that neither
# Python nor Arrow's readers can hold.
_INTEGER: Final = r"-?\d+"
_DATE: Final = r"\d{4}-\d\d-\d\d"


def cast(text: str, kind: Kind) -> str:
    """Text of a JSON value as a column of this kind has it; null where it is not of the kind."""
    match kind:
        case Kind.TIME:
            return time(text)
        case Kind.INT:
            # The usual number is told without a regular expression.
            return (
                f"CASE WHEN {text} = '0' THEN 0 "
                f"WHEN regexp_full_match({text}, {quoted(_INTEGER)}) THEN TRY_CAST({text} AS BIGINT) END"
            )
        case Kind.DATE:
            is_date = f"regexp_full_match({text}, {quoted(_DATE)}) AND NOT starts_with({text}, '0000')"
            return f"CASE WHEN {is_date} THEN TRY_CAST({text} AS DATE) END"
        case Kind.BOOL | Kind.FLOAT:
            return f"TRY_CAST({text} AS {kind.value})"
        case _:
            return text


def promoted_text(column: Column, custom: str = "custom") -> str:
    """The value of a promoted column's key, as text; null where there is none."""
    pointer = "/" + column.name.replace("~", "~0").replace("/", "~1")
    return f"json_extract_string({custom}, {quoted(pointer)})"


def promoted(column: Column, custom: str = "custom") -> str:
    """A promoted column's value. A function of ``custom`` alone, so files without the column have it as well."""
    text = promoted_text(column, custom)
    if column.kind is Kind.TIME:  # what an app counts in seconds or milliseconds is not the service's way
        return f"CASE WHEN regexp_full_match({text}, {quoted(_RFC3339 + _NANOSECONDS)}) THEN {time(text)} END"
    return cast(text, column.kind)


# The time that places an object, beside ``d`` and ``flat``.
CREATED_AT: Final = "_created_at"

# What core.times.parse_instant takes. DuckDB by itself takes "infinity", "epoch", a date alone and naive times as well.
_RFC3339: Final = (
    r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-8]\d{3}|9[0-8]\d\d|99[0-8]\d|999[0-8])-\d\d-\d\d"
    r"[Tt ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"
)
# From 1973 on: fewer digits count something longer.
_NANOSECONDS: Final = r"|-?\d{18,19}"
_INSTANT: Final = _RFC3339 + r"|-?\d+(\.\d+)?([eE]\+?\d+)?"


def complete(table: Table) -> str:
    """A condition on ``d``: it has what a row of the table cannot do without, and a time that readers can hold."""
    needed = [keyed(table)]
    if table.owned_by is not None:
        needed.append(f"{table.owned_by} <> ''")
    if table.placed_by is not None:
        needed.append(f"{CREATED_AT} < {instant(LATEST)}")
    if table.placed_by == "created_at":
        needed.append("d.cid <> ''")
    return " AND ".join(needed)


def keyed(table: Table, *, leave_out: Collection[str] = ()) -> str:
    """A condition on ``d``: it has the parts of the table's key that come from the object."""
    names = [name for name in table.key if name not in leave_out]
    parts = [f"({_value(column)}) <> ''" for column in table if column.name in names and column.is_read]
    return " AND ".join(parts) or "true"


def is_object(element: str) -> str:
    """A condition on JSON that the database wrote, or read and found well formed: it is an object."""
    return f"starts_with({element}::VARCHAR, '{{')"


def _value(column: Column) -> str:
    if column.sql is not None:
        return column.sql
    return _cast_once(column) if _may_fail(column) else _field(column)


def not_cast(table: Table, *, is_placed: bool = True) -> dict[str, str]:
    """By JSON key, a condition on ``d``: its value is of a kind that the table's column cannot hold.

    :param is_placed: the object's own time decides its day, and one that is none makes no row.
    """
    conditions = {key: not_a_list(key) for key in table.drawn}
    for column in table:
        if column.fails_on is not None:
            conditions[column.reads[0]] = column.fails_on
        elif column.field is not None and _may_fail(column):
            conditions[column.field] = f"{_field(column)} IS NOT NULL AND {_cast_once(column)} IS NULL"
    if table.placed_by is not None and is_placed:
        conditions.pop("created_at", None)
    return conditions


def keeping_what_is_not_cast(table: Table, query: str, element: str, *, is_placed: bool = True) -> str:
    """The query with ``flat`` as it should be: the values that no column can hold are in it, under their keys.

    :param query: has ``d``, ``flat`` and the element, the object as JSON. The result has ``_not_cast`` as well, the
        keys at fault, null where there is none.
    """
    conditions = not_cast(table, is_placed=is_placed)
    if not conditions:
        return f"SELECT *, NULL::VARCHAR[] AS _not_cast FROM ({query})"
    keys = ", ".join(f"CASE WHEN {condition} THEN {quoted(key)} END" for key, condition in conditions.items())
    found = f"CASE WHEN {_any(conditions)} THEN string_split(concat_ws(',', {keys}), ',') END"
    members = ", ".join(
        f"CASE WHEN list_contains(_not_cast, {quoted(key)}) "
        f"THEN {quoted(json.dumps(key) + ':')} || json_extract({element}, {quoted('/' + key)})::VARCHAR END"
        for key in conditions
    )
    flat = f"('{{' || concat_ws(',', substr(left(flat::VARCHAR, -1), 2), {members}) || '}}')::JSON"
    return (
        f"SELECT * REPLACE (CASE WHEN _not_cast IS NOT NULL THEN {flat} ELSE flat END AS flat) "
        f"FROM (SELECT *, {found} AS _not_cast FROM ({query}))"
    )


def any_not_cast(table: Table) -> str:
    """A condition on ``d``: some value of it is of a kind that no column can hold."""
    return _any(not_cast(table))


def _any(conditions: Mapping[str, str]) -> str:
    return " OR ".join(f"({condition})" for condition in conditions.values()) or "false"


def _custom(table: Table) -> str:
    """Flat and nested keys are joined as text: numbers and escapes are not written anew. Where the same key stands in
    both, the two objects are left side by side, for ``stage`` to join."""
    nested = _nested(table)
    return f"""CASE
    WHEN {nested} IS NULL OR {nested}::VARCHAR IN ('{{}}', 'null') THEN coalesce(flat, '{{}}')
    WHEN json_type({nested}) <> 'OBJECT'
        THEN coalesce(left(flat::VARCHAR, -1) || ',', '{{') || '"custom":' || {nested}::VARCHAR || '}}'
    WHEN flat IS NULL THEN {nested}
    WHEN list_has_any(json_keys(flat), json_keys({nested}))
        THEN '[' || flat::VARCHAR || ',' || {nested}::VARCHAR || ']'
    ELSE left(flat::VARCHAR, -1) || ',' || substr({nested}::VARCHAR, 2)
END::JSON"""


def _nested(table: Table) -> str:
    """``custom`` as it came, without what a column has of it."""
    found = "d.custom"
    for column in table:
        if column.nested:
            flat = f"json_extract_string(d.{column.name}, '$')"
            own = f"json_extract_string(d.custom, '$.{column.name}')"
            without = f"json_merge_patch({found}, {quoted(json.dumps({column.name: None}))})"
            found = f"CASE WHEN coalesce({flat}, {own}) = {own} THEN {without} ELSE {found} END"
    return f"({found})"


def columns(table: Table, *, leave_out: Collection[str] = ()) -> str:
    """The select list that turns ``d`` and ``flat`` into those columns of the table that come from the object."""
    made = [
        f"{_value(column)} AS {name(column.name)}"
        for column in table
        if column.is_read and column.name not in leave_out
    ]
    return ", ".join([*made, f"{_custom(table)} AS custom"])


def arrow_columns(table: Table) -> str:
    """The table's columns as Arrow takes them: JSON as text, promoted ones from ``custom``."""
    return ", ".join(f"{_as_arrow(column)} AS {name(column.name)}" for column in table)


def _as_arrow(column: Column) -> str:
    if column.promoted:
        return promoted(column)
    return f"{name(column.name)}::VARCHAR" if column.kind is Kind.JSON else name(column.name)


def create_stage(table: Table) -> str:
    """The table that a load is staged in: the registry's columns, and what the load has to know of each row.

    ``_input``: number of the file. ``_n``: of the object in it. ``_read``: of the scan. ``_complete``: it can be a row.
    ``_not_cast``: keys of values that no column can hold. The table's ``drawn`` lists, until rows are made of them.
    """
    made = [
        f"{name(column.name)} {column.kind.value}{f' DEFAULT {column.default}' if column.default else ''}"
        for column in table
    ]
    lists = [f"_{key} JSON" for key in table.drawn]
    known = "_input INTEGER, _n BIGINT, _read INTEGER, _in_window BOOLEAN DEFAULT true, _complete BOOLEAN"
    return f"CREATE TABLE stage_{table.name} ({', '.join([*made, known, '_not_cast VARCHAR[]', *lists])})"


def day(table: Table) -> str:
    """The day folder of a row, as text: the UTC day of its moment, or of its export."""
    return f"strftime({date(table)}, '%Y-%m-%d')"


def date(table: Table) -> str:
    """The same as a date, which is sorted faster than text."""
    return f"({_moment(table)} AT TIME ZONE 'UTC')::DATE"


def in_days(table: Table, first: str, last: str) -> str:
    """A condition: the row's day folder is one of these or between them."""
    moment = _moment(table)
    return f"{moment} >= TIMESTAMPTZ '{first} 00:00:00Z' AND {moment} < TIMESTAMPTZ '{last} 00:00:00Z' + INTERVAL 1 DAY"


def _moment(table: Table) -> str:
    return table.placed_by if table.placement is Placement.EVENT and table.placed_by else "_exported_at"
