"""Conversions between the service's two spellings of a time and ours: aware datetimes, UTC, microseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# The calendar of a lake: ``EARLIEST <= moment < LATEST``. Every reader of a lake can hold its moments, in every time
# zone. Spark 3 refuses Parquet files with earlier moments (SPARK-31404), and nanoseconds in 64 bits, which pandas and
# numpy use, end in April 2262.
EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2262, 1, 1, tzinfo=UTC)

# 0 to 9 fraction digits: the service cuts trailing zeros, and one real export has 5, 6 and 9 digits.
_RFC3339: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ]((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:\.(\d{1,9}))?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?([eE]\+?\d+)?", re.ASCII)

# Go writes an unset time as the first moment of the year 1, in the zone that the time is in.
_ZERO_DAYS: Final = ("0001-01-01", "0000-12-31")
ZERO_S: Final = -62_135_596_800
# Go's zero time as a number of seconds, milliseconds, microseconds and nanoseconds, and what ``time.Time{}.UnixNano()``
# returns: the last one in 64 bits.
UNSET_NUMBERS: Final = (0, *(ZERO_S * 10**digits for digits in (0, 3, 6, 9)), -6_795_364_578_871_345_152)
# A smaller number counts something longer than nanoseconds: as nanoseconds, it would be before March 1973.
FEWEST_NS: Final = 10**17
# What a smaller number most likely counts. Ten digits are seconds, 13 milliseconds and 16 microseconds.
_LONGER_UNITS: Final = ((10**11, "seconds"), (10**14, "milliseconds"), (FEWEST_NS, "microseconds"))


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


def parse_written(text: str) -> datetime:
    """Parse a time that ``format_rfc3339`` wrote. It takes a tenth of the time of ``parse_rfc3339``.

    :raises ValueError: the text is not such a time.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not UTC:
        raise ValueError(f"not a time in UTC: {text[:40]!r}")
    return moment


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


def read_time(value: object) -> datetime | None:
    """Read a value of a time field, as JSON has it, that a lake is to hold; None if it says that there is no time.

    A time is RFC3339 text, or unix nanoseconds as a number or in quotes: some writers of JSON quote all integers of 64
    bits. There is no time if the value is null, empty, or Go's zero time in either spelling.

    :raises ValueError: the value is something else, or not in the lake's calendar; the message says which, and quotes
        nothing.
    """
    match value:
        case None | "":
            return None
        case bool():
            raise ValueError("it is true or false")
        case int() | float():
            return _from_number(value)
        case str() if _NUMBER.fullmatch(value):
            return _from_number(int(value) if value.lstrip("-").isdigit() else float(value))
        case str():
            return _from_text(value)
        case _:
            raise ValueError("it is neither text nor a number")


def _from_number(number: int | float) -> datetime | None:
    # Zero may be written as a float. The other numbers count as integers only, as in the SQL of staging.
    if number == 0 or (isinstance(number, int) and number in UNSET_NUMBERS):
        return None
    for limit, unit in _LONGER_UNITS:
        if abs(number) < limit:
            raise ValueError(f"it is a number, most likely of {unit}, and not RFC3339 text")
    if not FEWEST_NS <= number < to_unix_ns(LATEST):
        raise ValueError(f"it is a number, and as nanoseconds not between 1973 and {LATEST.year - 1}")
    return from_unix_ns(number)


def _from_text(text: str) -> datetime | None:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("it is not RFC3339 text")
    day, clock, _, offset = match.groups()
    if day in _ZERO_DAYS and _is_zero(day, clock, offset):
        return None
    try:
        moment = parse_rfc3339(text)
    except ValueError:
        raise ValueError("it is not a time of the calendar") from None
    if not EARLIEST <= moment < LATEST:
        raise ValueError(f"it is not between {EARLIEST.year} and {LATEST.year - 1}")
    return moment


def _is_zero(day: str, clock: str, offset: str) -> bool:
    """Return whether a local time is Go's zero time. Zones of that year have seconds, which RFC3339 leaves out."""
    hour, minute, second = map(int, clock.split(":"))
    ahead_s = 0 if offset in "Zz" else int(f"{offset[0]}1") * (int(offset[1:3]) * 3600 + int(offset[4:]) * 60)
    day_s = 0 if day == _ZERO_DAYS[0] else -86_400
    return abs(day_s + hour * 3600 + minute * 60 + second - ahead_s) < 60
