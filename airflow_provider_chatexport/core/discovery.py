"""Finding channels: which page to request next, so that each channel is found once and none is missed.

The service returns at most 30 channels a page, and no cursor. Offsets end at 1000: beyond that the service returns the
same results without an error (stream-chat-python#151), so a client that waits for an empty page never ends.

Therefore pages go by ``created_at``, the only key that never changes. The next page starts at the time of the last
channel found. An import may give many channels the same microsecond: those are paged by offset, and divided by ``cid``
before the offset reaches its end.
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

# "Querying Channels": the service silently cuts a larger limit.
MAX_CHANNELS_PER_PAGE: Final = 30
MAX_OFFSET: Final = 1000

OLDEST_FIRST: Final = ({"field": "created_at", "direction": 1},)
_NEWEST_FIRST: Final = ({"field": "created_at", "direction": -1},)
_TICK: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelQuery:
    """Channels that a query finds, instead of channels that the caller names.

    Queries do not find soft-deleted channels; the caller has to name those.

    :param filter_conditions: as the service takes them ("Querying Channels"); ``{}`` finds every channel of the app.
        Values may be datetimes with a time zone.
    :param sort: by ``created_at``, oldest first or (direction -1) newest first. With a key that changes, channels
        would move between pages and be missed.
    :raises CallError: ``sort`` is another one.
    """

    filter_conditions: Mapping[str, Any] = field(default_factory=dict)
    sort: Sequence[Mapping[str, Any]] = OLDEST_FIRST

    def __post_init__(self) -> None:
        if [dict(order) for order in self.sort] not in ([*OLDEST_FIRST], [*_NEWEST_FIRST]):
            raise CallError(
                "a channel query sorts by something other than created_at, which may change while pages are read; "
                'leave sort out, or write [{"field": "created_at", "direction": -1}]'
            )

    @property
    def newest_first(self) -> bool:
        """Whether ``sort`` is newest first."""
        return [dict(order) for order in self.sort] == [*_NEWEST_FIRST]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPage:
    """One page to request."""

    filter_conditions: Mapping[str, Any] = field(default_factory=dict)
    sort: Sequence[Mapping[str, Any]] = OLDEST_FIRST
    limit: int = MAX_CHANNELS_PER_PAGE
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundChannel:
    """The fields of a found channel that paging and planning need."""

    cid: Cid
    created_at: datetime | None = None
    last_message_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    """Channels still to be requested: ``since <= created_at < before`` and ``above < cid <= upto``; None: no bound."""

    since: datetime | None = None
    before: datetime | None = None
    above: Cid | None = None
    upto: Cid | None = None

    def conditions(self) -> dict[str, dict[str, str]]:
        created_at = _without_none({"$gte": _text(self.since), "$lt": _text(self.before)})
        cid = _without_none({"$gt": self.above, "$lte": self.upto})
        return {name: bounds for name, bounds in (("created_at", created_at), ("cid", cid)) if bounds}


class ChannelSearch:
    """The state of a search: the channels found so far, and the next page to request.

    It sends nothing. The caller requests ``next_page`` and hands the reply to ``record_page``, until there is none.

    :raises CallError: the query's conditions contain a value that JSON has no form for, or a datetime without a time
        zone. ``ChannelQuery`` does not check that: in a DAG file its values may be templates.
    """

    def __init__(self, query: ChannelQuery) -> None:
        self._query = query
        self._conditions: dict[str, Any] = _as_json(query.filter_conditions, "filter_conditions")
        self._seen: set[Cid] = set()
        self._ranges = [_Range()]
        self._offset = self._n_new = 0
        self._edge: datetime | None = None
        self._at_edge: set[Cid] = set()

    @property
    def next_page(self) -> ChannelPage | None:
        """The next page to request, or None if all channels are found."""
        if not self._ranges:
            return None
        query, paging = self._conditions, self._ranges[-1].conditions()
        both = {"$and": [query, paging]} if query.keys() & paging.keys() else {**query, **paging}
        return ChannelPage(filter_conditions=both, sort=self._query.sort, offset=self._offset)

    def record_page(self, page: Sequence[FoundChannel]) -> list[Cid]:
        """Record the reply to ``next_page`` and return its new channels.

        :raises UnexpectedReplyError: a channel has no ``created_at``, or the channels are not in the requested order.
        """
        new = [channel.cid for channel in page if channel.cid not in self._seen]
        self._seen.update(new)
        self._n_new += len(new)
        if not page:
            self._ranges.pop()
            self._start_range()
            return new
        edge = self._checked_edge(page)
        if edge != self._edge:
            # Offset 0 again: the order of channels with the same time is not promised, so those at the edge return.
            self._narrow(edge)
        else:
            self._offset += len(page)
        self._at_edge.update(channel.cid for channel in page if channel.created_at == edge)
        if self._offset > MAX_OFFSET:
            self._divide(edge)
        return list(dict.fromkeys(new))

    def _checked_edge(self, page: Sequence[FoundChannel]) -> datetime:
        """Return the time of the page's last channel.

        :raises UnexpectedReplyError: the channels are not in the requested order or range.
        """
        times = [channel.created_at for channel in page if channel.created_at is not None]
        ordered = sorted(times, reverse=self._query.newest_first)
        here = self._ranges[-1]
        inside = all((not here.since or here.since <= at) and (not here.before or at < here.before) for at in times)
        if len(times) < len(page) or times != ordered or not inside:
            raise UnexpectedReplyError(
                "the service did not return channels in the requested order of created_at, so some could be missed; "
                "check that the address is the chat API's, or name the channels"
            )
        return times[-1]

    def _narrow(self, edge: datetime) -> None:
        """Continue at the edge."""
        here = self._ranges[-1]
        # The service may store nanoseconds, and ours are cut to microseconds. So the whole microsecond stays inside.
        self._ranges[-1] = replace(here, before=edge + _TICK) if self._query.newest_first else replace(here, since=edge)
        self._start_range()
        self._edge = edge

    def _divide(self, edge: datetime) -> None:
        """Divide a microsecond with more channels than offsets reach: into two halves, and the channels after it."""
        here = self._ranges.pop()
        if not self._n_new:
            raise UnexpectedReplyError(
                "the service returns the same channels for every page; check that the address is the chat API's, or "
                "name the channels"
            )
        cids = sorted(self._at_edge)
        middle = cids[(len(cids) - 1) // 2]
        rest = replace(here, before=edge) if self._query.newest_first else replace(here, since=edge + _TICK)
        tied = replace(here, since=edge, before=edge + _TICK)
        if here.above is None and here.upto is None:
            self._ranges.append(rest)
        self._ranges += [replace(tied, above=middle), replace(tied, upto=middle)]
        self._start_range()

    def _start_range(self) -> None:
        self._offset = self._n_new = 0
        self._edge = None
        self._at_edge = set()


# What may be wrong with conditions that templates are in, if the service refuses them.
RENDERED_CONDITIONS: Final = (
    "templates in its conditions make text also of numbers and lists, unless the DAG has "
    "render_template_as_native_obj=True"
)
# The service takes a list with these operators, and with no other.
_TAKE_LISTS: Final = frozenset({"$in", "$nin", "$and", "$or", "$nor"})


def check_rendered_conditions(before: Any, rendered: Any, place: str = "filter_conditions") -> None:
    """Raise if a template in a query made text of a list, or of None.

    The service would refuse such conditions, or find no channel.

    :param before: the conditions with their templates.
    :raises CallError: it did.
    """
    if isinstance(before, Mapping) and isinstance(rendered, Mapping):
        for key in before.keys() & rendered.keys():
            if key in _TAKE_LISTS and isinstance(rendered[key], str) and before[key] != rendered[key]:
                raise CallError(
                    f"{place}.{key} of the channel query is text, which a template made of a list; set "
                    "render_template_as_native_obj=True on the DAG, so that it stays a list"
                )
            check_rendered_conditions(before[key], rendered[key], f"{place}.{key}")
    elif isinstance(before, list | tuple) and isinstance(rendered, list | tuple):
        for number, both in enumerate(zip(before, rendered, strict=False)):
            check_rendered_conditions(*both, f"{place}[{number}]")
    elif rendered == "None" and before != rendered:
        raise CallError(
            f"a template in {place} of the channel query rendered None as text, because its value is missing; give it "
            "one, or set render_template_as_native_obj=True on the DAG if the condition is about null"
        )


def _as_json(value: Any, field_name: str) -> Any:
    """Return conditions as the service reads them, with datetimes as RFC3339 text."""
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
                f"{field_name} of the channel query is a {type(value).__name__} that JSON has no form for; write text, "
                "numbers, true or false, lists, objects with text as keys, or datetimes with a time zone"
            )


def _text(moment: datetime | None) -> str | None:
    return format_rfc3339(moment) if moment else None


def _without_none(bounds: Mapping[str, str | None]) -> dict[str, str]:
    return {operator: bound for operator, bound in bounds.items() if bound is not None}
