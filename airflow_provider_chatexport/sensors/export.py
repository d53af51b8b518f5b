"""A sensor for exports that another task or system started."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSensorTimeout, BaseSensorOperator, PokeReturnValue, conf

from airflow_provider_chatexport.api.polling import ExportPoller
from airflow_provider_chatexport.core.arguments import require_text
from airflow_provider_chatexport.core.receipt import Receipt, completed_receipts, receipts_from
from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.errors import CallError, ServiceError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.exceptions import as_airflow_errors, checked_arguments
from airflow_provider_chatexport.triggers.events import BACKSTOP, read_event

if TYPE_CHECKING:
    from airflow.sdk import Context


class ExportTaskSensor(BaseSensorOperator):
    """Wait for exports that another task or another system has started.

    ``timeout``, ``poke_interval`` and ``mode`` are those of every sensor. The triggerer respects the first two as well.

    :param exports: what export operators with ``wait=False`` returned. The sensor then returns what
        ``LoadExportOperator`` takes. (templated)
    :param export_task_id: instead of ``exports``, the id that the service gave an export. The sensor then returns its
        ``task_id`` and ``created_at``. (templated)
    :param chatexport_conn_id: a connection of type ``chatexport``. (templated)
    :param deferrable: wait in the triggerer instead of on the worker.
    """

    template_fields: Sequence[str] = ("exports", "export_task_id", "chatexport_conn_id")
    ui_color = "#fff6e3"

    def __init__(
        self,
        *,
        exports: Any = None,
        export_task_id: str | None = None,
        chatexport_conn_id: str = ChatExportHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with checked_arguments():
            if (exports is None) == (export_task_id is None):
                raise CallError(
                    "give the sensor either exports, the output of an export task with wait=False, or export_task_id"
                )
        self.exports = exports
        self.export_task_id = export_task_id
        self.chatexport_conn_id = chatexport_conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Wait on the worker, or defer.

        :raises TaskDeferred: the triggerer waits; the task resumes in ``execute_complete``.
        """
        with as_airflow_errors():
            receipts = self._receipts()
            task_ids = self._task_ids(receipts)
        if not self.deferrable:
            return super().execute(context)
        from airflow_provider_chatexport.triggers.export import ExportTaskTrigger  # noqa: PLC0415 - see triggers.events

        now_epoch_s = time.time()
        return self.defer(
            trigger=ExportTaskTrigger(
                chatexport_conn_id=self.chatexport_conn_id,
                task_ids=task_ids,
                started_epoch_s=now_epoch_s,
                deadline_epoch_s=now_epoch_s + self.timeout,
                poll_interval_s=self.poke_interval,
                receipts=[receipt.to_json() for receipt in receipts],
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout) + BACKSTOP,
        )

    def poke(self, context: Context) -> bool | PokeReturnValue:  # noqa: ARG002
        """Ask for each status once; return the result if all exports are completed, else False."""
        with as_airflow_errors(), ChatExportHook(self.chatexport_conn_id).client() as client:
            receipts = self._receipts()
            task_ids = self._task_ids(receipts)
            # The poller decides as in every other wait: a failed export raises, and so does a wrong address.
            poller = ExportPoller(task_ids, started_epoch_s=0.0, deadline_epoch_s=0.0, answered=False)
            for task_id in task_ids:
                try:
                    poller.record_status(task_id, client.task(task_id))
                except ServiceError as error:
                    poller.record_failure(error)
            if poller.open:
                return False
            created_at = {task_id: state.created_at for task_id, state in poller.completed.items()}
        return PokeReturnValue(is_done=True, xcom_value=_result(receipts, created_at))

    def execute_complete(self, context: Context, event: Any = None) -> Any:  # noqa: ARG002
        """Resume the task after the wait, in a new process."""
        with as_airflow_errors():
            if isinstance(event, dict) and event.get("status") == "timeout":
                # As every sensor does that runs out of time. Airflow does not retry it; soft_fail makes it a skip.
                raise AirflowSensorTimeout(str(event.get("error")))
            created_at = read_event(event)
            receipts = [Receipt.from_json(dict(receipt)) for receipt in event["receipts"]]
        return _result(receipts, created_at)

    def _receipts(self) -> list[Receipt]:
        return [] if self.exports is None else receipts_from(self.exports)

    def _task_ids(self, receipts: Sequence[Receipt]) -> list[TaskId]:
        if receipts:
            return list(dict.fromkeys(receipt.task_id for receipt in receipts))
        hint = "set it to the id that the service gave the export"
        return [TaskId(require_text(self.export_task_id, "export_task_id", hint))]


def _result(receipts: Sequence[Receipt], created_at: Mapping[TaskId, datetime]) -> Any:
    """Return the receipts, completed; without any, the id and the time of the one export."""
    if receipts:
        return completed_receipts(receipts, created_at)
    ((task_id, moment),) = created_at.items()
    return {"task_id": task_id, "created_at": format_rfc3339(moment)}
