"""The trigger, over the sandbox: one event, small, versioned, and without secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pkgutil import resolve_name
from typing import Any

import pytest
from support import EXPORTS, events_of, submit

from airflow_provider_chatexport.triggers.export import ExportTaskTrigger

STATUS = "/api/v2/tasks"


def waiting_for(task_ids: list[str], **arguments: Any) -> ExportTaskTrigger:
    now_epoch_s = time.time()
    defaults = {
        "chatexport_conn_id": "chatexport_default",
        "started_epoch_s": now_epoch_s,
        "deadline_epoch_s": now_epoch_s + 60,
        "poll_interval_s": 0.02,
    }
    return ExportTaskTrigger(task_ids=task_ids, **{**defaults, **arguments})


async def event_of(trigger: ExportTaskTrigger) -> dict[str, Any]:
    """Run the trigger to its end; return the payload of its one event."""
    (event,) = await events_of(trigger)
    return event.payload


async def test_all_exports_end_in_one_event(connection) -> None:
    """It comes when the last is completed, with the service's time of each and what the operator needs to resume."""
    task_ids = submit(3)
    event = await event_of(waiting_for(task_ids, receipts=[{"task_id": "passed through"}]))
    assert (event["v"], event["status"]) == (1, "completed")
    assert set(event["created_at"]) == set(task_ids)
    assert event["receipts"] == [{"task_id": "passed through"}]


async def test_a_failed_export_is_one_event(connection, fault) -> None:
    """If a trigger raises, Airflow does not show its error."""
    fault("fail-task", EXPORTS, method="POST")
    event = await event_of(waiting_for(submit()))
    assert (event["status"], event["final"]) == ("failed", False)
    assert "ended as failed" in event["error"]


@pytest.mark.parametrize("word", ["error", "pending"])
async def test_an_error_ends_the_wait_at_once_whatever_the_status_next_to_it(connection, fault, word) -> None:
    """A wait of hours would end at the deadline, without the reason."""
    fault(f"fail-task:{word}", EXPORTS, method="POST")
    event = await event_of(waiting_for(submit(), deadline_epoch_s=time.time() + 36_000))
    assert event["status"] == "failed"
    assert (
        f'ended as failed at the service, with the status "{word}": InternalError: the export failed' in event["error"]
    )


async def test_an_unknown_status_is_logged_once_and_waited_for(connection, fault, caplog) -> None:
    """A new word of the service must be seen by a person, and must not fail the export or fill the log."""
    fault("stall-task:queued_somewhere", EXPORTS, method="POST")
    task_ids = submit()
    waiting = asyncio.create_task(event_of(waiting_for(task_ids, deadline_epoch_s=time.time() + 3600)))
    async with asyncio.timeout(60):
        while len(connection.control.requests(STATUS)) < 10:  # noqa: ASYNC110 - the requests are in another process
            await asyncio.sleep(0.01)
    assert not waiting.done()
    waiting.cancel()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert 1 == len([each for each in warnings if '"queued_somewhere"' in each and task_ids[0] in each])
    event = await event_of(waiting_for(task_ids, deadline_epoch_s=time.time() - 1))
    assert "(queued_somewhere)" in event["error"]


async def test_a_refused_key_is_read_again_from_the_connection(connection, set_connection, fault) -> None:
    """A wait takes hours. If an administrator replaces the secret in the meantime, the wait must go on."""

    async def until_answered(*statuses: int) -> None:
        """Return when status requests have had these replies, in this order."""
        answered = False
        while not answered:
            await asyncio.sleep(0.01)
            replies = (each.status for each in connection.control.requests(STATUS))
            answered = all(status in replies for status in statuses)

    fault("stall-task", EXPORTS, method="POST")
    waiting = asyncio.create_task(event_of(waiting_for(submit(), deadline_epoch_s=time.time() + 3600)))
    async with asyncio.timeout(60):
        await until_answered(200)
        set_connection(
            login=connection.api_key, password=connection.api_secret, host=connection.url, extra={"read_timeout_s": 29}
        )
        fault("status:401", STATUS)
        await until_answered(200, 401, 200)
    assert not waiting.done()
    waiting.cancel()


