"""What is missing, against a model that asks for every hour whether an export covers it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import BEGINNING, CoverageEntry, TimeSpan
from airflow_provider_chatexport.lake.commits.gaps import gaps

START = datetime(2026, 1, 1, tzinfo=UTC)
N_HOURS = 12
HOUR = timedelta(hours=1)
CHANNELS = ("a:1", "a:2", "a:3")
SETS = (("a:1",), ("a:2",), ("a:1", "a:2"), ("a:2", "a:3"), CHANNELS)


def at(hour: float) -> datetime:
    return START + timedelta(hours=hour)


def entry(since: int, until: int, exported: int = 100, cids: Sequence[str] = ("a:1",)) -> CoverageEntry:
    return CoverageEntry(
        channels=ChannelSet.of(cids), since=at(since), until=at(until), exported_at=at(exported), load_id="load"
    )


def hours_of(spans: list[TimeSpan]) -> list[int]:
    return [hour for hour in range(N_HOURS) for span in spans if span.since <= at(hour) < span.until]


# An export of a closed window, or one that ends when it was made.
entries = st.builds(
    lambda since, span, is_open, cids: entry(since, since + span, since + span if is_open else 100, cids),
    st.integers(0, N_HOURS - 2),
    st.integers(1, N_HOURS - 1),
    st.booleans(),
    st.sampled_from(SETS),
)


def model(lake: list[CoverageEntry], cid: str, since: int | None, until: int, lookback: int, grace: int) -> list[int]:
    """Return the missing hours: those to export, from the first one to ``until``."""
    covered = {
        hour
        for hour in range(2 * N_HOURS)
        for each in lake
        if cid in each.channels.names
        and each.since <= at(hour) < each.until
        and (each.until < each.exported_at or at(hour) < each.until - grace * HOUR)
    }
    first = min(covered, default=0) if since is None else since
    end = max(covered, default=first - 1) + 1
    if first < end < until:
        if until - end < grace:
            until = end
        else:
            covered -= set(range(end - lookback, end))
    return [hour for hour in range(first, until) if hour not in covered]


@given(
    st.lists(entries, max_size=8),
    st.none() | st.integers(0, N_HOURS),
    st.integers(0, N_HOURS),
    st.integers(0, 5),
    st.integers(0, 3),
)
@settings(max_examples=1000)
def test_gaps_are_the_hours_that_no_export_covers(
    lake: list[CoverageEntry], since: int | None, until: int, lookback: int, grace: int
) -> None:
    """Too few would leave messages out for good; too many would export the same again at every run."""
    found = gaps(
        lake,
        CHANNELS,
        since=None if since is None else at(since),
        until=at(until),
        lookback=lookback * HOUR,
        grace_period=grace * HOUR,
    )
    for cid in CHANNELS:
        spans = found.get(cid, [])
        if since is None and not any(cid in each.channels.names and each.settled(grace * HOUR) for each in lake):
            assert [TimeSpan(since=BEGINNING, until=at(until))] == spans
            continue
        assert model(lake, cid, since, until, lookback, grace) == hours_of(spans)
        for span in spans:
            assert span.since < span.until <= at(until)
        assert all(one.until < other.since for one, other in pairwise(spans))


@given(st.lists(entries, max_size=8), st.none() | st.integers(0, N_HOURS), st.integers(0, N_HOURS))
def test_what_fills_all_gaps_leaves_none(lake: list[CoverageEntry], since: int | None, until: int) -> None:
    """Otherwise a job that exports what is missing would never be done."""
    bounds = {"since": None if since is None else at(since), "until": at(until)}
    missing = gaps(lake, CHANNELS, **bounds)
    filled = [
        CoverageEntry(
            channels=ChannelSet.of([cid]), since=span.since, until=span.until, exported_at=at(100), load_id="filled"
        )
        for cid, spans in missing.items()
        for span in spans
    ]
    assert {} == gaps([*lake, *filled], CHANNELS, **bounds)


def test_a_channel_without_an_export_misses_its_whole_history() -> None:
    """It was added to the list of channels just now."""
    lake, channels = [entry(1, 5)], ("a:1", "a:2")
    assert {"a:2": [TimeSpan(since=BEGINNING, until=at(5))]} == gaps(lake, channels, since=None, until=at(5))
    assert {"a:2": [TimeSpan(since=at(3), until=at(5))]} == gaps(lake, channels, since=at(3), until=at(5))


def test_what_was_sent_before_the_first_export_is_no_gap_unless_it_is_asked_for() -> None:
    """Who began with January did not want the years before."""
    assert {} == gaps([entry(3, 5)], ["a:1"], since=None, until=at(5))
    assert {"a:1": [TimeSpan(since=at(0), until=at(3))]} == gaps([entry(3, 5)], ["a:1"], since=at(0), until=at(5))


def test_an_export_does_not_vouch_for_the_moments_before_it_was_made() -> None:
    """Messages of its last minute may still have been on their way; a closed window was exported after them."""
    opened, closed = entry(0, 5, exported=5), entry(0, 5, exported=6)
    settled = {"since": None, "until": at(9), "grace_period": HOUR}
    assert {"a:1": [TimeSpan(since=at(4), until=at(9))]} == gaps([opened], ["a:1"], **settled)
    assert {"a:1": [TimeSpan(since=at(5), until=at(9))]} == gaps([closed], ["a:1"], **settled)


def test_a_rest_that_is_shorter_than_the_grace_period_waits() -> None:
    """Time passes between two runs, and the second one should have nothing to do. A hole is exported at any length."""
    lake = [entry(0, 2), entry(3, 5)]
    for until, missing in ((5.5, [(2, 3)]), (6, [(2, 3), (5, 6)])):
        expected = [TimeSpan(since=at(since), until=at(end)) for since, end in missing]
        found = gaps(lake, ["a:1"], since=None, until=at(until), grace_period=HOUR, lookback=timedelta(0))
        assert {"a:1": expected} == found


def test_a_lookback_ends_at_the_first_covered_moment() -> None:
    """It repeats what was exported, and exports nothing older."""
    (span,) = gaps([entry(3, 5)], ["a:1"], since=None, until=at(6), lookback=100_000 * timedelta(days=1))["a:1"]
    assert (at(3), at(6)) == (span.since, span.until)
    assert {} == gaps([entry(3, 5)], ["a:1"], since=None, until=at(5), lookback=HOUR)
