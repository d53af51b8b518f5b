"""Requests: batches of 25, and fingerprints that are equal where the question is."""

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
    return ChannelsRequest(channels=tuple(map(Cid, channels)), **{"window": DAY, **others})


@given(st.lists(cids, min_size=1, max_size=120))
def test_a_plan_exports_each_channel_once_in_batches_of_25(channels: list[str]) -> None:
    """A channel exported twice costs the rate limit, one left out is lost."""
    planned = plan_channels(channels, DAY, ExportFlags())
    assert list(dict.fromkeys(channels)) == [cid for batch in planned for cid in batch.channels]
    assert all(len(batch.channels) == 25 for batch in planned[:-1])


@given(st.lists(ids, min_size=1, max_size=60))
def test_a_plan_of_users_is_made_likewise(user_ids: list[str]) -> None:
    """The service refuses more than 25 users at once."""
    assert list(dict.fromkeys(user_ids)) == [user_id for batch in plan_users(user_ids) for user_id in batch.user_ids]


@given(st.lists(cids, min_size=1, max_size=25, unique=True), st.randoms())
def test_a_fingerprint_does_not_depend_on_the_order_of_channels(channels: list[str], random: object) -> None:
    """A retried task may find its channels in another order; it must find its export again."""
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
def test_another_question_has_another_fingerprint(other: ChannelsRequest) -> None:
    """Re-attaching to an export of something else would load the wrong data without a word."""
    assert request("messaging:a").fingerprint != other.fingerprint


def test_a_fingerprint_stays_the_same_across_versions() -> None:
    """It is stored at submit and looked up by a later process: a change here orphans running exports."""
    assert request("messaging:b", "messaging:a").fingerprint == "76724d845be249093af717e9fdcf2a45"


@given(st.lists(cids, min_size=2, max_size=25, unique=True))
def test_bisecting_reaches_every_single_channel(channels: list[str]) -> None:
    """One unknown channel refuses a whole batch: halving has to end at it, and lose no other."""
    found, batches = [], [request(*channels)]
    while batches:
        batch = batches.pop()
        if len(batch.channels) == 1:
            found += batch.channels
        else:
            batches += batch.bisected()
    assert sorted(channels) == sorted(found)


def test_a_half_keeps_window_and_flags() -> None:
    """A half asked with other bounds would leave a hole in the lake."""
    whole = request("messaging:a", "messaging:b", flags=ExportFlags(include_truncated_messages=True))
    assert (replace(whole, channels=("messaging:a",)), replace(whole, channels=("messaging:b",))) == whole.bisected()


def test_one_channel_cannot_be_halved() -> None:
    """The end of a bisection is an error of the caller, not a request without channels."""
    with pytest.raises(CallError, match="cannot be halved"):
        request("messaging:a").bisected()


@given(st.lists(cids, min_size=1, max_size=25, unique=True), st.booleans(), st.sampled_from(["v1", "v2"]))
def test_a_request_survives_json(channels: list[str], flag: bool, version: str) -> None:
    """Requests travel in receipts."""
    made = request(*channels, flags=ExportFlags(version=version, include_truncated_messages=flag))
    assert made == ChannelsRequest.from_json(made.to_json())


def test_a_channel_id_may_hold_colons() -> None:
    """Only the first colon parts type and id."""
    assert parse_cid(" messaging:a:b ") == "messaging:a:b"


@pytest.mark.parametrize("text", ["general", ":general", "messaging:", "", ":"])
def test_what_is_no_channel_is_refused_with_an_example(text: str) -> None:
    """A channel without its type would be refused by the service, minutes later and in other words."""
    with pytest.raises(CallError, match="write TYPE:ID, such as messaging:general"):
        parse_cid(text)


@pytest.mark.parametrize(
    ("told", "call"),
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
def test_a_request_that_the_service_would_refuse_is_not_made(told: str, call: object) -> None:
    """What is known to fail is said at once, by the name of the argument."""
    with pytest.raises(CallError, match=told):
        call()
