"""SQL expressions: literals and names, casts of JSON values, and the day of a row."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from airflow_provider_chatexport.core.times import (
    EARLIEST,
    FEWEST_NS,
    LATEST,
    UNSET_NUMBERS,
    ZERO_S,
    format_rfc3339,
    to_unix_ns,
)
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
    """Return the text of a time field as TIMESTAMPTZ; null if it is not a time, as ``core.times.read_time`` decides."""
    any_time = f"({any_time_of(text)})"
    return f"CASE WHEN {any_time} >= {_at(EARLIEST_US)} AND {any_time} < {_at(LATEST_US)} THEN {any_time} END"


def any_time_of(text: str) -> str:
    """Return the text of a time field as TIMESTAMPTZ in any calendar, ``in_calendar`` or not; null if it is not a time.

    The usual spelling is recognised by the places of its marks, which is cheaper than a regular expression. The cast
    checks the rest, except for what it takes as well: hour 24, spaces, and more than nine digits of a second.
    """
    usual = (
        f"{text} LIKE '____-__-__T__:__:__._%Z' AND strlen({text}) <= 30 AND {text} NOT LIKE '%T24:%' "
        f"AND NOT contains({text}, ' ')"
    )
    return f"""CASE
        WHEN {usual} THEN TRY_CAST({text} AS TIMESTAMPTZ)
        WHEN regexp_full_match({text}, {quoted(_RFC3339)}) THEN TRY_CAST(upper({text}) AS TIMESTAMPTZ)
        WHEN regexp_full_match({text}, {quoted(_UNSET)}) THEN {UNSET_TIME}
        WHEN regexp_full_match({text}, {quoted(_NUMBER)}) AND TRY_CAST({text} AS BIGINT) >= {FEWEST_NS}
        THEN make_timestamptz(TRY_CAST({text} AS BIGINT) // 1000)
    END"""


def in_calendar(value: str) -> str:
    """Return a value of ``any_time_of`` if a lake can hold it, ``UNSET_TIME`` if it says so, or null.

    Both are separate, so that a query computes the first one once: planning long expressions takes longer than their
    rows in most loads.
    """
    return f"""CASE
        WHEN {value} >= {_at(EARLIEST_US)} AND {value} < {_at(LATEST_US)} THEN {value}
        WHEN {value} BETWEEN {_at(_UNSET_US - _MINUTE_US)} AND {_at(_UNSET_US + _MINUTE_US)} THEN {UNSET_TIME}
    END"""


def _at(us: int) -> str:
    """Return a time as an expression. A literal is parsed by the zone's calendar, which makes plans slow."""
    return f"make_timestamptz({us})"


EARLIEST_US: Final = to_unix_ns(EARLIEST) // 1000
LATEST_US: Final = to_unix_ns(LATEST) // 1000
_UNSET_US: Final = ZERO_S * 1_000_000
_MINUTE_US: Final = 59_999_999  # the zones of that year have seconds, which RFC3339 leaves out
# What a time field that says that there is no time is in the queries of staging.
UNSET_TIME: Final = _at(_UNSET_US)
# The forms that ``core.times.read_time`` takes. DuckDB's cast also takes "infinity", "epoch", a date and naive times.
_RFC3339: Final = r"\d{4}-\d\d-\d\d[Tt ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"
# Nothing, zero as JSON may write it, or another unset time; a quoted number may have zeros in front.
_UNSET: Final = "|".join(("", r"-?0+(\.0+)?([eE]\+?\d+)?", *(f"-0*{-number}" for number in UNSET_NUMBERS if number)))
_NUMBER: Final = r"\d+(\.\d+)?([eE]\+?\d+)?"


def is_unset(text: str) -> str:
    """Return a condition: the text of a time field says that there is no time, as ``core.times.read_time`` decides."""
    return f"coalesce({in_calendar(f'({any_time_of(text)})')} = {UNSET_TIME}, false)"


# DuckDB's casts take more: "0x10" and "1_000", fractions, which they round, "nan", "infinity", "yes", and years that
# neither Python nor Arrow's readers can hold.
_INTEGER: Final = r"-?\d+"
_DECIMAL: Final = r"-?\d+(\.\d+)?([eE][+-]?\d+)?"
_DATE: Final = r"\d{4}-\d\d-\d\d"
# Spark 3 refuses Parquet files with earlier days (SPARK-31404).
_FIRST_DATE: Final = "1582-10-15"


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
        case Kind.BOOL:
            return f"CASE {text} WHEN 'false' THEN false WHEN 'true' THEN true END"
        case Kind.FLOAT:
            number = f"TRY_CAST({text} AS DOUBLE)"
            is_number = f"regexp_full_match({text}, {quoted(_DECIMAL)}) AND isfinite({number})"
            return f"CASE WHEN {is_number} THEN {number} END"
        case Kind.DATE:
            is_date = f"regexp_full_match({text}, {quoted(_DATE)}) AND {text} >= '{_FIRST_DATE}'"
            return f"CASE WHEN {is_date} THEN TRY_CAST({text} AS DATE) END"
        case _:
            return text


def promoted_text(column: Column, custom: str = "custom") -> str:
    """Return the value of a promoted column's key in ``custom``, as text; null if there is none."""
    pointer = "/" + column.name.replace("~", "~0").replace("/", "~1")
    return f"json_extract_string({custom}, {quoted(pointer)})"


def promoted(column: Column, custom: str = "custom") -> str:
    """Return a promoted column's value. It is a function of ``custom`` alone, so every file has it."""
    return cast(promoted_text(column, custom), column.kind)


def promoted_fails(column: Column) -> str:
    """Return a condition on a row: a promoted column cannot hold the value of its key. An unset time is not a value."""
    text = promoted_text(column)
    fails = f"{text} IS NOT NULL AND ({promoted(column)}) IS NULL"
    # AND computes both of its sides for every row, and CASE only what it needs.
    return f"CASE WHEN {fails} THEN NOT {is_unset(text)} END" if column.kind is Kind.TIME else fails


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
    """Return the day of a row as text: the UTC day of its moment, or of its export."""
    return f"strftime({date(table)}, '%Y-%m-%d')"


def date(table: Table) -> str:
    """Return the day of a row as a date, which DuckDB sorts faster than text."""
    return f"({_moment(table)} AT TIME ZONE 'UTC')::DATE"


def in_days(table: Table, first: str, last: str) -> str:
    """Return a condition: the row's day is one of these two days, or between them."""
    moment = _moment(table)
    return f"{moment} >= TIMESTAMPTZ '{first} 00:00:00Z' AND {moment} < TIMESTAMPTZ '{last} 00:00:00Z' + INTERVAL 1 DAY"


def _moment(table: Table) -> str:
    return table.day_column if table.placement is Placement.EVENT and table.day_column else "_exported_at"
