"""Our errors in Airflow's terms: one sentence each, and whether a retry of the task can help."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowTaskTimeout

from airflow_provider_chatexport.errors import (
    CallError,
    ChatExportError,
    NotFoundError,
    TaskFailedError,
    UnexpectedReplyError,
)

# These are not ``retryable``: the same request would fail again at once. But a retry of the whole task can help: it
# starts another export in place of the one that was lost, and a proxy's error page may be gone by then.
_FIXED_BY_A_NEW_TRY = (TaskFailedError, NotFoundError, UnexpectedReplyError)


def is_final(error: ChatExportError) -> bool:
    """Return whether a retry of the task cannot help, because a person has to change something first."""
    return not (error.retryable or isinstance(error, _FIXED_BY_A_NEW_TRY))


def airflow_failure(message: str, *, final: bool, retry_after_s: float | None = None) -> AirflowException:
    """Return the exception that fails a task.

    :param final: do not retry the task.
    :param retry_after_s: the pause that the service asked for, in seconds; ``ServiceRetryPolicy`` reads it.
    """
    failure = AirflowFailException(message) if final else AirflowException(message)
    failure.retry_after_s = retry_after_s  # type: ignore[attr-defined]
    return failure


class ArgumentError(CallError, AirflowFailException):
    """An argument of an operator is wrong.

    A mapped task checks its arguments when it runs, and Airflow has to know that a retry cannot help.
    """


@contextmanager
def checked_arguments() -> Iterator[None]:
    """Raise a ``CallError`` in a constructor as ``ArgumentError``."""
    try:
        yield
    except CallError as error:
        raise ArgumentError(error.message) from None


@contextmanager
def as_airflow_errors() -> Iterator[None]:
    """Raise our errors as Airflow's: the same sentence, without the chain of causes."""
    try:
        yield
    except ChatExportError as error:
        retry_after_s = getattr(error, "retry_after_s", None)
        raise airflow_failure(error.message, final=is_final(error), retry_after_s=retry_after_s) from None


@contextmanager
def explain_timeout(sentence: str) -> Iterator[None]:
    """Raise Airflow's time-out with this sentence, if the alarm for ``execution_timeout`` caused the exception.

    The alarm interrupts any statement, and a library may turn it into an error of its own: DuckDB does within a query.
    """
    is_set = seconds_to_timeout() > 0
    try:
        yield
    except (Exception, AirflowTaskTimeout):
        if is_set and not seconds_to_timeout():
            raise AirflowTaskTimeout(sentence) from None
        raise


def seconds_to_timeout() -> float:
    """Return the seconds until Airflow's alarm for ``execution_timeout``; 0.0 if it is not set, or has gone off."""
    return signal.getitimer(signal.ITIMER_REAL)[0]
