"""Exports of users: into tables of their own, whichever shape they come in, and never among the channels' rows."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from export_objects import (
    AT,
    CID,
    EXPORTED_AT,
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
    user,
    write_lines,
)

from airflow_provider_chatexport.core.entities import ExportKind, Shape
from airflow_provider_chatexport.errors import InputError
from airflow_provider_chatexport.lake.schema.tables import TABLE_BY_ENTITY, USER_EXPORT_TABLE_BY_ENTITY

ENTITY_SHAPES = [Shape.TYPED, Shape.KEYED, Shape.BARE, Shape.ITEM]
OWN = ("user_export_users", "user_export_messages", "user_export_reactions")

USERS: list[Fields] = [user("u1", name="One", mood="blue"), user("u2")]
MESSAGES: dict[str, list[Fields]] = {
    "u1": [message("m1", attachments=[{"type": "image"}]), message("m2", cid="team:x", latest_reactions=[reaction()])],
    "u2": [message("m3", user={"id": "u2"}, priority=1)],
}
REACTIONS: dict[str, list[Fields]] = {"u1": [reaction("m3", "u1")], "u2": []}


def entities() -> list[tuple[str, Fields]]:
    return [
        each
        for person in USERS
        for each in (
            ("user", person),
            *(("message", fields) for fields in MESSAGES[person["id"]]),
            *(("reaction", fields) for fields in REACTIONS[person["id"]]),
        )
    ]


def elements(*, nameless: bool = False) -> list[Fields]:
    """As ``GET /users/{id}/export`` answers: there the author of each object is left out."""
    without = {"user": None} if nameless else {}
    return [
        {
            "user": person,
            "messages": [fields | without for fields in MESSAGES[person["id"]]],
            "reactions": [fields | without for fields in REACTIONS[person["id"]]],
            "duration": "1.87ms",
        }
        for person in USERS
    ]


def own_rows(converted: Converted) -> dict[str, list[Fields]]:
    return {name: converted.rows[name] for name in OWN}


def whose(converted: Converted, table: str) -> list[tuple[str, str]]:
    key = {"user_export_messages": "id", "user_export_reactions": "message_id", "user_export_users": "id"}[table]
    return [(row["export_user_id"], row[key]) for row in converted.rows[table]]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert_lines(tmp_path_factory.mktemp("users"), *(line(name, fields) for name, fields in entities()))


def test_users_messages_and_reactions_have_tables_of_their_own(expected: Converted) -> None:
    """What some users wrote must not be taken for what was written in a channel."""
    assert [("u1", "u1"), ("u2", "u2")] == whose(expected, "user_export_users")
    assert [("u1", "m1"), ("u1", "m2"), ("u2", "m3")] == whose(expected, "user_export_messages")
    assert [("u1", "m3")] == whose(expected, "user_export_reactions")
    assert {name for name, count in expected.counts.rows.items() if count} == set(OWN)
    assert set() == expected.named
    assert {"user": 2, "message": 3, "reaction": 1} == expected.counts.entities


def test_nothing_of_a_user_s_objects_is_lost(expected: Converted) -> None:
    """Attachments and others' reactions have no table here: they stay in the row, whole; custom fields as ever."""
    first, second, third = expected.rows["user_export_messages"]
    assert [{"type": "image"}] == json.loads(first["attachments"])
    assert ["u2"] == [each["user_id"] for each in json.loads(second["latest_reactions"])]
    assert ({"priority": 1}, "team:x", "team") == (json.loads(third["custom"]), second["cid"], second["channel_type"])
    assert ("One", {"mood": "blue"}) == (
        expected.rows["user_export_users"][0]["name"],
        json.loads(expected.rows["user_export_users"][0]["custom"]),
    )


@pytest.mark.parametrize("shape", ENTITY_SHAPES)
def test_every_line_shape_gives_the_same_rows(shape: Shape, expected: Converted, tmp_path: Path) -> None:
    """The line shape of users exports is not published either."""
    lines = [line(name, fields, shape) for name, fields in entities()]
    assert own_rows(expected) == own_rows(convert_lines(tmp_path, *lines))


@pytest.mark.parametrize("nameless", [False, True])
@pytest.mark.parametrize("as_array", [False, True])
def test_a_whole_user_in_one_object_gives_the_same_rows(
    nameless: bool, as_array: bool, expected: Converted, tmp_path: Path
) -> None:
    """The answer about one user, saved as it came, several to a file, or gathered into an array."""
    path = tmp_path / "users.json"
    path.write_bytes(
        encoded(elements(nameless=nameless))
        if as_array
        else b"\n".join(encoded(element) for element in elements(nameless=nameless))
    )
    converted = convert(path, folder=tmp_path)
    assert own_rows(expected) == own_rows(converted)
    assert expected.counts.entities == converted.counts.entities


