"""Identity: keys that stand twice, ids that are empty or broken, and the order of keys, on both routes.

A file of typed messages and reactions alone takes the fast path. A line of another shape in it has all lines
normalized, so every case comes with and without such a line.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from export_objects import (
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
    user,
)

from airflow_provider_chatexport.core.entities import ExportKind, Shape

ENVELOPES = [Shape.ITEM, Shape.TYPED, Shape.KEYED, Shape.BARE]
ADA = {"id": "ada", "name": "Ada"}

# Each as it stands in the object of a message, and the reason; None: the message is a row.
DOUBLED: dict[str, tuple[bytes, str | None]] = {
    "id": (b'"id":"other"', 'the key "id" stands twice'),
    "own": (b'"mood":1,"mood":2', "a key of the app's own stands twice"),
    "escaped": (b'"parent_id":"a","p\\u0061rent_id":"b"', 'the key "parent_id" stands twice'),
    "user": (b'"pinned_by":{"id":"a","id":"b"}', 'the key "id" stands twice in "pinned_by"'),
    "mention": (
        b'"mentioned_users":[{"id":"a","name":"x","name":"y"}]',
        'the key "name" stands twice in "mentioned_users"',
    ),
    "attachment": (b'"attachments":[{"type":"a","type":"b"}]', 'the key "type" stands twice in "attachments"'),
    "quoted": (b'"quoted_message":{"id":"a","id":"b"}', 'the key "id" stands twice in "quoted_message"'),
    "reacting": (
        b'"latest_reactions":[{"type":"a","user":{"id":"a","id":"b"}}]',
        'the key "id" stands twice in "latest_reactions"',
    ),
    "kept": (b'"mood":{"a":1,"a":2}', None),
}  # fmt: skip


def with_member(fields: Fields, raw: bytes) -> bytes:
    """Return an object with another member, which may repeat a key."""
    return encoded(fields)[:-1] + b"," + raw + b"}"


def wrapped(payload: bytes, shape: Shape) -> bytes:
    return line("message", {"@": 0}, shape).replace(b'{"@":0}', payload)


def assert_rejects(converted: Converted, cases: dict[int, tuple[str, bytes]]) -> None:
    """Compare rejects with the names of cases, by line; what is a reject leaves no user behind."""
    expected = [
        (number, f"message: {DOUBLED[name][1]}", raw.decode())
        for number, (name, raw) in cases.items()
        if DOUBLED[name][1] is not None
    ]
    assert expected == [(row["line_number"], row["reason"], row["raw"]) for row in converted.rows["rejects"]]
    assert ["u1"] == converted.column("users", "id")
    if "kept" in (name for name, _ in cases.values()):
        assert '{"mood":{"a":1,"a":2}}' in converted.column("messages", "custom")


@pytest.mark.parametrize("name", DOUBLED)
def test_a_key_twice_in_a_message_in_place_is_a_reject_that_names_it(name: str, tmp_path: Path) -> None:
    """Each case alone: the first that is found has the whole file normalized."""
    lines = [line("message", message(f"m{n}"), Shape.ITEM) for n in range(3)]
    raw = wrapped(with_member(message(name), DOUBLED[name][0]), Shape.ITEM)
    converted = convert_lines(tmp_path, *lines, raw)
    assert_rejects(converted, {4: (name, raw)})
    assert 4 == converted.counts.entities["message"]


@pytest.mark.parametrize("shape", ENVELOPES)
def test_a_key_twice_is_a_reject_that_names_it(shape: Shape, tmp_path: Path) -> None:
    """Readers of JSON take the first value or the last; which of them is right, the file does not say."""
    named = {name: wrapped(with_member(message(name), raw), shape) for name, (raw, _) in DOUBLED.items()}
    converted = convert_lines(tmp_path, *named.values(), line("message", message("usual"), Shape.KEYED))
    assert_rejects(converted, dict(enumerate(named.items(), 1)))
    assert len(named) + 1 == converted.counts.entities["message"]


def test_a_member_of_a_channel_with_a_key_twice_rejects_the_object_that_has_it(tmp_path: Path) -> None:
    """In every place that an object may have in a channel's line or in an array."""
    doubled = encoded(member("u3"))[:-1] + b',"user_id":"u4"}'
    element = b'{"channel":%b,"members":[%b,%b]}' % (encoded(channel()), encoded(member("u2")), doubled)
    for number, content in enumerate((element, b"[%b]" % element)):
        path = tmp_path / str(number)
        path.write_bytes(content)
        converted = convert(path, folder=tmp_path)
        assert ["u2"] == converted.column("members", "user_id")
        assert ['member: the key "user_id" stands twice'] == converted.reasons
        assert doubled.decode() == converted.one("rejects")["raw"]


