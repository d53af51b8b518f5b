"""How far long work is: loads and upkeep tell it, a terminal shows it, and a log gets lines of it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

# A stage's name, how much of it is done, and of how much, if that is known.
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
LOOK: Final = "look"
REWRITE: Final = "rewrite"

# A log is told of a long stage so often, seconds.
LOG_EVERY_S: Final = 10.0

# Other stages count nothing: what they wait for has no length.
UNITS: Final = {
    DOWNLOAD: Unit.BYTES,
    READ: Unit.BYTES,
    WRITE: Unit.ROWS,
    COMPACT: Unit.DAYS,
    LOOK: Unit.TABLES,
    REWRITE: Unit.FILES,
}


def silent(stage: str, done: int, whole: int | None) -> None:
    """Tells nobody."""


class LoggedProgress:
    """Stages as lines of a log: one when a stage has ended, and one now and then while it lasts.

    Used as a context manager; ``stage`` is a ``Progress``.

    :param say: takes a line.
    :param clock: seconds that never go back, such as ``time.monotonic``.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._name = ""
        self._amount: tuple[int, int | None] = (0, None)
        self._began_s = self._told_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._end()

    def stage(self, name: str, done: int, whole: int | None) -> None:
        now_s = self._clock()
        if self._name != name:
            self._end()
            self._name, self._began_s, self._told_s = name, now_s, now_s
        self._amount = (done, whole)
        if now_s - self._told_s >= LOG_EVERY_S:
            self._told_s = now_s
            self._tell(name)

    def _end(self) -> None:
        if self._name:
            self._tell(f"{self._name} is done")
            self._name = ""

    def _tell(self, what: str) -> None:
        done, whole = self._amount
        lasted_s = self._clock() - self._began_s
        told = amount(self._name, done, whole, done / lasted_s if lasted_s else None)
        self._say(f"{what}: " + ", ".join(filter(None, [told, f"{lasted_s:.1f} s"])))


def amount(stage: str, done: int, whole: float | None, per_second: float | None) -> str:
    """How much of how much, and how fast: ``1.2 GB of 2.9 GB, 250.0 MB/s``. Empty for a stage that counts nothing."""
    unit = UNITS.get(stage)
    if unit is None:
        return ""
    parts = [_counted(done, unit) if whole is None else f"{_counted(done, unit)} of {_counted(int(whole), unit)}"]
    if unit is not Unit.BYTES:
        parts[0] += f" {unit.value}"
    if per_second and unit in (Unit.BYTES, Unit.ROWS):
        parts.append(f"{_counted(int(per_second), unit)}{' rows' if unit is Unit.ROWS else ''}/s")
    return ", ".join(parts)


def _counted(number: int, unit: Unit) -> str:
    if unit is not Unit.BYTES:
        return f"{number:,}"
    if number < 1000:
        return f"{number} bytes"
    size, name = number / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if size >= 1000:
            size, name = size / 1000, larger
    return f"{size:,.1f} {name}"
