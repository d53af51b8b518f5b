"""What coverage lacks: the spans of a channel that no export covers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from airflow_provider_chatexport.lake.commits.coverage import BEGINNING, CoverageEntry, TimeSpan, covered_spans
from airflow_provider_chatexport.lake.commits.lost_coverage import LostSpan, without_lost


def uncovered_spans(entries: Iterable[CoverageEntry], lost: Collection[LostSpan] = ()) -> dict[str, list[TimeSpan]]:
    """Return the spans that are not covered between the first and the last moment of a channel that ever were."""
    entries = list(entries)
    ever = covered_spans(entries)
    covered = covered_spans(without_lost(entries, lost)) if lost else ever
    return {cid: list(_between(covered.get(cid, []), spans[0].since, spans[-1].until)) for cid, spans in ever.items()}


def gaps(
    entries: Iterable[CoverageEntry],
    channels: Iterable[str],
    *,
    since: datetime | None,
    until: datetime,
    lookback: timedelta = timedelta(0),
    grace_period: timedelta = timedelta(0),
    lost: Collection[LostSpan] = (),
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
    :param lost: what lost files leave uncovered. A channel still starts where it was first covered.
    """
    settled = [each for entry in entries if (each := entry.settled(grace_period)) is not None]
    covered = covered_spans(without_lost(settled, lost))
    starts = covered_spans(settled) if lost else covered
    found = {}
    for cid in channels:
        spans, start, end = covered.get(cid, []), since, until
        if start is None:
            start = starts[cid][0].since if cid in starts else BEGINNING
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
