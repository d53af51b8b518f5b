"""Messages that vanish with a load: the lake shows them, and the load covers them and does not contain them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Vanished:
    """How many messages vanish, and the ages of the newest and the oldest of them, in whole days.

    An age is the time from the message to the export, so it is the most that the message can have had.
    """

    n_messages: int = 0
    newest_days: int | None = None
    oldest_days: int | None = None

    @classmethod
    def among(cls, late_changes: Iterable[Mapping[str, int]]) -> Self:
        """Return what vanishes by the late changes of a load (``LoadRecord.late_changes``)."""
        counts = {each["age_days"]: each["vanished"] for each in late_changes if each["vanished"]}
        if not counts:
            return cls()
        return cls(n_messages=sum(counts.values()), newest_days=min(counts), oldest_days=max(counts))

    def __bool__(self) -> bool:
        return self.n_messages > 0

    @property
    def age(self) -> str:
        """The ages for a sentence: ``12 to 400 days old``."""
        newest = "" if self.newest_days == self.oldest_days else f"{self.newest_days} to "
        return f"{newest}{self.oldest_days} day{'s' * (self.oldest_days != 1)} old"

    def __str__(self) -> str:
        return f"{self.n_messages} message{'s' * (self.n_messages != 1)} vanished ({self.age})"

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON types."""
        return {
            "messages": self.n_messages,
            "newest_age_days": self.newest_days,
            "oldest_age_days": self.oldest_days,
        }
