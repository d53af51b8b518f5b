"""What a file is taken for: channels or users, which shape, by id or as objects. And files that stay where they are."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from export_objects import AT, CID, Fields, channel, convert, encoded, input_file, line, member, message, reaction, user
from export_objects import write_lines as written

from airflow_provider_chatexport.core.entities import Entity, ExportKind, References, Shape
from airflow_provider_chatexport.core.options import MAX_LINE_BYTES
from airflow_provider_chatexport.lake.normalize.entities import ChannelContext
from airflow_provider_chatexport.lake.normalize.export_file import ExportReader
from airflow_provider_chatexport.lake.normalize.fast_path import normalize_in_place
from airflow_provider_chatexport.lake.normalize.user_exports import UsersEvidence
from airflow_provider_chatexport.lake.staging.conversion import Conversion
from airflow_provider_chatexport.lake.staging.stage import StagedFile

PLACE = {"channel_type": "messaging", "channel_id": "general"}
V1 = Path(__file__).resolve().parents[2] / "fixtures" / "v1-real-shape.json"


def named(fields: Fields, **others: Any) -> Fields:
    """A message or member with ids in place of its user and its channel."""
    return {**{key: value for key, value in fields.items() if key != "cid"}, **PLACE, "user": "u1", **others}


CHANNEL = line("channel", {"type": "messaging", "id": "general", "created_by": "u1"}, Shape.ITEM)
USER = line("user", user("u1"), Shape.ITEM)
MEMBER = line("member", named(member("u1")), Shape.ITEM)
MESSAGE = line("message", named(message()), Shape.ITEM)
ELSEWHERE = line("message", named(message("m2"), channel_id="elsewhere"), Shape.ITEM)
REACTION = line("reaction", {"message_id": "m1", "user_id": "u1", "type": "love", "created_at": AT}, Shape.ITEM)
DEVICE = line("device", {"id": "d1", "user_id": "u1"}, Shape.ITEM)


def staged(folder: Path, content: bytes, **facts: Any) -> StagedFile:
    path = folder / "export"
    path.write_bytes(content)
    with Conversion(folder / "work", load_id="load-1") as conversion:
        return conversion.add(input_file(path, **facts))


# Channels or users

NO_CHANNEL, DEVICES = UsersEvidence.NO_CHANNEL, UsersEvidence.DEVICES
OTHER_CHANNELS, WHOLE_USERS = UsersEvidence.OTHER_CHANNELS, UsersEvidence.WHOLE_USERS


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([CHANNEL, MEMBER, MESSAGE, REACTION], None),
        ([USER, CHANNEL, MEMBER, MESSAGE, REACTION], None),
        ([MEMBER, MESSAGE], None),
        ([USER, MEMBER], None),
        ([USER, MESSAGE], NO_CHANNEL),
        ([USER, REACTION], NO_CHANNEL),
        ([MESSAGE, b"{", USER], NO_CHANNEL),
        ([USER, MEMBER, MESSAGE], NO_CHANNEL),
        ([b"{", USER, MEMBER, MESSAGE], None),
        ([USER, DEVICE, MESSAGE], DEVICES),
        ([USER, CHANNEL, MEMBER, MESSAGE, DEVICE], DEVICES),
        ([USER, CHANNEL, MEMBER, MESSAGE, ELSEWHERE], OTHER_CHANNELS),
        ([ELSEWHERE, MESSAGE, CHANNEL, USER], OTHER_CHANNELS),
        ([USER, CHANNEL, MESSAGE, ELSEWHERE, b"{"], None),
        ([CHANNEL, MESSAGE, ELSEWHERE], None),
        ([encoded({"user": user("u1"), "messages": [message()], "reactions": []})], WHOLE_USERS),
    ],
)
def test_an_export_of_users_is_recognised_by_its_content(
    lines: list[bytes], expected: UsersEvidence | None, tmp_path: Path
) -> None:
    """As one of channels, it would hide what others wrote between its first message and its last."""
    found = staged(tmp_path, b"\n".join(lines))
    assert expected is found.evidence
    assert (found.kind is ExportKind.USERS) == (expected is not None)


def test_an_export_of_users_with_channels_has_its_rows_in_its_own_tables(tmp_path: Path) -> None:
    """Nothing of the first look at the file, as an export of channels, may be left."""
    path = written(tmp_path / "export", [USER, CHANNEL, MEMBER, MESSAGE, ELSEWHERE, REACTION])
    converted = convert(path, folder=tmp_path)
    rows = {name: len(of) for name, of in converted.rows.items() if of}
    assert {"user_export_users": 1, "user_export_messages": 2, "user_export_reactions": 1, "other_entities": 2} == rows
    assert [CID, "messaging:elsewhere"] == converted.column("user_export_messages", "cid")
    assert {"user": 1, "message": 2, "reaction": 1, "channel": 1, "member": 1} == converted.counts.entities


def test_what_the_receipt_says_goes_before_the_content(tmp_path: Path) -> None:
    """The service was asked for it."""
    content = b"\n".join([USER, MESSAGE, DEVICE])
    channels = staged(tmp_path, content, kind=ExportKind.CHANNELS)
    assert (ExportKind.CHANNELS, None) == (channels.kind, channels.evidence)
    users = staged(tmp_path, b"\n".join([CHANNEL, MESSAGE]), kind=ExportKind.USERS)
    assert (ExportKind.USERS, None) == (users.kind, users.evidence)


# Shape and references

BY_ID, OBJECTS = frozenset({References.ID}), frozenset({References.OBJECT})


@pytest.mark.parametrize(
    ("content", "shapes", "references"),
    [
        (b"\n".join([CHANNEL, MESSAGE]), {Shape.ITEM}, BY_ID),
        (line("message", message()), {Shape.TYPED}, OBJECTS),
        (line("message", message(), Shape.KEYED), {Shape.KEYED}, OBJECTS),
        (line("message", message(user="u1"), Shape.BARE), {Shape.BARE}, BY_ID),
        (encoded({"channel": channel(), "messages": [message()]}), {Shape.CHANNEL}, OBJECTS),
        (MESSAGE + b"\n" + line("message", message("m2")), {Shape.ITEM, Shape.TYPED}, BY_ID | OBJECTS),
        (encoded({"user": user("u1"), "messages": [message(user=None)]}), {Shape.CHANNEL}, frozenset()),
        (CHANNEL, {Shape.ITEM}, frozenset()),
    ],
)
def test_a_file_says_its_shape_and_references(
    content: bytes, shapes: set[Shape], references: frozenset[References], tmp_path: Path
) -> None:
    """The service documents neither, so a person who loads a file by hand wants to know."""
    found = staged(tmp_path, content)
    assert (shapes, references, False) == (found.shapes, found.references, found.is_array)


def test_the_facts_of_a_file_are_json(tmp_path: Path) -> None:
    """They are part of the load's record and its report."""
    expected = {
        "name": "x.json",
        "kind": "users",
        "evidence": "it has users and what they wrote, and no channel line",
        "array": True,
        "shapes": ["item"],
        "references": ["id"],
    }
    assert expected == json.loads(json.dumps(staged(tmp_path, b"[%b,%b]" % (USER, MESSAGE)).facts("x.json")))


