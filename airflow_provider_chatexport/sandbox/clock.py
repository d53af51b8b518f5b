"""The sandbox's own clock. Control calls move it forward."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from airflow_provider_chatexport.core.times import EPOCH


class Clock:
    """Seconds since 1970 that never go back between two resets, even if the machine's clock does.

    :param frozen: stand still between control calls, instead of running with the machine.
    """

    def __init__(self, *, frozen: bool = False) -> None:
        self._frozen = frozen
        self.reset()

    def reset(self) -> None:
        """Set the clock to the time of the machine."""
        self._start = EPOCH + timedelta(seconds=time.time())
        self._started = time.monotonic()
        self.advanced_s = 0.0
        """How far control calls have moved it in all."""

    def now_s(self) -> float:
        """Return seconds since 1970."""
        return (self.now() - EPOCH).total_seconds()

    def now(self) -> datetime:
        """Return the same as an aware UTC datetime."""
        run_s = 0.0 if self._frozen else time.monotonic() - self._started
        # Each is added on its own: in a sum of floats, a move by a millisecond may come out a microsecond short.
        return self._start + timedelta(seconds=run_s) + timedelta(seconds=self.advanced_s)

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.advanced_s += seconds