async def test_the_deadline_is_one_event(connection, fault) -> None:
    """A deadline in the past, too: after an outage the triggerer must not wait longer."""
    fault("stall-task", EXPORTS, method="POST")
    task_ids = submit()
    event = await event_of(waiting_for(task_ids, deadline_epoch_s=time.time() - 1))
    assert (event["status"], event["open"]) == ("timeout", task_ids)


async def test_a_completed_export_counts_after_the_deadline(connection) -> None:
    """The triggerer was down for an hour, and the export was completed in time: the task must not fail."""
    task_ids = submit()
    await event_of(waiting_for(task_ids))
    event = await event_of(waiting_for(task_ids, deadline_epoch_s=time.time() - 3600))
    assert event["status"] == "completed"


@pytest.mark.parametrize("do", ["status:401", "status:403", "status:404"])
async def test_a_refusal_ends_the_wait_at_once(connection, fault, do) -> None:
    """The next status request would be refused as well."""
    task_ids = submit()
    fault(do, STATUS, times=100)
    event = await event_of(waiting_for(task_ids))
    assert event["status"] == "failed"


async def test_too_many_failures_in_a_row_end_the_wait(connection, fault) -> None:
    """A service that stays unavailable must end the wait long before the deadline."""
    task_ids = submit()
    fault("status:503", STATUS, times=1000)
    event = await event_of(waiting_for(task_ids, max_poll_failures=3))
    assert (event["status"], event["final"]) == ("failed", False)
    assert "HTTP 503" in event["error"]


async def test_a_missing_connection_is_an_event() -> None:
    """A connection may be deleted while a task waits."""
    event = await event_of(waiting_for(["t"], chatexport_conn_id="nowhere"))
    assert (event["status"], event["final"]) == ("failed", True)
    assert "there is no connection 'nowhere'" in event["error"]


async def test_arguments_of_another_version_are_refused() -> None:
    """The row of a trigger outlives an upgrade."""
    event = await event_of(waiting_for(["t"], v=2))
    assert (event["status"], event["final"]) == ("failed", True)
    assert "version 2" in event["error"]


@pytest.mark.parametrize("n_steps", [0, 1, 10, 100])
async def test_a_cancellation_passes_through(connection, fault, n_steps) -> None:
    """A trigger that catches it keeps the triggerer from stopping, during a request or during a pause."""
    task_ids = submit()
    fault("slow:30", STATUS, times=100)
    waiting = asyncio.ensure_future(event_of(waiting_for(task_ids)))
    for _ in range(n_steps):
        await asyncio.sleep(0.001)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_arguments_survive_the_database() -> None:
    """Another process rebuilds the trigger from its path and its arguments, as JSON: they must be the same."""
    trigger = waiting_for(["a", "b"], receipts=[{"task_id": "a"}], max_poll_failures=7)
    path, arguments = trigger.serialize()
    rebuilt = resolve_name(path)(**json.loads(json.dumps(arguments)))
    assert rebuilt.serialize() == (path, arguments)


async def test_no_secret_or_link_leaves_the_trigger(connection, caplog) -> None:
    """Airflow writes the arguments, the event and the repr to its database and to the task's log."""
    task_ids = submit()
    trigger = waiting_for(task_ids)
    with caplog.at_level(logging.DEBUG):
        event = await event_of(trigger)
    written = "\n".join([json.dumps(trigger.serialize()), repr(trigger), json.dumps(event), caplog.text])
    for secret in (connection.api_key, connection.api_secret, "/download/", "signature", "eyJ"):
        assert secret not in written
    assert len(json.dumps(event)) < 2000
