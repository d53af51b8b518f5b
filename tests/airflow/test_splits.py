"""Exports that the service does not finish: the task halves their window, up to a limit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred
from support import EXPORTS, TOO_MANY_FAILURES, WINDOW, TaskStateStore, exporting, n_exports, run

from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError

both_ways = pytest.mark.parametrize("deferrable", [False, True])


def windows(receipts: list[dict[str, Any]]) -> list[Window]:
    return sorted((Window.from_json(each["request"]["window"]) for each in receipts), key=lambda each: each.since)


@both_ways
def test_an_export_that_fails_is_replaced_by_its_halves(connection, fault, deferrable) -> None:
    """The window may be too large for the service; the halves are smaller and tile it."""
    fault("fail-task", EXPORTS, method="POST")
    first, second = windows(run(exporting(max_splits=1, deferrable=deferrable)))
    assert (WINDOW.since, first.until, WINDOW.until) == (first.since, second.since, second.until)
    assert 3 == n_exports(connection)


@both_ways
def test_only_what_failed_is_split(connection, fault, deferrable) -> None:
    """Three of four exports are completed: they are not requested again."""
    fault("fail-task", EXPORTS, method="POST")
    receipts = run(exporting(max_window=timedelta(minutes=30), max_splits=2, deferrable=deferrable))
    assert [15, 15, 30, 30, 30] == sorted(each.span // timedelta(minutes=1) for each in windows(receipts))
    assert 6 == n_exports(connection)


@both_ways
def test_an_export_that_takes_too_long_is_split_before_the_deadline(connection, fault, deferrable) -> None:
    """The whole window has half of the time, and its halves have the other half: the deadline stays the same."""
    context = {"task_state_store": TaskStateStore()}
    fault("stall-task", EXPORTS, method="POST")
    with pytest.raises(TaskDeferred):
        exporting(max_splits=1, wait_timeout=3600, deferrable=True).execute(context)
    context["task_state_store"].move_start_back(1900)
    assert 2 == len(run(exporting(max_splits=1, wait_timeout=3600, deferrable=deferrable), context))
    assert 3 == n_exports(connection)


@both_ways
def test_splitting_ends_at_the_limit(connection, fault, deferrable) -> None:
    """A request that never succeeds costs a few exports, not one for each minute of its window."""
    fault("fail-task", EXPORTS, method="POST", times=100)
    with pytest.raises(AirflowException, match="ended as failed"):
        run(exporting(max_splits=2, deferrable=deferrable))
    # The first part that fails at the limit ends the run, whether or not the other half was split again by then.
    assert 1 + 2 + 2 <= n_exports(connection) <= 1 + 2 + 4


@both_ways
def test_splitting_does_not_move_the_deadline(connection, fault, deferrable) -> None:
    """The task waits no longer than ``wait_timeout``."""
    fault("stall-task", EXPORTS, method="POST", times=100)
    with pytest.raises(AirflowFailException, match="exports are not done"):
        run(exporting(max_splits=1, wait_timeout=0.6, deferrable=deferrable))
    assert 3 == n_exports(connection)


@both_ways
def test_a_retry_continues_with_the_halves(connection, fault, deferrable) -> None:
    """The whole window failed in the first try: the second one finds its halves."""
    context = {"task_state_store": TaskStateStore()}
    fault("fail-task", EXPORTS, method="POST")
    fault("status:403", EXPORTS, method="POST", after=2)
    with pytest.raises(AirflowException, match="403"):
        run(exporting(max_splits=1, deferrable=deferrable), context)
    assert 2 == n_exports(connection)
    assert 2 == len(run(exporting(max_splits=1, deferrable=deferrable), context))
    assert 3 == n_exports(connection)


@both_ways
def test_an_export_that_cannot_be_halved_has_all_of_the_time(connection, fault, deferrable) -> None:
    """A share of the time would only end the wait for exports of users, or of windows of seconds, sooner."""
    fault("stall-task", EXPORTS, method="POST")
    short = {"since": "2025-01-01T00:00:00Z", "until": "2025-01-01T00:00:30Z"}
    with pytest.raises(AirflowFailException, match=r"not done after (?![01] )\d+ s"):
        run(exporting(**short, max_splits=9, wait_timeout=2, deferrable=deferrable))


@both_ways
def test_a_completed_long_window_does_not_shorten_the_wait_for_a_short_one(connection, fault, deferrable) -> None:
    """Only the long one could be halved, and it is completed: the short one has the rest of the time."""
    fault("stall-task", EXPORTS, method="POST", after=1)
    an_hour_and_a_bit = {"until": "2025-01-01T01:00:30Z", "max_window": timedelta(hours=1)}
    with pytest.raises(AirflowFailException, match=r"1 of 2 exports are not done after (?![012] )\d+ s"):
        run(exporting(**an_hour_and_a_bit, max_splits=1, wait_timeout=3, deferrable=deferrable))
    assert 2 == n_exports(connection)


def test_an_outage_of_the_service_does_not_split_exports(connection, fault) -> None:
    """The export may be running well; only its status is unknown."""
    fault("status:503", "/api/v2/tasks", times=TOO_MANY_FAILURES)
    with pytest.raises(AirflowException, match="503"):
        run(exporting(max_splits=3, deferrable=True))
    assert 1 == n_exports(connection)


def test_very_short_windows_are_not_halved() -> None:
    """The padding around a half would be most of what it exports. A request without a window has no halves."""
    start = datetime(2025, 1, 1, tzinfo=UTC)
    short = Window(since=start, until=start + timedelta(seconds=59))
    assert [None, None] == [
        ChannelsRequest(channels=(Cid("a:b"),), window=window).split_window() for window in (None, short)
    ]
    with pytest.raises(CallError, match="max_splits is -1"):
        exporting(max_splits=-1)
