"""The truth rule: of all exports that cover a moment of a channel, the newest is right about it.

Pure. A coverage entry says which span of a channel one export covers. It hides a row of an event table if it is of the
row's channel, contains the row's moment and has a later ``(exported_at, load_id)`` than the row. Among the rows of one
key that no entry hides, the newest is visible (``visibility``).
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from airflow_provider_chatexport.core.times import EARLIEST, format_rfc3339, parse_rfc3339

# An export without bounds covers everything before it was made.
BEGINNING: Final = EARLIEST


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageEntry:
    """One export knows all that was sent in this channel in ``[since, until)``. Times are aware, UTC."""

    cid: str
    since: datetime
    until: datetime
    exported_at: datetime
    load_id: str

    @property
    def rank(self) -> tuple[datetime, str]:
        """What decides between two entries: the later export is right, or the later load id if both are as late."""
        return self.exported_at, self.load_id

    def settled(self, grace_period: timedelta) -> CoverageEntry | None:
        """Return the part of the entry in which no message was still on its way; None if there is no such part.

        Only an entry that ends when its export was made can lack messages: who exports a window that has closed waits
        for them first.
        """
        if self.until < self.exported_at:
            return self
        until = self.until - grace_period
        return replace(self, until=until) if self.since < until else None

    def clipped(self, horizon: datetime | None) -> CoverageEntry | None:
        """Return the part of the entry from a moment on; None if there is no such part."""
        if horizon is None or horizon <= self.since:
            return self
        return replace(self, since=horizon) if horizon < self.until else None

    def overlaps(self, since: datetime, until: datetime) -> bool:
        """Return whether the entry contains a moment of ``[since, until)``."""
        return self.since < until and since < self.until

    def to_json(self, record_id: str) -> dict[str, Any]:
        """Return the entry for the record of this id. The entry's own load is written only if it is another one."""
        value = {
            "cid": self.cid,
            "since": None if self.since == BEGINNING else format_rfc3339(self.since),
            "until": format_rfc3339(self.until),
            "exported_at": format_rfc3339(self.exported_at),
        }
        return value if self.load_id == record_id else value | {"load_id": self.load_id}

    @classmethod
    def from_json(cls, value: dict[str, Any], record_id: str) -> Self:
        """Read an entry from the record of this id."""
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
    """A span of time, ``[since, until)``; aware, UTC.

    Not a ``core.window.Window``: the first lakes took any year, and may have folders for days before its calendar.
    """

    since: datetime
    until: datetime

    @classmethod
    def of_day(cls, day: str) -> Self:
        """Return a UTC day by the name of its folder, such as ``2026-01-31``."""
        start = datetime.fromisoformat(day).replace(tzinfo=UTC)
        return cls(since=start, until=start + timedelta(days=1))

    def within(self, entry: CoverageEntry) -> tuple[datetime, datetime]:
        """Return the start and the end of the part that lies in an entry; the end is first if no part does."""
        return max(self.since, entry.since), min(self.until, entry.until)


def coverage_entry(
    *, cid: str, since: datetime | None, until: datetime | None, exported_at: datetime, load_id: str
) -> CoverageEntry | None:
    """Return what an export covers of a channel, or None if its whole window lay in the future.

    An export knows nothing past the moment when the service made it, so the entry ends there.

    :param since: start of the export's window; None for an export without one.
    :param until: end of the export's window; None for an export without one.
    """
    start = since or BEGINNING
    end = min(until, exported_at) if until else exported_at
    if start >= end:
        return None
    return CoverageEntry(cid=cid, since=start, until=end, exported_at=exported_at, load_id=load_id)


def overlapping_pairs(entries: Iterable[CoverageEntry]) -> Iterator[tuple[CoverageEntry, CoverageEntry]]:
    """Yield every pair (older, newer) of entries of one channel that overlap: there, the newer hides the older's rows.

    Windows mostly tile. Then this is one sort, and one look at each neighbour.
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
    """For each entry, the newer entries that overlap it, and so hide some or all of its rows."""

    def __init__(self, entries: Iterable[CoverageEntry]) -> None:
        self._newer: dict[CoverageEntry, list[CoverageEntry]] = defaultdict(list)
        for older, newer in overlapping_pairs(entries):
            self._newer[older].append(newer)

    def than(self, entry: CoverageEntry, span: TimeSpan | None = None) -> list[CoverageEntry]:
        """Return the newer entries that overlap an entry, or that overlap the part of it in a span."""
        newer = self._newer.get(entry, [])
        return newer if span is None else [each for each in newer if each.overlaps(*span.within(entry))]

    def is_fully_hidden(self, entry: CoverageEntry, span: TimeSpan | None = None) -> bool:
        """Return whether newer entries hide every row of an entry, or every row of its part in a span."""
        since, until = (entry.since, entry.until) if span is None else span.within(entry)
        return since >= until or _cover(self.than(entry, span), since, until)

    def are_fully_hidden(self, entries: Collection[CoverageEntry]) -> bool:
        """Return whether newer entries hide every row of a record's entries. A record without entries is not hidden."""
        return bool(entries) and all(self.is_fully_hidden(entry) for entry in entries)

    def hidden_since(
        self, entry: CoverageEntry, span: TimeSpan | None, committed_at: Callable[[CoverageEntry], datetime]
    ) -> datetime | None:
        """Return when newer entries first hid every row of an entry, or of its part in a span; None if they do not.

        :param committed_at: returns when an entry was committed.
        """
        since, until = (entry.since, entry.until) if span is None else span.within(entry)
        newer = self.than(entry, span)
        moments = sorted({committed_at(each) for each in newer})

        def was_hidden(moment: datetime) -> bool:
            return _cover([each for each in newer if committed_at(each) <= moment], since, until)

        first = bisect.bisect_left(moments, True, key=was_hidden)
        return moments[first] if first < len(moments) else None