@pytest.mark.parametrize("shape", ENVELOPES)
def test_ids_with_half_a_character_are_rejects_and_texts_lose_nothing_else(shape: Shape, tmp_path: Path) -> None:
    """Replaced by the same character, two ids would be equal, and one of the two messages would be gone."""
    broken: list[Fields] = [
        message("@"),
        message("a", user={"id": "@"}),
        message("b", user="@"),
        message("c", cid="team:@"),
        message("d", parent_id="@"),
        message("e", quoted_message_id="@"),
        message("f", mentioned_users=[{"id": "@"}]),
        message("g", mentioned_users_ids=["@"]),
        message("h", quoted_message={"id": "x", "user": {"id": "@"}}),
    ]
    whole = [message("t", text="x @ y", custom_key="@"), message("u", user={"id": "u9", "name": "@"})]
    ends = {n: b"\\ud8%02x" % n for n in range(len(broken) + len(whole))}
    lines = [line("message", fields, shape).replace(b"@", ends[n]) for n, fields in enumerate([*broken, *whole])]
    converted = convert_lines(tmp_path, *lines)
    assert {"t": "x \ufffd y", "u": "text of u"} == converted.by_id("messages", "text")
    assert {"custom_key": "\ufffd"} == json.loads(converted.by_id("messages", "custom")["t"])
    assert {"u1", "u9"} == set(converted.column("users", "id"))
    assert [raw.decode() for raw in lines[: len(broken)]] == converted.column("rejects", "raw")
    assert all("half a character" in reason for reason in converted.reasons)


EMPTY: dict[str, tuple[Fields, Fields]] = {
    "user as well": ({"user_id": "", "user": ADA}, {"user_id": "ada"}),
    "user_id as well": ({"user_id": "ada", "user": {"name": "", "id": ""}}, {"user_id": "ada"}),
    "user_id and an empty user": ({"user_id": "ada", "user": ""}, {"user_id": "ada"}),
    "no user": ({"user_id": "", "user": {"name": "x", "id": ""}}, {"user_id": None}),
    "parent": ({"parent_id": ""}, {"parent_id": None}),
    "quoted": ({"quoted_message_id": "", "quoted_message": {"id": "q"}}, {"quoted_message_id": "q"}),
    "quoted none": ({"quoted_message_id": "", "quoted_message": {"text": "", "id": ""}}, {"quoted_message_id": None}),
    "pinned": ({"pinned_by_id": "", "pinned_by": ADA}, {"pinned_by_id": "ada"}),
    "poll": ({"poll_id": ""}, {"poll_id": None}),
    "mentioned": ({"mentioned_users": [{"name": "x", "id": ""}, ADA]}, {"mentioned_user_ids": ["ada"]}),
    "mentioned mixed": ({"mentioned_users": [ADA, "bob"]}, {"mentioned_user_ids": ["ada", "bob"]}),
}  # fmt: skip


