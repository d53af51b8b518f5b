"""QueryChannels: which channels, in what order, how much of each.

Limits and operators as documented ("Querying Channels"): 10 channels a page unless asked, never more than 30 and no
error for asking; at most 5 sort fields. Offsets over 1000 raise no error and results keep coming
(stream-chat-python#151): here the page of offset 1000 again and again. Soft-deleted channels are never in a result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_chatexport.core.times import EPOCH, parse_rfc3339
from airflow_provider_chatexport.sandbox.chat.world import World
from airflow_provider_chatexport.sandbox.exports.signed_links import RenewLinks
from airflow_provider_chatexport.sandbox.web.filters import Candidate, Predicate, compile_filter
from airflow_provider_chatexport.sandbox.web.request_body import RequestBody, objects
from airflow_provider_chatexport.sandbox.web.responses import input_error

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 30
MAX_OFFSET: Final = 1000
MAX_SORT_FIELDS: Final = 5
MAX_MESSAGES: Final = 300
MAX_MEMBERS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelsQuery:
    """A checked query. ``sort``: (field, descending), the most important first."""

    matches: Predicate
    sort: tuple[tuple[str, bool], ...]
    limit: int
    offset: int
    state: bool
    message_limit: int
    member_limit: int

    @classmethod
    def from_body(cls, body: RequestBody) -> ChannelsQuery:
        """Return the query of a request body.

        :raises ApiError: 400, with the name of the field.
        """
        if body.has("predefined_filter"):
            raise input_error("predefined_filter is not known to this app", field="predefined_filter")
        return cls(
            matches=compile_filter(body.mapping("filter_conditions") or {}),
            sort=_read_sort(body),
            limit=min(body.whole("limit", default=DEFAULT_LIMIT, low=0) or DEFAULT_LIMIT, MAX_LIMIT),
            offset=min(body.whole("offset", default=0, low=0), MAX_OFFSET),
            state=body.flag("state", default=True),
            message_limit=body.whole("message_limit", default=25, low=0, high=MAX_MESSAGES),
            member_limit=body.whole("member_limit", default=MAX_MEMBERS, low=0, high=MAX_MEMBERS),
        )


def query_channels(world: World, query: ChannelsQuery, renew_links: RenewLinks | None = None) -> list[dict[str, Any]]:
    """Return the page that a query asks for: ChannelStateResponseFields, in the world's objects.

    :param renew_links: puts links to attachments into a message.
    """
    candidates = (Candidate(world, cid) for cid in world.cids if not world.channel_is_deleted(cid))
    matching = [candidate for candidate in candidates if query.matches(candidate)]
    # Sorted by the last field first: Python's sort is stable. The cid makes pages of equal channels reproducible.
    matching.sort(key=lambda candidate: candidate.cid)
    for field, descending in reversed(query.sort):
        matching.sort(key=lambda candidate: candidate.sort_key(field), reverse=descending)
    page = matching[query.offset : query.offset + query.limit]
    return [_state(world, candidate, query, renew_links) for candidate in page]


def _read_sort(body: RequestBody) -> tuple[tuple[str, bool], ...]:
    items = body.items("sort") or []
    if len(items) > MAX_SORT_FIELDS:
        raise input_error(f"sort must contain maximum {MAX_SORT_FIELDS} items, not {len(items)}", field="sort")
    sort = []
    for entry in objects(items, path="sort"):
        field, direction = entry.text("field"), entry.whole("direction", default=1, low=-1, high=1)
        if not field:
            raise input_error(f"{entry.name_of('field')} is a required field", field=entry.name_of("field"))
        if direction == 0:
            raise input_error(f"{entry.name_of('direction')} must be 1 or -1", field=entry.name_of("direction"))
        sort.append((field, direction == -1))
    return tuple(sort) or (("last_updated", True),)


def _state(world: World, candidate: Candidate, query: ChannelsQuery, renew_links: RenewLinks | None) -> dict[str, Any]:
    newest = _newest_messages(world, candidate, MAX_MESSAGES) if query.state else []
    if renew_links is not None:
        newest = list(map(renew_links, newest))
    return {
        "channel": candidate.channel,
        "messages": newest[len(newest) - min(query.message_limit, len(newest)) :],
        "members": world.members(candidate.cid)[: query.member_limit] if query.state else [],
        # Among the newest 300 only: one page is not worth a pass over millions of messages.
        "pinned_messages": [message for message in newest if message.get("pinned")],
        "threads": [],
        "read": world.reads(candidate.cid) if query.state else [],
    }


def _newest_messages(world: World, candidate: Candidate, n_wanted: int) -> list[dict[str, Any]]:
    """Return the last messages of a channel, oldest first. The search goes back further until there are enough."""
    last_at = candidate.channel.get("last_message_at")
    if last_at is None or n_wanted == 0:
        return []
    for since in _looking_back(parse_rfc3339(last_at)):
        newest = deque(_visible(world.messages(candidate.cid, since=since)), maxlen=n_wanted)
        if len(newest) == n_wanted or since is None:
            return list(newest)
    return []


def _looking_back(last_at: datetime) -> Iterator[datetime | None]:
    span = timedelta(hours=1)
    while last_at - EPOCH > span:
        yield last_at - span
        span *= 4
    yield None


def _visible(messages: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what a channel's state shows: replies only if their channel shows them too."""
    return (message for message in messages if not message.get("parent_id") or message.get("show_in_channel"))
