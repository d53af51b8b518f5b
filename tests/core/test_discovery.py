"""Finding channels, against a model of a service that pages as ours does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_chatexport.core.discovery import ChannelPage, ChannelQuery, ChannelSearch, FoundChannel
from airflow_provider_chatexport.core.plan import Cid
from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.errors import CallError, UnexpectedReplyError

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
NEWEST_FIRST = ({"field": "created_at", "direction": -1},)


def channel(number: int, tick: int) -> FoundChannel:
    return FoundChannel(cid=Cid(f"messaging:c{number:06}"), created_at=BEGIN + timedelta(microseconds=tick))


def answer(channels: Sequence[FoundChannel], page: ChannelPage) -> list[FoundChannel]:
    """What the service gives: at most 30, and past offset 1000 the same page for ever."""
    found = [each for each in channels if holds(each, page.filter_conditions)]
    found.sort(key=lambda each: each.created_at, reverse=page.sort[0]["direction"] == -1)
    offset = min(page.offset, 1000)
    return found[offset : offset + min(page.limit, 30)]


def holds(each: FoundChannel, conditions: Any) -> bool:
    if "$and" in conditions:
        return all(holds(each, part) for part in conditions["$and"])
    tests: dict[str, Callable[[Any, Any], bool]] = {
        "$gte": lambda a, b: a >= b,
        "$lt": lambda a, b: a < b,
        "$gt": lambda a, b: a > b,
        "$lte": lambda a, b: a <= b,
    }
    values = {"cid": each.cid, "created_at": each.created_at}
    read = {"cid": str, "created_at": parse_rfc3339}
    return all(
        tests[operator](values[name], read[name](end))
        for name, ends in conditions.items()
        for operator, end in ends.items()
    )


def found_by(query: ChannelQuery, channels: Sequence[FoundChannel], ask: Any = answer) -> tuple[list[Cid], int]:
    search, found, n_pages = ChannelSearch(query), [], 0
    while page := search.next_page:
        found += search.saw(ask(channels, page))
        n_pages += 1
    return found, n_pages


@pytest.mark.parametrize("sort", [ChannelQuery().sort, NEWEST_FIRST], ids=["oldest first", "newest first"])
@given(groups=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 90)), max_size=12))
@settings(max_examples=40, deadline=None)
def test_each_channel_is_found_once(sort, groups) -> None:
    """However many share one moment, none is lost and none comes twice."""
    ticks = [tick for tick, n in groups for _ in range(n)]
    channels = [channel(number, tick) for number, tick in enumerate(ticks)]
    found, _ = found_by(ChannelQuery(sort=sort), channels)
    assert sorted(each.cid for each in channels) == sorted(found)


@pytest.mark.parametrize("sort", [ChannelQuery().sort, NEWEST_FIRST], ids=["oldest first", "newest first"])
def test_more_channels_of_one_moment_than_offsets_reach(sort) -> None:
    """An import may give 2,500 channels one created_at; offsets end at 1000 without an error."""
    channels = [channel(number, 50 if number < 2500 else number) for number in range(2600)] + [channel(9999, 7)]
    found, n_pages = found_by(ChannelQuery(sort=sort), channels)
    assert sorted(each.cid for each in channels) == sorted(found)
    assert n_pages < 300


def test_a_page_costs_one_request() -> None:
    """Paging a large app must not ask for much twice: 30 a request, less the one at the edge."""
    channels = [channel(number, number) for number in range(3000)]
    found, n_pages = found_by(ChannelQuery(), channels)
    assert [each.cid for each in channels] == found
    assert n_pages <= 3000 / 29 + 3


def test_a_filter_on_the_paging_key_still_holds() -> None:
    """Whoever asks for channels made since yesterday must not get all of them from the second page on."""
    channels = [channel(number, number) for number in range(100)]
    since = {"created_at": {"$gte": "2025-01-01T00:00:00.000040Z"}}
    found, _ = found_by(ChannelQuery(filter_conditions=since), channels)
    assert [each.cid for each in channels[40:]] == found


def test_channels_that_are_made_meanwhile_do_no_harm() -> None:
    """Oldest first, newcomers come at the end: nothing that was there is passed over for them."""
    channels = [channel(number, number) for number in range(90)]
    search, found = ChannelSearch(ChannelQuery()), []
    while page := search.next_page:
        found += search.saw(answer(channels, page))
        if len(channels) < 100:
            channels.append(channel(len(channels), len(channels)))
    assert [each.cid for each in channels] == found


def test_datetimes_in_a_query_are_asked_for_as_text() -> None:
    """A template gives them, and whoever writes Python does: at any depth, as the one moment in UTC."""
    berlin = timezone(timedelta(hours=1))
    asked = {"$or": [{"last_message_at": {"$gte": datetime(2025, 1, 1, 1, tzinfo=berlin)}}, {"team": ("a", None, 1.5)}]}
    page = ChannelSearch(ChannelQuery(filter_conditions=asked)).next_page
    assert page is not None
    expected = {"$or": [{"last_message_at": {"$gte": "2025-01-01T00:00:00.000000Z"}}, {"team": ["a", None, 1.5]}]}
    assert expected == page.filter_conditions


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        (
            {"last_message_at": {"$gte": datetime(2025, 1, 1)}},  # noqa: DTZ001 - what is refused
            r"filter_conditions\.last_message_at\.\$gte .*2025-01-01T00:00:00\) has no time zone",
        ),
        ({"$and": [{"team": {"a", "b"}}]}, r"filter_conditions\.\$and\[0\]\.team .* holds a set"),
        ({"member_count": {"$gt": math.nan}}, r"filter_conditions\.member_count\.\$gt .* holds a float"),
        ({"custom": {1: "a"}}, r"filter_conditions\.custom .* holds a dict .* text as keys"),
    ],
    ids=["naive", "a set", "NaN", "a number as key"],
)
def test_conditions_that_cannot_be_sent_are_refused_by_name(conditions, told) -> None:
    """The library that sends them would end in a TypeError without the place."""
    query = ChannelQuery(filter_conditions=conditions)
    with pytest.raises(CallError, match=told):
        ChannelSearch(query)


@pytest.mark.parametrize("sort", [({"field": "last_message_at", "direction": -1},), ()])
def test_a_sort_that_changes_underneath_is_refused(sort) -> None:
    """A channel that gets a message while pages are read would move to a page that was read already."""
    with pytest.raises(CallError, match="sorts by something other than created_at"):
        ChannelQuery(sort=sort)


@pytest.mark.parametrize(
    "page",
    [
        [channel(1, 5), channel(2, 3)],
        [FoundChannel(cid=Cid("a:b"))],
    ],
    ids=["not in order", "no created_at"],
)
def test_an_order_that_was_not_asked_for_is_an_error(page) -> None:
    """Going on would pass channels over without a word."""
    with pytest.raises(UnexpectedReplyError, match="not come back in the order"):
        ChannelSearch(ChannelQuery()).saw(page)


def test_a_service_that_does_not_turn_its_pages_is_an_error() -> None:
    """An offset that is ignored would be an endless loop."""
    channels = [channel(number, 0) for number in range(30)]
    with pytest.raises(UnexpectedReplyError, match="again and again"):
        found_by(ChannelQuery(), channels, ask=lambda channels, _page: channels)
