"""Export files: v1 as in the one real export, v2 in every shape, and the export of users."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from required_fields import misfits

from airflow_provider_chatexport.core.entities import References, Shape, infer_bare
from airflow_provider_chatexport.core.plan import ExportFlags
from airflow_provider_chatexport.sandbox.chat.world import World
from airflow_provider_chatexport.sandbox.exports.layout import to_json
from airflow_provider_chatexport.sandbox.exports.render import (
    ExportJob,
    export_user,
    render_channels_export,
    render_users_export,
)

SUPPORT = "messaging:ubuntu-support"
FIXTURE = json.loads((Path(__file__).parents[2] / "fixtures" / "v1-real-shape.json").read_text())
LINE_SHAPES = [Shape.TYPED, Shape.KEYED, Shape.BARE, Shape.ITEM]
DAY = datetime(2025, 1, 8, tzinfo=UTC)


@pytest.fixture(scope="module")
def world() -> World:
    """Return the shipped world."""
    return World.load()


@pytest.fixture(scope="module")
def cids(world: World) -> tuple[str, ...]:
    """Return its channels, without the soft-deleted one."""
    return tuple(cid for cid in world.cids if not world.channel_is_deleted(cid))


def job(cids: tuple[str, ...], *, shape: Shape = Shape.TYPED, **options: Any) -> ExportJob:
    """Return an export of 2025-01-08, the day on which all six channels speak."""
    windows = tuple((DAY, DAY + timedelta(days=1)) for _ in cids)
    return ExportJob(cids=cids, windows=windows, shape=shape, **options)


def rendered(world: World, job: ExportJob) -> bytes:
    """Return the file of an export."""
    return b"".join(render_channels_export(world, job))


def entities(content: bytes, shape: Shape) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (entity, object) of each line, or of each part of a line in the channel shape."""
    for line in map(json.loads, content.splitlines()):
        match shape:
            case Shape.TYPED:
                yield line["type"], line["data"]
            case Shape.ITEM:
                yield line["type"], line["item"]
            case Shape.KEYED:
                yield from line.items()
            case Shape.BARE:
                entity = infer_bare(line)
                assert entity is not None
                yield entity.value, line
            case Shape.CHANNEL:
                yield "channel", line["channel"]
                for plural in ("members", "reads", "messages"):
                    yield from ((plural.removesuffix("s"), item) for item in line[plural])


def keyed(content: bytes, shape: Shape) -> list[str]:
    """Return one sorted text per entity of a file, to compare files of different shapes."""
    return sorted(f"{entity} {json.dumps(fields, sort_keys=True)}" for entity, fields in entities(content, shape))


# v1.


def in_order(expected: list[str], keys: list[str]) -> bool:
    """Return whether ``keys`` contains everything expected, in this order."""
    rest = iter(keys)
    return all(key in rest for key in expected)


def test_v1_has_the_keys_of_the_real_export_in_their_order(world: World, cids: tuple[str, ...]) -> None:
    """It is the only evidence on v1: we have all its keys, in the same order; others are optional or custom."""
    [real] = FIXTURE
    elements = json.loads(rendered(world, job(cids, flags=ExportFlags(version="v1"))))
    assert list(cids) == [element["channel"]["cid"] for element in elements]
    for element in elements:
        assert list(real) == list(element)
        channel = element["channel"]
        assert in_order(list(real["channel"]), list(channel))
        assert list(real["channel"]["config"]) == list(channel["config"])
        for member in element["members"]:
            assert list(real["members"][0]) == list(member)[: len(real["members"][0])]
        for message in element["messages"]:
            assert in_order(list(real["messages"][0]), list(message))
            assert in_order(list(real["members"][1]["user"]), list(message["user"]))


def test_a_plain_v1_message_has_exactly_the_keys_of_the_real_one(world: World, cids: tuple[str, ...]) -> None:
    """A message that is not in a thread, not edited and without custom fields has no other keys."""
    elements = json.loads(rendered(world, job(cids, flags=ExportFlags(version="v1"))))
    messages = [message for element in elements for message in element["messages"]]
    real = list(FIXTURE[0]["messages"][0])
    assert sum(real == list(message) for message in messages) > len(messages) / 3


