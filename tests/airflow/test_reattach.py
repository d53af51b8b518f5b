"""Tries that follow another: the exports of the first are found again, and asked for once."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.sdk.execution_time.timeout import timeout
from test_export_operators import EXPORTS, exporting, requests_to, run

from airflow_provider_chatexport.operators.export import ExportChannelsOperator

LOST = 20  # more looks in a row than a wait puts up with


class Store:
    """As Airflow's store of a task instance: JSON values by key, which survive retries and clears."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self.values[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.values.pop(key, None)

    def clear(self) -> None:
        self.values.clear()


@pytest.fixture
def context() -> dict[str, Any]:
    return {"task_state_store": Store(), "ti": SimpleNamespace(max_tries=2)}


def cleared(context: dict[str, Any]) -> dict[str, Any]:
    """The same task, which somebody has cleared: it may be tried as often again as at first."""
    return {**context, "ti": SimpleNamespace(max_tries=context["ti"].max_tries + 1)}


def alive(connection: Any) -> list[str]:
    return [cid for cid in connection.world.cids if not connection.world.channel_is_deleted(cid)]


def n_exports(connection: Any) -> int:
    return sum(request["status"] == 201 for request in requests_to(connection, EXPORTS) if request["method"] == "POST")


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("max_window", [None, timedelta(minutes=30)], ids=["one export", "four"])
def test_a_retry_waits_for_the_exports_of_the_first_try(connection, fault, context, deferrable, max_window) -> None:
    """A service that was away for a while must not cost as many exports once more."""
    operator = exporting(max_window=max_window, deferrable=deferrable)
    fault("status:503", "/api/v2/tasks", times=LOST)
    with pytest.raises(AirflowException, match="503"):
        run(operator, context)
    first = n_exports(connection)
    httpx.delete(f"{connection.url}/_sandbox/faults")
    returned = run(exporting(max_window=max_window, deferrable=deferrable), context)
    assert (first, first) == (len(returned), n_exports(connection))


def test_a_try_that_dies_before_its_deferral_is_found_again(connection, context) -> None:
    """The id is stored the moment it is known: whatever happens to the process then, the next try has it."""
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True).execute(context)
    with pytest.raises(TaskDeferred) as again:
        exporting(deferrable=True).execute(context)
    assert 1 == n_exports(connection) == len(again.value.trigger.task_ids)


def test_a_try_that_dies_between_two_submits_asks_for_the_rest_only(connection, context) -> None:
    """Of two exports one was accepted when the try ended: the retry submits the other."""
    window = {"until": "2025-01-03T00:00:00Z", "max_window": timedelta(days=1)}
    third_fails = {"do": "status:403", "path": EXPORTS, "method": "POST", "times": 1, "after": 1}
    httpx.post(f"{connection.url}/_sandbox/faults", json=third_fails).raise_for_status()
    with pytest.raises(AirflowException):
        exporting(deferrable=True, **window).execute(context)
    assert 1 == n_exports(connection)
    assert 2 == len(run(exporting(deferrable=True, **window), context))
    assert 2 == n_exports(connection)


def test_a_cleared_run_that_succeeded_exports_anew(connection, context) -> None:
    """Whoever clears a success wants the state of now, not the old snapshot once more."""
    run(exporting(deferrable=True), context)
    run(exporting(deferrable=True), cleared(context))
    assert 2 == n_exports(connection)


def test_a_clear_of_a_success_knows_nothing_of_other_questions(connection, context) -> None:
    """A query may find other channels each time, and what it found at first once more."""
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True).execute(context)
    run(exporting(channels=["messaging:rust"], deferrable=True), context)
    run(exporting(deferrable=True), cleared(context))
    assert 3 == n_exports(connection)


def test_a_success_that_airflow_never_heard_of_is_returned_again(connection, context) -> None:
    """The process may die when all is done."""
    returned = run(exporting(deferrable=True), context)
    assert returned == run(exporting(deferrable=True), context)
    assert 1 == n_exports(connection)


def test_an_export_that_failed_is_asked_for_anew(connection, fault, context) -> None:
    """Waiting for it once more would fail once more."""
    fault("fail-task", EXPORTS, method="POST")
    with pytest.raises(AirflowException, match="ended as failed"):
        run(exporting(deferrable=True), context)
    assert 1 == len(run(exporting(deferrable=True), context))
    assert 2 == n_exports(connection)


def test_an_export_that_the_service_has_forgotten_is_asked_for_anew(connection, context) -> None:
    """Files are kept for 60 days: whoever clears a run after that gets a new export, not an error about the old one."""
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True).execute(context)
    httpx.post(f"{connection.url}/_sandbox/clock", json={"advance_s": 61 * 86400}).raise_for_status()
    assert 1 == len(run(exporting(deferrable=True), context))
    assert 2 == n_exports(connection)


