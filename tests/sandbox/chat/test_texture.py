"""Objects of the sandbox are complete, varied, and the same every time."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from required_fields import misfits

from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.sandbox.chat import message_objects
from airflow_provider_chatexport.sandbox.chat.timestamps import stamp, to_us
from airflow_provider_chatexport.sandbox.chat.world import World

Messages = list[dict[str, Any]]


@pytest.fixture(scope="module")
def world() -> World:
    """Return the shipped world."""
    return World.load()


@pytest.fixture(scope="module")
def messages(world: World) -> Messages:
    """Return all its messages."""
    return [message for cid in world.cids for message in world.messages(cid, include_truncated=True)]


def test_every_message_has_the_fields_the_service_requires(messages: Messages) -> None:
    """A missing field, or one of another type, would break the official SDKs on our data only."""
    assert [wrong for message in messages for wrong in misfits(message, "message")][:5] == []


def test_generated_messages_have_the_fields_the_service_requires() -> None:
    """Generated messages must be as complete as recorded ones."""
    generated = World.load(messages=3_000)
    assert [wrong for cid in generated.cids for m in generated.messages(cid) for wrong in misfits(m, "message")][
        :5
    ] == []


def test_every_reaction_has_the_fields_the_service_requires(world: World, messages: Messages) -> None:
    """A message contains ten reactions; the others are built elsewhere and must look the same."""
    assert [
        wrong for m in messages for reaction in world.reactions_of(m) for wrong in misfits(reaction, "reaction")
    ] == []


@pytest.mark.parametrize("kind", ["channel", "member", "read", "user"])
def test_every_other_object_has_the_fields_the_service_requires(world: World, kind: str) -> None:
    """Channels, members, reads and users, of the deleted channel too."""
    objects = {
        "channel": [world.channel(cid) for cid in world.cids],
        "member": [member for cid in world.cids for member in world.members(cid)],
        "read": [read for cid in world.cids for read in world.reads(cid)],
        "user": [world.user(user_id) for user_id in world.user_ids()],
    }[kind]
    assert [wrong for fields in objects for wrong in misfits(fields or {}, kind)][:5] == []


def test_two_worlds_are_equal(world: World) -> None:
    """A sandbox that is restarted must say what it said before."""
    again = World.load()
    for cid in world.cids:
        assert world.channel(cid) == again.channel(cid)
        assert world.members(cid) == again.members(cid)
        assert world.reads(cid) == again.reads(cid)
    cid = "messaging:ubuntu-support"
    assert list(world.messages(cid)) == list(again.messages(cid))


def test_the_objects_are_pinned(world: World, messages: Messages) -> None:
    """Other objects would change every number in docs and notebooks: that must be on purpose."""
    first = next(world.messages("livestream:ubuntu"))
    assert (first["id"], first["created_at"]) == ("2aa4dc69-4e01-288f-4e7b-eff6e4a99144", "2025-01-01T09:14:00.431237Z")
    assert message_objects.seed_digest(first["id"]).hex()[:10] == "4dc1d79d30"
    assert (len(messages), sum(sum(message["reaction_counts"].values()) for message in messages)) == (52_044, 16_209)


@pytest.mark.parametrize(
    ("what", "least", "most"),
    [
        (lambda m: m["type"] == "deleted", 0.004, 0.012),
        (lambda m: "message_text_updated_at" in m and m["updated_at"] > m["created_at"], 0.025, 0.04),
        (lambda m: m["reaction_counts"], 0.10, 0.14),
        (lambda m: sum(m["reaction_counts"].values()) > len(m["latest_reactions"]), 0.002, 0.006),
        (lambda m: m["custom"], 0.22, 0.28),
        (lambda m: m["attachments"], 0.01, 0.2),
        (lambda m: m["mentioned_users"], 0.1, 0.5),
        (lambda m: m.get("parent_id"), 0.05, 0.4),
        (lambda m: m.get("show_in_channel"), 0.01, 0.2),
        (lambda m: m.get("quoted_message"), 0.002, 0.1),
        (lambda m: m["reply_count"] and m["thread_participants"], 0.01, 0.2),
        (lambda m: m["deleted_reply_count"], 0.0001, 0.02),
        (lambda m: m["pinned"] and m["pinned_by"] and m["pinned_at"], 0.004, 0.012),
        (lambda m: m["pin_expires"], 0.001, 0.01),
        (lambda m: m["silent"], 0.004, 0.012),
        (lambda m: m["shadowed"], 0.002, 0.008),
        (lambda m: m["restricted_visibility"], 0.002, 0.008),
        (lambda m: "i18n" in m, 0.004, 0.012),
        (lambda m: "moderation" in m, 0.002, 0.008),
        (lambda m: m["type"] == "system", 0.0001, 0.1),
    ],
)
def test_every_kind_of_message_occurs(messages: Messages, what: Any, least: float, most: float) -> None:
    """A test against the sandbox must meet everything that the service has, about as often."""
    assert least < sum(1 for message in messages if what(message)) / len(messages) < most


def test_custom_fields_have_every_kind_of_value(messages: Messages) -> None:
    """A reader that guesses types must fail here, and not first on a customer's data."""
    kinds = {(key, type(value)) for message in messages for key, value in message["custom"].items()}
    assert {bool, int, float, str, type(None), list, dict} == {kind for _, kind in kinds}
    assert {("priority", int), ("priority", dict), ("🔥", int), ("select", str)} <= kinds
    assert any(value > 2**64 for m in messages if type(value := m["custom"].get("sequence")) is int)


