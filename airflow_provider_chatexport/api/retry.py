"""One retry policy for both drivers: what is worth another attempt, after which pause, and for how long.

Repeating is safe for every call: reads have no effect, and a submit whose reply was lost can at worst leave one export
at the service that nobody reads (it has no idempotency key and no list of tasks, so this cannot be ruled out).
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
    """The callbacks that tenacity asks, for one call.

    Full jitter over an exponential bound, and never sooner than the service asked for (``Retry-After``, or the reset
    of its rate limit). Being rate-limited is no failure and is measured in time; anything else is counted. A pause that
    would end after the deadline (unix seconds) is not begun.
    """

    def __init__(self, settings: ServiceSettings, *, starts_export: bool, deadline_epoch_s: float = math.inf) -> None:
        self._settings = settings
        self._deadline_epoch_s = deadline_epoch_s
        self._starts_export = starts_export
        self._n_failures = 0
        self._pause_s = 0.0

    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``tenacity.Retrying`` and ``tenacity.AsyncRetrying``."""
        return {
            "retry": self._worth_another,
            "wait": self._wait_s,
            "stop": self._spent,
            "before_sleep": self._announce,
            "reraise": True,
        }

    def _worth_another(self, state: RetryCallState) -> bool:
        error = _error_of(state)
        if error is None or not error.retryable:
            return False
        self._n_failures += not isinstance(error, RateLimitedError)
        return True

    def _wait_s(self, state: RetryCallState) -> float:
        bound_s = self._settings.pause_bound_s(state.attempt_number - 1)
        asked_s: float = getattr(_error_of(state), "retry_after_s", None) or 0.0
        self._pause_s = asked_s + random.uniform(0.0, bound_s)  # noqa: S311 - spreads load, guards nothing
        return self._pause_s

    def _spent(self, state: RetryCallState) -> bool:
        if time.time() + self._pause_s > self._deadline_epoch_s:
            return True
        waited_s = state.seconds_since_start or 0.0
        if isinstance(_error_of(state), RateLimitedError):
            # A pause that would end after our patience is not begun.
            return waited_s + self._pause_s > self._settings.rate_limit_patience_s
        # A 503 may name its own pause as well; hours of it are the caller's to wait, not ours.
        return self._n_failures >= self._settings.max_attempts or self._pause_s > self._settings.rate_limit_patience_s

    def _announce(self, state: RetryCallState) -> None:
        error = _error_of(state)
        orphan = ""
        if self._starts_export and getattr(error, "reply_lost", False):
            orphan = "; if it was accepted after all, one export is left unused at the service"
        log.warning("%s; attempt %d follows in %.1f s%s", error, state.attempt_number + 1, self._pause_s, orphan)


def _error_of(state: RetryCallState) -> ChatExportError | None:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, ChatExportError) else None
