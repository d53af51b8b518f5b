"""Requests: batches of 25, and fingerprints that are equal for equal requests."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.core.plan import (
    ChannelsRequest,
    Cid,
    ExportFlags,
    UsersRequest,
    parse_cid,
    plan_channels,
    plan_users,
)
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError

DAY = Window.parse("2026-01-01", "2026-01-02")
ids = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=12)
cids = st.builds(lambda kind, name: f"{kind.replace(':', '') or 'x'}:{name}", ids, ids)


def request(*channels: str, **others: object) -> ChannelsRequest:
    """Return a request for channels, by default of one day."""
    return ChannelsRequest(channels=tuple(map(Cid, channels)), **{"window": DAY, **others})


@given(st.lists(cids, min_size=1, max_size=120))
def test_a_plan_exports_each_channel_once_in_batches_of_25(channels: list[str]) -> None:
    """A channel that is exported twice uses up the rate limit, and one that is left out is lost."""
    planned = plan_channels(channels, DAY, ExportFlags())
    assert list(dict.fromkeys(channels)) == [cid for batch in planned for cid in batch.channels]
    assert all(len(batch.channels) == 25 for batch in planned[:-1])


@given(st.lists(ids, min_size=1, max_size=60))
def test_a_plan_exports_each_user_once_in_batches_of_25(user_ids: list[str]) -> None:
    """The service refuses more than 25 users at once."""
    assert list(dict.fromkeys(user_ids)) == [user_id for batch in plan_users(user_ids) for user_id in batch.user_ids]


@given(st.lists(cids, min_size=1, max_size=25, unique=True), st.randoms())
def test_a_fingerprint_does_not_depend_on_the_order_of_channels(channels: list[str], random: object) -> None:
    """A retried task may get its channels in another order: it must find its export again."""
    shuffled = list(channels)
    random.shuffle(shuffled)
    assert request(*channels).fingerprint == request(*shuffled).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        request("messaging:b"),
        request("messaging:a", window=Window.parse("2026-01-01", "2026-01-03")),
        request("messaging:a", window=None),
        request("messaging:a", flags=ExportFlags(version="v1")),
        request("messaging:a", flags=ExportFlags(include_truncated_messages=True)),
        request("messaging:a", flags=ExportFlags(include_soft_deleted_channels=True)),
        request("messaging:a", flags=ExportFlags(clear_deleted_message_text=True)),
        request("messaging:a", flags=ExportFlags(export_users=True)),
        UsersRequest(user_ids=("messaging:a",)),
    ],
)
def test_another_request_has_another_fingerprint(other: ChannelsRequest) -> None:
    """A task that finds the export of another request would silently load the wrong data."""
    assert request("messaging:a").fingerprint != other.fingerprint


def test_a_fingerprint_stays_the_same_across_versions() -> None:
    """A process stores it and a later one looks it up: if it changes, running exports are lost."""
    assert request("messaging:b", "messaging:a").fingerprint == "76724d845be249093af717e9fdcf2a45"


@given(st.lists(cids, min_size=2, max_size=25, unique=True))
def test_repeated_splitting_reaches_every_single_channel(channels: list[str]) -> None:
    """The service refuses a batch with one unknown channel: splitting must end at it, and must lose no other."""
    cids, batches = [], [request(*channels)]
    while batches:
        batch = batches.pop()
        if len(batch.channels) == 1:
            cids += batch.channels
        else:
            batches += batch.split_channels()
    assert sorted(channels) == sorted(cids)


def test_a_half_keeps_window_and_flags() -> None:
    """A half with other bounds would leave a gap in the lake."""
    whole = request("messaging:a", "messaging:b", flags=ExportFlags(include_truncated_messages=True))
    a, b = (replace(whole, channels=(cid,)) for cid in whole.channels)
    assert (a, b) == whole.split_channels()


def test_one_channel_cannot_be_split() -> None:
    """Splitting one channel is an error of the caller; it must not make a request without channels."""
    with pytest.raises(CallError, match=r"one channel \(messaging:a\) cannot be split"):
        request("messaging:a").split_channels()


@given(st.lists(cids, min_size=1, max_size=25, unique=True), st.booleans(), st.sampled_from(["v1", "v2"]))
def test_a_request_survives_json(channels: list[str], flag: bool, version: str) -> None:
    """Receipts contain requests as JSON."""
    before = request(*channels, flags=ExportFlags(version=version, include_truncated_messages=flag))
    assert before == ChannelsRequest.from_json(before.to_json())


def test_a_channel_id_may_contain_colons() -> None:
    """Only the first colon separates type and id."""
    assert parse_cid(" messaging:a:b ") == "messaging:a:b"


@pytest.mark.parametrize("text", ["general", ":general", "messaging:", "", ":"])
def test_a_text_that_is_not_a_channel_is_refused_with_an_example(text: str) -> None:
    """The service would refuse it minutes later, and less clearly."""
    with pytest.raises(CallError, match="write TYPE:ID, such as messaging:general"):
        parse_cid(text)


@pytest.mark.parametrize(
    ("sentence", "call"),
    [
        ("no channel to export", lambda: plan_channels([], DAY, ExportFlags())),
        ("no user to export", lambda: plan_users([])),
        ("no user to export", lambda: plan_users(["u1", " "])),
        ("1 to 25 channels, not 26", lambda: request(*(f"messaging:{n}" for n in range(26)))),
        ("1 to 25 channels, not 0", request),
        ("1 to 25 user ids, not 26", lambda: UsersRequest(user_ids=tuple(map(str, range(26))))),
        ("version is 'v3'; the service knows v1 and v2", lambda: ExportFlags(version="v3")),
    ],
)
def test_a_request_that_the_service_would_refuse_is_an_error(sentence: str, call: object) -> None:
    """A request that is known to fail must fail at once, with a sentence that names the argument."""
    with pytest.raises(CallError, match=sentence):
        call()
