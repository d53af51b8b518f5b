"""Turns at asking for status, shared by all who wait in one process under one API key.

The service counts requests by app. A thousand triggers that each keep a modest pause are together a burst, and none of
them can see the others: here they stand in line.
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Final

from airflow_provider_chatexport.api.settings import ServiceSettings

# The limit of status requests is not documented; others of its kind are 10,000 a minute, and a thirtieth of that in one
# second. This leaves most of it to the app itself, and to triggerers beside this one.
LOOKS_PER_SECOND: Final = 40.0


class RateLimiter:
    """Evenly spaced moments, each given away once. Any clock that does not run backwards will do, in seconds."""

    def __init__(self, per_second: float) -> None:
        self._every_s = 1.0 / per_second
        self._free_at_s = 0.0

    def take(self, now_s: float) -> float:
        """The next free turn; how long until then, seconds."""
        turn_s = max(now_s, self._free_at_s)
        self._free_at_s = turn_s + self._every_s
        return turn_s - now_s

    async def wait(self) -> None:
        """Returns when it is the caller's turn. A turn whose taker is cancelled passes unused."""
        pause_s = self.take(time.monotonic())
        if pause_s > 0.0:
            await asyncio.sleep(pause_s)


def turns_of(settings: ServiceSettings) -> RateLimiter:
    """The line of an app in this process."""
    return _turns(settings.base_url, settings.api_key)


@functools.lru_cache(maxsize=256)
def _turns(base_url: str, api_key: str) -> RateLimiter:  # noqa: ARG001 - what tells one app from another
    return RateLimiter(LOOKS_PER_SECOND)
