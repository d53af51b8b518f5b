"""When Airflow retries a failed task, with the retry policy."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import airflow.sdk
import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred
from support import EXPORTS, events_of, exporting

if not hasattr(airflow.sdk, "RetryPolicy"):
    pytest.skip("this Airflow has no retry policies; they came with 3.3", allow_module_level=True)

from airflow_provider_chatexport.operators.retry_policy import ServiceRetryPolicy


def failure(**arguments: Any) -> AirflowException:
    with pytest.raises(AirflowException) as caught:
        exporting(**arguments).execute({})
    return caught.value


def delays(error: BaseException) -> list[timedelta | None]:
    return [ServiceRetryPolicy().evaluate(error, number, 10).retry_delay for number in (1, 2, 3, 10)]


def test_pauses_double_up_to_half_an_hour(connection, fault) -> None:
    """During a long outage, not every task calls the service every five minutes."""
    fault("status:503", EXPORTS, method="POST", times=100)
    assert [timedelta(minutes=minutes) for minutes in (1, 2, 4, 30)] == delays(failure())


def test_a_retry_comes_no_sooner_than_the_service_asks(sandbox, set_connection, fault) -> None:
    """An earlier retry is refused again, and takes requests from the rest of the app."""
    patience = {"rate_limit_patience_s": 0.001}
    set_connection(login=sandbox.api_key, password=sandbox.api_secret, host=sandbox.url, extra=patience)
    fault("status:429", EXPORTS, method="POST", times=100)
    error = failure()
    assert error.retry_after_s >= 1
    error.retry_after_s = 240.0
    assert [timedelta(minutes=minutes) for minutes in (4, 4, 4, 30)] == delays(error)


def test_a_retry_after_a_wait_in_the_triggerer_comes_no_sooner(connection, fault) -> None:
    """The pause that the service asks for crosses two processes."""
    with pytest.raises(TaskDeferred) as deferral:
        exporting(deferrable=True).execute({})
    trigger = deferral.value.trigger
    trigger.max_poll_failures = 0
    fault("status:503", "/api/v2/tasks")
    (event,) = asyncio.run(events_of(trigger))
    assert event.payload["retry_after_s"] is None  # the sandbox asks for no pause; the service may
    with pytest.raises(AirflowException) as caught:
        exporting().execute_complete({}, event={**event.payload, "retry_after_s": 7200.0})
    assert timedelta(hours=2) == delays(caught.value)[0]


def test_other_errors_follow_the_settings_of_the_task() -> None:
    """A bug in the user's own code needs no longer pauses."""
    assert [None] * 4 == delays(TypeError("a bug"))


def test_an_operator_takes_the_policy() -> None:
    """It is an argument like any other."""
    policy = ServiceRetryPolicy()
    assert exporting(retry_policy=policy).retry_policy is policy
