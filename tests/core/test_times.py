"""Times in the service's two spellings: text with any number of fraction digits and any offset, and nanoseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.core.times import (
    format_rfc3339,
    from_unix_ns,
    parse_instant,
    parse_rfc3339,
    to_unix_ns,
)

moments = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants them naive
offsets = st.integers(-23 * 60, 23 * 60)


@given(moments)
def test_formatting_and_parsing_are_inverse(moment: datetime) -> None:
    """Records and receipts are written with one function and read with the other."""
    assert moment == parse_rfc3339(format_rfc3339(moment))


@given(moments)
def test_nanoseconds_and_back_are_inverse(moment: datetime) -> None:
    """The two families of addresses write the same moment in two spellings."""
    assert moment == from_unix_ns(to_unix_ns(moment))


@given(moments, moments)
def test_formatted_times_sort_as_text(one: datetime, other: datetime) -> None:
    """Code that does not parse records sorts their times as text."""
    assert (one < other) == (format_rfc3339(one) < format_rfc3339(other))


@given(moments, offsets)
def test_an_offset_does_not_change_the_moment(moment: datetime, minutes: int) -> None:
    """RFC3339 allows any offset; the lake is in UTC."""
    local = moment.astimezone(timezone(timedelta(minutes=minutes)))
    assert moment == parse_rfc3339(local.isoformat())


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "2025-01-23T13:05:35Z"),
        (400_000, "2025-01-23T13:05:35.4Z"),
        (491_250, "2025-01-23T13:05:35.49125Z"),
        (491_258, "2025-01-23T13:05:35.491258Z"),
        (365_621, "2025-01-23T13:05:35.365621247Z"),
        (999_999, "2025-01-23T13:05:35.999999999Z"),
        (491_258, "2025-01-23t13:05:35.491258z"),
        (491_258, "2025-01-23 13:05:35.491258+00:00"),
    ],
)
def test_zero_to_nine_fraction_digits_are_cut_to_microseconds(micros: int, text: str) -> None:
    """One real export has 5, 6 and 9 digits. Rounding up could move a message into the next window."""
    assert datetime(2025, 1, 23, 13, 5, 35, micros, tzinfo=UTC) == parse_rfc3339(text)


@pytest.mark.parametrize(
    "text",
    ["", "2025-01-23", "2025-01-23T13:05:35", "2025-01-23T13:05Z", "2025-13-23T13:05:35Z", "2025-01-23T13:05:35.Z",
     "2025-01-23T13:05:35.1234567890Z", "2025-01-23T25:05:35Z", "infinity", "2025-01-23T13:05:35Z and more"],
)  # fmt: skip
def test_a_text_that_is_not_a_time_is_refused(text: str) -> None:
    """A time without an offset, read as UTC, would silently be wrong by hours."""
    with pytest.raises(ValueError):  # noqa: PT011 - the standard library's own refusals count as well
        parse_rfc3339(text)


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        (None, None),
        (datetime(2026, 1, 17, 6, 8, 17, tzinfo=UTC), 1768630097000000000),
        (datetime(2026, 1, 17, 6, 8, 17, tzinfo=UTC), 1768630097000000000.0),
        (datetime(2026, 1, 17, 6, 8, 17, 1, tzinfo=UTC), 1768630097000001999),
        (datetime(2026, 1, 17, 6, 8, 17, tzinfo=UTC), "2026-01-17T06:08:17Z"),
    ],
)
def test_a_time_is_read_in_either_spelling_or_null(expected: datetime | None, value: object) -> None:
    """One family writes text, the other nanoseconds, and both write null."""
    assert expected == parse_instant(value)


def test_true_is_not_a_time() -> None:
    """In Python a boolean is an integer: True would become the first nanosecond of 1970."""
    with pytest.raises(ValueError, match="boolean"):
        parse_instant(True)