def test_another_question_is_another_export(connection, context) -> None:
    """Changed channels, window or flags must not be answered with the export of the old ones."""
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True).execute(context)
    run(exporting(deferrable=True, include_truncated_messages=True), context)
    assert 2 == n_exports(connection)


def test_fresh_forces_a_new_export(connection, context) -> None:
    """For whoever knows better."""
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True).execute(context)
    run(exporting(deferrable=True, fresh=True), context)
    assert 2 == n_exports(connection)


def test_fresh_forces_new_exports_of_the_halves_of_a_batch(connection, context) -> None:
    """Of a batch with a channel that is missing, the rest was asked for in other requests."""
    batch = {"channels": [*alive(connection)[:3], "messaging:gone"], "on_missing_channel": "skip"}
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True, **batch).execute(context)
    first = n_exports(connection)
    run(exporting(deferrable=True, fresh=True, **batch), context)
    assert 2 * first == n_exports(connection)


def test_an_airflow_without_the_store_submits_again(connection) -> None:
    """Before 3.3 a retry costs one unused export, and comes out right."""
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True).execute({})
    assert 1 == len(run(exporting(deferrable=True), {}))
    assert 2 == n_exports(connection)


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_deadline_is_one_for_all_tries(connection, fault, context, deferrable) -> None:
    """A retry that finds its exports has what is left; past it there is no retry."""
    fault("stall-task", EXPORTS, method="POST")
    for _ in range(2):
        with pytest.raises(AirflowFailException, match=r"1 of 1 exports are not done after [01] s"):
            run(exporting(deferrable=deferrable, wait_timeout=0.3), context)
    assert 1 == n_exports(connection)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_clear_waits_for_the_same_exports_all_of_the_time_once_more(connection, fault, context, deferrable) -> None:
    """However long after the failure it comes."""
    fault("stall-task", EXPORTS, method="POST")
    arguments = {"deferrable": deferrable, "wait_timeout": 0.3}
    for again in (context, context, cleared(context)):
        with pytest.raises(AirflowFailException, match="exports are not done") as caught:
            run(exporting(**arguments), again)
        store = context["task_state_store"]
        store.set("chatexport.series", {**store.get("chatexport.series"), "began_epoch_s": 1.0})
    assert re.search(r"after [01] s", str(caught.value))
    assert 1 == n_exports(connection)


def test_a_wait_on_the_worker_ends_before_airflows_alarm(connection, fault, context) -> None:
    """The alarm says nothing of the exports, and comes before a retry that would have no time left."""
    fault("stall-task", EXPORTS, method="POST")
    operator = exporting(wait_timeout=3600, execution_timeout=timedelta(seconds=3))
    with pytest.raises(AirflowFailException, match="exports are not done"), timeout(3):
        run(operator, context)


def test_execution_timeout_holds_across_deferral(connection, fault, context) -> None:
    """Airflow does not count it while a task is deferred."""
    fault("stall-task", EXPORTS, method="POST")
    with pytest.raises(AirflowFailException, match="exports are not done"):
        run(exporting(deferrable=True, wait_timeout=3600, execution_timeout=timedelta(seconds=0.3)), context)


def test_all_channels_that_are_refused_are_named_at_once(connection, context) -> None:
    """One run, one list: not one channel more with every try."""
    channels = [*alive(connection), "messaging:gone-1", "messaging:gone-2"]
    with pytest.raises(AirflowFailException, match=r"not know 2 channel\(s\): messaging:gone-1, messaging:gone-2"):
        run(exporting(channels=channels, deferrable=True), context)


def test_refused_channels_can_be_skipped(connection, context) -> None:
    """The others are exported, each once."""
    good = alive(connection)
    returned = run(exporting(channels=[*good, "messaging:gone"], on_missing_channel="skip"), context)
    exported = [cid for receipt in returned for cid in receipt["request"]["channels"]]
    assert sorted(good) == sorted(exported)


def test_a_channel_that_is_missing_is_looked_for_once(connection, context) -> None:
    """Each window has the same channels: in the second one, the missing is left out and the others stay together."""
    halves = {"max_window": timedelta(hours=1), "on_missing_channel": "skip"}
    returned = run(exporting(channels=[*alive(connection)[:3], "messaging:gone"], **halves), context)
    assert [1, 2, 3] == sorted(len(receipt["request"]["channels"]) for receipt in returned)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_task_of_nothing_but_missing_channels_is_skipped(connection, context, deferrable) -> None:
    """The last of many batches may be one channel, which went between the search and the export."""
    with pytest.raises(AirflowSkipException, match="none of the channels"):
        run(exporting(channels=["messaging:gone"], on_missing_channel="skip", deferrable=deferrable), context)


