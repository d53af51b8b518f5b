"""Values of a query's result, as people and JSON read them."""

from __future__ import annotations

import base64
import math
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.lake.schema import sql

# Types without a counterpart in Python or Arrow: a time of day with a zone, or at 24:00; bits; very large numbers.
_AS_TEXT: Final = frozenset({"time", "time with time zone", "time_ns", "bit", "uhugeint", "bignum", "variant"})
# As ``format_rfc3339`` writes them, in a tenth of the time. The connection's time zone is UTC.
_TIME: Final = "strftime({}, '%Y-%m-%dT%H:%M:%S.%fZ')"
_CASTS: Final = dict.fromkeys(_AS_TEXT, "{}::VARCHAR") | {"timestamp with time zone": _TIME}


def readable(bound: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Return the relation with columns that Arrow can hold and Python can read; times as text."""
    types = [each.id for each in bound.types]
    if not _CASTS.keys() & set(types):
        return bound
    shown = [
        f"{_CASTS.get(each, '{}').format(f'#{at}')} AS {sql.name(name)}"  # several may have one name
        for at, (name, each) in enumerate(zip(bound.columns, types, strict=True), 1)
    ]
    return bound.project(", ".join(shown))


def is_plain(kind: pa.DataType) -> bool:
    """Return whether every value of an Arrow type is as ``plain`` would return it."""
    return any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_integer, pa.types.is_boolean))


def plain(value: Any) -> Any:  # noqa: PLR0911 - a case for each type
    """Return a value as people and JSON read it.

    Times become RFC3339, intervals days and hours, and bytes base64. A decimal becomes text if a number would lose
    digits. NaN and infinity become null.
    """
    match value:
        case list():
            return [plain(item) for item in value]
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case Decimal():
            if value == value.to_integral_value():
                return int(value)
            return float(value) if Decimal(str(float(value))) == value else str(value)
        case float() if not math.isfinite(value):
            return None
        case bytes():
            return base64.b64encode(value).decode()
        case datetime() if value.tzinfo is not None:
            return format_rfc3339(value)
        case pa.MonthDayNano(months=months, days=days, nanoseconds=ns):
            return f"{months} months " * bool(months) + str(timedelta(days=days, microseconds=ns // 1000))
        case _:
            return value
