"""The truth rule: of all exports that cover a moment of a channel, the newest is right about it.

Pure. A coverage entry says which span of which channels one export covers. It hides a row of an event table if the
row's channel is among its channels, and it contains the row's moment and has a later ``(exported_at, load_id)`` than
the row. Among the rows of one key that no entry hides, the newest is visible (``visibility``).

Entries of the same channels are compared by their spans alone. Where the channels of entries overlap without being the
same, they are compared once for each atom (``channels``): in the worst case once for each channel, and mostly once.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, TypeVar

from airflow_provider_chatexport.core.times import EARLIEST, format_rfc3339, parse_written
from airflow_provider_chatexport.lake.commits.channels import ChannelSet, Partition, names_in

# An export without bounds covers everything before it was made.
BEGINNING: Final = EARLIEST

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageEntry:
    """One export knows all that was sent in each of these channels in ``[since, until)``. Times are aware, UTC."""

    channels: ChannelSet
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

    def overlaps(self, since: datetime, until: datetime) -> bool:
        """Return whether the entry contains a moment of ``[since, until)``."""
        return self.since < until and since < self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSpan:
    """A span of time, ``[since, until)``; aware, UTC.

    Not a ``core.window.Window``: the first lakes took any year, and may have folders for days before its calendar.
    """

    since: datetime
    until: datetime

    @classmethod
    def of_days(cls, first: str, last: str) -> Self:
        """Return the span of some UTC days, such as ``2026-01-31``, from the first to the end of the last."""
        since, until = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (first, last))
        return cls(since=since, until=until + timedelta(days=1))

    def within(self, entry: CoverageEntry) -> tuple[datetime, datetime]:
        """Return the start and the end of the part that lies in an entry; the end is first if no part does."""
        return max(self.since, entry.since), min(self.until, entry.until)


def coverage_entry(
    *, channels: ChannelSet, since: datetime | None, until: datetime | None, exported_at: datetime, load_id: str
) -> CoverageEntry | None:
    """Return what an export covers of its channels, or None if its whole window lay in the future.

    An export knows nothing past the moment when the service made it, so the entry ends there.

    :param since: start of the export's window; None for an export without one.
    :param until: end of the export's window; None for an export without one.
    """
    start = since or BEGINNING
    end = min(until, exported_at) if until else exported_at
    if start >= end:
        return None
    return CoverageEntry(channels=channels, since=start, until=end, exported_at=exported_at, load_id=load_id)


def to_json(entries: Iterable[CoverageEntry], record_id: str, sets: dict[ChannelSet, int]) -> list[dict[str, Any]]:
    """Return entries for the record of this id. The load of an entry is written only if it is another one.

    :param sets: the number of each set of channels; gets those that it lacks.
    """
    return [
        {
            "channels": sets.setdefault(entry.channels, len(sets)),
            "since": None if entry.since == BEGINNING else format_rfc3339(entry.since),
            "until": format_rfc3339(entry.until),
            "exported_at": format_rfc3339(entry.exported_at),
            **({} if entry.load_id == record_id else {"load_id": entry.load_id}),
        }
        for entry in entries
    ]


def from_json(
    values: Iterable[Mapping[str, Any]], record_id: str, sets: Sequence[ChannelSet]
) -> tuple[CoverageEntry, ...]:
    """Read the entries of the record of this id.

    :param sets: the sets of channels, by number.
    """
    return tuple(_entry(sets[value["channels"]], value, record_id) for value in values)


def from_json_per_channel(values: Iterable[Mapping[str, Any]], record_id: str) -> tuple[CoverageEntry, ...]:
    """Read the entries of a record of version 1, which has one for each channel."""
    grouped: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for value in values:
        grouped[tuple(value.get(name) for name in _BOUNDS)].append(value["cid"])
    return tuple(
        _entry(ChannelSet.of(cids), dict(zip(_BOUNDS, bounds, strict=True)), record_id)
        for bounds, cids in grouped.items()
    )


_BOUNDS: Final = ("since", "until", "exported_at", "load_id")


def _entry(channels: ChannelSet, value: Mapping[str, Any], record_id: str) -> CoverageEntry:
    since = value["since"]
    return CoverageEntry(
        channels=channels,
        since=parse_written(since) if since else BEGINNING,
        until=parse_written(value["until"]),
        exported_at=parse_written(value["exported_at"]),
        load_id=value.get("load_id") or record_id,
    )


def overlapping_pairs(entries: Iterable[CoverageEntry]) -> Iterator[tuple[CoverageEntry, CoverageEntry]]:
    """Yield every pair (older, newer) of entries that overlap in a channel: there, the newer hides the older's rows."""
    of_atoms = _by_atom(list(dict.fromkeys(entries)))[1].values()
    if len(of_atoms) == 1:
        yield from (pair for of_atom in of_atoms for pair in _pairs(of_atom))
    else:  # two entries may share several atoms
        yield from dict.fromkeys(pair for of_atom in of_atoms for pair in _pairs(of_atom))


