"""Our errors in Airflow's terms: one sentence each, and whether a retry of the task makes sense."""

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

# Of no use to ask again at once, and yet of use to a task that runs again: in place of an export that was lost it makes
# another, and a page that a proxy answered with for a while is gone by then.
_PASSING = (TaskFailedError, NotFoundError, UnexpectedReplyError)


def is_final(error: ChatExportError) -> bool:
    """Whether retries of the task would be in vain, because somebody has to change something first."""
    return not (error.retryable or isinstance(error, _PASSING))


def airflow_failure(message: str, *, final: bool, retry_after_s: float | None = None) -> AirflowException:
    """The exception that ends a task: past its retries if ``final``.

    :param retry_after_s: what the service asked for; ``ServiceRetryPolicy`` reads it.
    """
    failure = AirflowFailException(message) if final else AirflowException(message)
    failure.retry_after_s = retry_after_s  # type: ignore[attr-defined]
    return failure


class ArgumentError(CallError, AirflowFailException):
    """A wrong argument of an operator. Those of a mapped task are checked when it runs, and Airflow has to see that a
    retry would be in vain."""


@contextmanager
def checked_arguments() -> Iterator[None]:
    """Where a constructor looks at its arguments."""
    try:
        yield
    except CallError as error:
        raise ArgumentError(error.message) from None


@contextmanager
def as_airflow_errors() -> Iterator[None]:
    """Raises our errors as Airflow's, with their sentence alone and without their history."""
    try:
        yield
    except ChatExportError as error:
        asked_s = getattr(error, "retry_after_s", None)
        raise airflow_failure(error.message, final=is_final(error), retry_after_s=asked_s) from None


@contextmanager
def explain_timeout(sentence: str) -> Iterator[None]:
    """Whatever comes of Airflow's alarm for ``execution_timeout`` ends the task as its time-out, with this sentence.

    The alarm goes off in the middle of anything; a database that it interrupts makes an error of its own of it.
    """
    is_set = seconds_to_timeout() > 0
    try:
        yield
    except (Exception, AirflowTaskTimeout):
        if is_set and not seconds_to_timeout():
            raise AirflowTaskTimeout(sentence) from None
        raise


def seconds_to_timeout() -> float:
    """Seconds until Airflow's alarm for ``execution_timeout`` goes off; 0.0 if none is set, or if it has."""
    return signal.getitimer(signal.ITIMER_REAL)[0]
