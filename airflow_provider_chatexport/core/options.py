"""How exports are loaded: what the load operator, the command line and ``pipeline`` take alike."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_chatexport.errors import CallError


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What one load allows and does.

    :param max_rejected: how many rejects a load may have and still be committed: a count (int), or a share of its
        lines (float, 0 to 1); None for any number. ``strict`` is 0.
    :param accept_shrink: commit a load even if it has no message of a channel where the lake shows some.
    :param keep_superseded: keep the messages of this load for ``messages_history`` when newer exports supersede it.
    :raises CallError: a value is out of range.
    """

    max_rejected: int | float | None = None
    accept_shrink: bool = False
    keep_superseded: bool = False

    def __post_init__(self) -> None:
        limit = self.max_rejected
        if limit is not None and (limit < 0 or (isinstance(limit, float) and limit > 1)):
            raise CallError(f"max_rejected is {limit}; give a count (0, 10, ...) or a share of the lines (0.0 to 1.0)")

    def allows(self, *, rejected: int, lines: int) -> bool:
        """Whether a load with so many rejects may be committed."""
        if self.max_rejected is None:
            return True
        return rejected <= (self.max_rejected * lines if isinstance(self.max_rejected, float) else self.max_rejected)
