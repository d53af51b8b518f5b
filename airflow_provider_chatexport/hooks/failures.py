"""Our errors in Airflow's terms: one sentence each, and whether a retry of the task makes sense."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_chatexport.errors import (
    CallError,
    ChatExportError,
    FileGoneError,
    InputError,
    RequestRefusedError,
    TaskOverdueError,
    UnauthorizedError,
)

# The same task run again would ask the same of the same service: somebody has to change something first. A deadline is
# one for all tries, so what is overdue now is overdue then, and a file that is gone does not come back.
_FINAL = (CallError, UnauthorizedError, RequestRefusedError, InputError, TaskOverdueError, FileGoneError)


def is_final(error: ChatExportError) -> bool:
    """Whether retries of the task would be in vain. A lost export is not final: a retry makes a new one."""
    return isinstance(error, _FINAL)


def airflow_failure(message: str, *, final: bool) -> AirflowException:
    """The exception that ends a task: past its retries if ``final``."""
    return AirflowFailException(message) if final else AirflowException(message)


@contextmanager
def airflow_failures() -> Iterator[None]:
    """Raises our errors as Airflow's, with their sentence alone and without their history."""
    try:
        yield
    except ChatExportError as error:
        failure = airflow_failure(error.message, final=is_final(error))
        failure.retry_after_s = getattr(error, "retry_after_s", None)  # type: ignore[attr-defined]
        raise failure from None
