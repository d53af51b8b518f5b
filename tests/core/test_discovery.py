"""Finding channels, against a model of how the service pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_chatexport.core.discovery import (
    ChannelPage,
    ChannelQuery,
    ChannelSearch,
    FoundChannel,
    check_rendered_conditions,
)
from airflow_provider_chatexport.core.plan import Cid
from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.errors import CallError, UnexpectedReplyError

START = datetime(2025, 1, 1, tzinfo=UTC)
NEWEST_FIRST = ({"field": "created_at", "direction": -1},)


def channel(number: int, tick: int) -> FoundChannel:
    """Return a channel that was created ``tick`` microseconds after START."""
    return FoundChannel(cid=Cid(f"messaging:c{number:06}"), created_at=START + timedelta(microseconds=tick))


def answer(channels: Sequence[FoundChannel], page: ChannelPage) -> list[FoundChannel]:
    """Return what the service does: at most 30 channels, and the same page for every offset beyond 1000."""
    matching = [each for each in channels if matches(each, page.filter_conditions)]
    matching.sort(key=lambda each: each.created_at, reverse=page.sort[0]["direction"] == -1)
    offset = min(page.offset, 1000)
    return matching[offset : offset + min(page.limit, 30)]


def matches(each: FoundChannel, conditions: Any) -> bool:
    """Return whether a channel meets filter conditions."""
    if "$and" in conditions:
        return all(matches(each, part) for part in conditions["$and"])
    tests: dict[str, Callable[[Any, Any], bool]] = {
        "$gte": lambda a, b: a >= b,
        "$lt": lambda a, b: a < b,
        "$gt": lambda a, b: a > b,
        "$lte": lambda a, b: a <= b,
    }
    values = {"cid": each.cid, "created_at": each.created_at}
    read = {"cid": str, "created_at": parse_rfc3339}
    return all(
        tests[operator](values[name], read[name](bound))
        for name, bounds in conditions.items()
        for operator, bound in bounds.items()
    )


def find(query: ChannelQuery, channels: Sequence[FoundChannel], ask: Any = answer) -> tuple[list[Cid], int]:
    """Run a search to its end; return the channels it found and the number of pages."""
    search, cids, n_pages = ChannelSearch(query), [], 0
    while page := search.next_page:
        cids += search.record_page(ask(channels, page))
        n_pages += 1
    return cids, n_pages


@pytest.mark.parametrize("sort", [ChannelQuery().sort, NEWEST_FIRST], ids=["oldest first", "newest first"])
@given(groups=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 90)), max_size=12))
@settings(max_examples=40)
def test_each_channel_is_found_once(sort, groups) -> None:
    """However many channels share one microsecond, the search finds each of them, and none twice."""
    ticks = [tick for tick, n in groups for _ in range(n)]
    channels = [channel(number, tick) for number, tick in enumerate(ticks)]
    cids, _ = find(ChannelQuery(sort=sort), channels)
    assert sorted(each.cid for each in channels) == sorted(cids)


@pytest.mark.parametrize("sort", [ChannelQuery().sort, NEWEST_FIRST], ids=["oldest first", "newest first"])
def test_more_channels_of_one_microsecond_than_offsets_reach(sort) -> None:
    """An import may give 2,500 channels the same created_at, and offsets end at 1000 without an error."""
    channels = [channel(number, 50 if number < 2500 else number) for number in range(2600)] + [channel(9999, 7)]
    cids, n_pages = find(ChannelQuery(sort=sort), channels)
    assert sorted(each.cid for each in channels) == sorted(cids)
    assert n_pages < 300


def test_a_page_costs_one_request() -> None:
    """A page must bring 29 new channels: 30, less the one at the edge that it repeats."""
    channels = [channel(number, number) for number in range(3000)]
    cids, n_pages = find(ChannelQuery(), channels)
    assert [each.cid for each in channels] == cids
    assert n_pages <= 3000 / 29 + 3


def test_a_filter_on_the_paging_key_still_holds() -> None:
    """A query for channels created since yesterday must not find all channels from the second page on."""
    channels = [channel(number, number) for number in range(100)]
    since = {"created_at": {"$gte": "2025-01-01T00:00:00.000040Z"}}
    cids, _ = find(ChannelQuery(filter_conditions=since), channels)
    assert [each.cid for each in channels[40:]] == cids


def test_channels_that_are_created_during_the_search_are_found() -> None:
    """Oldest first, new channels come last: the search must find them, and must not miss any other."""
    channels = [channel(number, number) for number in range(90)]
    search, cids = ChannelSearch(ChannelQuery()), []
    while page := search.next_page:
        cids += search.record_page(answer(channels, page))
        if len(channels) < 100:
            channels.append(channel(len(channels), len(channels)))
    assert [each.cid for each in channels] == cids


def test_datetimes_in_a_query_are_sent_as_text() -> None:
    """Templates and Python code pass datetimes: at any depth, the service must get the same moment in UTC."""
    berlin = timezone(timedelta(hours=1))
    conditions = {
        "$or": [{"last_message_at": {"$gte": datetime(2025, 1, 1, 1, tzinfo=berlin)}}, {"team": ("a", None, 1.5)}]
    }
    page = ChannelSearch(ChannelQuery(filter_conditions=conditions)).next_page
    assert page is not None
    expected = {"$or": [{"last_message_at": {"$gte": "2025-01-01T00:00:00.000000Z"}}, {"team": ["a", None, 1.5]}]}
    assert expected == page.filter_conditions


@pytest.mark.parametrize(
    ("conditions", "sentence"),
    [
        (
            {"last_message_at": {"$gte": datetime(2025, 1, 1)}},  # noqa: DTZ001 - what is refused
            r"filter_conditions\.last_message_at\.\$gte .*2025-01-01T00:00:00\) has no time zone",
        ),
        ({"$and": [{"team": {"a", "b"}}]}, r"filter_conditions\.\$and\[0\]\.team .* is a set"),
        ({"member_count": {"$gt": math.nan}}, r"filter_conditions\.member_count\.\$gt .* is a float"),
        ({"custom": {1: "a"}}, r"filter_conditions\.custom .* is a dict .* text as keys"),
    ],
    ids=["naive", "a set", "NaN", "a number as key"],
)
def test_conditions_that_cannot_be_sent_are_refused_by_name(conditions, sentence) -> None:
    """The HTTP library would raise a TypeError that does not name the condition."""
    query = ChannelQuery(filter_conditions=conditions)
    with pytest.raises(CallError, match=sentence):
        ChannelSearch(query)


@pytest.mark.parametrize("sort", [({"field": "last_message_at", "direction": -1},), ()])
def test_a_sort_by_a_key_that_changes_is_refused(sort) -> None:
    """A channel that gets a message during the search would move to a page that was read already."""
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
def test_an_order_that_was_not_requested_is_an_error(page) -> None:
    """A search that continued would silently miss channels."""
    with pytest.raises(UnexpectedReplyError, match="did not return channels in the requested order"):
        ChannelSearch(ChannelQuery()).record_page(page)


def test_a_service_that_ignores_the_offset_is_an_error() -> None:
    """Otherwise the search would never end."""
    channels = [channel(number, 0) for number in range(30)]
    with pytest.raises(UnexpectedReplyError, match="returns the same channels for every page"):
        find(ChannelQuery(), channels, ask=lambda channels, _page: channels)


@pytest.mark.parametrize(
    ("sentence", "before", "rendered"),
    [
        (
            r"filter_conditions.cid.\$in of the channel query is text, .*render_template_as_native_obj=True",
            {"cid": {"$in": "{{ params.cids }}"}},
            {"cid": {"$in": "['a:b']"}},
        ),
        (
            r"in filter_conditions.\$and\[1\].team of the channel query rendered None as text, because",
            {"$and": [{"type": "team"}, {"team": "{{ params.team }}"}]},
            {"$and": [{"type": "team"}, {"team": "None"}]},
        ),
    ],
)
def test_what_a_template_made_of_conditions_is_named_as_the_cause(sentence: str, before: Any, rendered: Any) -> None:
    """The service would refuse the conditions, or find no channel: neither names the template."""
    with pytest.raises(CallError, match=sentence):
        check_rendered_conditions(before, rendered)


@pytest.mark.parametrize(
    ("before", "rendered"),
    [
        ({"cid": {"$in": "{{ params.cids }}"}}, {"cid": {"$in": ["a:b"]}}),
        ({"cid": {"$in": ["{{ params.cid }}"]}}, {"cid": {"$in": ["a:b"]}}),
        ({"name": "None"}, {"name": "None"}),
        ({"name": "{{ params.name }}"}, {"name": "[draft]"}),
        ({"team": "{{ params.team }}"}, {"team": None}),
    ],
)
def test_conditions_that_were_meant_so_pass(before: Any, rendered: Any) -> None:
    """A channel may have such a name, and native rendering keeps lists and null."""
    check_rendered_conditions(before, rendered)
