"""The truth rule: of all exports that cover a moment of a channel, the newest is right about it.

Pure: from what loads claim to cover to what is visible. A row of an event table is visible if and only if no entry of
its channel contains its moment with a later ``(exported_at, load_id)`` than the row's own.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from airflow_provider_chatexport.core.times import EARLIEST, format_rfc3339, parse_rfc3339

# An export without bounds covers everything before it was made.
BEGINNING: Final = EARLIEST


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageEntry:
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

    def to_json(self, record_id: str) -> dict[str, Any]:
        """For the record of this id; one that holds entries of other loads says which."""
        value = {
            "cid": self.cid,
            "since": None if self.since == BEGINNING else format_rfc3339(self.since),
            "until": format_rfc3339(self.until),
            "exported_at": format_rfc3339(self.exported_at),
        }
        return value if self.load_id == record_id else value | {"load_id": self.load_id}

    @classmethod
    def from_json(cls, value: dict[str, Any], record_id: str) -> Self:
        since = value["since"]
        return cls(
            cid=value["cid"],
            since=parse_rfc3339(since) if since else BEGINNING,
            until=parse_rfc3339(value["until"]),
            exported_at=parse_rfc3339(value["exported_at"]),
            load_id=value.get("load_id", record_id),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSpan:
    """A span of time, half-open; ``since`` may be ``BEGINNING``."""

    since: datetime
    until: datetime

    @classmethod
    def of_day(cls, day: str) -> Self:
        """A UTC day, as folders name it: ``2026-01-31``."""
        begin = datetime.fromisoformat(day).replace(tzinfo=UTC)
        return cls(since=begin, until=begin + timedelta(days=1))

    def cut(self, entry: CoverageEntry) -> tuple[datetime, datetime]:
        """Begin and end of what lies in the entry too; reversed where that is nothing."""
        return max(self.since, entry.since), min(self.until, entry.until)


def coverage_entry(
    *, cid: str, since: datetime | None, until: datetime | None, exported_at: datetime, load_id: str
) -> CoverageEntry | None:
    """What an export may claim. It knows nothing past the moment when it was made, so the claim ends there.

    None where nothing is left: the whole window lay in the future.
    """
    begin = since or BEGINNING
    end = min(until, exported_at) if until else exported_at
    if begin >= end:
        return None
    return CoverageEntry(cid=cid, since=begin, until=end, exported_at=exported_at, load_id=load_id)


def hiding(entries: Iterable[CoverageEntry]) -> Iterator[tuple[CoverageEntry, CoverageEntry]]:
    """All pairs (older, newer) of entries of one channel that overlap: there, the newer hides the older's rows.

    Where windows tile, as they mostly do, this is a sort and one look at each neighbour.
    """
    for of_channel in _by_channel(entries).values():
        open_entries: list[CoverageEntry] = []
        for entry in sorted(of_channel, key=lambda each: each.since):
            open_entries = [each for each in open_entries if each.until > entry.since]
            for other in open_entries:
                if other.rank != entry.rank:
                    older, newer = sorted((other, entry), key=lambda each: each.rank)
                    yield older, newer
            open_entries.append(entry)


class NewerCoverage:
    """Of each entry, the newer ones that overlap it: what hides some of its rows, and whether all."""

    def __init__(self, entries: Iterable[CoverageEntry]) -> None:
        self._newer: dict[CoverageEntry, list[CoverageEntry]] = defaultdict(list)
        for older, newer in hiding(entries):
            self._newer[older].append(newer)

    def than(self, entry: CoverageEntry, span: TimeSpan | None = None) -> list[CoverageEntry]:
        """Newer entries of its channel that overlap it, within a span if one is given."""
        found = self._newer.get(entry, [])
        return found if span is None else [each for each in found if each.overlaps(*span.cut(entry))]

    def is_fully_hidden(self, entry: CoverageEntry, span: TimeSpan | None = None) -> bool:
        """Whether nothing that the entry tells about a span (by default all of its own) can be visible."""
        since, until = (entry.since, entry.until) if span is None else span.cut(entry)
        return since >= until or _cover(self.than(entry, span), since, until)

    def are_fully_hidden(self, entries: Collection[CoverageEntry]) -> bool:
        """Whether nothing can be visible of a record that claims these; one that claims nothing is not hidden."""
        return bool(entries) and all(self.is_fully_hidden(entry) for entry in entries)

    def hidden_since(
        self, entry: CoverageEntry, span: TimeSpan | None, committed_at: Callable[[CoverageEntry], datetime]
    ) -> datetime | None:
        """When the newer entries first hid all that the entry tells about a span; None where they do not."""
        since, until = (entry.since, entry.until) if span is None else span.cut(entry)
        newer = self.than(entry, span)
        moments = sorted({committed_at(each) for each in newer})

        def hid_all(moment: datetime) -> bool:
            return _cover([each for each in newer if committed_at(each) <= moment], since, until)

        at = bisect.bisect_left(moments, True, key=hid_all)
        return moments[at] if at < len(moments) else None


def without_superseded(entries: Iterable[CoverageEntry]) -> list[CoverageEntry]:
    """The entries that still decide anything: those that newer ones cover entirely are left out.

    Whatever such an entry would hide, the newer ones hide as well.
    """
    entries = list(entries)
    newer = NewerCoverage(entries)
    return [entry for entry in entries if not newer.is_fully_hidden(entry)]


def covered_spans(entries: Iterable[CoverageEntry]) -> dict[str, list[TimeSpan]]:
    """Per channel, what is covered at all: spans without a gap in them, ascending, with a gap between any two."""
    spans: dict[str, list[TimeSpan]] = {}
    for cid, of_channel in _by_channel(entries).items():
        merged: list[TimeSpan] = []
        for entry in sorted(of_channel, key=lambda each: each.since):
            if merged and entry.since <= merged[-1].until:
                merged[-1] = TimeSpan(since=merged[-1].since, until=max(merged[-1].until, entry.until))
            else:
                merged.append(TimeSpan(since=entry.since, until=entry.until))
        spans[cid] = merged
    return spans


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRun:
    """A span of time of a channel that ``n_claims`` entries cover, the same ones throughout; 0 in a gap."""

    since: datetime
    until: datetime
    n_claims: int


def coverage_runs(entries: Iterable[CoverageEntry]) -> dict[str, list[CoverageRun]]:
    """Per channel, from its first to its last covered moment: how often each was loaded. Neighbours differ."""
    found: dict[str, list[CoverageRun]] = {}
    for cid, of_channel in _by_channel(entries).items():
        steps: dict[datetime, int] = defaultdict(int)
        for entry in of_channel:
            steps[entry.since] += 1
            steps[entry.until] -= 1
        n_claims, begin = 0, None
        found[cid] = []
        for moment in sorted(each for each, change in steps.items() if change):
            if begin is not None:
                found[cid].append(CoverageRun(since=begin, until=moment, n_claims=n_claims))
            n_claims += steps[moment]
            begin = moment
    return found


def _cover(entries: Iterable[CoverageEntry], since: datetime, until: datetime) -> bool:
    reached = since
    for entry in sorted(entries, key=lambda each: each.since):
        if entry.since > reached:
            return False
        reached = max(reached, entry.until)
        if reached >= until:
            return True
    return False


def _by_channel(entries: Iterable[CoverageEntry]) -> dict[str, list[CoverageEntry]]:
    grouped: dict[str, list[CoverageEntry]] = defaultdict(list)
    for entry in entries:
        grouped[entry.cid].append(entry)
    return grouped