def _pairs(entries: Iterable[CoverageEntry]) -> Iterator[tuple[CoverageEntry, CoverageEntry]]:
    """Yield every pair (older, newer) of entries of one atom that overlap.

    Windows mostly tile. Then this is one sort, and one look at each neighbour.
    """
    open_entries: list[CoverageEntry] = []
    for entry in sorted(entries, key=lambda each: each.since):
        open_entries = [each for each in open_entries if each.until > entry.since]
        for other in open_entries:
            if other.rank != entry.rank:
                yield (other, entry) if other.rank < entry.rank else (entry, other)
        open_entries.append(entry)


def _by_atom(entries: Iterable[CoverageEntry]) -> tuple[Partition, dict[int, list[CoverageEntry]]]:
    """Return the atoms of the entries' channels, and the entries that each atom has a part in."""
    of_set: dict[ChannelSet, list[CoverageEntry]] = defaultdict(list)
    for entry in entries:
        of_set[entry.channels].append(entry)
    partition = Partition(of_set)
    of_atom: dict[int, list[CoverageEntry]] = defaultdict(list)
    for channels, of_channels in of_set.items():
        for atom in partition.atoms_of(channels):
            of_atom[atom] += of_channels
    return partition, of_atom


class NewerCoverage:
    """For each entry, the newer entries that overlap it, and so hide some or all of its rows."""

    def __init__(self, entries: Iterable[CoverageEntry]) -> None:
        self._partition, of_atom = _by_atom(list(dict.fromkeys(entries)))
        # By entry, for each of its atoms in which there are newer entries, these.
        self._newer: dict[CoverageEntry, list[list[CoverageEntry]]] = {}
        for of_one in of_atom.values():
            newer_of: dict[CoverageEntry, list[CoverageEntry]] = defaultdict(list)
            for older, newer in _pairs(of_one):
                newer_of[older].append(newer)
            for older, newer_entries in newer_of.items():
                self._newer.setdefault(older, []).append(newer_entries)

    def older(self) -> Iterable[CoverageEntry]:
        """Return the entries that newer entries overlap."""
        return self._newer.keys()

    def than(self, entry: CoverageEntry, span: TimeSpan | None = None) -> list[CoverageEntry]:
        """Return the newer entries that overlap an entry, or that overlap the part of it in a span."""
        of_atoms = self._newer.get(entry, [])
        newer = of_atoms[0] if len(of_atoms) == 1 else list(dict.fromkeys(each for one in of_atoms for each in one))
        if span is None:
            return newer
        since, until = span.within(entry)
        return [each for each in newer if since < until and each.overlaps(since, until)]

    def is_fully_hidden(self, entry: CoverageEntry, span: TimeSpan | None = None) -> bool:
        """Return whether newer entries hide every row of an entry, or every row of its part in a span."""
        since, until = (entry.since, entry.until) if span is None else span.within(entry)
        return since >= until or self._is_hidden(entry, since, until, lambda _: True)

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
        moments = sorted({committed_at(each) for each in self.than(entry, span)})

        def was_hidden(moment: datetime) -> bool:
            return self._is_hidden(entry, since, until, lambda each: committed_at(each) <= moment)

        first = bisect.bisect_left(moments, True, key=was_hidden)
        return moments[first] if first < len(moments) else None

    def _is_hidden(
        self, entry: CoverageEntry, since: datetime, until: datetime, counts: Callable[[CoverageEntry], bool]
    ) -> bool:
        """Return whether newer entries that count cover ``[since, until)`` in every channel of an entry."""
        of_atoms = self._newer.get(entry, [])
        return len(of_atoms) == len(self._partition.atoms_of(entry.channels)) and all(
            _cover(filter(counts, of_atom), since, until) for of_atom in of_atoms
        )


