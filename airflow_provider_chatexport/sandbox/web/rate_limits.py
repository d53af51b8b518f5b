"""Rate limits as the service documents them: per endpoint over one minute, and a thirtieth of that in one second.

Time is the sandbox's: a test advances the clock instead of waiting. A window starts with its first request, so the
third of three exports in a row is refused at any time of day.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from airflow_provider_chatexport.sandbox.clock import Clock
from airflow_provider_chatexport.sandbox.web.responses import ApiCode, ApiError

# "Rate Limits". GetTask and the others are not listed there: they get the largest, which 50 pollers do not reach.
PER_MINUTE: Final[Mapping[str, int]] = {
    "ExportChannels": 60,
    "ExportUsers": 60,
    "ExportUser": 60,
    "QueryChannels": 10_000,
    "GetExportChannels": 10_000,
    "GetTask": 10_000,
    "GetRateLimits": 10_000,
    "GetRetentionPolicy": 10_000,
}
# The service counts per app, endpoint and platform. Only servers call the sandbox; the others stay untouched.
PLATFORMS: Final = ("server_side", "android", "ios", "web", "unity", "unity_desktop", "unity_console")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What is left of a minute. ``reset_epoch_s``: unix seconds of the next one."""

    limit: int
    remaining: int
    reset_epoch_s: int

    def headers(self) -> dict[str, str]:
        """Return the headers, in lower case: the legacy SDK looks them up in a plain dictionary."""
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset_epoch_s),
        }

    def to_json(self) -> dict[str, int]:
        """Return the quota as the service's rate limit endpoint has it."""
        return {"limit": self.limit, "remaining": self.remaining, "reset": self.reset_epoch_s}


class OverLimitError(ApiError):
    """429. ``retry_after_s``: whole seconds until the next request is accepted."""

    def __init__(self, operation: str, quota: Quota, retry_after_s: int) -> None:
        super().__init__(429, ApiCode.RATE_LIMIT, f"Too many requests for {operation}, check response headers")
        self.quota = quota
        self.retry_after_s = retry_after_s


class RateLimits:
    """Counters of one app, by operation. ``enforced=False`` counts and refuses nothing."""

    def __init__(self, clock: Clock, *, enforced: bool) -> None:
        self._clock = clock
        self._enforced = enforced
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        self._minutes = {name: _Window(limit, 60.0) for name, limit in PER_MINUTE.items()}
        self._seconds = {name: _Window(limit // 30, 1.0) for name, limit in PER_MINUTE.items()}

    def take(self, operation: str) -> Quota:
        """Count one request, and return what is left.

        :raises OverLimitError: the minute or the second is used up. Such a request does not count.
        """
        now_s = self._clock.now_s()
        full = [w for w in (self._seconds[operation], self._minutes[operation]) if w.used(now_s) >= w.limit]
        if full and self._enforced:
            resets_s = max(window.start_s + window.span_s for window in full)
            quota = Quota(limit=PER_MINUTE[operation], remaining=0, reset_epoch_s=math.ceil(resets_s))
            raise OverLimitError(operation, quota, max(1, math.ceil(resets_s - now_s)))
        self._seconds[operation].count(now_s)
        self._minutes[operation].count(now_s)
        return self.quota(operation)

    def quota(self, operation: str) -> Quota:
        """Return what is left, without counting."""
        now_s = self._clock.now_s()
        minute = self._minutes[operation]
        used = minute.used(now_s)
        start_s = minute.start_s if used else now_s
        return Quota(
            limit=minute.limit,
            remaining=max(0, minute.limit - used),
            reset_epoch_s=math.ceil(start_s + minute.span_s),
        )


class _Window:
    def __init__(self, limit: int, span_s: float) -> None:
        self.limit = limit
        self.span_s = span_s
        self.start_s = 0.0
        self._n = 0

    def used(self, now_s: float) -> int:
        return self._n if now_s < self.start_s + self.span_s else 0

    def count(self, now_s: float) -> None:
        if self.used(now_s) == 0:
            self.start_s, self._n = now_s, 0
        self._n += 1
