"""The sensor, which waits for an export that another task or system started."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
)
from support import EXPORTS, run, submit

from airflow_provider_chatexport.sensors.export import ExportTaskSensor


def waiting_for(task_id: str, **arguments: Any) -> ExportTaskSensor:
    defaults = {"poke_interval": 0.02, "timeout": 60}
    return ExportTaskSensor(task_id="wait", export_task_id=task_id, **{**defaults, **arguments})


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_sensor_returns_when_the_export_is_completed(connection, deferrable) -> None:
    """On the worker and in the triggerer: it returns the id and the service's time of the export."""
    (task_id,) = submit()
    result = run(waiting_for(task_id, deferrable=deferrable))
    assert result["task_id"] == task_id
    assert result["created_at"].endswith("Z")


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_failed_export_fails_the_sensor(connection, fault, deferrable) -> None:
    """It will never be completed."""
    fault("fail-task", EXPORTS, method="POST")
    (task_id,) = submit()
    with pytest.raises(AirflowException, match="ended as failed"):
        run(waiting_for(task_id, deferrable=deferrable))


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_sensor_that_runs_out_of_time_fails_as_sensors_do(connection, fault, deferrable) -> None:
    """``soft_fail`` and the retry rules of sensors depend on this exception."""
    fault("stall-task", EXPORTS, method="POST")
    (task_id,) = submit()
    with pytest.raises(AirflowSensorTimeout):
        run(waiting_for(task_id, deferrable=deferrable, timeout=0.2))


def test_a_sensor_survives_an_unavailable_service(connection, fault) -> None:
    """The sensor's timeout limits the wait, not one failed request."""
    (task_id,) = submit()
    fault("status:503", "/api/v2/tasks", times=7)
    assert run(waiting_for(task_id))["task_id"] == task_id


@pytest.mark.parametrize("empty", ["", "None"])
def test_no_task_id_is_refused(connection, empty) -> None:
    """A template over a missing XCom renders as None."""
    with pytest.raises(AirflowFailException, match="export_task_id is empty"):
        waiting_for(empty).execute({})