def test_attachments_are_of_three_types(messages: Messages) -> None:
    """The ending of a link says whether it is an image or a video; some have custom fields."""
    attachments = [attachment for message in messages for attachment in message["attachments"]]
    assert {"link", "image", "video"} == {attachment["type"] for attachment in attachments}
    assert any(attachment["custom"] for attachment in attachments)
    assert all(attachment["og_scrape_url"].startswith("http") for attachment in attachments)


def test_a_thread_is_in_one_channel_and_has_one_level(world: World, messages: Messages) -> None:
    """The service has no replies to replies, and a parent in another channel could never be joined."""
    by_id = {message["id"]: message for message in messages}
    for reply in (message for message in messages if "parent_id" in message):
        parent = by_id[reply["parent_id"]]
        assert parent["cid"] == reply["cid"]
        assert "parent_id" not in parent
        assert parent["created_at"] <= reply["created_at"]
    replies = Counter(m["parent_id"] for m in messages if "parent_id" in m)
    assert replies == {m["id"]: n for m in messages if (n := m["reply_count"] + m["deleted_reply_count"])}


def test_reactions_are_by_known_people_after_the_message_and_add_up(world: World, messages: Messages) -> None:
    """Counts inside a message must equal its reactions: tests of the lake rely on it."""
    everyone = set(world.user_ids())
    for message in messages:
        reactions = world.reactions_of(message)
        assert message["reaction_counts"] == Counter(reaction["type"] for reaction in reactions)
        assert sum(message["reaction_scores"].values()) == sum(reaction["score"] for reaction in reactions)
        assert message["latest_reactions"] == reactions[::-1][:10]
        assert len(reactions) == len({reaction["user_id"] for reaction in reactions} & everyone)
        moments = [parse_rfc3339(reaction["created_at"]) for reaction in reactions]
        assert moments == sorted(moments)
        assert all(moment > parse_rfc3339(message["created_at"]) for moment in moments)


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (1_735_689_600_000_000, "2025-01-01T00:00:00Z"),
        (1_735_689_600_500_000, "2025-01-01T00:00:00.5Z"),
        (1_735_689_600_000_001, "2025-01-01T00:00:00.000001Z"),
        (1_735_689_659_066_600, "2025-01-01T00:00:59.0666Z"),
    ],
)
def test_times_are_written_as_the_service_writes_them(us: int, text: str) -> None:
    """The service cuts trailing zeros of the fraction: a reader that expects six digits must fail here."""
    assert text == stamp(us)
    assert us == to_us(parse_rfc3339(text))


def test_some_times_have_nine_digits(world: World) -> None:
    """``last_active`` has nanoseconds in a real export."""
    users = (world.user(user_id) or {} for user_id in itertools.islice(world.user_ids(), 50))
    assert any(len(user.get("last_active", "")) == len("2025-01-23T13:06:58.365621247Z") for user in users)


def test_html_is_escaped_as_the_service_escapes_it() -> None:
    """Markup that people type must not become markup."""
    assert message_objects.to_html("a <b> & c") == "<p>a &lt;b&gt; &amp; c</p>\n"
    assert message_objects.to_html("") == ""
