"""The sensor, which waits for an export that another task or system started."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
)
from support import EXPORTS, exporting, loading, run, submit

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


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_task_that_only_submits_leaves_the_wait_to_the_sensor(connection, tmp_path, deferrable) -> None:
    """What each of the three tasks returns is what the next one takes; nothing waits on the worker."""
    connection.control.fault("stall-task", EXPORTS, method="POST", after=1)
    submitted = run(exporting(wait=False, poll_interval=None))
    completed = run(ExportTaskSensor(task_id="wait", exports=submitted, deferrable=deferrable, poke_interval=0.02))
    assert [None] == [receipt["created_at"] for receipt in submitted]
    assert [True] == [receipt["created_at"].endswith("Z") for receipt in completed]
    assert run(loading(completed, tmp_path / "lake"))["rows"]["members"] > 0
    stalled = run(exporting(channels=["messaging:rust"], wait=False, poll_interval=None))
    with pytest.raises(AirflowSensorTimeout, match=stalled[0]["task_id"]):
        run(ExportTaskSensor(task_id="wait", exports=[completed, stalled], deferrable=True, timeout=0.2))


def test_a_sensor_has_one_thing_to_wait_for(connection) -> None:
    """It would otherwise ignore one of the two, or wait for nothing."""
    for arguments in ({}, {"exports": [], "export_task_id": "1"}):
        with pytest.raises(AirflowFailException, match="give the sensor either exports"):
            ExportTaskSensor(task_id="wait", **arguments)
    with pytest.raises(AirflowFailException, match="there is no export"):
        ExportTaskSensor(task_id="wait", exports=[]).execute({})


@pytest.mark.parametrize("argument", ["wait_timeout", "poll_interval", "max_splits"])
def test_an_argument_of_the_wait_is_refused_without_one(argument) -> None:
    """It would do nothing, without a word."""
    with pytest.raises(AirflowFailException, match=f"{argument} has no effect"):
        exporting(**{"poll_interval": None, "wait": False, argument: 2})
