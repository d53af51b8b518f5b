"""Retries and clears: they find the exports of the first try, so that each export is requested once."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.sdk.execution_time.timeout import timeout
from support import EXPORTS, TOO_MANY_FAILURES, TaskInstance, TaskStateStore, exporting, n_exports, run

from airflow_provider_chatexport.operators.export import ExportChannelsOperator


@pytest.fixture
def context() -> dict[str, Any]:
    return {"task_state_store": TaskStateStore(), "ti": TaskInstance()}


def cleared(context: dict[str, Any]) -> dict[str, Any]:
    """Return the context of the same task after a clear: Airflow allows it as many tries again."""
    return {**context, "ti": TaskInstance(max_tries=context["ti"].max_tries + 1)}


def existing_channels(connection: Any) -> list[str]:
    return [cid for cid in connection.world.cids if not connection.world.channel_is_deleted(cid)]


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("max_window", [None, timedelta(minutes=30)], ids=["one export", "four"])
def test_a_retry_waits_for_the_exports_of_the_first_try(connection, fault, context, deferrable, max_window) -> None:
    """An outage of the service must not cost the same exports again."""
    operator = exporting(max_window=max_window, deferrable=deferrable)
    fault("status:503", "/api/v2/tasks", times=TOO_MANY_FAILURES)
    with pytest.raises(AirflowException, match="503"):
        run(operator, context)
    n_first = n_exports(connection)
    connection.control.clear_faults()
    receipts = run(exporting(max_window=max_window, deferrable=deferrable), context)
    assert (n_first, n_first) == (len(receipts), n_exports(connection))


def test_a_retry_finds_the_export_of_a_try_that_died_before_its_deferral(connection, context) -> None:
    """The task stores the id as soon as it knows it: the process may die after that."""
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True).execute(context)
    with pytest.raises(TaskDeferred) as again:
        exporting(deferrable=True).execute(context)
    assert 1 == n_exports(connection) == len(again.value.trigger.task_ids)


def test_a_retry_submits_only_the_exports_that_are_missing(connection, context) -> None:
    """The service had accepted one of two exports when the try ended: the retry submits the other."""
    window = {"until": "2025-01-03T00:00:00Z", "max_window": timedelta(days=1)}
    connection.control.fault("status:403", EXPORTS, method="POST", after=1)
    with pytest.raises(AirflowException):
        exporting(deferrable=True, **window).execute(context)
    assert 1 == n_exports(connection)
    assert 2 == len(run(exporting(deferrable=True, **window), context))
    assert 2 == n_exports(connection)


def test_a_clear_of_a_success_exports_again(connection, context) -> None:
    """A clear asks for the current state, not for the old snapshot again."""
    run(exporting(deferrable=True), context)
    run(exporting(deferrable=True), cleared(context))
    assert 2 == n_exports(connection)


def test_a_clear_of_a_success_drops_all_exports_of_earlier_tries(connection, context) -> None:
    """A query may find other channels in each try, and after the clear those of the first try again."""
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True).execute(context)
    run(exporting(channels=["messaging:rust"], deferrable=True), context)
    run(exporting(deferrable=True), cleared(context))
    assert 3 == n_exports(connection)


def test_a_success_that_was_not_reported_is_returned_again(connection, context) -> None:
    """The process may die when the result is complete and Airflow does not have it yet."""
    receipts = run(exporting(deferrable=True), context)
    assert receipts == run(exporting(deferrable=True), context)
    assert 1 == n_exports(connection)


def test_a_retry_submits_a_failed_export_again(connection, fault, context) -> None:
    """Waiting for the same export would fail again."""
    fault("fail-task", EXPORTS, method="POST")
    with pytest.raises(AirflowException, match="ended as failed"):
        run(exporting(deferrable=True), context)
    assert 1 == len(run(exporting(deferrable=True), context))
    assert 2 == n_exports(connection)


def test_a_retry_submits_an_export_again_that_the_service_no_longer_knows(connection, context) -> None:
    """The service keeps files for 60 days: a clear after that gets a new export, not an error about the old one."""
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True).execute(context)
    connection.control.advance_clock(timedelta(days=61))
    assert 1 == len(run(exporting(deferrable=True), context))
    assert 2 == n_exports(connection)


def test_another_request_is_another_export(connection, context) -> None:
    """The export of the old channels, window or flags does not answer a changed request."""
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True).execute(context)
    run(exporting(deferrable=True, include_truncated_messages=True), context)
    assert 2 == n_exports(connection)


def test_fresh_forces_a_new_export(connection, context) -> None:
    """The user knows that the old export is of no use."""
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True).execute(context)
    run(exporting(deferrable=True, fresh=True), context)
    assert 2 == n_exports(connection)


def test_fresh_forces_new_exports_of_the_halves_of_a_batch(connection, context) -> None:
    """If a channel of a batch is missing, the other channels were exported by other requests."""
    batch = {"channels": [*existing_channels(connection)[:3], "messaging:gone"], "on_missing_channel": "skip"}
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True, **batch).execute(context)
    n_first = n_exports(connection)
    run(exporting(deferrable=True, fresh=True, **batch), context)
    assert 2 * n_first == n_exports(connection)


def test_an_airflow_without_the_store_submits_again(connection) -> None:
    """Before 3.3 a retry costs one unused export, and its result is right."""
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True).execute({})
    assert 1 == len(run(exporting(deferrable=True), {}))
    assert 2 == n_exports(connection)


@pytest.mark.parametrize("deferrable", [False, True])
def test_all_tries_share_one_deadline(connection, fault, context, deferrable) -> None:
    """A retry that finds its exports has the rest of the time; after the deadline there is no retry."""
    fault("stall-task", EXPORTS, method="POST")
    with pytest.raises(TaskDeferred):
        exporting(deferrable=True, wait_timeout=3600).execute(context)
    context["task_state_store"].move_start_back(3600)
    with pytest.raises(AirflowFailException, match=r"1 of 1 exports are not done after 36\d\d s"):
        run(exporting(deferrable=deferrable, wait_timeout=3600), context)
    assert 1 == n_exports(connection)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_clear_of_a_failure_waits_for_the_same_exports_with_the_full_time(
    connection, fault, context, deferrable
) -> None:
    """It does not matter how long after the failure the clear comes."""
    fault("stall-task", EXPORTS, method="POST")
    arguments = {"deferrable": deferrable, "wait_timeout": 0.3}
    for each in (context, context, cleared(context)):
        with pytest.raises(AirflowFailException, match="exports are not done") as caught:
            run(exporting(**arguments), each)
        context["task_state_store"].move_start_back(3600)
    assert re.search(r"after \d{1,2} s", str(caught.value)), caught.value
    assert 1 == n_exports(connection)


def test_a_wait_on_the_worker_ends_before_airflows_alarm(connection, fault, context) -> None:
    """The alarm does not name the exports, and the retry after it would have no time left."""
    fault("stall-task", EXPORTS, method="POST")
    operator = exporting(wait_timeout=3600, execution_timeout=timedelta(seconds=6))
    with pytest.raises(AirflowFailException, match="exports are not done"), timeout(6):
        run(operator, context)


def test_execution_timeout_applies_across_deferral(connection, fault, context) -> None:
    """Airflow does not enforce it while a task is deferred."""
    fault("stall-task", EXPORTS, method="POST")
    with pytest.raises(AirflowFailException, match="exports are not done"):
        run(exporting(deferrable=True, wait_timeout=3600, execution_timeout=timedelta(seconds=0.3)), context)


def test_the_error_names_all_missing_channels(connection, context) -> None:
    """One run finds all of them, not one more with every try."""
    channels = [*existing_channels(connection), "messaging:gone-1", "messaging:gone-2"]
    with pytest.raises(AirflowFailException, match=r"not know 2 channel\(s\): messaging:gone-1, messaging:gone-2"):
        run(exporting(channels=channels, deferrable=True), context)


def test_missing_channels_can_be_skipped(connection, context) -> None:
    """The others are exported, each once."""
    channels = existing_channels(connection)
    receipts = run(exporting(channels=[*channels, "messaging:gone"], on_missing_channel="skip"), context)
    assert sorted(channels) == sorted(cid for receipt in receipts for cid in receipt["request"]["channels"])


def test_a_missing_channel_is_searched_for_once(connection, context) -> None:
    """All windows have the same channels: the second request leaves the missing one out and is not split."""
    halves = {"max_window": timedelta(hours=1), "on_missing_channel": "skip"}
    receipts = run(exporting(channels=[*existing_channels(connection)[:3], "messaging:gone"], **halves), context)
    assert [1, 2, 3] == sorted(len(receipt["request"]["channels"]) for receipt in receipts)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_task_with_only_missing_channels_is_skipped(connection, context, deferrable) -> None:
    """The last of many batches may be one channel, deleted between the search and the export."""
    with pytest.raises(AirflowSkipException, match="none of the channels"):
        run(exporting(channels=["messaging:gone"], on_missing_channel="skip", deferrable=deferrable), context)


@pytest.mark.parametrize("status", [400, 405, 409, 413])
def test_only_missing_channels_are_skipped(connection, fault, context, status) -> None:
    """After any other refusal the channel exists, and its messages would be lost."""
    fault(f"status:{status}", EXPORTS, method="POST", times=100)
    with pytest.raises(AirflowFailException, match="was refused"):
        run(exporting(channels=existing_channels(connection)[:1], on_missing_channel="skip"), context)


def test_a_refusal_of_the_request_itself_starts_no_search_for_a_channel(connection, fault, context) -> None:
    """The search would take a request or two for each channel, and the app has few of them in a minute."""
    fault("status:400", EXPORTS, method="POST", times=1000)
    with pytest.raises(AirflowFailException, match="was refused"):
        run(exporting(channels=[f"messaging:c{number}" for number in range(60)]), context)
    assert 1 == len(connection.control.requests(EXPORTS))


def test_a_task_waits_for_the_grace_period(connection) -> None:
    """Messages may still be on their way: the task defers, and starts the export after that."""
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
def test_a_worker_whose_clock_is_behind_waits(connection, deferrable) -> None:
    """By the scheduler's clock the window is over, by the worker's it will be soon."""
    until = datetime.now(UTC) + (timedelta(minutes=4) if deferrable else timedelta(seconds=1))
    operator = exporting(since=until - timedelta(hours=1), until=until, deferrable=deferrable, grace_period=0)
    if deferrable:
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute({})
        assert ("execute_after_grace_period", until) == (deferral.value.method_name, deferral.value.trigger.moment)
    else:
        assert 1 == len(operator.execute({}))
        assert datetime.now(UTC) >= until


def test_an_open_window_is_refused_unless_it_is_allowed(connection) -> None:
    """Its export would look complete."""
    open_window = {"since": datetime.now(UTC), "until": datetime.now(UTC) + timedelta(hours=1)}
    with pytest.raises(AirflowFailException, match="ends in the future"):
        exporting(**open_window).execute({})
    assert 1 == len(run(exporting(**open_window, allow_open_window=True)))


def test_lookback_and_max_window_shape_the_requests() -> None:
    """A lookback makes the window longer, to get late changes; several exports tile a long window."""
    operator = exporting(lookback=timedelta(days=1), max_window=timedelta(hours=13))
    spans = [(request.window.since, request.window.until) for request in operator.plan({})]
    assert [
        (datetime(2024, 12, 31, tzinfo=UTC), datetime(2024, 12, 31, 13, tzinfo=UTC)),
        (datetime(2024, 12, 31, 13, tzinfo=UTC), datetime(2025, 1, 1, 2, tzinfo=UTC)),
    ] == spans


def test_the_window_of_a_partitioned_run_is_its_partition() -> None:
    """CronPartitionTimetable gives a date and no interval."""
    context = {"partition_date": datetime(2025, 1, 3, tzinfo=UTC)}
    channels = ["livestream:ubuntu"]
    operator = ExportChannelsOperator(task_id="export", channels=channels, partition_span=timedelta(days=1))
    (request,) = operator.plan(context)
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
def test_an_argument_of_another_type_is_one_sentence(name, wrong) -> None:
    """A mapped task finds it when it runs, and a retry cannot help."""
    with pytest.raises(AirflowFailException, match=f"^{name} is .*; (give|write) "):
        exporting(**{name: wrong})


def test_durations_may_be_seconds() -> None:
    """All durations are timedeltas or numbers of seconds."""
    operator = exporting(grace_period=60, lookback=3600, max_window=7200, partition_span=86400)
    assert (timedelta(minutes=1), timedelta(hours=1)) == (operator.grace_period, operator.lookback)
    assert (timedelta(hours=2), timedelta(days=1)) == (operator.max_window, operator.partition_span)
