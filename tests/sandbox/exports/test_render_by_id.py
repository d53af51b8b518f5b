"""Export files that name everything by id: the likely form of a v2 file, and each envelope with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_chatexport.core.entities import References, Shape
from airflow_provider_chatexport.core.plan import ExportFlags
from airflow_provider_chatexport.sandbox.chat.world import World
from airflow_provider_chatexport.sandbox.exports.render import ExportJob, render_channels_export, render_users_export

GOLDEN = Path(__file__).parent / "golden"
SMALL = "messaging:rust"
DAY = datetime(2025, 1, 8, tzinfo=UTC)
ITEM, OBJECT, BY_ID = Shape.ITEM, References.OBJECT, References.ID

# The structs of the service's old importer, and the keys that one public program removes from what it reads
# (section 5 of the notes, 1 and 3).
KEYS = {
    "user": "id role invisible created_at updated_at deleted_at deactivated_at language teams channel_mutes user_mutes "
    "push_notifications name image",
    "channel": "id type created_by frozen created_at updated_at team last_message_at",
    "member": "channel_type channel_id user_id is_moderator invited last_read created_at invite_accepted_at "
    "invite_rejected_at hide_channel hide_messages_before channel_role archived_at",
    "message": "id parent_id channel_type channel_id text html attachments user type show_in_channel created_at "
    "updated_at deleted_at mentioned_users_ids quoted_message_id pinned_at pinned_by_id pin_expires "
    "deleted_reply_count reaction_groups member status",
    "reaction": "message_id type user_id created_at",
    "device": "id user_id created_at disabled disabled_reason push_provider_type",
}


@pytest.fixture(scope="module")
def world() -> World:
    """Return the shipped world."""
    return World.shipped()


def rendered(world: World, *cids: str, shape: Shape = ITEM, **options: Any) -> bytes:
    """Return the export of a day, with everything that may come along."""
    flags = ExportFlags(include_truncated_messages=True, export_users=True)
    windows = tuple((DAY, DAY + timedelta(days=1)) for _ in cids)
    job = ExportJob(cids=cids, windows=windows, shape=shape, **{"flags": flags, **options})
    return b"".join(render_channels_export(world, job))


def rendered_users(world: World, *user_ids: str, shape: Shape = ITEM, **options: Any) -> bytes:
    """Return the export of users."""
    return b"".join(render_users_export(world, user_ids, shape=shape, **options))


def items(content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (entity, object) of each line in the envelope ``item``."""
    for line in map(json.loads, content.splitlines()):
        assert list(line) == ["type", "item"]
        yield line["type"], line["item"]


def of(content: bytes, name: str) -> list[dict[str, Any]]:
    """Return the objects of an entity."""
    return [fields for entity, fields in items(content) if entity == name]


def without_custom(world: World, entity: str, fields: dict[str, Any]) -> set[str]:
    """Return the keys of an object that are not custom fields of its original."""
    match entity:
        case "user":
            original = world.user(fields["id"])
        case "channel":
            original = world.channel(f"{fields['type']}:{fields['id']}")
        case "message":
            original = world.message(fields["id"])
        case "member":
            members = world.members(f"{fields['channel_type']}:{fields['channel_id']}")
            original = next(member for member in members if member["user_id"] == fields["user_id"])
        case "reaction":
            reactions = world.reactions_of(world.message(fields["message_id"]) or {})
            original = next(r for r in reactions if (r["user_id"], r["type"]) == (fields["user_id"], fields["type"]))
        case _:
            original = {}
    custom = (original or {}).get("custom", {})
    assert custom.keys() <= fields.keys()
    return set(fields) - set(custom)


def test_an_object_has_the_keys_of_its_struct_and_its_custom_fields(world: World) -> None:
    """No key beyond the notes, and each of them but those that nothing in the world has; custom fields lie flat."""
    seen: dict[str, set[str]] = {}
    users = rendered_users(world, *world.user_ids()[:60])
    for entity, fields in [*items(rendered(world, *world.cids[:6])), *items(users)]:
        seen.setdefault(entity, set()).update(without_custom(world, entity, fields))
    never = {
        "user": {"deleted_at", "deactivated_at"},
        "member": {"invite_accepted_at", "invite_rejected_at", "hide_messages_before"},
    }
    assert {entity: set(keys.split()) - never.get(entity, set()) for entity, keys in KEYS.items()} == seen


def test_references_are_ids(world: World) -> None:
    """People and channels are named, never embedded: that is what makes these files small."""
    content = rendered(world, *world.cids[:6])
    originals = {m["id"]: m for cid in world.cids[:6] for m in world.messages(cid, include_truncated=True)}
    for message in of(content, "message"):
        original = originals[message["id"]]
        pinned_by = original["pinned_by"]
        assert original["user"]["id"] == message["user"]
        assert original["cid"] == f"{message['channel_type']}:{message['channel_id']}"
        assert [user["id"] for user in original["mentioned_users"]] == message["mentioned_users_ids"]
        assert (pinned_by["id"] if pinned_by else None) == message["pinned_by_id"]
        assert original.get("quoted_message_id") == message.get("quoted_message_id")
    for channel in of(content, "channel"):
        assert isinstance(channel["created_by"], str)
    assert b'"cid":' not in content


def test_a_member_says_when_they_read(world: World) -> None:
    """There are no read lines, so this is the read state."""
    content = rendered(world, SMALL)
    expected = {read["user"]["id"]: read["last_read"] for read in world.reads(SMALL)}
    assert expected == {member["user_id"]: member["last_read"] for member in of(content, "member")}
    assert of(content, "read") == []