def without_superseded(entries: Iterable[CoverageEntry]) -> list[CoverageEntry]:
    """Return the entries that still decide something, without those that newer entries cover entirely.

    The newer entries hide whatever such an entry would hide.
    """
    entries = list(entries)
    newer = NewerCoverage(entries)
    return [entry for entry in entries if not newer.is_fully_hidden(entry)]


def covered_spans(entries: Iterable[CoverageEntry]) -> dict[str, list[TimeSpan]]:
    """Return the spans that are covered at all, by channel: ascending, with a gap between any two."""
    return {cid: merged_spans(of_channel) for cid, of_channel in _by_channel(entries).items()}


def merged_spans(entries: Iterable[CoverageEntry]) -> list[TimeSpan]:
    """Return what entries of whatever channels contain together: ascending spans, with a gap between any two."""
    merged: list[TimeSpan] = []
    for entry in sorted(entries, key=lambda each: each.since):
        if merged and entry.since <= merged[-1].until:
            merged[-1] = TimeSpan(since=merged[-1].since, until=max(merged[-1].until, entry.until))
        else:
            merged.append(TimeSpan(since=entry.since, until=entry.until))
    return merged


def gaps(
    entries: Iterable[CoverageEntry],
    channels: Iterable[str],
    *,
    since: datetime | None,
    until: datetime,
    lookback: timedelta = timedelta(0),
    grace_period: timedelta = timedelta(0),
) -> dict[str, list[TimeSpan]]:
    """Return the spans before ``until`` that are not covered, by channel, ascending. Complete channels are left out.

    Here ``===`` is covered and ``...`` are the gaps of a channel. The second row has a lookback::

        since None       |====|......|=======|...........|
        with a lookback  |====|......|====|..............|
                                                       until

    :param channels: one without an entry is a single gap.
    :param since: start of the first span, for every channel. None: the first covered moment of each channel, and the
        beginning of time for one without an entry.
    :param lookback: if coverage ends before ``until``, let it end this much earlier, so that late edits and deletes are
        exported again. Never before the start of the first span.
    :param grace_period: how long messages may be on their way. An entry that ends when its export was made does not
        count for its last ``grace_period``, and a shorter rest before ``until`` is not a gap yet.
    """
    settled = (entry.settled(grace_period) for entry in entries)
    covered = covered_spans(entry for entry in settled if entry is not None)
    found = {}
    for cid in channels:
        spans, start, end = covered.get(cid, []), since, until
        if start is None:
            start = spans[0].since if spans else BEGINNING
        newest = spans[-1].until if spans else start
        if start < newest < until:
            if until - newest < grace_period:
                end = newest
            else:
                limit = newest - min(lookback, newest - start)
                spans = [replace(each, until=min(each.until, limit)) for each in spans if each.since < limit]
        if missing := list(_between(spans, start, end)):
            found[cid] = missing
    return found


def _between(spans: Iterable[TimeSpan], since: datetime, until: datetime) -> Iterator[TimeSpan]:
    """Yield the parts of ``[since, until)`` that lie in none of the spans, which are ascending."""
    reached = since
    for span in spans:
        if reached < min(span.since, until):
            yield TimeSpan(since=reached, until=min(span.since, until))
        reached = max(reached, span.until)
    if reached < until:
        yield TimeSpan(since=reached, until=until)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRun:
    """A span of a channel in which every moment is covered by ``n_entries`` entries; a gap has 0."""

    since: datetime
    until: datetime
    n_entries: int


def coverage_runs(entries: Iterable[CoverageEntry]) -> dict[str, list[CoverageRun]]:
    """Return how often each moment was loaded, by channel, from the first covered moment to the last.

    Two runs next to each other differ in their number of entries.
    """
    runs: dict[str, list[CoverageRun]] = {}
    for cid, of_channel in _by_channel(entries).items():
        steps: dict[datetime, int] = defaultdict(int)
        for entry in of_channel:
            steps[entry.since] += 1
            steps[entry.until] -= 1
        n_entries, start = 0, None
        runs[cid] = []
        for moment in sorted(each for each, change in steps.items() if change):
            if start is not None:
                runs[cid].append(CoverageRun(since=start, until=moment, n_entries=n_entries))
            n_entries += steps[moment]
            start = moment
    return runs


def _cover(entries: Iterable[CoverageEntry], since: datetime, until: datetime) -> bool:
    """Return whether the entries together contain every moment of ``[since, until)``."""
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
