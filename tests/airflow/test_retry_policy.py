"""When a failed task is tried again, as Airflow asks the policy."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import airflow.sdk
import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred
from test_export_operators import EXPORTS, collected, exporting

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
    """A service that is away for long is not asked every five minutes by every task."""
    fault("status:503", EXPORTS, method="POST", times=100)
    assert [timedelta(minutes=minutes) for minutes in (1, 2, 4, 30)] == delays(failure())


def test_the_service_says_when_to_come_back(sandbox, set_connection, fault) -> None:
    """Whoever comes sooner is refused again, and costs everybody else of the app their turn."""
    patience = {"rate_limit_patience_s": 0.001}
    set_connection(login=sandbox.api_key, password=sandbox.api_secret, host=sandbox.url, extra=patience)
    fault("status:429", EXPORTS, method="POST", times=100)
    error = failure()
    assert error.retry_after_s >= 1
    error.retry_after_s = 240.0
    assert [timedelta(minutes=minutes) for minutes in (4, 4, 4, 30)] == delays(error)


def test_a_task_that_waits_in_the_triggerer_comes_back_no_sooner(connection, fault) -> None:
    """What the service asked for crosses two processes."""
    with pytest.raises(TaskDeferred) as deferral:
        exporting(deferrable=True).execute({})
    trigger = deferral.value.trigger
    trigger.max_poll_failures = 0
    fault("status:503", "/api/v2/tasks")
    (event,) = asyncio.run(collected(trigger))
    assert event.payload["retry_after_s"] is None  # the sandbox asks for nothing; a service may
    with pytest.raises(AirflowException) as caught:
        exporting().execute_complete({}, event={**event.payload, "retry_after_s": 7200.0})
    assert timedelta(hours=2) == delays(caught.value)[0]


def test_what_is_no_failure_of_the_service_follows_the_task() -> None:
    """A fault in somebody's own code is not ours to wait out."""
    assert [None] * 4 == delays(TypeError("not ours"))


def test_an_operator_takes_the_policy() -> None:
    """As any argument of a task."""
    policy = ServiceRetryPolicy()
    assert exporting(retry_policy=policy).retry_policy is policy
