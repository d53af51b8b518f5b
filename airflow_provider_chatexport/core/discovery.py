"""Finding channels: which page to ask for next, so that each channel is found once and none is passed over.

The service gives 30 channels a page and no cursor. Offsets end at 1000, and past that results keep coming without an
error (stream-chat-python#151), which is an endless loop for whoever counts on an empty page. So pages go by
``created_at``, the one key that never changes: the next page begins at the time of the last channel found. Channels of
one and the same microsecond, as an import makes them, are paged by offset, and divided by ``cid`` before it ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_chatexport.core.plan import Cid
from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.errors import CallError, UnexpectedReplyError

# "Querying Channels": more is cut without a word.
MAX_CHANNELS_PER_PAGE: Final = 30
MAX_OFFSET: Final = 1000

OLDEST_FIRST: Final = ({"field": "created_at", "direction": 1},)
_NEWEST_FIRST: Final = ({"field": "created_at", "direction": -1},)
_TICK: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelQuery:
    """Channels that are searched for instead of named.

    Soft-deleted channels do not come back from queries; they have to be named.

    :param filter_conditions: as the service takes them ("Querying Channels"); ``{}`` is every channel of the app.
        Times in them may be aware datetimes.
    :param sort: by ``created_at``, oldest first or (direction -1) newest first. By anything that changes, channels
        would be lost between pages.
    :raises CallError: another sort.
    """

    filter_conditions: Mapping[str, Any] = field(default_factory=dict)
    sort: Sequence[Mapping[str, Any]] = OLDEST_FIRST

    def __post_init__(self) -> None:
        if [dict(order) for order in self.sort] not in ([*OLDEST_FIRST], [*_NEWEST_FIRST]):
            raise CallError(
                "a channel query sorts by something other than created_at alone, which may change while pages are "
                'read; leave sort out, or write [{"field": "created_at", "direction": -1}]'
            )

    @property
    def newest_first(self) -> bool:
        return [dict(order) for order in self.sort] == [*_NEWEST_FIRST]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPage:
    """One page to ask for."""

    filter_conditions: Mapping[str, Any] = field(default_factory=dict)
    sort: Sequence[Mapping[str, Any]] = OLDEST_FIRST
    limit: int = MAX_CHANNELS_PER_PAGE
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundChannel:
    """A channel as a query tells it: as much as paging and planning need."""

    cid: Cid
    created_at: datetime | None = None
    last_message_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """Channels not looked at yet: ``since <= created_at < before`` and ``above < cid <= upto``; None is no bound."""

    since: datetime | None = None
    before: datetime | None = None
    above: Cid | None = None
    upto: Cid | None = None

    def conditions(self) -> dict[str, dict[str, str]]:
        created_at = _given({"$gte": _text(self.since), "$lt": _text(self.before)})
        cid = _given({"$gt": self.above, "$lte": self.upto})
        return {name: ends for name, ends in (("created_at", created_at), ("cid", cid)) if ends}


class ChannelSearch:
    """What is found so far, and the next page. It asks nobody: ``saw`` is told what a page held.

    :raises CallError: the query's conditions hold what is no JSON, or a datetime without a zone. Not the query itself:
        in a DAG file it may hold what becomes a value only when the task runs.
    """

    def __init__(self, query: ChannelQuery) -> None:
        self._query = query
        self._asked: dict[str, Any] = _as_json(query.filter_conditions, "filter_conditions")
        self._seen: set[Cid] = set()
        self._open = [_Span()]
        self._offset = self._n_new = 0
        self._edge: datetime | None = None
        self._at_edge: set[Cid] = set()

    @property
    def next_page(self) -> ChannelPage | None:
        """None: all are found."""
        if not self._open:
            return None
        asked, ours = self._asked, self._open[-1].conditions()
        both = {"$and": [asked, ours]} if asked.keys() & ours.keys() else {**asked, **ours}
        return ChannelPage(filter_conditions=both, sort=self._query.sort, offset=self._offset)

    def saw(self, page: Sequence[FoundChannel]) -> list[Cid]:
        """The channels of the page that was asked for which are new.

        :raises UnexpectedReplyError: a channel has no ``created_at``, or they are not in the order that was asked for.
        """
        new = [channel.cid for channel in page if channel.cid not in self._seen]
        self._seen.update(new)
        self._n_new += len(new)
        if not page:
            self._open.pop()
            self._start_span()
            return new
        edge = self._checked_edge(page)
        if edge != self._edge:
            # Offset 0 again: those at the edge come once more, as their order among each other is not promised.
            self._narrow(edge)
        else:
            self._offset += len(page)
        self._at_edge.update(channel.cid for channel in page if channel.created_at == edge)
        if self._offset > MAX_OFFSET:
            self._divide(edge)
        return list(dict.fromkeys(new))

    def _checked_edge(self, page: Sequence[FoundChannel]) -> datetime:
        times = [channel.created_at for channel in page if channel.created_at is not None]
        ordered = sorted(times, reverse=self._query.newest_first)
        span = self._open[-1]
        inside = all((not span.since or span.since <= at) and (not span.before or at < span.before) for at in times)
        if len(times) < len(page) or times != ordered or not inside:
            raise UnexpectedReplyError(
                "channels do not come back in the order of created_at that was asked for, so some could be missed; "
                "check that the address is the chat API's, or name the channels"
            )
        return times[-1]

    def _narrow(self, edge: datetime) -> None:
        span = self._open[-1]
        # Whole microseconds: the service may hold nanoseconds, of which ours are the beginning.
        narrowed = replace(span, before=edge + _TICK) if self._query.newest_first else replace(span, since=edge)
        self._open[-1] = narrowed
        self._start_span()
        self._edge = edge

    def _divide(self, edge: datetime) -> None:
        """More channels of one microsecond than offsets reach: two halves of them, and what comes after."""
        span = self._open.pop()
        if not self._n_new:
            raise UnexpectedReplyError(
                "the service gives the same channels again and again, whatever is asked for; check that the address is "
                "the chat API's, or name the channels"
            )
        cids = sorted(self._at_edge)
        middle = cids[(len(cids) - 1) // 2]
        rest = replace(span, before=edge) if self._query.newest_first else replace(span, since=edge + _TICK)
        tied = replace(span, since=edge, before=edge + _TICK)
        if span.above is None and span.upto is None:
            self._open.append(rest)
        self._open += [replace(tied, above=middle), replace(tied, upto=middle)]
        self._start_span()

    def _start_span(self) -> None:
        self._offset = self._n_new = 0
        self._edge = None
        self._at_edge = set()


def _as_json(value: Any, field_name: str) -> Any:
    """Conditions as the service reads them, with datetimes as RFC3339 text."""
    match value:
        case datetime():
            if value.tzinfo is None:
                raise CallError(
                    f"{field_name} of the channel query ({value.isoformat()}) has no time zone; write an offset, such "
                    f"as {value.isoformat()}+00:00"
                )
            return format_rfc3339(value)
        case Mapping() if all(isinstance(key, str) for key in value):
            return {key: _as_json(inner, f"{field_name}.{key}") for key, inner in value.items()}
        case list() | tuple():
            return [_as_json(inner, f"{field_name}[{number}]") for number, inner in enumerate(value)]
        case None | str() | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case _:
            raise CallError(
                f"{field_name} of the channel query holds a {type(value).__name__} that JSON has no form for; write "
                "text, numbers, true or false, lists, objects with text as keys, or aware datetimes"
            )


def _text(moment: datetime | None) -> str | None:
    return format_rfc3339(moment) if moment else None


def _given(ends: Mapping[str, str | None]) -> dict[str, str]:
    return {operator: end for operator, end in ends.items() if end is not None}
