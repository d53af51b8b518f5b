"""What a sync plans, and in which order it exports and loads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import client_of

from airflow_provider_chatexport import sync
from airflow_provider_chatexport.core.plan import Cid
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import UnauthorizedError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import BEGINNING, CoverageEntry
from airflow_provider_chatexport.lake.commits.gaps import gaps
from airflow_provider_chatexport.sandbox import Sandbox

RUST = Cid("messaging:rust")
START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
QUARTER = HOUR / 4
EXPORTS = "/api/v2/chat/export_channels"
CHANNELS = [Cid(f"a:{number}") for number in range(5)]


def at(hour: float) -> datetime:
    return START + hour * HOUR


def entry(cid: str, since: float, until: float) -> CoverageEntry:
    return entry_between(cid, at(since), at(until))


def entry_between(cid: str, since: datetime, until: datetime) -> CoverageEntry:
    return CoverageEntry(channels=ChannelSet.of([cid]), since=since, until=until, exported_at=at(100), load_id="load")


def quarters(since: datetime, until: datetime) -> list[datetime]:
    """Return the quarters of an hour in a span; no window of these tests is cut within one."""
    return [since + number * QUARTER for number in range((until - since) // QUARTER)]


def planned(entries: list[CoverageEntry], **others: Any) -> tuple[sync.MissingWindow, ...]:
    arguments = {
        "since": None,
        "until": at(12),
        "lookback": timedelta(0),
        "max_window": None,
        "grace_period": timedelta(0),
        "max_channels": 25,
    }
    return sync.missing_windows(entries, CHANNELS, **{**arguments, **others})


# The plan


entries = st.builds(
    lambda cid, since, span: entry(cid, since, since + span),
    st.sampled_from(CHANNELS),
    st.integers(0, 11),
    st.integers(1, 12),
)


@given(
    st.lists(entries, max_size=12),
    st.none() | st.integers(0, 11),
    st.integers(0, 5),
    st.none() | st.sampled_from([0.5, 1, 2.5, 7]),
    st.integers(1, 3),
)
@settings(max_examples=500)
def test_the_windows_of_a_plan_are_the_gaps(
    lake: list[CoverageEntry], since: int | None, lookback: int, max_window: float | None, max_channels: int
) -> None:
    """Together they are exactly what is missing, with a lookback before it, whatever channels share.

    Each contains a moment that is not covered: if it fails, it leaves a gap, and the next plan has it again.
    """
    bounds = {"since": None if since is None else at(since), "until": at(12)}
    max_span = None if max_window is None else max_window * HOUR
    windows = planned(lake, **bounds, lookback=lookback * HOUR, max_window=max_span, max_channels=max_channels)
    by_channel: dict[str, list[Window | None]] = {}
    for each in windows:
        assert 1 <= len(each.channels) <= max_channels
        for cid in each.channels:
            by_channel.setdefault(cid, []).append(each.window)
    missing = gaps(lake, CHANNELS, **bounds)
    assert missing.keys() == by_channel.keys()
    for cid, spans in missing.items():
        covered = [each for each in lake if cid in each.channels.names and each.since < at(12)]
        if since is None and not covered:
            assert [None] == by_channel[cid]
            continue
        start = min(each.since for each in covered) if since is None else at(since)
        exported: set[datetime] = set()
        for window in by_channel[cid]:
            assert window is not None
            held = set(quarters(window.since, window.until))
            assert exported.isdisjoint(held)
            exported |= held
            uncovered = {moment for span in spans for moment in quarters(span.since, span.until)} & held
            assert uncovered
            assert max_span is None or len(uncovered) * QUARTER <= max_span
        assert exported == {
            moment for span in spans for moment in quarters(max(start, span.since - lookback * HOUR), span.until)
        }


def test_channels_that_miss_the_same_are_exported_together() -> None:
    """The service takes 25 channels in an export, and 60 exports a minute."""
    lake = [entry(cid, 0, 5) for cid in CHANNELS[:3]] + [entry(CHANNELS[3], 0, 6)]
    assert [
        (CHANNELS[:2], Window(since=at(5), until=at(12))),
        (CHANNELS[2:3], Window(since=at(5), until=at(12))),
        (CHANNELS[3:4], Window(since=at(6), until=at(12))),
        (CHANNELS[4:], None),
    ] == [(list(each.channels), each.window) for each in planned(lake, max_channels=2)]


def test_a_message_without_a_time_does_not_lead_to_an_export_for_ever() -> None:
    """Go writes an unset time as the first day of the year 1, which no window reaches."""
    zero = entry_between(CHANNELS[0], BEGINNING - 24 * HOUR, BEGINNING - 23 * HOUR)
    known = [zero, *(entry(cid, 0, 12) for cid in CHANNELS)]
    for lookback in (timedelta(0), HOUR):
        (window,) = planned(known, max_window=HOUR, lookback=lookback)
        assert Window(since=BEGINNING, until=at(0)) == window.window
    filled = entry_between(CHANNELS[0], BEGINNING, at(0))
    assert () == planned([*known, filled], max_window=HOUR)


def test_what_lies_before_the_horizon_of_a_policy_is_in_no_plan() -> None:
    """No export can cover it any more, so every run would ask for it again. A new channel has its whole history."""
    lake = [entry(CHANNELS[0], 0, 2), entry(CHANNELS[0], 4, 8), entry(CHANNELS[1], 0, 3), entry(CHANNELS[2], 7, 12)]
    horizon = {CHANNELS[0]: at(6), CHANNELS[1]: at(6), CHANNELS[2]: at(12)}
    windows = planned(lake, lookback=4 * HOUR, horizon_of=lambda cid: horizon.get(cid, at(6)))
    assert [
        (CHANNELS[:2], Window(since=at(6), until=at(12))),
        (CHANNELS[3:], None),
    ] == [(list(each.channels), each.window) for each in windows]
    stated = planned(lake, since=at(0), until=at(5), horizon_of=lambda _: at(6))
    assert () == stated


def test_channels_with_different_gaps_share_most_windows() -> None:
    """Otherwise each channel of a large app would be exported alone, once its gap began at a moment of its own."""
    lake = [entry(cid, 0, 1 + number / 10) for number, cid in enumerate(CHANNELS)]
    windows = planned(lake, max_window=4 * HOUR)
    assert [tuple(CHANNELS)] * 2 == [each.channels for each in windows if each.window and each.window.since >= at(4)]


# The run


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def synced(sandbox: Sandbox, lake: Lake, *channels: Cid, until: datetime, **others: Any) -> list[sync.Outcome]:
    run_options = {name: others.pop(name) for name in ("wait_timeout",) if name in others}
    sync_plan = sync.plan(lake.uri, channels or None, until=until, **others)
    with client_of(sandbox) as client:
        return list(sync.run(client.settings, sync_plan, lake_uri=lake.uri, **run_options))


def test_a_lookback_that_fails_is_exported_by_the_next_run(sandbox: Sandbox, lake: Lake) -> None:
    """Regression: newer windows were loaded, so the next lookback began later, and the late change never arrived."""
    now = sandbox.control.now()
    sandbox.control.add_message(RUST, id="m1", text="as sent", user_id="ann", created_at=now - 6 * HOUR)
    assert [None] == [each.problem for each in synced(sandbox, lake, RUST, since=now - 7 * HOUR, until=now - 5 * HOUR)]
    sandbox.control.edit_message("m1", text="edited")
    wanted = {"until": now - HOUR, "lookback": 2 * HOUR, "max_window": HOUR}
    sandbox.control.fault("fail-task", EXPORTS)
    failed, *others = synced(sandbox, lake, RUST, **wanted)
    assert "ended as failed" in str(failed.problem)
    assert others
    assert all(each.report for each in others)
    (repeated,) = synced(sandbox, lake, RUST, **wanted)
    assert failed.missing == repeated.missing
    assert [("edited",)] == lake.sql("SELECT text FROM messages WHERE id = 'm1'").fetchall()


def test_a_channel_that_is_gone_is_looked_for_once(sandbox: Sandbox, lake: Lake) -> None:
    """Every window would cost refused requests, of which the service takes 60 a minute like any others."""
    now, gone = sandbox.control.now(), Cid("messaging:gone")
    wanted = {"since": now - 4 * HOUR, "until": now - HOUR, "max_window": HOUR}
    outcomes = synced(sandbox, lake, RUST, gone, **wanted)
    assert {(gone,)} == {each.unknown_channels for each in outcomes}
    assert all(each.report for each in outcomes)
    statuses = [request.status for request in sandbox.control.requests(EXPORTS)]
    assert (2, len(outcomes)) == (statuses.count(404), statuses.count(201))


def test_a_gap_that_fails_holds_nothing_back(sandbox: Sandbox, lake: Lake) -> None:
    """A month that the service never finishes must not keep a channel from being brought up to date."""
    now = sandbox.control.now()
    wanted = {"since": now - 4 * HOUR, "until": now - HOUR, "max_window": HOUR, "lookback": HOUR}
    sandbox.control.fault("fail-task", EXPORTS)
    failed, *others = synced(sandbox, lake, RUST, **wanted)
    assert failed.report is None
    assert all(each.report for each in others)


def test_an_export_that_takes_too_long_is_the_problem_of_its_window(sandbox: Sandbox, lake: Lake) -> None:
    """The deadline counts from the start of the export, while others are waited for."""
    now = sandbox.control.now()
    sandbox.control.fault("stall-task", EXPORTS)
    wanted = {"since": now - 3 * HOUR, "until": now - HOUR, "max_window": HOUR}
    stalled, *others = synced(sandbox, lake, RUST, **wanted, wait_timeout=timedelta(seconds=0.2))
    assert "are not done after" in str(stalled.problem)
    assert all(each.report for each in others)


def test_an_end_in_the_future_is_repaired_by_the_next_run(sandbox: Sandbox, lake: Lake) -> None:
    """If no clock is right, coverage still ends when the service made the export, and the last minute is repeated."""
    now = sandbox.control.now()
    (first,) = synced(sandbox, lake, RUST, since=now - HOUR, until=now + HOUR)
    assert first.report is not None
    ((covered,),) = lake.sql("SELECT until FROM coverage").fetchall()
    assert first.report.record.exported_at == covered
    late = sandbox.control.add_message(RUST, id="m1", user_id="ann", created_at=covered - timedelta(seconds=30))
    sandbox.control.advance_clock(HOUR)
    (second,) = synced(sandbox, lake, until=now + HOUR)
    assert second.missing.window is not None
    assert covered - timedelta(minutes=1) == second.missing.window.since
    lake.close()
    assert [(late["text"],)] == lake.sql("SELECT text FROM messages WHERE id = 'm1'").fetchall()


def test_a_refused_key_ends_the_run(sandbox: Sandbox, lake: Lake) -> None:
    """Every other window would be refused as well, one after the other."""
    now = sandbox.control.now()
    sandbox.control.fault("status:401", EXPORTS, after=1, times=100)
    with pytest.raises(UnauthorizedError):
        synced(sandbox, lake, RUST, since=now - 4 * HOUR, until=now - HOUR, max_window=HOUR)
    assert [201, 401] == [request.status for request in sandbox.control.requests(EXPORTS)]
