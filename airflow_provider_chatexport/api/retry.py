"""The retry policy of both drivers: which errors to retry, after which pause, and for how long.

Every call can be repeated. Reads have no effect. A submit whose reply was lost may have started an export; repeating it
leaves at most one unused export at the service. The service has no idempotency key and no list of tasks, so this cannot
be ruled out.
"""

from __future__ import annotations

import logging
import math
import random
import time
from typing import Any

from tenacity import RetryCallState

from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.errors import ChatExportError, RateLimitedError

log = logging.getLogger(__name__)


class RetryPolicy:
    """Tenacity's callbacks for one call.

    A pause is random between zero and an exponential bound ("full jitter"), plus the time that the service asks for
    (``Retry-After``, or the reset of its rate limit). Failures are limited by number, and rate limiting is limited by
    time. No pause starts that would end after the deadline.

    :param starts_export: the log says that a repeat may leave an unused export.
    :param deadline_epoch_s: unix seconds.
    """

    def __init__(self, settings: ServiceSettings, *, starts_export: bool, deadline_epoch_s: float = math.inf) -> None:
        self._settings = settings
        self._deadline_epoch_s = deadline_epoch_s
        self._starts_export = starts_export
        self._n_failures = 0
        self._pause_s = 0.0

    def options(self) -> dict[str, Any]:
        """Return keyword arguments for ``tenacity.Retrying`` and ``tenacity.AsyncRetrying``."""
        return {
            "retry": self._should_retry,
            "wait": self._next_pause_s,
            "stop": self._should_stop,
            "before_sleep": self._log_pause,
            "reraise": True,
        }

    def _should_retry(self, state: RetryCallState) -> bool:
        error = _error_of(state)
        if error is None or not error.retryable:
            return False
        self._n_failures += not isinstance(error, RateLimitedError)
        return True

    def _next_pause_s(self, state: RetryCallState) -> float:
        bound_s = self._settings.pause_bound_s(state.attempt_number - 1)
        asked_s: float = getattr(_error_of(state), "retry_after_s", None) or 0.0
        self._pause_s = asked_s + random.uniform(0.0, bound_s)  # noqa: S311 - spreads load, guards nothing
        return self._pause_s

    def _should_stop(self, state: RetryCallState) -> bool:
        if time.time() + self._pause_s > self._deadline_epoch_s:
            return True
        waited_s = state.seconds_since_start or 0.0
        if isinstance(_error_of(state), RateLimitedError):
            return waited_s + self._pause_s > self._settings.rate_limit_patience_s
        # A 503 may ask for a pause as well. If it asks for hours, the caller has to decide, not this policy.
        return self._n_failures >= self._settings.max_attempts or self._pause_s > self._settings.rate_limit_patience_s

    def _log_pause(self, state: RetryCallState) -> None:
        error = _error_of(state)
        orphan = ""
        if self._starts_export and getattr(error, "reply_lost", False):
            orphan = "; if the service accepted the request, one export stays there unused"
        log.warning("%s; attempt %d follows in %.1f s%s", error, state.attempt_number + 1, self._pause_s, orphan)


def _error_of(state: RetryCallState) -> ChatExportError | None:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, ChatExportError) else None
