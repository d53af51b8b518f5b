"""What lost files leave uncovered. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from airflow_provider_chatexport.core.times import format_rfc3339, parse_written
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class LostSpan:
    """Data files with rows of these loads, on moments in ``[since, until)``, are lost: an export covered them in vain.

    :param load_ids: of the coverage entries that stood on the files.
    """

    since: datetime
    until: datetime
    load_ids: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the span as JSON types."""
        since, until = format_rfc3339(self.since), format_rfc3339(self.until)
        return {"since": since, "until": until, "load_ids": list(self.load_ids)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read a span from a record."""
        since, until = parse_written(value["since"]), parse_written(value["until"])
        return cls(since=since, until=until, load_ids=tuple(value["load_ids"]))


def lost_parts(entries: Iterable[CoverageEntry], lost: Iterable[LostSpan]) -> list[CoverageEntry]:
    """Return the parts of entries that stood on lost files."""
    by_load: dict[str, list[LostSpan]] = defaultdict(list)
    for span in lost:
        for load_id in span.load_ids:
            by_load[load_id].append(span)
    return [
        replace(entry, since=max(entry.since, span.since), until=min(entry.until, span.until))
        for entry in entries
        for span in by_load.get(entry.load_id, ())
        if entry.overlaps(span.since, span.until)
    ]


def without_lost(entries: Iterable[CoverageEntry], lost: Collection[LostSpan]) -> list[CoverageEntry]:
    """Return what the entries cover without the moments of which files are lost, unless a newer entry covers these.

    A lost entry goes on hiding older rows: what an older export said of its moments, a newer one found changed. So
    older entries do not cover these moments either.
    """
    entries = list(entries)
    gone = lost_parts(entries, lost)
    kept: list[CoverageEntry] = []
    for entry in entries:
        parts = [entry]
        for each in gone:
            if entry.rank <= each.rank:
                parts = [rest for part in parts for rest in _cut(part, each)]
        kept += parts
    return kept


def _cut(entry: CoverageEntry, lost: CoverageEntry) -> Iterator[CoverageEntry]:
    """Yield what is left of an entry without the channels and the span of another one."""
    if not entry.overlaps(lost.since, lost.until):
        yield entry
        return
    if entry.channels is not lost.channels:
        names = set(lost.channels.names)
        common = [name for name in entry.channels.names if name in names]
        if rest := [name for name in entry.channels.names if name not in names]:
            yield replace(entry, channels=ChannelSet.of(rest))
        if not common:
            return
        entry = replace(entry, channels=ChannelSet.of(common))
    if entry.since < lost.since:
        yield replace(entry, until=lost.since)
    if lost.until < entry.until:
        yield replace(entry, since=lost.until)
