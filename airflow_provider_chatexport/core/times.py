"""Conversions between the service's two spellings of a time and ours: aware datetimes, UTC, microseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# The calendar of Python and of the lake without its first and last day, so that every moment has a day in every zone.
EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
LATEST: Final = datetime(9999, 12, 31, tzinfo=UTC)

# 0 to 9 fraction digits: the service cuts trailing zeros, and one real export has 5, 6 and 9 digits.
_RFC3339: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


def parse_rfc3339(text: str) -> datetime:
    """Parse an RFC3339 string with 0 to 9 fraction digits and any offset into an aware UTC datetime.

    Digits after the microsecond are cut, never rounded, so that the order of times stays the same.

    :raises ValueError: the text is not RFC3339, or has no offset.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC3339 time with an offset: {text[:40]!r}")
    day, clock, fraction, offset = match.groups()
    micros = (fraction or "")[:6].ljust(6, "0")
    zone = "+00:00" if offset in "Zz" else offset
    try:
        return datetime.fromisoformat(f"{day}T{clock}.{micros}{zone}").astimezone(UTC)
    except OverflowError:
        raise ValueError(f"not in the calendar: {text!r}") from None


def from_unix_ns(ns: int | float) -> datetime:
    """Convert unix nanoseconds (the ``/api/v2`` family) to an aware UTC datetime; cut digits after the microsecond."""
    return EPOCH + timedelta(microseconds=int(ns) // 1000)


def to_unix_ns(moment: datetime) -> int:
    """Convert an aware datetime to unix nanoseconds."""
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


def format_rfc3339(moment: datetime) -> str:
    """Format an aware datetime as ``2026-01-01T00:00:00.000000Z``: always microseconds and Z, so it sorts as text."""
    # On some systems the %Y of strftime has fewer than four digits before the year 1000.
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def parse_instant(value: object) -> datetime | None:
    """Parse a field of the service that is a time in either spelling, or null.

    :raises ValueError: the value is neither.
    """
    match value:
        case None:
            return None
        case str():
            return parse_rfc3339(value)
        case bool():
            raise ValueError("not a time: a boolean")
        case int() | float():
            return from_unix_ns(value)
        case _:
            raise ValueError(f"not a time: a {type(value).__name__}")