@pytest.mark.parametrize("shapes", [(Shape.ITEM,), (Shape.KEYED, Shape.BARE, Shape.TYPED)])
def test_an_empty_id_is_no_id_and_hides_no_other(shapes: tuple[Shape, ...], tmp_path: Path) -> None:
    """Go writes a text that is not set as an empty one: joined by it, all such rows would belong together."""
    lines = [
        line("message", message(f"{name} {shape}", **fields), shape)
        for shape in shapes
        for name, (fields, _) in EMPTY.items()
    ]
    rows = {row["id"]: row for row in convert_lines(tmp_path, *lines).rows["messages"]}
    for shape in shapes:
        for name, (_, expected) in EMPTY.items():
            assert expected == {key: rows[f"{name} {shape}"][key] for key in expected}, name


# What stands where an id belongs: the column, and what stays in ``custom``.
NO_IDS: dict[str, tuple[Fields, Fields, Fields]] = {
    "flag": ({"user_id": True}, {"user_id": None}, {"user_id": True}),
    "list": ({"user_id": ["ada"]}, {"user_id": None}, {"user_id": ["ada"]}),
    "object with an id": ({"user_id": ADA}, {"user_id": "ada"}, {}),
    "object with an object": (
        {"user": {"id": {"a": 1}}, "user_id": "bob"}, {"user_id": "bob"}, {"user": {"id": {"a": 1}}},
    ),
    "another user": ({"user": ADA, "user_id": "bob"}, {"user_id": "ada"}, {"user_id": "bob"}),
    "number": ({"user": None, "user_id": 8}, {"user_id": "8"}, {}),
    "parent": ({"parent_id": ["p"]}, {"parent_id": None}, {"parent_id": ["p"]}),
    "parent as an object": ({"parent_id": {"id": "p"}}, {"parent_id": "p"}, {}),
    "quoted": (
        {"quoted_message_id": True, "quoted_message": {"id": "q"}},
        {"quoted_message_id": "q"},
        {"quoted_message_id": True},
    ),
    "quoted another": (
        {"quoted_message_id": "p", "quoted_message": {"id": "q"}},
        {"quoted_message_id": "p"},
        {"quoted_message": {"id": "q"}},
    ),
    "poll": ({"poll_id": ["p"], "poll": {"id": 7}}, {"poll_id": "7"}, {"poll_id": ["p"]}),
    "mentions": ({"mentioned_users": [7, "ada"]}, {"mentioned_user_ids": ["7", "ada"]}, {}),
}  # fmt: skip


@pytest.mark.parametrize("shapes", [(Shape.ITEM,), (Shape.KEYED, Shape.BARE, Shape.TYPED)])
def test_a_value_that_is_not_an_id_stays_in_custom(shapes: tuple[Shape, ...], tmp_path: Path) -> None:
    """As text, two different objects could be equal, and ``true`` would be a person."""
    absent: Fields = {"user": None, "user_id": None}
    lines = [
        line("message", {**message(f"{name} {shape}"), **absent, **fields}, shape)
        for shape in shapes
        for name, (fields, _, _) in NO_IDS.items()
    ]
    rows = {row["id"]: row for row in convert_lines(tmp_path, *lines).rows["messages"]}
    for shape in shapes:
        for name, (_, expected, kept) in NO_IDS.items():
            row = rows[f"{name} {shape}"]
            assert (expected, kept) == ({key: row[key] for key in expected}, json.loads(row["custom"])), name


@pytest.mark.parametrize("shape", ENVELOPES)
@pytest.mark.parametrize("alone", [True, False])
def test_an_object_whose_id_is_neither_text_nor_a_number_is_a_reject(shape: Shape, alone: bool, tmp_path: Path) -> None:
    """Alone in a file of messages in place, and among reactions that are normalized."""
    lines = [line("message", message() | {"id": value}, shape) for value in (True, {"a": 1}, ["m"])]
    expected = 3 * ["message without id"]
    if not alone:
        lines += [line("reaction", reaction() | {"message_id": value}, shape) for value in (False, [])]
        expected += 2 * ["reaction without message_id"]
    whole = [line("message", message(name), shape) for name in ("true", "9")]
    converted = convert_lines(tmp_path, *whole, *lines)
    assert expected == converted.reasons
    assert ["9", "true"] == sorted(converted.column("messages", "id"))


