"""The pace of status requests, shared by all waiters of one app in one process.

The service counts requests per app. A thousand triggers that each pause modestly make a burst together, and a trigger
does not know of the others. So each of them asks the app's rate limiter for a slot before each request.
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Final

from airflow_provider_chatexport.api.settings import ServiceSettings

# The limit of status requests is not documented. The service allows 10,000 similar requests a minute, and a thirtieth
# of that in any one second. This pace leaves most of it to the app itself and to other triggerers.
STATUS_REQUESTS_PER_SECOND: Final = 40.0


class RateLimiter:
    """Evenly spaced slots. Each slot is handed out once.

    Times are seconds of any clock that never goes back.
    """

    def __init__(self, per_second: float) -> None:
        self._spacing_s = 1.0 / per_second
        self._next_slot_s = 0.0

    def reserve(self, now_s: float) -> float:
        """Reserve the next free slot and return the seconds until it."""
        slot_s = max(now_s, self._next_slot_s)
        self._next_slot_s = slot_s + self._spacing_s
        return slot_s - now_s

    async def wait(self) -> None:
        """Wait for the next free slot. The slot of a cancelled waiter stays unused."""
        pause_s = self.reserve(time.monotonic())
        if pause_s > 0.0:
            await asyncio.sleep(pause_s)


def rate_limiter_for(settings: ServiceSettings) -> RateLimiter:
    """Return this process's rate limiter for an app: the same one for the same address and key."""
    return _rate_limiter(settings.base_url, settings.api_key)


@functools.lru_cache(maxsize=256)
def _rate_limiter(base_url: str, api_key: str) -> RateLimiter:  # noqa: ARG001 - the cache's key
    return RateLimiter(STATUS_REQUESTS_PER_SECOND)