@pytest.mark.parametrize("status", [400, 405, 409, 413])
def test_only_what_is_missing_is_skipped(connection, fault, context, status) -> None:
    """Any other refusal is of a channel that is there, and whose messages would be lost."""
    fault(f"status:{status}", EXPORTS, method="POST", times=100)
    with pytest.raises(AirflowFailException, match="was refused"):
        run(exporting(channels=alive(connection)[:1], on_missing_channel="skip"), context)


def test_a_refusal_of_the_request_itself_is_not_searched_for_a_channel(connection, fault, context) -> None:
    """It would take a request or two for each channel, of the few in a minute that the app has."""
    fault("status:400", EXPORTS, method="POST", times=1000)
    with pytest.raises(AirflowFailException, match="was refused"):
        run(exporting(channels=[f"messaging:c{number}" for number in range(60)]), context)
    assert 1 == len(requests_to(connection, EXPORTS))


def test_a_window_that_just_ended_is_left_to_settle(connection) -> None:
    """Messages may still be on their way: the task waits, deferred, and only then asks for the export."""
    until = datetime.now(UTC)
    operator = exporting(
        since=until - timedelta(hours=1), until=until, deferrable=True, grace_period=timedelta(hours=1)
    )
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute({})
    assert ("execute_after_grace_period", until + timedelta(hours=1)) == (
        deferral.value.method_name,
        deferral.value.trigger.moment,
    )
    assert 0 == n_exports(connection)
    operator.grace_period = timedelta(0)
    with pytest.raises(TaskDeferred) as waiting:
        operator.execute_after_grace_period({})
    assert waiting.value.method_name == "execute_complete"


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_clock_that_is_behind_waits(connection, deferrable) -> None:
    """The scheduler's says that the window is over, and the worker's that it will be in a moment."""
    until = datetime.now(UTC) + timedelta(seconds=1)
    operator = exporting(since=until - timedelta(hours=1), until=until, deferrable=deferrable, grace_period=0)
    if deferrable:
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute({})
        assert ("execute_after_grace_period", until) == (deferral.value.method_name, deferral.value.trigger.moment)
    else:
        assert 1 == len(operator.execute({}))
        assert datetime.now(UTC) >= until


def test_a_window_that_is_not_over_is_refused_unless_asked_for(connection) -> None:
    """Its export would look whole and not be."""
    ahead = {"since": datetime.now(UTC), "until": datetime.now(UTC) + timedelta(hours=1)}
    with pytest.raises(AirflowFailException, match="ends in the future"):
        exporting(**ahead).execute({})
    assert 1 == len(run(exporting(**ahead, allow_open_window=True)))


def test_lookback_and_max_window_shape_the_requests() -> None:
    """Late changes come in by a wider window; a long one is cut into exports that tile it."""
    operator = exporting(lookback=timedelta(days=1), max_window=timedelta(hours=13))
    spans = [(request.window.since, request.window.until) for request in operator.plan({})]
    assert [
        (datetime(2024, 12, 31, tzinfo=UTC), datetime(2024, 12, 31, 13, tzinfo=UTC)),
        (datetime(2024, 12, 31, 13, tzinfo=UTC), datetime(2025, 1, 1, 2, tzinfo=UTC)),
    ] == spans


def test_a_partitioned_run_has_its_partition_as_window() -> None:
    """CronPartitionTimetable gives a date and no interval."""
    context = {"partition_date": datetime(2025, 1, 3, tzinfo=UTC)}
    channels = ["livestream:ubuntu"]
    asked = ExportChannelsOperator(task_id="export", channels=channels, partition_span=timedelta(days=1))
    (request,) = asked.plan(context)
    assert str(request.window) == "2025-01-03T00:00:00.000000Z..2025-01-04T00:00:00.000000Z"
    with pytest.raises(AirflowFailException, match="give the operator partition_span"):
        ExportChannelsOperator(task_id="export", channels=channels).execute(context)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("grace_period", "1h"),
        ("lookback", "2 days"),
        ("max_window", float("inf")),
        ("partition_span", True),
        ("wait_timeout", "1h"),
        ("poll_interval", float("nan")),
        ("max_splits", "2"),
        ("on_no_channels", "never"),
    ],
)
def test_an_argument_of_another_kind_is_one_sentence(name, wrong) -> None:
    """Of a mapped task it is seen when it runs, and no retry helps."""
    with pytest.raises(AirflowFailException, match=f"^{name} is .*; (give|write) "):
        exporting(**{name: wrong})


def test_durations_may_be_seconds() -> None:
    """As wait_timeout always could."""
    operator = exporting(grace_period=60, lookback=3600, max_window=7200, partition_span=86400)
    assert (timedelta(minutes=1), timedelta(hours=1)) == (operator.grace_period, operator.lookback)
    assert (timedelta(hours=2), timedelta(days=1)) == (operator.max_window, operator.partition_span)
