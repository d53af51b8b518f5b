"""Exports that the service does not finish: halved by window, up to a limit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from test_export_operators import EXPORTS, WINDOW, exporting, run
from test_reattach import LOST, Store, n_exports

from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError

both_ways = pytest.mark.parametrize("deferrable", [False, True])


def windows(returned: list[dict[str, Any]]) -> list[Window]:
    return sorted((Window.from_json(each["request"]["window"]) for each in returned), key=lambda each: each.since)


@both_ways
def test_an_export_that_fails_is_asked_for_in_halves(connection, fault, deferrable) -> None:
    """What is too much for the service at once may pass in two; together they tile the window."""
    fault("fail-task", EXPORTS, method="POST")
    first, second = windows(run(exporting(max_splits=1, deferrable=deferrable)))
    assert (WINDOW.since, first.until, WINDOW.until) == (first.since, second.since, second.until)
    assert 3 == n_exports(connection)


@both_ways
def test_only_what_failed_is_split(connection, fault, deferrable) -> None:
    """Of four exports, three are done: they are not asked for once more."""
    fault("fail-task", EXPORTS, method="POST")
    returned = run(exporting(max_window=timedelta(minutes=30), max_splits=2, deferrable=deferrable))
    assert [15, 15, 30, 30, 30] == sorted(each.span // timedelta(minutes=1) for each in windows(returned))
    assert 6 == n_exports(connection)


@both_ways
def test_an_export_that_takes_too_long_is_split_within_its_deadline(connection, fault, deferrable) -> None:
    """Half of the time for the whole, the other half for its halves: the deadline stays what it was."""
    fault("stall-task", EXPORTS, method="POST")
    assert 2 == len(run(exporting(max_splits=1, wait_timeout=6, deferrable=deferrable)))


@both_ways
def test_the_limit_holds(connection, fault, deferrable) -> None:
    """A request that can never succeed costs a few exports, and not all that a window can be divided into."""
    fault("fail-task", EXPORTS, method="POST", times=100)
    with pytest.raises(AirflowException, match="ended as failed"):
        run(exporting(max_splits=2, deferrable=deferrable))
    assert n_exports(connection) == 1 + 2 + 4


@both_ways
def test_the_deadline_is_the_end(connection, fault, deferrable) -> None:
    """Splitting is no way to wait longer than one was told to."""
    fault("stall-task", EXPORTS, method="POST", times=100)
    with pytest.raises(AirflowFailException, match="exports are not done"):
        run(exporting(max_splits=1, wait_timeout=0.6, deferrable=deferrable))
    assert 3 == n_exports(connection)


@both_ways
def test_a_retry_goes_on_with_the_halves(connection, fault, deferrable) -> None:
    """The whole failed once already: a later try finds its halves."""
    context = {"task_state_store": Store()}
    fault("fail-task", EXPORTS, method="POST")
    httpx.post(
        f"{connection.url}/_sandbox/faults",
        json={"do": "status:403", "path": EXPORTS, "method": "POST", "times": 1, "after": 2},
    ).raise_for_status()
    with pytest.raises(AirflowException, match="403"):
        run(exporting(max_splits=1, deferrable=deferrable), context)
    assert 2 == n_exports(connection)
    assert 2 == len(run(exporting(max_splits=1, deferrable=deferrable), context))
    assert 3 == n_exports(connection)


@both_ways
def test_what_cannot_be_halved_has_all_of_the_time(connection, fault, deferrable) -> None:
    """Exports of users, and windows of seconds: waiting for a split that cannot come would only end it sooner."""
    fault("stall-task", EXPORTS, method="POST")
    short = {"since": "2025-01-01T00:00:00Z", "until": "2025-01-01T00:00:30Z"}
    with pytest.raises(AirflowFailException, match=r"not done after (?![01] )\d+ s"):
        run(exporting(**short, max_splits=9, wait_timeout=2, deferrable=deferrable))


@both_ways
def test_when_all_that_can_be_halved_is_done_the_rest_has_the_rest_of_the_time(connection, fault, deferrable) -> None:
    """A long window that is done must not cut the time of a short one beside it."""
    body = {"do": "stall-task", "path": EXPORTS, "method": "POST", "times": 1, "after": 1}
    httpx.post(f"{connection.url}/_sandbox/faults", json=body).raise_for_status()
    an_hour_and_a_bit = {"until": "2025-01-01T01:00:30Z", "max_window": timedelta(hours=1)}
    with pytest.raises(AirflowFailException, match=r"1 of 2 exports are not done after (?![012] )\d+ s"):
        run(exporting(**an_hour_and_a_bit, max_splits=1, wait_timeout=3, deferrable=deferrable))
    assert 2 == n_exports(connection)


def test_a_service_that_is_away_is_no_reason_to_split(connection, fault) -> None:
    """The export may be fine; only nobody could ask."""
    fault("status:503", "/api/v2/tasks", times=LOST)
    with pytest.raises(AirflowException, match="503"):
        run(exporting(max_splits=3, deferrable=True))
    assert 1 == n_exports(connection)


def test_what_cannot_be_halved_is_not() -> None:
    """No window, or one that is hardly longer than the padding around it."""
    begin = datetime(2025, 1, 1, tzinfo=UTC)
    short = Window(since=begin, until=begin + timedelta(seconds=59))
    assert [None, None] == [
        ChannelsRequest(channels=(Cid("a:b"),), window=window).split_window() for window in (None, short)
    ]
    with pytest.raises(CallError, match="max_splits is -1"):
        exporting(max_splits=-1)