@pytest.mark.parametrize("nameless", [False, True])
def test_a_user_s_line_may_be_longer_than_any_object(nameless: bool, expected: Converted, tmp_path: Path) -> None:
    lines = [encoded(element) for element in elements(nameless=nameless)]
    converted = convert_lines(tmp_path, *lines, max_line_bytes=len(lines[0]) - 1)
    assert own_rows(expected) == own_rows(converted)
    assert (expected.counts.entities, 2) == (converted.counts.entities, converted.counts.lines)


@pytest.mark.parametrize("limit", [500, 1_000_000])
@pytest.mark.parametrize("as_array", [False, True])
def test_what_comes_before_its_user_is_theirs(as_array: bool, limit: int, expected: Converted, tmp_path: Path) -> None:
    """Keys have no order, and the messages of one user may be many."""
    written = [dict(reversed(element.items())) for element in elements(nameless=True)]
    path = tmp_path / "users.json"
    path.write_bytes(encoded(written) if as_array else b"\n".join(map(encoded, written)))
    converted = convert(path, folder=tmp_path, max_line_bytes=limit)
    assert own_rows(expected) == own_rows(converted)


@pytest.mark.parametrize(
    "lost", [line("user", user("u2"))[:-3], b'{"user":[]}', line("user", user("u2", name="x" * 2000))]
)
def test_what_follows_a_user_who_is_lost_is_not_of_the_one_before(lost: bytes, tmp_path: Path) -> None:
    """It would pass for what another user wrote."""
    lines = [line("user", user("u1")), lost, line("message", message(user=None))]
    converted = convert_lines(tmp_path, *lines, max_line_bytes=2000, kind=ExportKind.USERS)
    assert [] == whose(converted, "user_export_messages")
    assert "message of none of the users exported" in converted.reasons


@pytest.mark.parametrize("author", [{}, {"user": None}])
def test_a_user_s_id_may_be_a_number(author: Fields, tmp_path: Path) -> None:
    """Regression: as in channels' exports, but all that such a user wrote was rejected."""
    person, wrote = user() | {"id": 7}, message("m1", **{"user": {"id": 7}, **author})
    converted = convert_lines(tmp_path, encoded({"user": person, "messages": [wrote]}))
    assert ([("7", "7")], [("7", "m1")]) == (
        whose(converted, "user_export_users"),
        whose(converted, "user_export_messages"),
    )
    assert 0 == converted.counts.rejected


def test_users_may_all_come_before_their_messages(expected: Converted, tmp_path: Path) -> None:
    """The import format has all users first: an author who was exported counts before the place in the file."""
    ordered = sorted(entities(), key=lambda each: ("user", "message", "reaction").index(each[0]))
    converted = convert_lines(tmp_path, *(line(name, fields) for name, fields in ordered))
    assert own_rows(expected) == own_rows(converted)


def test_what_another_wrote_belongs_to_the_export_that_it_stands_in(tmp_path: Path) -> None:
    """Else a message of u9 would look like the newest export of u9, and hide a real one."""
    lines = [line("user", user("u1")), line("message", message("m1", user={"id": "u9"}))]
    row = convert_lines(tmp_path, *lines).one("user_export_messages")
    assert ("u1", "u9") == (row["export_user_id"], row["user_id"])


def test_a_user_of_whom_there_is_no_line_is_known_from_the_request(tmp_path: Path) -> None:
    """The receipt says who was asked for; their row says which of their exports is the newest."""
    path = write_lines(tmp_path / "export", [line("message", message("m1", user={"id": "u7"}))])
    converted = convert(path, folder=tmp_path, kind=ExportKind.USERS, user_ids=("u7",))
    assert [("u7", "m1")] == whose(converted, "user_export_messages")
    assert ([("u7", "u7")], {"user_export_users": 1}) == (whose(converted, "user_export_users"), converted.counts.drawn)


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("message without id", ("message", message(id=None))),
        ("message of none of the users exported", ("message", message(user={"id": "u9"}))),
        ("reaction without type", ("reaction", reaction(kind=""))),
        ("user without id", ("user", user(id=""))),
    ],
)
def test_what_can_be_no_row_is_a_reject_with_the_reason(
    reason: str, fields: tuple[str, Fields], tmp_path: Path
) -> None:
    """The law of conservation holds here as well."""
    lines = [line(*fields), line("user", user("u1")), line("reaction", reaction("m3", "u1"))]
    converted = convert_lines(tmp_path, *lines)
    assert ([reason], 1, 3) == (converted.reasons, converted.counts.rejected, converted.counts.lines)


