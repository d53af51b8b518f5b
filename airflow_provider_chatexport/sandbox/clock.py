"""The sandbox's own clock: it goes with the machine's, and control calls push it forward."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from airflow_provider_chatexport.core.times import EPOCH


class Clock:
    """Seconds since 1970 that never run backwards, whatever the machine's clock is set to meanwhile."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()
        self.advanced_s = 0.0
        """How far control calls have pushed it in all."""

    def now_s(self) -> float:
        return time.monotonic() + self._offset_s

    def now(self) -> datetime:
        """The same as an aware UTC datetime."""
        return EPOCH + timedelta(seconds=self.now_s())

    def advance(self, seconds: float) -> None:
        self._offset_s += seconds
        self.advanced_s += seconds