def test_an_object_whose_only_id_is_empty_says_what_it_lacks(tmp_path: Path) -> None:
    """So does one whose embedded user has an empty id."""
    nameless = {"user_id": "", "user": {"name": "x", "id": ""}}
    lines = [line("reaction", reaction() | nameless), line("member", member(cid=CID) | nameless)]
    converted = convert_lines(tmp_path, *lines, line("message", message()))
    assert ["member without user_id", "reaction without user_id"] == sorted(converted.reasons)


def test_a_reject_leaves_no_user_behind(tmp_path: Path) -> None:
    """A person who is only in rejects is not in the lake."""
    for shape in ENVELOPES:
        (folder := tmp_path / shape.value).mkdir()
        lines = [
            line("message", message("bad", created_at="never", user={"id": "lost", "role": "user"}), shape),
            line("reaction", reaction("m1", created_at="never", user={"id": "lost", "role": "user"}), shape),
            line("message", message("good", user={"id": "kept"}), shape),
        ]
        converted = convert_lines(folder, *lines)
        assert (2, ["kept"]) == (converted.counts.rejected, converted.column("users", "id"))


# The order of keys


def shuffled(value: Any, rng: random.Random) -> Any:
    """Return the same value, with the keys of every object in it in another order."""
    if isinstance(value, list):
        return [shuffled(each, rng) for each in value]
    if isinstance(value, dict):
        items = [(key, shuffled(each, rng)) for key, each in value.items()]
        rng.shuffle(items)
        return dict(items)
    return value


OBJECTS: list[tuple[str, Fields]] = [
    ("user", user("u1", name="One")),
    ("channel", channel(created_by=ADA, members=[member("u7", user={"id": "u7", "name": "Seven"})])),
    ("member", member("u1", user={"id": "u1", "name": "One"})),
    ("message", message("m1", mentioned_users=[ADA, {"name": "Bob", "id": "bob"}], attachments=[{"type": "image"}])),
    ("message", message("m2", user="u1", cid=None, mood=None, own={"b": 1, "a": 2}, quoted_message={"id": "m1"})),
    ("message", message("m3", user_id="", user=ADA, latest_reactions=[reaction("m3", "u5")])),
    ("message", message("bad", created_at=None)),
    ("message", message("")),
    ("reaction", reaction("m1", cid=CID)),
    ("poll", {"id": "p1"}),
]  # fmt: skip