def test_v1_is_escaped_as_the_real_export_is(world: World, cids: tuple[str, ...]) -> None:
    r"""The real file has HTML as \u003c, and text outside ASCII as it is."""
    content = rendered(world, job(cids, flags=ExportFlags(version="v1")))
    assert rb"\u003cp\u003e" in content
    assert not any(character in content for character in (b"<", b">", b"&"))
    assert to_json({"a": "<é>\u2028&"}) == rb'{"a":"\u003c' + "é".encode() + rb'\u003e\u2028\u0026"}'


def test_v1_custom_fields_are_flat(world: World, cids: tuple[str, ...]) -> None:
    """No object of the real export has a ``custom``."""
    content = rendered(world, job(cids, flags=ExportFlags(version="v1")))
    assert b'"custom":' not in content
    assert b'"birthland":' in content
    assert b'"priority":' in content


def test_integers_of_any_size_survive(world: World) -> None:
    """Custom fields may hold integers beyond 64 bits."""
    assert to_json({"n": [2**64, -(2**63) - 1]}) == b'{"n":[18446744073709551616,-9223372036854775809]}'
    content = rendered(world, ExportJob(cids=(SUPPORT,), shape=Shape.TYPED))
    values = [fields.get("sequence") for entity, fields in entities(content, Shape.TYPED) if entity == "message"]
    assert any(value is not None and value > 2**64 for value in values)


# v2.


@pytest.mark.parametrize("shape", LINE_SHAPES)
def test_every_line_shape_has_the_same_entities(world: World, cids: tuple[str, ...], shape: Shape) -> None:
    """The shapes are five guesses at one format: with the same references, only their envelopes may differ."""
    options = {"flags": ExportFlags(export_users=True), "references": References.OBJECT}
    expected = keyed(rendered(world, job(cids, shape=Shape.TYPED, **options)), Shape.TYPED)
    assert expected == keyed(rendered(world, job(cids, shape=shape, **options)), shape)


def test_the_channel_shape_has_the_same_entities_but_reactions(world: World, cids: tuple[str, ...]) -> None:
    """A line per channel has no place for reactions of their own: they are inside messages."""
    typed = keyed(rendered(world, job(cids)), Shape.TYPED)
    expected = [line for line in typed if not line.startswith("reaction ")]
    assert expected == keyed(rendered(world, job(cids, shape=Shape.CHANNEL)), Shape.CHANNEL)


def test_a_file_is_ordered(world: World) -> None:
    """Members do not name their channel, so it comes before them; reactions come after their message."""
    content = rendered(world, job((SUPPORT,), flags=ExportFlags(export_users=True)))
    order = [entity for entity, _ in entities(content, Shape.TYPED)]
    firsts = [order.index(entity) for entity in ("user", "channel", "member", "read", "message", "reaction")]
    assert firsts == sorted(firsts)
    last_message = ""
    for entity, fields in entities(content, Shape.TYPED):
        last_message = fields["id"] if entity == "message" else last_message
        assert entity != "reaction" or fields["message_id"] == last_message


def test_the_file_has_what_the_world_has(world: World, cids: tuple[str, ...]) -> None:
    """Every message of the window once, ascending, with all of its reactions."""
    rows = list(entities(rendered(world, job(cids)), Shape.TYPED))
    messages = [m for cid in cids for m in world.messages(cid, since=DAY, until=DAY + timedelta(days=1))]
    assert [m["id"] for m in messages] == [fields["id"] for entity, fields in rows if entity == "message"]
    n_reactions = sum(len(world.reactions_of(message)) for message in messages)
    assert n_reactions == sum(entity == "reaction" for entity, _ in rows) > 0