def test_other_entities_of_a_user_are_kept_whole(tmp_path: Path) -> None:
    """The service says that calls come with them; a membership here is of the user, and says nothing of its channel."""
    lines = [line("user", user("u1")), line("message", message()), line("call", {"id": "c"})]
    converted = convert_lines(tmp_path, *lines)
    assert (["call"], 1) == (converted.column("other_entities", "entity"), converted.counts.other_entities)
    path = write_lines(tmp_path / "stated", [*lines, line("member", member(cid=CID)), line("channel", channel())])
    converted = convert(path, folder=tmp_path, kind=ExportKind.USERS)
    assert ["call", "channel", "member"] == converted.column("other_entities", "entity")
    assert 0 == converted.counts.rows["channels"] + converted.counts.rows["members"]


@pytest.mark.parametrize(
    ("n_users", "lines"),
    [
        (1, [line("user", user("u1")), line("message", message())]),
        (1, [line("user", user("u1")), line("reaction", reaction(user_id="u1"))]),
        (1, [encoded({"user": user("u1"), "messages": [], "reactions": []})]),
        (1, [encoded({"user": user("u1"), "messages": None})]),
        (0, [line("user", user("u1"))]),
        (0, [line("user", user("u1")), line("channel", channel()), line("message", message())]),
        (0, [line("message", message())]),
        (0, [line("message", message(messages=[], reactions=[]), Shape.BARE)]),
        (0, [encoded({"channel": channel(), "messages": [message()], "users": [user("u1")]})]),
    ],
)
def test_a_file_is_known_by_what_it_holds(n_users: int, lines: list[bytes], tmp_path: Path) -> None:
    """A person who gives a file does not say which of the two exports it is."""
    assert n_users == convert_lines(tmp_path, *lines).counts.rows["user_export_users"]


def test_a_file_of_both_kinds_is_refused(tmp_path: Path) -> None:
    """Two files were joined: what the users wrote elsewhere would be taken for all that was written there."""
    with pytest.raises(InputError, match="export holds an export of channels and an export of users in one; nothing"):
        convert(
            write_lines(tmp_path / "export", [line("channel", channel()), *map(encoded, elements())]), folder=tmp_path
        )


def test_of_two_exports_of_a_user_the_newer_object_stays(tmp_path: Path) -> None:
    """Both in one load: one row per message, of the newer export."""
    older, newer = (
        write_lines(tmp_path / text, [line("user", user("u1")), line("message", message(text=text))])
        for text in ("old", "new")
    )
    moments = [EXPORTED_AT, EXPORTED_AT + timedelta(hours=1)]
    converted = convert(older, newer, folder=tmp_path, exported_at=moments)
    assert ("new", 2) == (converted.one("user_export_messages")["text"], converted.counts.duplicates)


def test_a_channel_export_and_a_users_export_may_be_one_load(tmp_path: Path) -> None:
    """Each file goes to its own tables."""
    of_users = write_lines(tmp_path / "users", [line(name, fields) for name, fields in entities()])
    of_channels = write_lines(tmp_path / "channels", [line("channel", channel()), line("message", message("m9"))])
    converted = convert(of_users, of_channels, folder=tmp_path)
    assert (["m9"], 3) == (converted.column("messages", "id"), converted.counts.rows["user_export_messages"])
    assert ["u1"] == converted.column("users", "id")
    assert {CID} == converted.named


def test_the_tables_have_every_column_of_those_of_channels() -> None:
    """A reader who knows one knows the other; a column added to one is in both."""
    for entity, table in USER_EXPORT_TABLE_BY_ENTITY.items():
        names = {column.name for column in TABLE_BY_ENTITY[entity]}
        of_channels = {"message_created_at", "reactions_missing", "replies_missing"}
        assert names - of_channels <= {column.name for column in table}


def test_a_time_that_is_none_does_not_cost_the_row(tmp_path: Path) -> None:
    """Nothing here is placed by its time."""
    lines = [line("user", user("u1")), line("message", message(created_at="never", updated_at=AT))]
    row = convert_lines(tmp_path, *lines).one("user_export_messages")
    assert (None, '{"created_at":"never"}') == (row["created_at"], row["custom"])


def test_a_number_of_any_size_and_a_lone_surrogate_come_through(tmp_path: Path) -> None:
    """The same care as for channels: values are never decoded on their way."""
    raw = line("message", message(text="@")).replace(b'"@"', rb'"\ud83d","big":123456789012345678901234567890')
    row: dict[str, Any] = convert_lines(tmp_path, line("user", user("u1")), raw).one("user_export_messages")
    assert ("\ufffd", '{"big":123456789012345678901234567890}') == (row["text"], row["custom"])
