"""The trigger that waits for all exports of a run. All triggers of an app share one client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_chatexport.api.polling import MAX_CONSECUTIVE_FAILURES, ExportPoller, wait_for_exports_async
from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.errors import ChatExportError, TaskOverdueError, UnauthorizedError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.exceptions import is_final
from airflow_provider_chatexport.triggers.events import PAYLOAD_VERSION, check_version


class ExportTaskTrigger(BaseTrigger):
    """Fires once: when all exports are completed, when one failed, or when the deadline passes.

    Airflow writes the arguments and the event to the metadata database and to the task's log. They contain the
    connection id, task ids, times and the requests, never a key or a link. A trigger that is stopped cancels nothing,
    because the service cannot cancel an export. Another triggerer then continues the wait, with the same deadline.

    :param chatexport_conn_id: a connection of type ``chatexport``.
    :param task_ids: the exports to wait for.
    :param started_epoch_s: when they were submitted, in unix seconds. The pause between status requests grows from
        there.
    :param deadline_epoch_s: when to give up, in unix seconds.
    :param poll_interval_s: a fixed pause between status requests; None for the growing one.
    :param receipts: what the operator needs to resume. The event contains them unchanged.
    :param max_poll_failures: how many status requests in a row may fail with a temporary error.
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
        """Return the path of the class and its arguments, as JSON types."""
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
        """Wait, then yield the one event."""
        yield TriggerEvent(await self._outcome())  # type: ignore[no-untyped-call]

    async def _outcome(self) -> dict[str, Any]:
        """Return the payload of the event. A cancellation is not caught: Airflow needs it."""
        try:
            created_at = await self._wait()
        except TaskOverdueError as error:
            return self._payload("timeout", error=error.message, final=is_final(error), open=list(error.task_ids))
        except ChatExportError as error:
            retry_after_s = getattr(error, "retry_after_s", None)
            return self._payload("failed", error=error.message, final=is_final(error), retry_after_s=retry_after_s)
        return self._payload("completed", created_at=created_at)

    async def _wait(self) -> dict[str, str]:
        check_version(self.v, "trigger")
        hook = ChatExportHook(self.chatexport_conn_id)
        settings = await hook.async_settings()
        poller = ExportPoller(
            [TaskId(task_id) for task_id in self.task_ids],
            started_epoch_s=self.started_epoch_s,
            deadline_epoch_s=self.deadline_epoch_s,
            poll_s=self.poll_interval_s,
            max_failures=self.max_poll_failures,
        )
        while True:
            try:
                states = await wait_for_exports_async(settings, poller)
            except UnauthorizedError:
                # A wait takes hours, and the secret of the connection may have been changed since it began.
                refused, settings = settings, await hook.async_settings()
                if settings == refused:
                    raise
            else:
                return {task_id: format_rfc3339(state.created_at) for task_id, state in states.items()}

    def _payload(self, status: str, **facts: Any) -> dict[str, Any]:
        return {"v": PAYLOAD_VERSION, "status": status, "receipts": self.receipts, **facts}
