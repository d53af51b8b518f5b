"""Waiting in the triggerer for all exports of a run, with one client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_chatexport.api.client import AsyncChatExportClient
from airflow_provider_chatexport.api.polling import MAX_CONSECUTIVE_FAILURES, ExportPoller, watch_exports_async
from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.core.times import format_rfc3339, parse_rfc3339
from airflow_provider_chatexport.errors import CallError, ChatExportError, TaskOverdueError, UnauthorizedError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.exceptions import airflow_failure, is_final

PAYLOAD_VERSION: Final = 1

# For ``defer(timeout=...)``, past the deadline: the trigger itself keeps the deadline and says what was still open,
# while Airflow's time-out ends the task without a word. It is there for a triggerer that is away.
BACKSTOP: Final = timedelta(minutes=10)


class ExportTaskTrigger(BaseTrigger):
    """Fires once: when all exports are completed, one is lost, or the deadline passes.

    Its arguments and its event are written to the metadata database and to the task's log: connection id, task ids,
    times and what was asked for, never a key or a link. Nothing is cancelled when it is stopped, because the service
    cannot cancel an export; a wait begun anew elsewhere goes on under the same deadline.

    :param task_ids: the exports to wait for.
    :param started_epoch_s: when they were submitted, in unix seconds; the pause between looks grows from there.
    :param deadline_epoch_s: when to give up, in unix seconds.
    :param poll_interval_s: a fixed pause between looks instead.
    :param receipts: what the operator needs when it goes on; handed through to the event as it is.
    :param max_poll_failures: how many status requests in a row may fail with an error that may pass.
    :param v: version of these arguments.
    """

    def __init__(
        self,
        *,
        chatexport_conn_id: str,
        task_ids: Sequence[str],
        started_epoch_s: float,
        deadline_epoch_s: float,
        poll_interval_s: float | None = None,
        receipts: Sequence[Mapping[str, Any]] = (),
        max_poll_failures: int = MAX_CONSECUTIVE_FAILURES,
        v: int = PAYLOAD_VERSION,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.chatexport_conn_id = chatexport_conn_id
        self.task_ids = list(task_ids)
        self.started_epoch_s = started_epoch_s
        self.deadline_epoch_s = deadline_epoch_s
        self.poll_interval_s = poll_interval_s
        self.receipts = [dict(receipt) for receipt in receipts]
        self.max_poll_failures = max_poll_failures
        self.v = v

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "v": self.v,
                "chatexport_conn_id": self.chatexport_conn_id,
                "task_ids": self.task_ids,
                "started_epoch_s": self.started_epoch_s,
                "deadline_epoch_s": self.deadline_epoch_s,
                "poll_interval_s": self.poll_interval_s,
                "receipts": self.receipts,
                "max_poll_failures": self.max_poll_failures,
            },
        )

    def __repr__(self) -> str:
        return f"ExportTaskTrigger(connection={self.chatexport_conn_id!r}, n_exports={len(self.task_ids)})"

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent(await self._outcome())  # type: ignore[no-untyped-call]

    async def _outcome(self) -> dict[str, Any]:
        """The event's payload. A cancellation passes through: Airflow needs to see it."""
        try:
            created_at = await self._wait()
        except TaskOverdueError as error:
            return self._payload("timeout", error=error.message, final=is_final(error), open=list(error.task_ids))
        except ChatExportError as error:
            asked_s = getattr(error, "retry_after_s", None)
            return self._payload("failed", error=error.message, final=is_final(error), retry_after_s=asked_s)
        return self._payload("completed", created_at=created_at)

    async def _wait(self) -> dict[str, str]:
        _check_version(self.v, "trigger")
        hook = ChatExportHook(self.chatexport_conn_id)
        settings = await hook.async_settings()
        watch = ExportPoller(
            [TaskId(task_id) for task_id in self.task_ids],
            started_epoch_s=self.started_epoch_s,
            deadline_epoch_s=self.deadline_epoch_s,
            poll_s=self.poll_interval_s,
            max_failures=self.max_poll_failures,
        )
        while True:
            # The watch counts failures and makes the pauses, so the client must not do so underneath it.
            async with AsyncChatExportClient(settings.without_retries()) as client:
                try:
                    states = await watch_exports_async(client, watch)
                except UnauthorizedError:
                    # Hours may lie between the first look and this one, and the secret may have been changed meanwhile.
                    refused, settings = settings, await hook.async_settings()
                    if settings == refused:
                        raise
                else:
                    return {task_id: format_rfc3339(state.created_at) for task_id, state in states.items()}

    def _payload(self, status: str, **facts: Any) -> dict[str, Any]:
        return {"v": PAYLOAD_VERSION, "status": status, "receipts": self.receipts, **facts}


def read_event(event: Any) -> dict[TaskId, datetime]:
    """What an ``ExportTaskTrigger`` fired, in the process where the task goes on: when each export was made, by the
    service's clock.

    :raises AirflowException: it says that the exports failed, or are overdue.
    :raises AirflowFailException: the same, and a retry would be in vain.
    :raises CallError: it is no event of ours, or of another version.
    """
    if not isinstance(event, dict) or "status" not in event:
        raise CallError("the task was resumed without an event of ExportTaskTrigger; clear it to export again")
    _check_version(event.get("v"), "event")
    if event["status"] != "completed":
        raise airflow_failure(
            str(event.get("error")), final=bool(event.get("final")), retry_after_s=event.get("retry_after_s")
        )
    return {TaskId(task_id): parse_rfc3339(text) for task_id, text in event["created_at"].items()}


def _check_version(found: Any, what: str) -> None:
    if found != PAYLOAD_VERSION:
        raise CallError(
            f"this {what} is of version {found}, and this installation reads version {PAYLOAD_VERSION}: worker and "
            "triggerer have different versions of the provider; install the same on both, then clear the task"
        )