class EntriesByTime:
    """Coverage entries of whatever channels, from which those of a span are found without a look at the others."""

    def __init__(self, entries: Iterable[CoverageEntry]) -> None:
        self._entries = sorted(entries, key=lambda each: each.since)
        # Of the entries up to each one, the latest end.
        self._reached = list(itertools.accumulate((each.until for each in self._entries), max))

    def overlapping(self, span: TimeSpan) -> Iterator[CoverageEntry]:
        """Yield the entries that overlap a span."""
        number = bisect.bisect_left(self._entries, span.until, key=lambda each: each.since)
        while number and self._reached[number - 1] > span.since:
            number -= 1
            if self._entries[number].until > span.since:
                yield self._entries[number]


def without_superseded(entries: Iterable[CoverageEntry]) -> list[CoverageEntry]:
    """Return the entries that still decide something, without those that newer entries cover in all their channels.

    The newer entries hide whatever such an entry would hide.
    """
    entries = list(dict.fromkeys(entries))
    newer = NewerCoverage(entries)
    return [entry for entry in entries if not newer.is_fully_hidden(entry)]


def channels_of(entries: Iterable[CoverageEntry]) -> set[str]:
    """Return all channels of some entries."""
    return names_in(entry.channels for entry in entries)


def by_channel(
    entries: Iterable[CoverageEntry], value_of: Callable[[list[CoverageEntry]], _Value]
) -> dict[str, _Value]:
    """Return a value of each channel's entries. Channels with the same entries share the value."""
    partition, of_atom = _by_atom(entries)
    values = {atom: value_of(of_one) for atom, of_one in of_atom.items()}
    return {cid: values[atom] for cid, atom in partition.channels()}


def covered_spans(entries: Iterable[CoverageEntry]) -> dict[str, list[TimeSpan]]:
    """Return the spans that are covered at all, by channel: ascending, with a gap between any two."""
    return by_channel(entries, merged_spans)


def merged_spans(entries: Iterable[CoverageEntry | TimeSpan]) -> list[TimeSpan]:
    """Return what entries or spans of whatever channels contain together: ascending, with a gap between any two."""
    merged: list[TimeSpan] = []
    for entry in sorted(entries, key=lambda each: each.since):
        if merged and entry.since <= merged[-1].until:
            merged[-1] = TimeSpan(since=merged[-1].since, until=max(merged[-1].until, entry.until))
        else:
            merged.append(TimeSpan(since=entry.since, until=entry.until))
    return merged


def overlapping(entries: Iterable[CoverageEntry], spans: Sequence[TimeSpan]) -> Iterator[CoverageEntry]:
    """Yield the entries that overlap one of the spans, which are ascending and apart."""
    return (entry for entry in entries if overlaps_any(entry, spans))


def overlaps_any(one: TimeSpan | CoverageEntry, spans: Sequence[TimeSpan]) -> bool:
    """Return whether one span overlaps any of several, which are ascending and apart."""
    first = bisect.bisect_right(spans, one.since, key=lambda each: each.until)  # the first that ends after its start
    return first < len(spans) and spans[first].since < one.until


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
    return by_channel(entries, _runs)


def _runs(entries: Iterable[CoverageEntry]) -> list[CoverageRun]:
    steps: dict[datetime, int] = defaultdict(int)
    for entry in entries:
        steps[entry.since] += 1
        steps[entry.until] -= 1
    runs: list[CoverageRun] = []
    n_entries, start = 0, None
    for moment in sorted(each for each, change in steps.items() if change):
        if start is not None:
            runs.append(CoverageRun(since=start, until=moment, n_entries=n_entries))
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
