"""The truth rule: of all exports that cover a moment of a channel, the newest is right about it.

Pure: from what loads claim to cover to what is visible. A row of an event table is visible if and only if no entry of
its channel contains its moment with a later ``(exported_at, load_id)`` than the row's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from airflow_provider_chatexport.core.times import format_rfc3339, parse_rfc3339

# An export without bounds covers everything before it was made.
BEGINNING: Final = datetime(1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """One claim: of this channel, this export knows all that was sent in ``[since, until)``. Times are aware, UTC."""

    cid: str
    since: datetime
    until: datetime
    exported_at: datetime
    load_id: str

    @property
    def rank(self) -> tuple[datetime, str]:
        """Which of two claims is right: the later export, of two alike the later load id."""
        return self.exported_at, self.load_id

    def overlaps(self, since: datetime, until: datetime) -> bool:
        return self.since < until and since < self.until

    def to_json(self) -> dict[str, Any]:
        return {
            "cid": self.cid,
            "since": None if self.since == BEGINNING else format_rfc3339(self.since),
            "until": format_rfc3339(self.until),
            "exported_at": format_rfc3339(self.exported_at),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], load_id: str) -> Self:
        since = value["since"]
        return cls(
            cid=value["cid"],
            since=parse_rfc3339(since) if since else BEGINNING,
            until=parse_rfc3339(value["until"]),
            exported_at=parse_rfc3339(value["exported_at"]),
            load_id=load_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span of time, half-open; ``since`` may be ``BEGINNING``."""

    since: datetime
    until: datetime


def claim(
    *, cid: str, since: datetime | None, until: datetime | None, exported_at: datetime, load_id: str
) -> Coverage | None:
    """What an export may claim. It knows nothing past the moment when it was made, so the claim ends there.

    None where nothing is left: the whole window lay in the future.
    """
    begin = since or BEGINNING
    end = min(until, exported_at) if until else exported_at
    if begin >= end:
        return None
    return Coverage(cid=cid, since=begin, until=end, exported_at=exported_at, load_id=load_id)


def hiding(entries: Iterable[Coverage]) -> Iterator[tuple[Coverage, Coverage]]:
    """All pairs (older, newer) of entries of one channel that overlap: there, the newer hides the older's rows.

    Where windows tile, as they mostly do, this is a sort and one look at each neighbour.
    """
    for of_channel in _by_channel(entries).values():
        open_entries: list[Coverage] = []
        for entry in sorted(of_channel, key=lambda each: each.since):
            open_entries = [each for each in open_entries if each.until > entry.since]
            for other in open_entries:
                if other.rank != entry.rank:
                    older, newer = sorted((other, entry), key=lambda each: each.rank)
                    yield older, newer
            open_entries.append(entry)


def superseded(entries: Iterable[Coverage]) -> set[str]:
    """Loads of which nothing can be visible: newer loads cover every moment of every channel that they claim.

    A load is judged by its claims alone; one with rows outside of them must not be asked about here.
    """
    entries = list(entries)
    newer_of: dict[Coverage, list[Coverage]] = defaultdict(list)
    for older, newer in hiding(entries):
        newer_of[older].append(newer)
    alive = {
        entry.load_id
        for entry in entries
        if not _covered(entry, [each for each in newer_of.get(entry, []) if each.load_id != entry.load_id])
    }
    return {entry.load_id for entry in entries} - alive


def covered_spans(entries: Iterable[Coverage]) -> dict[str, list[Span]]:
    """Per channel, what is covered at all: spans without a gap in them, ascending, with a gap between any two."""
    spans: dict[str, list[Span]] = {}
    for cid, of_channel in _by_channel(entries).items():
        merged: list[Span] = []
        for entry in sorted(of_channel, key=lambda each: each.since):
            if merged and entry.since <= merged[-1].until:
                merged[-1] = Span(since=merged[-1].since, until=max(merged[-1].until, entry.until))
            else:
                merged.append(Span(since=entry.since, until=entry.until))
        spans[cid] = merged
    return spans


def _covered(entry: Coverage, by: Sequence[Coverage]) -> bool:
    reached = entry.since
    for other in sorted(by, key=lambda each: each.since):
        if other.since > reached:
            return False
        reached = max(reached, other.until)
        if reached >= entry.until:
            return True
    return False


def _by_channel(entries: Iterable[Coverage]) -> dict[str, list[Coverage]]:
    grouped: dict[str, list[Coverage]] = defaultdict(list)
    for entry in entries:
        grouped[entry.cid].append(entry)
    return grouped
