"""Moments as the sandbox keeps them (integer microseconds since 1970, UTC) and as the service writes them."""

from __future__ import annotations

import functools
from datetime import datetime, timedelta
from typing import Final

from airflow_provider_chatexport.core.times import EPOCH

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US


def to_us(moment: datetime) -> int:
    """Return an aware datetime as microseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def stamp(us: int, *, extra_ns: int = 0) -> str:
    """Return RFC3339 as the service writes it: without trailing zeros of the fraction, without a fraction of zero.

    :param extra_ns: 0 to 999, the digits past the microsecond: ``last_active`` has nine in a real export.
    """
    minute, rest_us = divmod(us, MINUTE_US)
    second, fraction_us = divmod(rest_us, SECOND_US)
    if extra_ns:
        return f"{_minute_text(minute)}{second:02d}.{fraction_us:06d}{extra_ns:03d}".rstrip("0") + "Z"
    if fraction_us:
        return f"{_minute_text(minute)}{second:02d}.{fraction_us:06d}".rstrip("0") + "Z"
    return f"{_minute_text(minute)}{second:02d}Z"


# This takes longer than the rest of a stamp, and neighbouring messages share their minute. Not strftime, whose %Y has
# fewer than four digits before the year 1000 on some systems: Go's zero time is in the year 1.
@functools.lru_cache(maxsize=65_536)
def _minute_text(minute: int) -> str:
    return f"{(EPOCH + timedelta(minutes=minute)).replace(tzinfo=None).isoformat(timespec='minutes')}:"