def test_custom_fields_are_flat_nested_or_both_and_never_lost(world: World, cids: tuple[str, ...]) -> None:
    """It is not known where v2 has them, so a reader must accept every place."""
    places = set()
    for entity, fields in entities(rendered(world, job(cids)), Shape.TYPED):
        if entity == "message":
            expected = (world.message(fields["id"]) or {})["custom"]
            nested = fields.get("custom", {})
            flat = {key: fields[key] for key in expected if key in fields}
            assert expected == flat | nested
            places.add((bool(flat), bool(nested)))
    assert {(False, False), (True, False), (False, True), (True, True)} == places


def test_flags_reach_the_file(world: World) -> None:
    """Truncated messages and the text of deleted ones."""
    plain, whole, cleared = (
        ExportJob(cids=(SUPPORT,), shape=Shape.TYPED, flags=flags)
        for flags in (
            ExportFlags(),
            ExportFlags(include_truncated_messages=True),
            ExportFlags(clear_deleted_message_text=True),
        )
    )
    assert len(rendered(world, plain)) < len(rendered(world, whole))
    texts = [
        {
            fields["text"]
            for entity, fields in entities(rendered(world, which), Shape.TYPED)
            if fields.get("type") == "deleted"
        }
        for which in (plain, cleared)
    ]
    assert {""} == texts[1] != texts[0]


def test_each_channel_has_its_own_window(world: World) -> None:
    """The service takes a window per channel."""
    two_channels = ExportJob(
        shape=Shape.TYPED,
        cids=(SUPPORT, "messaging:rust"),
        windows=((DAY, DAY + timedelta(days=1)), (None, DAY)),
    )
    cids = {
        fields["cid"] for entity, fields in entities(rendered(world, two_channels), Shape.TYPED) if entity == "message"
    }
    assert {SUPPORT} == cids
    with pytest.raises(ValueError, match="do not fit"):
        ExportJob(cids=(SUPPORT,), windows=((None, None), (None, None)))


def test_a_gzip_file_has_the_same_content_and_always_the_same_bytes(world: World) -> None:
    """A download must be able to resume from a file that was compressed again."""
    zipped = rendered(world, job((SUPPORT,), gzip=True))
    assert rendered(world, job((SUPPORT,))) == gzip.decompress(zipped)
    assert zipped == rendered(world, job((SUPPORT,), gzip=True))


def test_a_file_comes_in_chunks(world: World) -> None:
    """A file larger than memory must be possible."""
    chunks = [len(chunk) for chunk in render_channels_export(world, ExportJob(cids=(SUPPORT,), shape=Shape.TYPED))]
    assert len(chunks) > 20
    assert max(chunks) < 1_000_000


# Users.


@pytest.mark.parametrize("shape", list(Shape))
def test_a_users_export_has_all_that_a_user_did(world: World, shape: Shape) -> None:
    """Each user of the request, with all of their messages and reactions, and no other user's."""
    user_ids = [member["user_id"] for member in world.members(SUPPORT)[:2]]
    content = b"".join(render_users_export(world, user_ids, shape=shape))
    if shape is Shape.CHANNEL:
        parts = [json.loads(line) for line in content.splitlines()]
        found = [("user", part["user"]) for part in parts]
        found += [("message", message) for part in parts for message in part["messages"]]
    else:
        found = list(entities(content, shape))
    assert user_ids == [fields["id"] for entity, fields in found if entity == "user"]
    expected = [message["id"] for user_id in user_ids for message in world.messages_of(user_id)]
    assert expected == [fields["id"] for entity, fields in found if entity == "message"]


def test_the_synchronous_export_of_one_user(world: World) -> None:
    """User and counts are null inside, as at the service; everything else is complete."""
    user_id = world.members(SUPPORT)[0]["user_id"]
    export = export_user(world, user_id)
    assert misfits(export["user"], "user") == []
    assert world.count_messages_of(user_id) == len(export["messages"]) > 0
    for message in export["messages"]:
        assert (message["user"], message["reaction_counts"]) == (None, None)
        assert message["cid"]
    assert all(reaction["user"] is None for reaction in export["reactions"])
    with pytest.raises(KeyError):
        export_user(world, "unknown")
