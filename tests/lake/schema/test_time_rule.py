"""What a time is: the same in SQL and in Python, for every spelling, and never outside of a lake's calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import duckdb
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from airflow_provider_chatexport.core.times import EARLIEST, EPOCH, LATEST, UNSET_NUMBERS, read_time
from airflow_provider_chatexport.lake.schema import sql

SPELLINGS = [
    *("", "0001-01-01T00:00:00Z", "0001-01-01t00:00:00.000000000z", "0001-01-01T00:00:00-00:00", "yesterday"),
    *("0001-01-01T05:53:28+05:53", "0000-12-31T19:03:58-04:56", "0001-01-01T00:00:00+00:01", "0001-01-01T12:00:00Z"),
    *("1899-12-31T23:59:59.999999Z", "1900-01-01T00:00:00.0Z", "1900-01-01T00:30:00+01:00", "1e400", "1.7E+18"),
    *("2261-12-31T23:59:59.999999999Z", "2262-01-01T00:00:00.0Z", "2262-01-01T00:30:00+01:00", "-1", "1e3", "3.7"),
    *("1899-12-31T23:30:00-01:00", "2261-12-31T23:30:00-01:00", "2024-02-29T00:00:00+24:00", "2024-02-29T00:00:00"),
    *("2026-02-29T00:00:00.0Z", "2024-02-29T24:00:00.0Z", "2024-02-29T23:59:60.0Z", "2024-02-29T00:00:00.0123456789Z"),
    *("2024-02-29T00:00:00.Z", "2024-02-29", "epoch", "-infinity", "1_000", "0x10", " 0", "true", "nan", "1.7e18"),
    *("99999999999999999", "100000000000000000", "9214646399999999999", "9214646400000000000", "9223372036854775807"),
    *("9223372036854775808", *map(str, UNSET_NUMBERS)),
    *("-0", "00", "0.0", "-0.00", "0e5", "0E+1", "-062135596800", "-62135596800.0", "-6.21355968e10", "-1"),
]

wide = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants them naive
near = st.sampled_from([EARLIEST, LATEST]).flatmap(
    lambda edge: st.timedeltas(timedelta(days=-2), timedelta(days=2)).map(lambda by: edge + by)
)
moments = st.one_of(wide, near)
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def spelled(moment: datetime, zone: timezone, digits: int, mark: str, letter: str) -> str:
    local = moment.astimezone(zone)
    fraction = f"{local.microsecond:06}999"[:digits]
    offset = local.isoformat()[-6:] if zone.utcoffset(None) or letter == "+" else letter
    clock = local.replace(tzinfo=None, microsecond=0).isoformat(mark)
    return f"{clock}{'.' if digits else ''}{fraction}{offset}"


texts = st.one_of(
    st.builds(spelled, moments, offsets, st.integers(0, 9), st.sampled_from("Tt "), st.sampled_from("Zz+")),
    st.builds(spelled, moments, st.just(UTC), st.integers(1, 9), st.just("T"), st.just("Z")),
    st.integers(-(2**66), 2**66).map(str),
    st.integers(0, 22).flatmap(lambda power: st.integers(1, 10**power)).map(str),
    st.sampled_from(SPELLINGS),
    st.text("0123456789-T:.Z+ e", max_size=32),
)


def in_python(text: str) -> tuple[datetime | None, bool]:
    """The time, and whether the text says that there is none."""
    try:
        moment = read_time(text)
    except ValueError:
        return None, False
    return moment, moment is None


def assert_sql_agrees(values: list[str]) -> None:
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'America/Los_Angeles'")
        found = database.execute(
            f"SELECT epoch_us({sql.time('text')}), {sql.is_unset('text')} FROM (SELECT unnest($1) AS text)", [values]
        ).fetchall()
    read = [(None if us is None else EPOCH + timedelta(microseconds=us), is_unset) for us, is_unset in found]
    assert list(zip(values, map(in_python, values), strict=True)) == list(zip(values, read, strict=True))
    assert all(moment is None or EARLIEST <= moment < LATEST for moment, _ in read)


def test_sql_and_python_read_each_spelling_alike() -> None:
    """Python says why an object is a reject, and SQL decides that it is one."""
    assert_sql_agrees(SPELLINGS)


@given(st.lists(texts, min_size=20, max_size=60))
@settings(max_examples=25, deadline=None, phases=[Phase.generate])
def test_sql_and_python_read_any_text_alike(values: list[str]) -> None:
    """Whatever the year, the offset and the number of digits."""
    assert_sql_agrees(values)
