"""How far long work is: loads and upkeep tell it, a terminal shows it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

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