def plain(value: Any) -> Any:
    """Return a row's value with JSON text parsed. The text keeps the order of keys, which means nothing."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        return json.loads(value)
    return value


PLACES = ("raw", "byte_offset", "raw_size_bytes")  # they follow from how the line is written


def facts(converted: Converted) -> Any:
    rows = {
        name: sorted(
            ({key: plain(each) for key, each in row.items() if key not in PLACES} for row in of),
            key=lambda row: json.dumps(row, default=str, sort_keys=True),
        )
        for name, of in converted.rows.items()
    }  # fmt: skip
    return rows, converted.counts


def written(layout: str, objects: list[tuple[str, Fields]], rng: random.Random | None) -> bytes:
    def mixed(value: Any) -> bytes:
        return encoded(value if rng is None else shuffled(value, rng))

    if layout in {shape.value for shape in ENVELOPES}:
        lines = [json.loads(line(name, fields, Shape(layout))) for name, fields in objects
                 if not (layout == "bare" and name == "poll")]  # fmt: skip
        return b"\n".join(map(mixed, lines))
    by_name: dict[str, list[Fields]] = {}
    for name, fields in objects:
        by_name.setdefault(name, []).append(fields)
    element = {
        "channel": by_name["channel"][0], "messages": by_name["message"], "members": by_name["member"],
        "reactions": by_name["reaction"], "reads": [], "poll": by_name["poll"][0],
    }  # fmt: skip
    return mixed([element] * 2 if layout == "array" else element)


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        *((layout, ExportKind.CHANNELS) for layout in ("item", "typed", "keyed", "bare", "channel", "array")),
        ("item", ExportKind.USERS),
        ("bare", ExportKind.USERS),
    ],
)
def test_the_order_of_keys_changes_no_row(layout: str, kind: ExportKind, tmp_path: Path) -> None:
    """Keys of JSON objects have no order: rows, counts and rejects are the same for any."""
    found = []
    for seed in (None, 1):
        path = tmp_path / f"{seed}"
        path.write_bytes(written(layout, OBJECTS, None if seed is None else random.Random(seed)))
        found.append(facts(convert(path, folder=tmp_path, kind=kind)))
    assert found[0] == found[1]


@pytest.mark.parametrize("layout", ["lines", "array"])
def test_a_long_channel_is_recognised_wherever_its_keys_stand(layout: str, tmp_path: Path) -> None:
    """Regression: a line longer than the limit was one reject unless its first key was that of a channel or a list."""
    element = {
        "channel": channel(), "messages": [message(f"m{n}", cid=None) for n in range(20)], "members": [member()],
        "draft": {"text": "x"}, "hidden": True,
    }  # fmt: skip
    found = []
    for seed in range(4):
        path = tmp_path / f"{seed}"
        raw = encoded(shuffled(element, random.Random(seed)))
        path.write_bytes(b"[%b]" % raw if layout == "array" else raw + b"\n")
        found.append(facts(convert(path, folder=tmp_path, max_line_bytes=1000)))
    assert 20 == found[0][1].rows["messages"]
    assert found[:1] * 4 == found


def test_what_follows_a_channel_that_is_too_long_is_not_of_the_one_before(tmp_path: Path) -> None:
    """Wherever in its line the type stands."""
    long = encoded({"item": channel("team:y", text="x" * 5000), "type": "channel"})
    other = encoded({"item": message("long", text="x" * 5000), "type": "message"})
    lines = [line("channel", channel()), other, line("member", member("u1")), long, line("member", member("u2"))]
    converted = convert_lines(tmp_path, *lines, max_line_bytes=2000)
    assert {"u1": CID} == converted.by_id("members", "cid", "user_id")
    too_long = "the line is longer than the limit of 2000 bytes"
    assert {2: too_long, 4: too_long, 5: "member without channel"} == converted.reason_by_line
    assert [other[:2000].decode(), long[:2000].decode()] == [row["raw"] for row in converted.rows["rejects"][:2]]


def test_a_message_with_custom_keys_of_channels_stays_whole_in_an_array(tmp_path: Path) -> None:
    """Whichever of its keys comes first, and whether or not its lists are empty."""
    own: Fields = {"channel": {"a": 1}, "reactions": [{"b": 1}], "users": []}
    for seed in range(4):
        path = tmp_path / f"{seed}"
        path.write_bytes(encoded([shuffled(message(**own), random.Random(seed))]))
        converted = convert(path, folder=tmp_path)
        assert own == json.loads(converted.one("messages")["custom"])
        assert [] == converted.rows["rejects"]


@pytest.mark.parametrize("layout", ["line", "array"])
def test_a_channel_with_a_key_twice_is_one_reject(layout: str, tmp_path: Path) -> None:
    """Both lists may be right, or one of them; a reject says so, and keeps both."""
    lists = b'"messages":[%b],"messages":[%b,%b]' % tuple(encoded(message(f"m{n}")) for n in range(3))
    raw = b'{"channel":%b,%b}' % (encoded(channel()), lists)
    path = tmp_path / "export"
    path.write_bytes(
        b"[%b,%b]" % (raw, encoded(message("next")))
        if layout == "array"
        else raw + b"\n" + line("message", message("next"))
    )
    converted = convert(path, folder=tmp_path)
    assert (['the key "messages" stands twice'], ["next"]) == (converted.reasons, converted.column("messages", "id"))
    assert raw.decode() == converted.one("rejects")["raw"]
