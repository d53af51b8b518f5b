"""Events of ``ExportTaskTrigger``, as the worker that resumes a task reads them.

They are apart from the trigger, because Airflow's base class of triggers takes longer to import than all of this. Tasks
that do not defer, and those that resume, need no trigger.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.hooks.exceptions import airflow_failure

PAYLOAD_VERSION: Final = 1

# Airflow's own time-out (``defer(timeout=...)``) comes this long after the deadline. The trigger keeps the deadline
# itself, and its event names the open exports. Airflow's time-out fails the task without a message; it is there in case
# no triggerer runs.
BACKSTOP: Final = timedelta(minutes=10)


def read_event(event: Any) -> dict[TaskId, datetime]:
    """Read an event of ``ExportTaskTrigger``, in the worker process that resumes the task.

    :return: when the service made each export, by its own clock.
    :raises AirflowException: the exports failed, or are overdue.
    :raises AirflowFailException: likewise, and a retry cannot help.
    :raises CallError: it is not an event of this trigger, or it has another version.
    """
    if not isinstance(event, dict) or "status" not in event:
        raise CallError("the task was resumed without an event of ExportTaskTrigger; clear it to export again")
    check_version(event.get("v"), "event")
    if event["status"] != "completed":
        raise airflow_failure(
            str(event.get("error")), final=bool(event.get("final")), retry_after_s=event.get("retry_after_s")
        )
    return {TaskId(task_id): parse_rfc3339(text) for task_id, text in event["created_at"].items()}


def check_version(version: Any, what: str) -> None:
    """Raise unless arguments or an event of a trigger have the version of this installation.

    :param what: ``trigger`` or ``event``.
    :raises CallError: they have another one.
    """
    if version != PAYLOAD_VERSION:
        raise CallError(
            f"this {what} has version {version}, and this installation reads version {PAYLOAD_VERSION}: worker and "
            "triggerer have different versions of the provider; install the same on both, then clear the task"
        )
