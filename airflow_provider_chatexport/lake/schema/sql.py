"""SQL made from the registry: how to read objects of a table from JSON, and how to turn them into its columns.

In every fragment ``d`` is the object as a STRUCT of the fields that the registry reads, ``flat`` the JSON object of
the keys that it does not (null where there are none).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.lake.schema.types import Column, Kind, Placement, Table


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def instant(moment: datetime) -> str:
    return f"TIMESTAMPTZ '{format_rfc3339(moment)}'"


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


# What core.times.parse_instant takes. DuckDB by itself takes "infinity", "epoch", a date alone and naive times as well.
_RFC3339: Final = (
    r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-8]\d{3}|9[0-8]\d\d|99[0-8]\d|999[0-8])-\d\d-\d\d"
    r"[Tt ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"
)
# From 1973 on: fewer digits count something longer.
_NANOSECONDS: Final = r"|-?\d{18,19}"
_INSTANT: Final = _RFC3339 + r"|-?\d+(\.\d+)?([eE]\+?\d+)?"


def is_object(element: str) -> str:
    """A condition on JSON that the database wrote, or read and found well formed: it is an object."""
    return f"starts_with({element}::VARCHAR, '{{')"


def arrow_columns(table: Table) -> str:
    """The table's columns as Arrow takes them: JSON as text, promoted ones from ``custom``."""
    return ", ".join(f"{_as_arrow(column)} AS {name(column.name)}" for column in table)


def _as_arrow(column: Column) -> str:
    if column.promoted:
        return promoted(column)
    return f"{name(column.name)}::VARCHAR" if column.kind is Kind.JSON else name(column.name)


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
    return table.day_column if table.placement is Placement.EVENT and table.day_column else "_exported_at"
