"""The counts of a load, which account for everything that came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Counts:
    """The law of conservation, in numbers: every entity of every line is a row or in exactly one of the others.

    Their names are part of load records and reports.

    :ivar entities: entities by name; ``rows``: rows by table.
    :ivar rejected_lines: the rejects in which no entity could be recognised.
    :ivar drawn: by table, rows that were extracted from inside other objects. They are not among the entities.
    :ivar forgotten: by table, rows of people on the lake's suppression list.
    :ivar cast_failures: by ``table.key``, values that their column cannot hold. They are in ``custom``.
    """

    lines: int = 0
    entities: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    out_of_window: int = 0
    duplicates: int = 0
    other_entities: int = 0
    rejected_lines: int = 0
    drawn: dict[str, int] = field(default_factory=dict)
    forgotten: dict[str, int] = field(default_factory=dict)
    cast_failures: dict[str, int] = field(default_factory=dict)


def n_decoded(counts: Mapping[str, Any]) -> int:
    """Return what rejects are a share of: the objects of all lines, and the lines in which none was recognised.

    An object that is a line of its own counts once. A channel with a thousand messages on one line counts a thousand
    times and once.

    :param counts: as a record has them.
    """
    n_objects: int = sum(counts["entities"].values())
    return n_objects + int(counts["rejected_lines"])
