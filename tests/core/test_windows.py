"""Windows: half-open and tiling, with a sentence for each value that is not a window."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.core.window import Window, WindowSources, resolve
from airflow_provider_chatexport.errors import CallError, WindowError

DAY = Window.parse("2026-01-01", "2026-01-02")

moments = st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants them naive
spans = st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=400))
windows = st.builds(lambda since, span: Window(since=since, until=since + span), moments, spans)


@given(windows, st.integers(1, 40), st.timedeltas(timedelta(0), timedelta(seconds=1)))
def test_pieces_of_a_split_window_tile_it(window: Window, n_pieces: int, extra: timedelta) -> None:
    """A gap between two pieces would lose messages, and an overlap would load them twice."""
    max_span = window.span / n_pieces + extra + timedelta(microseconds=1)
    pieces = list(window.split(max_span))
    assert (window.since, window.until) == (pieces[0].since, pieces[-1].until)
    assert all(before.until == after.since for before, after in pairwise(pieces))
    assert all(piece.span <= max_span for piece in pieces)


@given(windows, moments)
def test_a_moment_is_in_exactly_one_piece_of_a_split_window(window: Window, moment: datetime) -> None:
    """Because windows are half-open, consecutive windows neither overlap nor leave a gap."""
    pieces = list(window.split(window.span / 7 + timedelta(microseconds=1)))
    assert int(moment in window) == sum(moment in piece for piece in pieces)


@given(windows)
def test_a_window_survives_json(window: Window) -> None:
    """Receipts carry windows between processes: a lost microsecond could lose a message."""
    assert window == Window.from_json(window.to_json())


@given(windows)
def test_padding_asks_a_second_more_on_both_sides(window: Window) -> None:
    """The service does not document its bounds: the request must contain the whole window in any case."""
    padded = window.padded()
    assert (window.since - padded.since, padded.until - window.until) == (timedelta(seconds=1),) * 2


def test_a_date_alone_is_its_utc_midnight() -> None:
    """People write dates: local midnight would shift the window by the offset of the machine."""
    assert Window(since=datetime(2026, 1, 1, tzinfo=UTC), until=datetime(2026, 1, 2, tzinfo=UTC)) == DAY


def test_offsets_are_converted_to_utc() -> None:
    """The same moments with two offsets must be the same window, and have the same fingerprint."""
    berlin = timezone(timedelta(hours=1))
    assert Window(since=datetime(2026, 1, 1, 1, tzinfo=berlin), until=datetime(2026, 1, 2, 1, tzinfo=berlin)) == DAY


def test_the_until_is_outside_and_the_since_inside() -> None:
    """A message at the edge of two consecutive windows belongs to the later one only."""
    assert DAY.since in DAY
    assert DAY.until not in DAY


def test_a_lookback_starts_earlier_and_ends_at_the_same_time() -> None:
    """The load gets late edits when the time before the window is exported again."""
    assert Window.parse("2025-12-25", "2026-01-02") == DAY.looking_back(timedelta(days=7))


@pytest.mark.parametrize(
    ("since", "until", "sentence"),
    [
        ("2026-01-01T00:00:00", "2026-01-02", "has no time zone; write an offset, such as 2026-01-01T00:00:00+00:00"),
        ("2026-01-01", "2026-01-01", "has zero length"),
        ("2026-01-02", "2026-01-01", "is reversed"),
        ("yesterday", "2026-01-01", "since is not a time: 'yesterday'; write ISO 8601"),
        ("2026-01-01", "", "until is missing; give a time, such as 2026-01-01T00:00:00Z"),
        (None, "2026-01-01", "the window's since is missing; give a time"),
        ("None", "2026-01-01", "the window's since is missing; give a time"),
        (2026, "2026-01-01", "since is not a time: '2026'"),
    ],
)
def test_a_wrong_window_is_refused_with_the_fix(since: Any, until: Any, sentence: str) -> None:
    """Each sentence must say what is wrong with which end, and what to write."""
    with pytest.raises(WindowError, match=sentence.replace("+", r"\+")):
        Window.parse(since, until)


@pytest.mark.parametrize("refused", [timedelta(0), timedelta(days=-1)])
def test_a_split_into_nothing_is_refused(refused: timedelta) -> None:
    """A split into pieces of zero length would never end."""
    with pytest.raises(WindowError, match="give a duration longer than zero"):
        list(DAY.split(refused))


def test_a_negative_lookback_is_refused() -> None:
    """It would silently export less than the window."""
    with pytest.raises(WindowError, match="lookback is negative"):
        DAY.looking_back(timedelta(days=-1))


ARGUMENTS = ("2026-01-01", "2026-01-02")
CONF = ("2026-02-01", "2026-02-02")
INTERVAL = (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    ("expected", "sources"),
    [
        (ARGUMENTS, WindowSources(arguments=ARGUMENTS, conf=CONF, data_interval=INTERVAL)),
        (CONF, WindowSources(conf=CONF, data_interval=INTERVAL)),
        (("2026-03-01", "2026-03-02"), WindowSources(data_interval=INTERVAL)),
        (CONF, WindowSources(arguments=("", "None"), conf=CONF, data_interval=INTERVAL)),
    ],
    ids=["arguments first", "then conf", "then the interval", "templates over absent values are absent"],
)
def test_a_run_takes_the_window_of_its_first_source(expected: tuple[str, str], sources: WindowSources) -> None:
    """A window that a person wrote for this run beats the window of the schedule."""
    assert Window.parse(*expected) == resolve(sources)


@pytest.mark.parametrize(
    ("sentence", "sources"),
    [
        ("arguments since and until give only one end of the window; give until too", {"arguments": (*CONF[:1], None)}),
        ("conf or params since and until give only one end of the window; give since too", {"conf": (None, CONF[1])}),
        ("this run has no window", {}),
        ("this run has no window", {"data_interval": (INTERVAL[0], None)}),
        ("CronDataIntervalTimetable", {"data_interval": (INTERVAL[0], INTERVAL[0])}),
    ],
)
def test_a_run_without_a_whole_window_is_refused(sentence: str, sources: dict[str, tuple[object, object]]) -> None:
    """A window with its ends from two sources would be a window that no person and no schedule meant."""
    with pytest.raises(WindowError, match=sentence):
        resolve(WindowSources(**sources))


# Clocks in Berlin went forward at this moment, from 2 to 3 o'clock.
SPRING = datetime(2026, 3, 29, 1, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("sentence", "timetable", "zone"),
    [
        ("clocks change in Europe/Berlin on that day, and CronDataIntervalT", "CronDataIntervalTimetable", BERLIN),
        ("although CronDataIntervalTimetable gives scheduled runs a length; trigger", "CronDataIntervalTimetable", UTC),
        ("although DeltaDataIntervalTimetable gives", "DeltaDataIntervalTimetable", UTC),
        ("as every run of a DAG without a schedule; trigger it with conf", "NullTimetable", UTC),
        ('CronDataIntervalTimetable("@daily", timezone="UTC") or CronTrigger', "CronTriggerTimetable", BERLIN),
        ('CronDataIntervalTimetable("@daily", timezone="UTC") or CronTrigger', "", UTC),
    ],
)
def test_the_cure_for_a_window_of_zero_length_depends_on_the_timetable(
    sentence: str, timetable: str, zone: tzinfo
) -> None:
    """The timetable that is in use is no cure, and on the day of a clock change nothing is wrong with it."""
    sources = WindowSources(data_interval=(SPRING, SPRING), zone=zone, timetable=timetable)
    with pytest.raises(WindowError, match=re.escape(sentence)) as caught:
        resolve(sources)
    assert "since and until" in caught.value.message


def test_a_template_in_the_conf_of_a_run_is_not_rendered() -> None:
    """Airflow renders arguments only, and the text looks right to the person who wrote it."""
    with pytest.raises(WindowError, match=r"since is a template that was not rendered.* not in the conf or params"):
        resolve(WindowSources(conf=("{{ ds }}", "2026-01-02")))


def test_a_missing_window_names_the_conf_to_trigger_with() -> None:
    """The most frequent cause is a manual run: the sentence must say how to start it with a window."""
    with pytest.raises(CallError, match=re.escape('trigger it with conf {"since"')):
        resolve(WindowSources())
