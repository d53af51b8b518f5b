"""SQL expressions: literals and names, casts of JSON values, and the day folder of a row."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.lake.schema.types import Column, Kind, Placement, Table


def quoted(text: str) -> str:
    """Return text as a literal."""
    return "'" + text.replace("'", "''") + "'"


def name(identifier: str) -> str:
    """Return a quoted identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def instant(moment: datetime) -> str:
    """Return a time as a literal.

    :param moment: aware.
    """
    return f"TIMESTAMPTZ '{format_rfc3339(moment)}'"


def time(text: str) -> str:
    """Return RFC3339 text or unix nanoseconds as TIMESTAMPTZ; null for anything else.

    The usual spelling is recognised by the places of its marks, which is cheaper than a regular expression. The cast
    checks the rest, except for what it takes as well: hour 24, years before 1, spaces, and more than nine digits of a
    second.
    """
    usual = (
        f"{text} LIKE '____-__-__T__:__:__._%Z' AND strlen({text}) <= 30 AND {text} >= '0001' "
        f"AND {text} NOT LIKE '%T24:%' AND NOT contains({text}, ' ')"
    )
    number = f"make_timestamptz(TRY_CAST({text} AS BIGINT) // 1000)"
    return f"""CASE
        WHEN {usual} THEN TRY_CAST({text} AS TIMESTAMPTZ)
        WHEN regexp_full_match({text}, {quoted(_INSTANT)})
        THEN coalesce(TRY_CAST(upper({text}) AS TIMESTAMPTZ), {number})
    END"""


# DuckDB's casts take more: "0x10" and "1_000", fractions, which they round, and "infinity", "epoch" and years that
# neither Python nor Arrow's readers can hold.
_INTEGER: Final = r"-?\d+"
_DATE: Final = r"\d{4}-\d\d-\d\d"


def cast(text: str, kind: Kind) -> str:
    """Return the text of a JSON value as a value of a column's kind; null if it is not of that kind."""
    match kind:
        case Kind.TIME:
            return time(text)
        case Kind.INT:
            # The most frequent number needs no regular expression.
            return f"""CASE
                WHEN {text} = '0' THEN 0
                WHEN regexp_full_match({text}, {quoted(_INTEGER)}) THEN TRY_CAST({text} AS BIGINT)
            END"""
        case Kind.DATE:
            is_date = f"regexp_full_match({text}, {quoted(_DATE)}) AND NOT starts_with({text}, '0000')"
            return f"CASE WHEN {is_date} THEN TRY_CAST({text} AS DATE) END"
        case Kind.BOOL | Kind.FLOAT:
            return f"TRY_CAST({text} AS {kind.value})"
        case _:
            return text


def promoted_text(column: Column, custom: str = "custom") -> str:
    """Return the value of a promoted column's key in ``custom``, as text; null if there is none."""
    pointer = "/" + column.name.replace("~", "~0").replace("/", "~1")
    return f"json_extract_string({custom}, {quoted(pointer)})"


def promoted(column: Column, custom: str = "custom") -> str:
    """Return a promoted column's value. It is a function of ``custom`` alone, so every file has it."""
    text = promoted_text(column, custom)
    if column.kind is Kind.TIME:  # an app's own number may count seconds or milliseconds
        return f"CASE WHEN regexp_full_match({text}, {quoted(_RFC3339 + _NANOSECONDS)}) THEN {time(text)} END"
    return cast(text, column.kind)


# What core.times.parse_instant takes. DuckDB's cast also takes "infinity", "epoch", a date alone and naive times.
_RFC3339: Final = (
    r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-8]\d{3}|9[0-8]\d\d|99[0-8]\d|999[0-8])-\d\d-\d\d"
    r"[Tt ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"
)
# Times from 1973 on: numbers with fewer digits count something longer than nanoseconds.
_NANOSECONDS: Final = r"|-?\d{18,19}"
_INSTANT: Final = _RFC3339 + r"|-?\d+(\.\d+)?([eE]\+?\d+)?"


def is_object(element: str) -> str:
    """Return a condition on well-formed JSON: it is an object."""
    return f"starts_with({element}::VARCHAR, '{{')"


def arrow_columns(table: Table) -> str:
    """Return the select list of a table's columns for Arrow: JSON as text, promoted columns from ``custom``."""
    return ", ".join(f"{_as_arrow(column)} AS {name(column.name)}" for column in table)


def _as_arrow(column: Column) -> str:
    if column.promoted:
        return promoted(column)
    return f"{name(column.name)}::VARCHAR" if column.kind is Kind.JSON else name(column.name)


def day(table: Table) -> str:
    """Return the day folder of a row as text: the UTC day of its moment, or of its export."""
    return f"strftime({date(table)}, '%Y-%m-%d')"


def date(table: Table) -> str:
    """Return the day folder of a row as a date, which DuckDB sorts faster than text."""
    return f"({_moment(table)} AT TIME ZONE 'UTC')::DATE"


def in_days(table: Table, first: str, last: str) -> str:
    """Return a condition: the row's day folder is one of these two days, or between them."""
    moment = _moment(table)
    return f"{moment} >= TIMESTAMPTZ '{first} 00:00:00Z' AND {moment} < TIMESTAMPTZ '{last} 00:00:00Z' + INTERVAL 1 DAY"


def _moment(table: Table) -> str:
    return table.day_column if table.placement is Placement.EVENT and table.day_column else "_exported_at"
