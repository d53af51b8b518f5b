"""The trigger by itself, over the sandbox: one event, small, versioned, and without secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pkgutil import resolve_name
from typing import Any

import pytest
from test_export_operators import requests_to

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.triggers.export import ExportTaskTrigger

REQUEST = ChannelsRequest(
    channels=(Cid("livestream:ubuntu"),), window=Window.parse("2025-01-01T00:00:00Z", "2025-01-01T02:00:00Z")
)


def submit(n: int = 1) -> list[str]:
    with ChatExportHook().client() as client:
        assert isinstance(client, ChatExportClient)
        return [client.submit_channels(REQUEST) for _ in range(n)]


def waiting_for(task_ids: list[str], **others: Any) -> ExportTaskTrigger:
    now_epoch_s = time.time()
    arguments = {
        "chatexport_conn_id": "chatexport_default",
        "started_epoch_s": now_epoch_s,
        "deadline_epoch_s": now_epoch_s + 60,
        "poll_interval_s": 0.02,
        **others,
    }
    return ExportTaskTrigger(task_ids=task_ids, **arguments)


async def events_of(trigger: ExportTaskTrigger) -> list[dict[str, Any]]:
    return [event.payload async for event in trigger.run()]


async def test_all_exports_end_in_one_event(connection) -> None:
    """One event, when the last is done, with the service's time of each and what the operator needs to go on."""
    task_ids = submit(3)
    (event,) = await events_of(waiting_for(task_ids, receipts=[{"task_id": "handed through"}]))
    assert (event["v"], event["status"]) == (1, "completed")
    assert set(event["created_at"]) == set(task_ids)
    assert event["receipts"] == [{"task_id": "handed through"}]


async def test_a_failed_export_is_one_event(connection, fault) -> None:
    """Airflow must be told by an event: a trigger that raises loses the sentence."""
    fault("fail-task", "/api/v2/chat/export_channels", method="POST")
    (event,) = await events_of(waiting_for(submit()))
    assert (event["status"], event["final"]) == ("failed", False)
    assert "ended as failed" in event["error"]


async def test_a_connection_that_was_changed_meanwhile_is_read_again(connection, set_connection, fault) -> None:
    """A wait takes hours, and whoever exchanges the secret changes the connection as well."""
    fault("stall-task", "/api/v2/chat/export_channels", method="POST")
    waiting = asyncio.create_task(events_of(waiting_for(submit(), deadline_epoch_s=time.time() + 3)))
    while not [each for each in requests_to(connection, "/api/v2/tasks") if each["status"] == 200]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    set_connection(
        login=connection.api_key, password=connection.api_secret, host=connection.url, extra={"read_timeout_s": 29}
    )
    fault("status:401", "/api/v2/tasks")
    (event,) = await waiting
    assert event["status"] == "timeout"
    assert 401 in {each["status"] for each in requests_to(connection, "/api/v2/tasks")}


async def test_the_deadline_is_one_event(connection, fault) -> None:
    """A deadline of the past too: a triggerer that was away must not wait on."""
    fault("stall-task", "/api/v2/chat/export_channels", method="POST")
    task_ids = submit()
    (event,) = await events_of(waiting_for(task_ids, deadline_epoch_s=time.time() - 1))
    assert (event["status"], event["open"]) == ("timeout", task_ids)


async def test_an_export_that_is_done_wins_over_a_deadline_that_passed(connection) -> None:
    """The triggerer was away for an hour and the export is done: it would be a shame to fail."""
    task_ids = submit()
    await events_of(waiting_for(task_ids))
    (event,) = await events_of(waiting_for(task_ids, deadline_epoch_s=time.time() - 3600))
    assert event["status"] == "completed"


@pytest.mark.parametrize("do", ["status:401", "status:403", "status:404"])
async def test_a_refusal_ends_the_wait_at_once(connection, fault, do) -> None:
    """Another look would be refused as well."""
    task_ids = submit()
    fault(do, "/api/v2/tasks", times=100)
    (event,) = await events_of(waiting_for(task_ids))
    assert event["status"] == "failed"


async def test_failures_in_a_row_are_borne_up_to_their_budget(connection, fault) -> None:
    """A service that is away for good must end the wait long before the deadline."""
    task_ids = submit()
    fault("status:503", "/api/v2/tasks", times=1000)
    (event,) = await events_of(waiting_for(task_ids, max_poll_failures=3))
    assert (event["status"], event["final"]) == ("failed", False)
    assert "HTTP 503" in event["error"]


async def test_no_connection_is_an_event_too() -> None:
    """A connection may be deleted while a task waits."""
    (event,) = await events_of(waiting_for(["t"], chatexport_conn_id="nowhere"))
    assert (event["status"], event["final"]) == ("failed", True)
    assert "there is no connection 'nowhere'" in event["error"]


async def test_arguments_of_another_version_are_refused() -> None:
    """A trigger row outlives an upgrade."""
    (event,) = await events_of(waiting_for(["t"], v=2))
    assert (event["status"], event["final"]) == ("failed", True)
    assert "version 2" in event["error"]


@pytest.mark.parametrize("n_steps", [0, 1, 10, 100])
async def test_a_cancellation_passes_through(connection, fault, n_steps) -> None:
    """A trigger that swallows it keeps a triggerer from stopping, whether it was asking or pausing."""
    task_ids = submit()
    fault("slow:30", "/api/v2/tasks", times=100)
    waiting = asyncio.ensure_future(events_of(waiting_for(task_ids)))
    for _ in range(n_steps):
        await asyncio.sleep(0.001)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_arguments_survive_the_database() -> None:
    """A trigger is rebuilt from JSON in another process: the same arguments, from the path that it gives."""
    trigger = waiting_for(["a", "b"], receipts=[{"task_id": "a"}], max_poll_failures=7)
    path, arguments = trigger.serialize()
    rebuilt = resolve_name(path)(**json.loads(json.dumps(arguments)))
    assert rebuilt.serialize() == (path, arguments)


async def test_no_secret_or_link_leaves_the_trigger(connection, caplog) -> None:
    """Arguments, event and repr are written to the database and the task's log."""
    task_ids = submit()
    trigger = waiting_for(task_ids)
    with caplog.at_level(logging.DEBUG):
        events = await events_of(trigger)
    said = "\n".join([json.dumps(trigger.serialize()), repr(trigger), json.dumps(events), caplog.text])
    for secret in (connection.api_key, connection.api_secret, "/download/", "signature", "eyJ"):
        assert secret not in said
    assert len(json.dumps(events)) < 2000