def test_a_message_says_what_its_author_is_in_the_channel(world: World) -> None:
    """``member`` is one of the keys that the public program meets."""
    roles = {member["user_id"]: member["channel_role"] for member in world.members(SMALL)}
    messages = of(rendered(world, SMALL), "message")
    assert {m["id"]: roles.get(m["user"]) for m in messages} == {
        m["id"]: m.get("member", {}).get("channel_role") for m in messages
    }


def test_users_have_lines_only_on_request(world: World) -> None:
    """Without ``export_users`` a file names people by id alone."""
    whole = rendered(world, SMALL)
    everyone, messages = of(whole, "user"), of(whole, "message")
    named = {message["user"] for message in messages} | {r["user_id"] for r in of(whole, "reaction")}
    named |= {user_id for m in messages for user_id in (*m["mentioned_users_ids"], m["pinned_by_id"]) if user_id}
    assert named <= {user["id"] for user in everyone}
    content = rendered(world, SMALL, flags=ExportFlags())
    assert of(content, "user") == []
    assert all(user["name"].encode() not in content for user in everyone)


def test_all_reactions_have_lines(world: World) -> None:
    """Messages do not contain them."""
    content = rendered(world, SMALL)
    messages = [world.message(message["id"]) or {} for message in of(content, "message")]
    expected = [(r["message_id"], r["user_id"], r["type"]) for m in messages for r in world.reactions_of(m)]
    assert expected == [(r["message_id"], r["user_id"], r["type"]) for r in of(content, "reaction")]
    assert expected


def test_an_export_of_users_has_their_devices(world: World) -> None:
    """They follow their user, and an export of channels has none."""
    user_ids = world.user_ids()[:30]
    order = [(entity, fields.get("user_id")) for entity, fields in items(rendered_users(world, *user_ids))]
    devices = [user_id for entity, user_id in order if entity == "device"]
    expected = [device["user_id"] for user_id in user_ids for device in world.devices(user_id)]
    assert expected == devices != []
    assert of(rendered(world, SMALL), "device") == []


# Envelope and references are two things.


def test_the_usual_references_come_with_the_shape(world: World) -> None:
    """Ids in ``item``, objects in all others."""
    for shape in Shape:
        usual = BY_ID if shape is ITEM else OBJECT
        assert rendered(world, SMALL, shape=shape, references=usual) == rendered(world, SMALL, shape=shape)
        one = world.user_ids()[0]
        assert rendered_users(world, one, shape=shape, references=usual) == rendered_users(world, one, shape=shape)


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.KEYED, Shape.BARE])
def test_every_envelope_holds_the_same_objects(world: World, shape: Shape) -> None:
    """By id, too, the envelope changes nothing inside."""
    expected = [fields for _, fields in items(rendered(world, SMALL))]
    lines = [json.loads(line) for line in rendered(world, SMALL, shape=shape, references=BY_ID).splitlines()]
    unwrap = {
        Shape.TYPED: lambda line: line["data"],
        Shape.KEYED: lambda line: next(iter(line.values())),
        Shape.BARE: lambda line: line,
    }[shape]
    assert expected == [unwrap(line) for line in lines]


def test_a_line_per_channel_has_reactions_instead_of_reads(world: World) -> None:
    """By id, messages have no reactions inside, and members know what they read."""
    (line,) = map(json.loads, rendered(world, SMALL, shape=Shape.CHANNEL, references=BY_ID).splitlines())
    by_item = rendered(world, SMALL)
    assert ["channel", "messages", "members", "reactions"] == list(line)
    for plural in ("messages", "members", "reactions"):
        assert of(by_item, plural.removesuffix("s")) == line[plural]


def test_item_with_objects_has_the_objects_of_typed(world: World) -> None:
    """The old import envelope around the objects of the API."""
    expected = [json.loads(line)["data"] for line in rendered(world, SMALL, shape=Shape.TYPED).splitlines()]
    assert expected == [fields for _, fields in items(rendered(world, SMALL, references=OBJECT))]


def test_v1_has_objects_whatever_the_references_are(world: World) -> None:
    """Its form is known."""
    v1 = {"flags": ExportFlags(version="v1")}
    assert rendered(world, SMALL, **v1) == rendered(world, SMALL, references=BY_ID, **v1)


# Golden files.


def small_world() -> World:
    """Return a chat of ten messages: answered, quoting, edited, deleted, pinned, with reactions, links and the rest."""
    world = World.load(GOLDEN / "chat.ndjson")
    at = datetime(2025, 3, 1, 12, tzinfo=UTC)
    for fields in map(json.loads, (GOLDEN / "added.ndjson").read_text().splitlines()):
        world.add_message(fields, at)
    return world


def golden_files(world: World) -> dict[str, bytes]:
    """Return what the golden files should contain."""
    cids = tuple(cid for cid in world.cids if not world.channel_is_deleted(cid))
    job = {"cids": cids, "flags": ExportFlags(include_truncated_messages=True, export_users=True)}
    authors = sorted(world.user_ids())
    return {
        "channels-item-id.ndjson": b"".join(render_channels_export(world, ExportJob(shape=ITEM, **job))),
        "channels-item-object.ndjson": b"".join(
            render_channels_export(world, ExportJob(shape=ITEM, references=OBJECT, **job))
        ),
        "channels-typed-id.ndjson": b"".join(
            render_channels_export(world, ExportJob(shape=Shape.TYPED, references=BY_ID, **job))
        ),
        "users-item-id.ndjson": rendered_users(world, *authors),
    }


def test_golden_files() -> None:
    """Files of the likely form, byte by byte: a change of them is a change of what the reader is tested with.

    If it is meant, run this module as a script and look at the difference.
    """
    written = golden_files(small_world())
    assert {name: (GOLDEN / name).read_bytes() for name in written} == written


if __name__ == "__main__":
    for name, content in golden_files(small_world()).items():
        (GOLDEN / name).write_bytes(content)
