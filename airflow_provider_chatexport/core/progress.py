"""The progress of long work. Loads and maintenance report it; a terminal shows it, or a log gets lines of it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

# Takes a stage's name, the amount that is done, and the amount in all if it is known.
Progress = Callable[[str, int, int | None], None]


class Unit(enum.Enum):
    """What a stage counts."""

    BYTES = "bytes"
    ROWS = "rows"
    DAYS = "days"
    FILES = "files"
    TABLES = "tables"


DOWNLOAD: Final = "download"
READ: Final = "read"
CONVERT: Final = "convert"
WRITE: Final = "write"
COMPACT: Final = "compact"
SEARCH: Final = "search"
REWRITE: Final = "rewrite"
PUBLISH: Final = "publish"

# How often a log gets a line about a long stage.
LOG_EVERY_S: Final = 10.0
# How long a stage has to last before its rate says anything.
RATE_AFTER_S: Final = 1.0

# Stages that are not in here have no measurable length.
UNITS: Final = {
    DOWNLOAD: Unit.BYTES,
    READ: Unit.BYTES,
    WRITE: Unit.ROWS,
    COMPACT: Unit.DAYS,
    SEARCH: Unit.TABLES,
    REWRITE: Unit.FILES,
    PUBLISH: Unit.TABLES,
}


def silent(stage: str, done: int, total: int | None) -> None:
    """Report nothing."""


class LoggedProgress:
    """Stages as lines of a log: one every ``LOG_EVERY_S`` while a stage lasts, and one when it has ended.

    Use it as a context manager; ``stage`` is a ``Progress``. A stage that failed gets no last line.

    :param say: takes a line.
    :param clock: seconds that never go back, such as ``time.monotonic``.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._name = ""
        self._amount: tuple[int, int | None] = (0, None)
        self._started_s = self._logged_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._end()

    def stage(self, name: str, done: int, total: int | None) -> None:
        """Record the progress of a stage. A new name ends the stage before it."""
        now_s = self._clock()
        if self._name != name:
            self._end()
            self._name, self._started_s, self._logged_s = name, now_s, now_s
        self._amount = (done, total)
        if now_s - self._logged_s >= LOG_EVERY_S:
            self._logged_s = now_s
            self._log(name)

    def _end(self) -> None:
        if self._name:
            self._log(f"{self._name} is done")
            self._name = ""

    def _log(self, subject: str) -> None:
        done, total = self._amount
        lasted_s = self._clock() - self._started_s
        rate = done / lasted_s if lasted_s >= RATE_AFTER_S else None
        parts = [format_amount(self._name, done, total, rate), f"{lasted_s:.1f} s"]
        self._say(f"{subject}: " + ", ".join(filter(None, parts)))


def format_amount(stage: str, done: int, total: float | None, per_second: float | None) -> str:
    """Format an amount and its speed: ``1.2 GB of 2.9 GB, 250.0 MB/s``; empty for a stage without a unit."""
    unit = UNITS.get(stage)
    if unit is None:
        return ""
    text = format_count(done, unit)
    if total is not None:
        text += f" of {format_count(int(total), unit)}"
    if unit is not Unit.BYTES:
        text += f" {unit.value}"
    if per_second and unit in (Unit.BYTES, Unit.ROWS):
        text += f", {format_count(int(per_second), unit)}{' rows' if unit is Unit.ROWS else ''}/s"
    return text


def format_count(number: int, unit: Unit) -> str:
    """Format a number of a unit: bytes with a prefix, everything else with commas."""
    if unit is not Unit.BYTES:
        return f"{number:,}"
    if number < 1000:
        return f"{number} bytes"
    size, name = number / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if size >= 1000:
            size, name = size / 1000, larger
    return f"{size:,.1f} {name}"
