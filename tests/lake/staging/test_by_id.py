"""Exports that name everything by id, as the service most likely writes them: every key reaches its column."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from effort import examples
from export_objects import (
    AT,
    CID,
    Converted,
    Fields,
    channel,
    convert,
    convert_lines,
    encoded,
    line,
    member,
    message,
    reaction,
    read,
    user,
    write_lines,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_chatexport.core.entities import ExportKind, Shape

CHANNELS, USERS = ExportKind.CHANNELS, ExportKind.USERS
MOMENT = datetime(2026, 1, 1, 10, tzinfo=UTC)
LATER = "2026-01-01T11:00:00Z"
PLACE = {"channel_type": "messaging", "channel_id": "general"}
ENVELOPES = [Shape.ITEM, Shape.TYPED, Shape.KEYED, Shape.BARE]

# The structs of the service's old importer, and what its one public reader expects (``docs/service.md``).
USER = {
    "id": "u1", "role": "user", "invisible": False, "created_at": AT, "updated_at": AT, "deleted_at": None,
    "deactivated_at": LATER, "language": "en", "teams": ["red"], "channel_mutes": [{"channel": "x"}], "user_mutes": [],
    "push_notifications": {"disabled": False}, "name": "Ann", "birthland": "BE",
}  # fmt: skip
CHANNEL = {
    "id": "general", "type": "messaging", "member_ids": ["u1", "u2"], "created_by": "u1", "frozen": False,
    "created_at": AT, "updated_at": AT, "last_message_at": LATER, "team": "red", "topic": "all",
}  # fmt: skip
MEMBER = {
    **PLACE, "user_id": "u1", "is_moderator": True, "invited": False, "last_read": LATER, "created_at": AT,
    "invite_accepted_at": AT, "invite_rejected_at": None, "hide_channel": True, "hide_messages_before": AT,
    "channel_role": "channel_member", "archived_at": LATER, "status": "member", "seat": 3,
}  # fmt: skip
MESSAGE = {
    "id": "m1", "parent_id": "m0", **PLACE, "text": "Hi", "html": "<p>Hi</p>", "attachments": [{"type": "image"}],
    "user": "u1", "type": "reply", "show_in_channel": True, "created_at": AT, "updated_at": LATER, "deleted_at": None,
    "mentioned_users_ids": ["u2", "u3"], "quoted_message_id": "m2", "pinned_at": LATER, "pinned_by_id": "u2",
    "pin_expires": None, "deleted_reply_count": 1, "reaction_groups": {"love": {"count": 3}}, "status": "received",
    "member": {"channel_role": "channel_member"}, "client": "ios",
}  # fmt: skip
REACTION = {"message_id": "m1", "type": "love", "user_id": "u2", "created_at": AT, "device": "web"}
OBJECTS: list[tuple[str, Fields]] = [
    ("user", USER),
    ("channel", CHANNEL),
    ("member", MEMBER),
    ("message", MESSAGE),
    ("reaction", REACTION),
]
GOLDEN: dict[str, Fields] = {
    "users": {
        "id": "u1", "role": "user", "invisible": False, "created_at": MOMENT, "updated_at": MOMENT,
        "deactivated_at": MOMENT + timedelta(hours=1), "language": "en", "teams": ["red"],
        "channel_mutes": '[{"channel":"x"}]', "user_mutes": "[]", "push_notifications": '{"disabled":false}',
        "name": "Ann", "custom": '{"birthland":"BE"}',
    },
    "channels": {
        "cid": CID, "id": "general", "type": "messaging", "member_ids": ["u1", "u2"], "created_by_id": "u1",
        "frozen": False, "created_at": MOMENT, "updated_at": MOMENT, "last_message_at": MOMENT + timedelta(hours=1),
        "team": "red", "custom": '{"topic":"all"}',
    },
    "members": {
        "cid": CID, "user_id": "u1", "is_moderator": True, "invited": False, "created_at": MOMENT,
        "invite_accepted_at": MOMENT, "hide_channel": True, "hide_messages_before": MOMENT,
        "channel_role": "channel_member", "archived_at": MOMENT + timedelta(hours=1), "status": "member",
        "custom": '{"seat":3}',
    },
    "reads": {"cid": CID, "user_id": "u1", "last_read": MOMENT + timedelta(hours=1), "custom": "{}"},
    "messages": {
        "id": "m1", "parent_id": "m0", "cid": CID, **PLACE, "text": "Hi", "html": "<p>Hi</p>", "attachment_count": 1,
        "user_id": "u1", "type": "reply", "show_in_channel": True, "created_at": MOMENT,
        "updated_at": MOMENT + timedelta(hours=1), "mentioned_user_ids": ["u2", "u3"], "quoted_message_id": "m2",
        "pinned_at": MOMENT + timedelta(hours=1), "pinned_by_id": "u2", "deleted_reply_count": 1,
        "reaction_groups": '{"love":{"count":3}}', "reaction_counts": '{"love":3}', "pinned": True,
        "reactions_missing": 2, "status": "received",
        "member": '{"channel_role":"channel_member"}', "custom": '{"client":"ios"}',
    },
    "attachments": {
        "message_id": "m1", "cid": CID, "position": 0, "type": "image", "message_created_at": MOMENT, "custom": "{}"
    },
    "reactions": {
        "message_id": "m1", "cid": CID, "user_id": "u2", "type": "love", "created_at": MOMENT,
        "message_created_at": MOMENT, "custom": '{"device":"web"}',
    },
}  # fmt: skip


def stored(row: Fields) -> Fields:
    """A row without nulls and without where it comes from."""
    return {name: value for name, value in row.items() if value is not None and not name.startswith("_")}


@pytest.mark.parametrize("shape", ENVELOPES)
def test_every_key_of_every_object_reaches_its_column(shape: Shape, tmp_path: Path) -> None:
    """Whatever the envelope is. Nothing that has a column may be left in custom, where no query looks for it."""
    converted = convert_lines(tmp_path, *(line(name, fields, shape) for name, fields in OBJECTS), kind=CHANNELS)
    rows = {name: stored(of[0]) for name, of in converted.rows.items() if of}
    assert GOLDEN == rows
    assert {1} == {len(of) for of in converted.rows.values() if of}
    assert ({}, 5) == (converted.counts.cast_failures, converted.counts.lines)
    assert {"reads": 1, "attachments": 1} == converted.counts.drawn


@pytest.mark.parametrize("shape", [Shape.ITEM, Shape.KEYED])
def test_an_export_of_users_has_the_same_columns(shape: Shape, tmp_path: Path) -> None:
    """Their messages are of any channel, so a row without its channel is of little use."""
    lines = [line(name, fields, shape) for name, fields in OBJECTS if name != "channel"]
    converted = convert_lines(tmp_path, *lines, kind=USERS)
    (row,) = converted.rows["user_export_messages"]
    not_there = {"reactions_missing", "attachment_count"}
    expected = {name: value for name, value in GOLDEN["messages"].items() if name not in not_there}
    assert expected == {name: value for name, value in stored(row).items() if name in expected}
    assert CID == converted.one("user_export_reactions")["cid"]
    assert {"user": 1, "member": 1, "message": 1, "reaction": 1} == converted.counts.entities
    assert [("member", CID)] == [(row["entity"], row["cid"]) for row in converted.rows["other_entities"]]


# References, independent of the envelope


def by_id(name: str, fields: Fields) -> Fields:
    """The same object with ids in place of users and channels."""
    named = dict(fields)
    cid = named.pop("cid", None)
    if cid is not None and name != "channel":
        named["channel_type"], _, named["channel_id"] = cid.partition(":")
    for key in ("user", "created_by"):
        if isinstance(named.get(key), dict):
            named[key] = named[key]["id"]
    if "mentioned_users" in named:
        named["mentioned_users_ids"] = [each["id"] for each in named.pop("mentioned_users")]
    if "pinned_by" in named:
        named["pinned_by_id"] = named.pop("pinned_by")["id"]
    return named


people = st.sampled_from(["u1", "u2", "ü 3"])
cids = st.sampled_from([CID, "team:a:b", "messaging:!members-x"])
times = st.sampled_from([AT, LATER, "2025-12-31T23:59:59.5Z"])
objects = st.one_of(
    st.builds(
        lambda number, who, mentioned, **others: (
            "message",
            message(
                f"m{number}",
                user={"id": who},
                mentioned_users=[{"id": each} for each in mentioned],
                pinned_by={"id": who},
                **others,
            ),
        ),
        number=st.integers(0, 4),
        who=people,
        mentioned=st.lists(people, max_size=2, unique=True),
        cid=cids,
        created_at=times,
        updated_at=times,
    ),
    st.builds(
        lambda number, who, at: ("reaction", reaction(f"m{number}", who, created_at=at)),
        number=st.integers(0, 5),
        who=people,
        at=times,
    ),
    st.builds(lambda who, cid: ("member", member(who, cid=cid)), who=people, cid=cids),
    st.builds(lambda who, cid: ("channel", channel(cid, created_by={"id": who})), who=people, cid=cids),
)


def loaded(lines: list[bytes]) -> Converted:
    with tempfile.TemporaryDirectory() as folder:
        return convert_lines(Path(folder), *lines)


@given(
    st.lists(
        st.tuples(objects, st.sampled_from(ENVELOPES), st.booleans()),
        min_size=1,
        max_size=10,
    )
)
@settings(max_examples=examples(8), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_envelope_and_references_change_no_row(chosen: list[tuple[tuple[str, Fields], Shape, bool]]) -> None:
    """Any mix of envelopes and references gives the rows and counts that typed lines with objects give."""
    first = ("channel", channel())
    expected = loaded([line(*each) for each in (first, *(each for each, _, _ in chosen))])
    mixed = [line("channel", by_id(*first), Shape.ITEM)]
    mixed += [line(name, by_id(name, fields) if ids else fields, shape) for (name, fields), shape, ids in chosen]
    found = loaded(mixed)
    counts = expected.counts
    n_in = sum(counts.entities.values())
    n_rows = sum(counts.rows[name] for name in ("messages", "reactions", "channels", "members"))
    assert n_in == n_rows + counts.duplicates
    # Without objects there are no users to draw rows from.
    for converted in (expected, found):
        converted.rows.pop("users")
        for of in (converted.counts.rows, converted.counts.drawn):
            of.pop("users", None)
    assert expected.rows == found.rows
    assert counts == found.counts


def test_users_are_still_gathered_from_the_objects_among_ids(tmp_path: Path) -> None:
    """A file that starts by id is scanned for users if any message has one, wherever it stands in the message."""
    lines = [
        line("channel", CHANNEL, Shape.ITEM),
        *(line("message", {**MESSAGE, "id": f"m{n}"}, Shape.ITEM) for n in range(3)),
        line("message", {**MESSAGE, "id": "m3", "member": {"user": {"id": "inside"}}}, Shape.ITEM),
        line("message", {**MESSAGE, "id": "m4", "mentioned_users": [{"id": "listed"}]}, Shape.ITEM),
        line("message", {**MESSAGE, "id": "m5"}, Shape.ITEM).replace(
            b'"member":{', b'"member":{"us\\u0065r":{"id":"e"},'
        ),
    ]
    assert ["e", "inside", "listed"] == sorted(convert_lines(tmp_path, *lines).column("users", "id"))


# The channel


def channels_and_custom(converted: Converted) -> dict[str, tuple[str, Fields]]:
    rows = converted.rows["messages"]
    for row in rows:
        assert row["cid"] == f"{row['channel_type']}:{row['channel_id']}"
    return {row["id"]: (row["cid"], json.loads(row["custom"])) for row in rows}


@pytest.mark.parametrize("shape", [Shape.ITEM, Shape.KEYED])
def test_a_message_names_its_channel_in_any_of_the_known_ways(shape: Shape, tmp_path: Path) -> None:
    """The columns always say one channel; what contradicts it is kept in custom."""
    plain = {key: value for key, value in message().items() if key not in ("cid", "id")}
    cases: dict[str, tuple[Fields, str, Fields]] = {
        "pair": ({"channel_type": "team", "channel_id": "x:y"}, "team:x:y", {}),
        "channel_cid": ({"channel_cid": "team:a"}, "team:a", {}),
        "cid first": ({"cid": "a:b", "channel_cid": "a:b", "channel_type": "a", "channel_id": "b"}, "a:b", {}),
        "half a pair": ({"channel_type": "team"}, CID, {"channel_type": "team"}),
        "empty": ({"cid": "", "channel_type": "team", "channel_id": ""}, CID, {"channel_type": "team"}),
        "null": ({"cid": None, "channel_type": "team", "channel_id": "x"}, "team:x", {}),
        "number": ({"channel_type": "team", "channel_id": 5}, "team:5", {}),
        "contradiction": (
            {"cid": "a:b", "channel_cid": "a:c", "channel_type": "d", "channel_id": "e"},
            "a:b",
            {"channel_cid": "a:c", "channel_type": "d", "channel_id": "e"},
        ),
    }
    lines = [line("message", {"id": name, **plain, **fields}, shape) for name, (fields, _, _) in cases.items()]
    found = channels_and_custom(convert_lines(tmp_path, line("channel", CHANNEL, shape), *lines))
    assert {name: (cid, custom) for name, (_, cid, custom) in cases.items()} == found


def test_a_reaction_that_names_its_channel_keeps_it_without_its_message(tmp_path: Path) -> None:
    """Reactions to messages of another window are rows of their channel, too."""
    lines = [
        line("channel", CHANNEL, Shape.ITEM),
        line("reaction", {**REACTION, **PLACE, "channel_id": "x"}, Shape.ITEM),
    ]
    row = convert_lines(tmp_path, *lines).one("reactions")
    assert ("messaging:x", '{"device":"web"}') == (row["cid"], row["custom"])


# Lists of ids


def test_ids_are_read_from_lists_of_ids_and_of_objects(tmp_path: Path) -> None:
    """A list may have both kinds; what is neither stays in custom, and so do ids that the other list lacks."""
    cases: dict[str, tuple[Fields, list[str] | None, Fields]] = {
        "ids": ({"mentioned_users_ids": ["u1", "u2"]}, ["u1", "u2"], {}),
        "ids as users": ({"mentioned_users": ["u1"]}, ["u1"], {}),
        "both kinds": ({"mentioned_users": ["u1", {"id": "u2"}]}, ["u1", "u2"], {}),
        "both lists": (
            {"mentioned_users": [{"id": "u1"}, {"id": "u2"}], "mentioned_users_ids": ["u2"]},
            ["u1", "u2"],
            {},
        ),
        "an empty one": ({"mentioned_users": [], "mentioned_users_ids": ["u2"]}, ["u2"], {}),
        "null": ({"mentioned_users": None, "mentioned_users_ids": ["u2"]}, ["u2"], {}),
        "both empty": ({"mentioned_users": [], "mentioned_users_ids": []}, [], {}),
        "neither": ({}, None, {}),
        "contradiction": (
            {"mentioned_users": [{"id": "u1"}], "mentioned_users_ids": ["u2"]},
            ["u1"],
            {"mentioned_users_ids": ["u2"]},
        ),
        "a number": ({"mentioned_users_ids": ["u1", 5]}, ["u1", "5"], {}),
        "no ids": ({"mentioned_users_ids": ["u1", True, None]}, ["u1"], {"mentioned_users_ids": ["u1", True, None]}),
        "no list": ({"mentioned_users_ids": {"u1": True}}, [], {"mentioned_users_ids": {"u1": True}}),
    }
    lines = [line("message", message(name, **fields)) for name, (fields, _, _) in cases.items()]
    rows = convert_lines(tmp_path, *lines).rows["messages"]
    found = {row["id"]: (row["mentioned_user_ids"], json.loads(row["custom"])) for row in rows}
    assert {name: (ids, custom) for name, (_, ids, custom) in cases.items()} == found


def test_replies_name_their_participants_by_id(tmp_path: Path) -> None:
    """As objects or as ids."""
    lines = [
        line("message", message("a", thread_participants=["u1"])),
        line("message", message("b", thread_participants=[{"id": "u2"}])),
    ]
    assert [["u1"], ["u2"]] == convert_lines(tmp_path, *lines).column("messages", "thread_participant_ids")


# Reads


def test_what_a_member_has_read_is_a_row_of_reads_unless_there_is_one(tmp_path: Path) -> None:
    """A line of its own knows more, such as the unread messages; a member without a time has read nothing."""
    lines = [
        line("channel", channel(members=[member("u4", last_read=AT)])),
        *(line("member", member(name, last_read=LATER)) for name in ("u1", "u2")),
        line("member", member("u3", last_read=None)),
        line("member", member("u5", last_read="never")),
        line("read", read("u1", last_read=AT)),
    ]
    converted = convert_lines(tmp_path, *lines)
    reads = {row["user_id"]: (row["last_read"], row["unread_messages"]) for row in converted.rows["reads"]}
    assert {"u1": (MOMENT, 3), "u2": (MOMENT + timedelta(hours=1), None), "u4": (MOMENT, None)} == reads
    assert ["{}", "{}", "{}", "{}", '{"last_read":"never"}'] == [row["custom"] for row in converted.rows["members"]]
    assert {"members.last_read": 1} == converted.counts.cast_failures


def test_a_newer_member_replaces_an_older_line_of_reads(tmp_path: Path) -> None:
    """Two exports in one load: the newer one decides, whichever form it has."""
    old = write_lines(tmp_path / "old", [line("channel", channel()), line("read", read("u1", last_read=AT))])
    new = write_lines(tmp_path / "new", [line("channel", CHANNEL, Shape.ITEM), line("member", MEMBER, Shape.ITEM)])
    exported_at = [datetime(2026, 1, day, tzinfo=UTC) for day in (2, 3)]
    row = convert(old, new, folder=tmp_path, exported_at=exported_at).one("reads")
    assert MOMENT + timedelta(hours=1) == row["last_read"]


# What an export lacks


def test_a_message_says_how_many_replies_the_load_lacks(tmp_path: Path) -> None:
    """It is not known whether an export contains replies; deleted ones are not in the count."""
    lines = [
        line("message", message("a", reply_count=3)),
        line("message", message("b", reply_count=1)),
        line("message", message("c")),
        line("message", message("a1", parent_id="a", reply_count=0)),
        line("message", message("a2", parent_id="a", deleted_at=AT)),
        line("message", message("b1", parent_id="b")),
    ]
    rows = convert_lines(tmp_path, *lines).rows["messages"]
    assert {"a": 2, "b": 0, "c": None, "a1": 0, "a2": None, "b1": None} == {
        row["id"]: row["replies_missing"] for row in rows
    }


# Links


def test_an_attachment_says_when_its_links_end(tmp_path: Path) -> None:
    """Links of the service die after 14 days: a reader has to know which are still worth fetching."""
    cases: list[tuple[Fields, datetime | None]] = [
        ({"image_url": "https://cdn/x.png?a=1&Expires=1767261600&Signature=x"}, MOMENT),
        ({"asset_url": "https://cdn/x?Expires=1767261600"}, MOMENT),
        ({"thumb_url": "https://cdn/x?Expires=1767265200", "image_url": "https://cdn/x?Expires=1767261600#y"}, MOMENT),
        ({"asset_url": "https://s3/x?X-Amz-Date=20260101T090000Z&X-Amz-Expires=3600&X-Amz-Signature=x"}, MOMENT),
        ({"asset_url": "https://s3/x?X-Amz-Date=20261301T090000Z&X-Amz-Expires=3600"}, None),
        ({"asset_url": "https://s3/x?X-Amz-Date=99991231T235959Z&X-Amz-Expires=3600"}, None),
        ({"asset_url": "https://s3/x?X-Amz-Expires=3600"}, None),
        ({"image_url": "https://cdn/x.png"}, None),
        ({"image_url": "https://cdn/Expires=1767261600"}, None),
        ({"image_url": "https://cdn/x?NoExpires=1767261600"}, None),
        ({"image_url": "https://cdn/x?Expires=never"}, None),
        ({"image_url": "https://cdn/x?Expires=999999999999999999999"}, None),
        ({"title_link": "https://elsewhere/x?Expires=1767261600"}, None),
        ({"image_url": None}, None),
    ]
    converted = convert_lines(tmp_path, line("message", message(attachments=[links for links, _ in cases])))
    assert [expected for _, expected in cases] == converted.column("attachments", "url_expires_at")


# Rejects


def test_an_object_by_id_that_lacks_an_id_is_a_reject_with_the_reason(tmp_path: Path) -> None:
    """Each line is kept as it stands."""

    def without(fields: Fields, *keys: str, **others: Any) -> Fields:
        return {key: value for key, value in fields.items() if key not in keys} | others

    cases: list[tuple[str, Fields, str]] = [
        ("channel", without(CHANNEL, "id"), "channel without channel"),
        ("message", without(MESSAGE, "id"), "message without id"),
        ("message", without(MESSAGE, "channel_id"), "message without channel"),
        ("message", without(MESSAGE, "channel_type", channel_id=""), "message without channel"),
        (
            "message",
            without(MESSAGE, created_at="never"),
            "message without a created_at that is a time: it is not RFC3339 text",
        ),
        ("reaction", without(REACTION, "user_id"), "reaction without user_id"),
        ("reaction", without(REACTION, message_id=None), "reaction without message_id"),
        ("member", without(MEMBER, "user_id"), "member without user_id"),
        ("member", without(MEMBER, "channel_type"), "member without channel"),
        ("user", without(USER, "id"), "user without id"),
    ]
    lines = [line(name, fields, Shape.ITEM) for name, fields, _ in cases]
    whole = line("message", MESSAGE, Shape.ITEM)
    converted = convert_lines(tmp_path, *lines, whole, kind=CHANNELS)
    rejects = {row["line_number"]: (row["reason"], row["raw"].encode()) for row in converted.rows["rejects"]}
    assert {n: (reason, raw) for n, ((_, _, reason), raw) in enumerate(zip(cases, lines, strict=True), 1)} == rejects
    assert ["m1"] == converted.column("messages", "id")


def test_a_channel_and_its_lists_may_be_by_id(tmp_path: Path) -> None:
    """The shape of whole channels has its objects by id as well."""
    element = {"channel": CHANNEL, "messages": [MESSAGE], "members": [MEMBER], "reactions": [REACTION]}
    converted = convert_lines(tmp_path, encoded(element))
    for name in ("channels", "members", "reads", "messages", "reactions", "attachments"):
        assert GOLDEN[name] == stored(converted.one(name))


def test_users_by_themselves_stay_users(tmp_path: Path) -> None:
    """A channel export with ``export_users`` has its people in lines of their own."""
    lines = [
        line("user", user("u9", name="Zoe"), Shape.ITEM),
        *(line(name, fields, Shape.ITEM) for name, fields in OBJECTS),
    ]
    converted = convert_lines(tmp_path, *lines)
    assert [("u1", "Ann"), ("u9", "Zoe")] == [(row["id"], row["name"]) for row in converted.rows["users"]]