# In place


@pytest.mark.parametrize(("shape", "key"), [(Shape.ITEM, "item"), (Shape.TYPED, "data")])
@pytest.mark.parametrize("packed", [False, True])
def test_messages_of_both_envelopes_stay_in_the_file(shape: Shape, key: str, packed: bool, tmp_path: Path) -> None:
    """Messages are most of a file, and writing them once more is a fifth of the time."""
    lines = [line("channel", channel(), shape), *(line("message", named(message(f"m{n}")), shape) for n in range(9))]
    lines.insert(4, line("reaction", reaction(), shape))
    content = b"\n".join(lines)
    path = tmp_path / "export"
    path.write_bytes(gzip.compress(content) if packed else content)
    normalized = normalize_in_place(ExportReader(path), tmp_path / "work", ChannelContext(MAX_LINE_BYTES))
    assert normalized is not None
    files = {file.entity: (file.in_place, file.n_objects) for file in normalized.files}
    assert {Entity.MESSAGE: (key, 9), Entity.CHANNEL: (None, 1), Entity.REACTION: (None, 1)} == files
    assert ({shape}, 11) == (normalized.shapes, normalized.lines)


@pytest.mark.parametrize("shape", [Shape.ITEM, Shape.TYPED])
def test_a_message_that_only_its_place_gives_a_channel_ends_the_fast_path(shape: Shape, tmp_path: Path) -> None:
    """The channel is known from the line before, which DuckDB cannot see."""
    placeless = {key: value for key, value in message("m2").items() if key != "cid"}
    path = written(tmp_path / "export", [line("channel", channel(), shape), line("message", placeless, shape), MESSAGE])
    assert {CID} == set(convert(path, folder=tmp_path).column("messages", "cid"))


@pytest.mark.parametrize("shape", [Shape.ITEM, Shape.TYPED])
def test_the_other_envelope_further_on_changes_no_row(shape: Shape, tmp_path: Path) -> None:
    """The first line decides what may stay in place, and the rest of the file need not be alike."""
    other = Shape.TYPED if shape is Shape.ITEM else Shape.ITEM
    lines = [line("message", named(message(f"m{n}")), shape if n < 5 else other) for n in range(9)]
    converted = convert(written(tmp_path / "export", lines), folder=tmp_path)
    assert [f"m{n}" for n in range(9)] == converted.column("messages", "id")


# v1 without its brackets


def test_elements_of_v1_load_without_their_brackets(tmp_path: Path) -> None:
    """The one public v1 file is an object by itself. People cut elements out of arrays, and print them."""
    (element,) = json.loads(V1.read_bytes())
    spread, one_line = json.dumps(element, indent=2), json.dumps(element)
    half_spread = '{"channel": ' + json.dumps(element["channel"], indent=1)
    half_spread += "".join(f',\n"{key}": {json.dumps(element[key])}' for key in ("messages", "members")) + "}"
    expected = convert(V1, folder=tmp_path)
    texts = [one_line, f"{one_line},", spread, f"{spread},", f"  \n{spread}", spread.replace("\n", "\r\n"), half_spread]
    texts += [f"{one_line},\n{one_line}", f"{spread},\n{spread}", f"{spread}\n{spread}"]
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.json"
        path.write_text(text, encoding="utf-8")
        converted = convert(path, folder=tmp_path)
        for name in ("messages", "channels", "members", "users", "rejects"):
            assert expected.rows[name] == converted.rows[name], (text[:40], name)
