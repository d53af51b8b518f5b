"""A sensor for an export that another task or system started."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSensorTimeout, BaseSensorOperator, PokeReturnValue, conf

from airflow_provider_chatexport.api.polling import ExportPoller
from airflow_provider_chatexport.core.arguments import require_text
from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.errors import ServiceError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.exceptions import as_airflow_errors
from airflow_provider_chatexport.triggers.export import BACKSTOP, ExportTaskTrigger, read_event

if TYPE_CHECKING:
    from airflow.sdk import Context


class ExportTaskSensor(BaseSensorOperator):
    """Wait until an export task of the service is completed. Returns its ``task_id`` and ``created_at``.

    ``timeout``, ``poke_interval`` and ``mode`` are those of every sensor. The triggerer respects the first two as well.

    :param export_task_id: the id that the service gave the export. (templated)
    :param chatexport_conn_id: a connection of type ``chatexport``. (templated)
    :param deferrable: wait in the triggerer instead of on the worker.
    """

    template_fields: Sequence[str] = ("export_task_id", "chatexport_conn_id")
    ui_color = "#fff6e3"

    def __init__(
        self,
        *,
        export_task_id: str,
        chatexport_conn_id: str = ChatExportHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.export_task_id = export_task_id
        self.chatexport_conn_id = chatexport_conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Wait on the worker, or defer.

        :raises TaskDeferred: the triggerer waits; the task resumes in ``execute_complete``.
        """
        with as_airflow_errors():
            task_id = self._task_id()
        if not self.deferrable:
            return super().execute(context)
        now_epoch_s = time.time()
        return self.defer(
            trigger=ExportTaskTrigger(
                chatexport_conn_id=self.chatexport_conn_id,
                task_ids=[task_id],
                started_epoch_s=now_epoch_s,
                deadline_epoch_s=now_epoch_s + self.timeout,
                poll_interval_s=self.poke_interval,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout) + BACKSTOP,
        )

    def poke(self, context: Context) -> bool | PokeReturnValue:  # noqa: ARG002
        """Ask for the status once; return the result if the export is completed, else False."""
        with as_airflow_errors(), ChatExportHook(self.chatexport_conn_id).client() as client:
            task_id = self._task_id()
            # The poller decides as in every other wait: a failed export raises, and so does a wrong address.
            poller = ExportPoller([task_id], started_epoch_s=0.0, deadline_epoch_s=0.0, answered=False)
            try:
                poller.record_status(task_id, client.task(task_id))
            except ServiceError as error:
                poller.record_failure(error)
            completed = poller.completed.get(task_id)
        return PokeReturnValue(is_done=True, xcom_value=_result(task_id, completed.created_at)) if completed else False

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, str]:  # noqa: ARG002
        """Resume the task after the wait, in a new process."""
        with as_airflow_errors():
            if isinstance(event, dict) and event.get("status") == "timeout":
                # As every sensor does that runs out of time. Airflow does not retry it; soft_fail makes it a skip.
                raise AirflowSensorTimeout(str(event.get("error")))
            ((task_id, created_at),) = read_event(event).items()
        return _result(task_id, created_at)

    def _task_id(self) -> TaskId:
        return TaskId(
            require_text(self.export_task_id, "export_task_id", "set it to the id that the service gave the export")
        )


def _result(task_id: TaskId, created_at: datetime) -> dict[str, str]:
    return {"task_id": task_id, "created_at": format_rfc3339(created_at)}
