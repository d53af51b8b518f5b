"""Waiting for an export that somebody else started."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    TaskDeferred,
)

from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.sensors.export import ExportTaskSensor

REQUEST = ChannelsRequest(
    channels=(Cid("livestream:ubuntu"),), window=Window.parse("2025-01-01T00:00:00Z", "2025-01-01T02:00:00Z")
)


def submit() -> str:
    with ChatExportHook().client() as client:
        return client.submit_channels(REQUEST)


def run(sensor: ExportTaskSensor) -> Any:
    try:
        return sensor.execute({})
    except TaskDeferred as deferral:
        (event,) = asyncio.run(collected(deferral.trigger))
        return getattr(sensor, deferral.method_name)({}, event=json.loads(json.dumps(event.payload)))


async def collected(trigger: Any) -> list[Any]:
    return [event async for event in trigger.run()]


def waiting_for(task_id: str, **others: Any) -> ExportTaskSensor:
    return ExportTaskSensor(task_id="wait", export_task_id=task_id, **{"poke_interval": 0.02, "timeout": 60, **others})


@pytest.mark.parametrize("deferrable", [False, True])
def test_somebody_elses_export_is_waited_for(connection, deferrable) -> None:
    """On the worker or in the triggerer: the id and the service's time of the export come back."""
    task_id = submit()
    told = run(waiting_for(task_id, deferrable=deferrable))
    assert told["task_id"] == task_id
    assert told["created_at"].endswith("Z")


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_failed_export_fails_the_sensor(connection, fault, deferrable) -> None:
    """Poking on would never end."""
    fault("fail-task", "/api/v2/chat/export_channels", method="POST")
    with pytest.raises(AirflowException, match="ended as failed"):
        run(waiting_for(submit(), deferrable=deferrable))


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_sensor_that_runs_out_of_time_fails_as_sensors_do(connection, fault, deferrable) -> None:
    """``soft_fail`` and the retry rules of sensors hang on this exception."""
    fault("stall-task", "/api/v2/chat/export_channels", method="POST")
    with pytest.raises(AirflowSensorTimeout):
        run(waiting_for(submit(), deferrable=deferrable, timeout=0.2))


def test_a_service_that_is_away_is_borne(connection, fault) -> None:
    """The sensor's timeout is what limits patience, not one bad answer."""
    task_id = submit()
    fault("status:503", "/api/v2/tasks", times=7)
    assert run(waiting_for(task_id))["task_id"] == task_id


@pytest.mark.parametrize("empty", ["", "None"])
def test_no_task_id_is_refused(connection, empty) -> None:
    """A template over an absent XCom renders to None."""
    with pytest.raises(AirflowFailException, match="export_task_id is empty"):
        waiting_for(empty).execute({})
