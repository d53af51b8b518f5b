"""What was met of an element of an array while it comes in pieces."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_chatexport.core.entities import infer_bare
from airflow_provider_chatexport.lake.rejects import MAX_REJECT_BYTES
from airflow_provider_chatexport.lake.source import Line


@dataclass(slots=True)
class Element:
    """Members that are held until it is known what they belong to, and the beginnings of those that are too long for
    that. ``streamed``: items of its lists were taken already."""

    held: dict[str, Line] = field(default_factory=dict)
    too_long: list[tuple[str, Line]] = field(default_factory=list)
    n_bytes: int = 0
    streamed: bool = False

    def hold(self, key: str, member: Line, max_bytes: int) -> None:
        self.n_bytes += member.size
        if self.n_bytes > max_bytes:
            head = Line(member.number, member.offset, member.raw[:MAX_REJECT_BYTES], self.n_bytes)
            self.too_long.append((key, head))
        else:
            self.held[key] = member

    @property
    def has_empty_lists(self) -> bool:
        """A channel and something else, and no object of the API that has a key of that name."""
        return "channel" in self.held and len(self.held) > 1 and infer_bare(self.held) is None
