"""A retry policy for tasks that call the service; needs Airflow 3.3: ``retry_policy=ServiceRetryPolicy()``."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from airflow.providers.common.compat.sdk import AirflowException
from airflow.sdk import RetryDecision, RetryPolicy

if TYPE_CHECKING:
    from airflow.sdk import Context

FIRST_DELAY: Final = timedelta(minutes=1)
LONGEST_DELAY: Final = timedelta(minutes=30)


class ServiceRetryPolicy(RetryPolicy):
    """Pauses between tries that double from a minute to half an hour, and are never shorter than the service asks.

    ``retries`` of the task stays the limit. Errors that a retry cannot fix, such as a wrong key or a channel that does
    not exist, are not retried, with or without this policy. Errors that do not come from the service follow the task's
    own settings.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Return when to try again."""
        if not isinstance(exception, AirflowException):
            return RetryDecision.default()
        retry_after = timedelta(seconds=getattr(exception, "retry_after_s", None) or 0)
        doubled = min(FIRST_DELAY * 2 ** min(try_number - 1, 10), LONGEST_DELAY)
        return RetryDecision.retry(delay=max(retry_after, doubled), reason=str(exception)[:200])
