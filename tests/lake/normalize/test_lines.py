"""From lines of any shape to rows: recognised, placed in their channel, or rejected with the reason.

Cases stand on the lines of one file wherever a line does not change how others are read. A file of typed messages alone
is read by another route, so the cases that routes could treat differently come in two files.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from export_objects import (
    AT,
    CID,
    Converted,
    Fields,
    assert_counts,
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

from airflow_provider_chatexport.core.entities import OTHER_NAMES, ExportKind, Shape
from airflow_provider_chatexport.lake.normalize.rejects import MAX_REJECT_BYTES

ENTITY_SHAPES = [Shape.TYPED, Shape.KEYED, Shape.BARE, Shape.ITEM]
# Messages in place, and all others.
ROUTES = [(Shape.TYPED,), (Shape.KEYED, Shape.BARE, Shape.ITEM)]
FIXTURE = Path(__file__).parents[2] / "fixtures" / "v1-real-shape.json"

ONE_CHANNEL: list[tuple[str, Fields]] = [
    ("channel", channel()),
    ("member", member()),
    ("read", read()),
    ("message", message("m1", attachments=[{"type": "image", "image_url": "https://example.com/a.png"}])),
    ("reaction", reaction("m1", cid=CID)),
    ("message", message("m2", parent_id="m1", user={"id": "u2", "name": "Two"})),
]


def rows_of(converted: Converted) -> dict[str, list[Fields]]:
    return {name: rows for name, rows in converted.rows.items() if name != "rejects"}


def customs(converted: Converted, table: str, key: str = "id") -> dict[str, Any]:
    """Custom fields by id."""
    return {each: json.loads(custom) for each, custom in converted.by_id(table, "custom", key).items()}


def offsets(lines: Iterable[bytes]) -> list[int]:
    """Where each line starts in a file of them."""
    found, offset = [], 0
    for each in lines:
        found.append(offset)
        offset += len(each) + 1
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Fields]]:
    folder = tmp_path_factory.mktemp("typed")
    converted = convert_lines(folder, *(line(name, fields) for name, fields in ONE_CHANNEL))
    assert {"channel": 1, "member": 1, "read": 1, "message": 2, "reaction": 1} == converted.counts.entities
    return rows_of(converted)


# Shapes


@pytest.mark.parametrize("shape", [Shape.KEYED, Shape.BARE, Shape.ITEM])
def test_every_line_shape_gives_the_same_rows(shape: Shape, expected: dict[str, Any], tmp_path: Path) -> None:
    """The service does not publish the line shape: whichever it is, the lake must not differ."""
    converted = convert_lines(tmp_path, *(line(name, fields, shape) for name, fields in ONE_CHANNEL))
    assert expected == rows_of(converted)
    assert {"channel": 1, "member": 1, "read": 1, "message": 2, "reaction": 1} == converted.counts.entities


def test_shapes_may_be_mixed_in_one_file(expected: dict[str, Any], tmp_path: Path) -> None:
    """Recognition is per line, so that nothing depends on a guess made at the first."""
    lines = [line(name, fields, ENTITY_SHAPES[at % 4]) for at, (name, fields) in enumerate(ONE_CHANNEL)]
    assert expected == rows_of(convert_lines(tmp_path, *lines))


def test_a_whole_channel_on_a_line_gives_the_same_rows(expected: dict[str, Any], tmp_path: Path) -> None:
    """The fifth shape: an element of a v1 array on a line of its own."""
    objects = {name: [fields for each, fields in ONE_CHANNEL if each == name] for name, _ in ONE_CHANNEL}
    element = {
        "channel": objects["channel"][0],
        "messages": objects["message"],
        "members": objects["member"],
        "reads": objects["read"],
        "reactions": objects["reaction"],
    }
    assert expected == rows_of(convert_lines(tmp_path, encoded(element)))
    path = tmp_path / "v1.json"
    path.write_bytes(json.dumps([element], indent=2).encode())
    assert expected == rows_of(convert(path, folder=tmp_path))


def test_an_array_of_lines_gives_the_same_rows(expected: dict[str, Any], tmp_path: Path) -> None:
    """The old import format was one array of envelopes."""
    path = tmp_path / "array.json"
    path.write_bytes(b"[" + b",\n".join(line(name, fields, Shape.ITEM) for name, fields in ONE_CHANNEL) + b"]")
    assert expected == rows_of(convert(path, folder=tmp_path))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_objects_may_be_spread_over_lines(end: bytes, expected: dict[str, Any], tmp_path: Path) -> None:
    """A person looked at the file with jq and saved the output; objects take the place of lines."""
    path = tmp_path / "export.json"
    spread = [json.dumps({"type": name, "data": fields}, indent=2) for name, fields in ONE_CHANNEL]
    path.write_bytes(end.join(each.encode().replace(b"\n", end) for each in spread) + end)
    converted = convert(path, folder=tmp_path)
    assert (expected, len(ONE_CHANNEL)) == (rows_of(converted), converted.counts.lines)


@pytest.mark.parametrize(
    "written",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\n\n \n"),
        lambda content: content.rstrip(b"\n"),
        gzip.compress,
        lambda content: gzip.compress(b"\xef\xbb\xbf" + content),
        lambda content: content.replace(b'{"type":"message","data":', b' { "type" : "message" , "data" : '),
    ],
    ids=["byte order mark", "CRLF", "blank lines", "no last end", "gzip", "gzip and mark", "spaces"],
)
def test_how_a_file_is_written_does_not_matter(written: Any, expected: dict[str, Any], tmp_path: Path) -> None:
    """None of these is documented, and each occurs in the wild."""
    path = tmp_path / "export"
    path.write_bytes(written(b"".join(line(name, fields) + b"\n" for name, fields in ONE_CHANNEL)))
    converted = convert(path, folder=tmp_path)
    assert expected == rows_of(converted)
    assert len(ONE_CHANNEL) == converted.counts.lines


def test_the_real_export_becomes_rows(tmp_path: Path) -> None:
    """Keys, order, types and escaping of a real v1 export of 2025."""
    (element,) = json.loads(FIXTURE.read_bytes())
    converted = convert(FIXTURE, folder=tmp_path)
    assert 0 == converted.counts.rejected
    assert {
        "channel": 1,
        "message": len(element["messages"]),
        "member": len(element["members"]),
    } == converted.counts.entities
    assert sorted(each["id"] for each in element["messages"]) == sorted(converted.column("messages", "id"))
    assert {each["html"] for each in element["messages"]} == set(converted.column("messages", "html"))
    assert {element["channel"]["cid"]} == set(converted.column("members", "cid"))
    creator = element["channel"]["created_by"]
    row = next(row for row in converted.rows["users"] if row["id"] == creator["id"])
    assert {"birthland"} == json.loads(row["custom"]).keys()


# Elements and long lines


def whole_channel(cid: str = CID, n_messages: int = 20) -> Fields:
    return {
        "channel": channel(cid),
        "messages": [message(f"{cid}-{number}", cid=cid) for number in range(n_messages)],
        "members": [member()],
        "reads": [read()],
    }


def test_a_channel_s_line_may_be_longer_than_any_object(tmp_path: Path) -> None:
    """A busy channel writes more in a day than the limit of a line: that limit is for what is held at once."""
    elements = [encoded(whole_channel(cid)) for cid in ("team:x", "team:y")]
    lines = [line("message", message("before")), b"", elements[0], line("member", member("u2")), elements[1]]
    converted = convert_lines(tmp_path, *lines, max_line_bytes=2000)
    assert max(map(len, elements)) > 2000
    whole = convert_lines(tmp_path, *lines)
    assert (whole.rows, whole.counts.entities) == (converted.rows, converted.counts.entities)
    assert_counts(converted, lines=4, rejected=0, messages=41)


def test_an_overlong_object_of_a_channel_s_line_is_a_reject(tmp_path: Path) -> None:
    """The reject shows where in the line the object starts."""
    element = whole_channel() | {"config": {"a": 1}}
    element["messages"].append(message("long", text="x" * 5000))
    raw = encoded(element)
    converted = convert_lines(tmp_path, line("message", message("before")), raw, max_line_bytes=2000)
    row = converted.one("rejects")
    start = row["byte_offset"] - len(line("message", message("before"))) - 1
    assert ("the object is longer than the limit of 2000 bytes", 2) == (row["reason"], row["line_number"])
    assert raw[start:].startswith(row["raw"].encode())
    assert_counts(converted, lines=2, messages=21, other_entities=1)


def test_an_overlong_item_of_an_array_is_a_reject(tmp_path: Path) -> None:
    """The limit is that of an object, however its file is laid out."""
    path = tmp_path / "v1.json"
    path.write_bytes(encoded([{"channel": channel(), "messages": [message("m1"), message("long", text="x" * 5000)]}]))
    converted = convert(path, folder=tmp_path, max_line_bytes=2000)
    assert ["the object is longer than the limit of 2000 bytes"] == converted.reasons
    assert (["m1"], 2) == (converted.column("messages", "id"), converted.counts.entities["message"])


def test_a_fault_in_a_channel_s_long_line_costs_what_comes_after_it(tmp_path: Path) -> None:
    """What stood before it is rows already, and the lines that follow are as they would be."""
    broken = {
        encoded(whole_channel("team:cut"))[: encoded(whole_channel("team:cut")).index(b":cut-15") + 30]: 15,
        encoded(whole_channel("team:key")).replace(b'"members"', b"members"): 20,
        encoded(whole_channel("team:more")) + b" {}": 20,
    }
    lines = [line("message", message("before")), *broken, line("message", message("after"))]
    converted = convert_lines(tmp_path, *lines, max_line_bytes=2000)
    reason = "the line is not one whole object; what came before the fault was taken"
    assert [
        (number, reason, offset, len(raw))
        for number, (offset, raw) in list(enumerate(zip(offsets(lines), lines, strict=True), 1))[1:4]
    ] == [
        (row["line_number"], row["reason"], row["byte_offset"], row["raw_size_bytes"])
        for row in converted.rows["rejects"]
    ]
    assert_counts(converted, lines=5, rejected_lines=3, messages=2 + sum(broken.values()))
    assert {"before", "after"} < set(converted.column("messages", "id"))


def test_a_reaction_before_its_channel_is_placed_in_it(tmp_path: Path) -> None:
    """Regression: one in an element whose lists stand before the channel was of the element before."""
    elements = [
        {"reactions": [reaction(f"elsewhere {cid}")], "messages": [message(cid, cid=None)], "channel": channel(cid)}
        for cid in ("team:x", "team:y")
    ]
    path = tmp_path / "export"
    path.write_bytes(encoded(elements))
    converted = convert(path, folder=tmp_path)
    assert {"elsewhere team:x": "team:x", "elsewhere team:y": "team:y"} == converted.by_id(
        "reactions", "cid", "message_id"
    )
    assert_counts(converted, rejected=0, messages=2)


def test_what_has_no_channel_in_its_element_is_not_of_the_one_before(tmp_path: Path) -> None:
    """Its objects that name none are rejects, and its reactions of no channel."""
    path = tmp_path / "v1.json"
    lost = {"messages": [message(cid=None), message("own")], "reactions": [reaction("elsewhere")]}
    path.write_bytes(encoded([whole_channel("team:x", 1), lost]))
    converted = convert(path, folder=tmp_path)
    assert (["message without channel"], [None]) == (converted.reasons, converted.column("reactions", "cid"))
    assert [CID, "team:x"] == sorted(converted.column("messages", "cid"))


def test_lists_that_come_before_their_channel_belong_to_it(tmp_path: Path) -> None:
    """Keys of a JSON object have no order."""
    first = {"members": [member("u1")], "channel": channel("messaging:one")}
    second = {"channel": channel("messaging:two"), "members": [member("u2")]}
    path = tmp_path / "v1.json"
    path.write_bytes(encoded([first, second]))
    assert {"u1": "messaging:one", "u2": "messaging:two"} == convert(path, folder=tmp_path).by_id(
        "members", "cid", "user_id"
    )


def test_lists_that_are_null_or_empty_are_nothing(tmp_path: Path) -> None:
    """Go writes a list without items as null."""
    elements = [
        {"channel": channel(f"a:{number}"), "messages": empty, "members": empty, "reads": empty, "draft": empty}
        for number, empty in enumerate([None, [], {}])
    ]
    converted = convert_lines(tmp_path, *map(encoded, elements))
    assert ({"channel": 3}, 0) == (converted.counts.entities, converted.counts.rejected)


def test_a_channel_with_empty_lists_keeps_what_else_is_in_its_element(tmp_path: Path) -> None:
    path = tmp_path / "v1.json"
    path.write_bytes(encoded([{"channel": channel(), "messages": [], "draft": {"text": "x"}}]))
    assert_counts(convert(path, folder=tmp_path), channels=1, other_entities=1, rejected=0)


def test_messages_of_an_array_may_have_a_custom_channel(tmp_path: Path) -> None:
    """Regression: such a message was taken for a channel's element, and torn apart."""
    values: dict[str, Any] = {"m1": "email", "m2": {"id": "c1"}, "m3": None}
    path = tmp_path / "array.json"
    path.write_bytes(encoded([message(message_id, channel=value) for message_id, value in values.items()]))
    converted = convert(path, folder=tmp_path)
    assert {message_id: {"channel": value} for message_id, value in values.items()} == customs(converted, "messages")
    assert (0, {"message": 3}) == (converted.counts.rejected, {k: v for k, v in converted.counts.entities.items() if v})


def test_keys_of_an_array_s_elements_keep_their_escapes(tmp_path: Path) -> None:
    """Elements are put together from their members again; an empty key and quotes in keys are legal."""
    odd = {"": 1, 'qu"ote': 2, "back\\slash": 3}
    path = tmp_path / "array.json"
    path.write_bytes(encoded([message(**odd), {"type": "message", "data": message("m2"), "": 1}]))
    assert {"m1": odd, "m2": {"": 1}} == customs(convert(path, folder=tmp_path), "messages")


def test_objects_spread_over_lines_belong_to_the_channel_before_them(tmp_path: Path) -> None:
    """As they would on a line each."""
    objects = [{"channel": channel()}, {"member": member()}, {"message": message(cid=None)}]
    path = tmp_path / "spread.json"
    path.write_bytes(b"\n".join(json.dumps(each, indent=2).encode() for each in objects))
    converted = convert(path, folder=tmp_path)
    assert ([CID], [CID]) == (converted.column("members", "cid"), converted.column("messages", "cid"))


# Bare messages and envelopes


def test_a_bare_message_may_have_custom_keys_of_channels(tmp_path: Path) -> None:
    """It would be a row of channels, and hide its own channel; or an element of an array, and be torn apart."""
    own: dict[str, Fields] = {key: {key: {"id": "u9"}} for key in ("frozen", "config", "member_count", "created_by")}
    own |= {"whole channel": {"channel": "general", "users": ["a"]}, "data": {"data": {"not": "a payload"}}}
    lines = [line("message", message(name, **fields), Shape.BARE) for name, fields in own.items()]
    converted = convert_lines(tmp_path, line("channel", channel()), *lines)
    assert own == customs(converted, "messages")
    assert [CID] == converted.column("channels", "cid")
    assert_counts(converted, rejected=0, other_entities=0)


def test_what_an_envelope_holds_besides_the_object_is_kept(tmp_path: Path) -> None:
    """Regression: a key more was dropped without a word. It must not pass for one of the object's own fields either."""
    envelope = {"v": 2, "updated_at": "2020-01-01T00:00:00Z"}
    cases: dict[str, tuple[Fields, Fields]] = {
        "m1": ({}, envelope),
        "m2": ({"mood": "fine"}, {**envelope, "mood": "fine"}),
        "m3": ({"custom": {"v": 3}}, {**envelope, "v": 3}),
        "m4": ({"custom": "x"}, {**envelope, "custom": "x"}),
    }
    lines = [encoded({"type": "message", "data": message(name, **own), **envelope}) for name, (own, _) in cases.items()]
    converted = convert_lines(tmp_path, line("message", message("usual")), *lines)
    assert {"usual": {}, **{name: custom for name, (_, custom) in cases.items()}} == customs(converted, "messages")
    assert 1 == len(set(converted.column("messages", "updated_at")))


def test_an_envelope_may_name_the_channel(tmp_path: Path) -> None:
    """Members carry none: the envelope is where a writer of lines would put it. An object's own goes before it."""
    members = {
        f"{key} {own}": encoded({"type": "member", key: "team:other", "data": member(f"{key} {own}", **own)})
        for key in ("cid", "channel_cid")
        for own in ({}, {"cid": None}, {"cid": ""})
    }
    messages = [
        encoded({"type": "message", "cid": cid, "data": message(message_id)})
        for message_id, cid in (("same", CID), ("other", "team:other"))
    ]
    converted = convert_lines(tmp_path, line("channel", channel()), *members.values(), *messages)
    assert dict.fromkeys(members, "team:other") == converted.by_id("members", "cid", "user_id")
    assert {"same": CID, "other": CID} == converted.by_id("messages", "cid")
    assert {"same": {}, "other": {"cid": "team:other"}} == customs(converted, "messages")


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.KEYED])
def test_an_entity_without_a_table_is_kept_whole(shape: Shape, tmp_path: Path) -> None:
    """What the service adds later must not be lost, nor stop a load."""
    names = [*sorted(OTHER_NAMES), "a_thing_of_next_year"]
    thing = {"id": "p1", "big": 12345678901234567890123, "text": "é"}
    lines = [line("channel", channel()), *(line(name, thing, shape) for name in names)]
    converted = convert_lines(tmp_path, *lines)
    assert [(name, CID, number, thing) for number, name in enumerate(names, 2)] == [
        (row["entity"], row["cid"], row["line_number"], json.loads(row["data"]))
        for row in sorted(converted.rows["other_entities"], key=lambda row: row["line_number"])
    ]
    assert {"channel": 1, **dict.fromkeys(names, 1)} == converted.counts.entities
    assert_counts(converted, other_entities=len(names), rejected=0)


def test_an_envelope_without_a_table_is_kept_with_its_other_members(tmp_path: Path) -> None:
    whole = {"type": "poll", "data": {"id": "p1"}, "v": 2}
    converted = convert_lines(tmp_path, line("channel", channel()), encoded(whole))
    assert whole == json.loads(converted.one("other_entities")["data"])


# Which channel


def test_an_object_without_a_channel_belongs_to_the_channel_before_it(tmp_path: Path) -> None:
    """Members and reads carry no cid in a real export. An object's own channel, however it says so, goes before."""
    lines = [
        line("channel", channel("messaging:one")),
        line("member", member("u1")),
        line("read", read("u1")),
        line("member", member("own cid", cid="team:x")),
        line("member", member("own channel_cid", channel_cid="team:x")),
        line("member", member("own type and id", channel_type="team", channel_id="x")),
        line("channel", {"type": "team", "id": "two", "created_by": {"id": "u1"}}),
        line("member", member("u2")),
        line("read", read("u2")),
    ]
    converted = convert_lines(tmp_path, *lines)
    assert {
        "u1": "messaging:one",
        "own cid": "team:x",
        "own channel_cid": "team:x",
        "own type and id": "team:x",
        "u2": "team:two",
    } == converted.by_id("members", "cid", "user_id")
    assert {"u1": "messaging:one", "u2": "team:two"} == converted.by_id("reads", "cid", "user_id")
    assert ["messaging:one", "team:two"] == sorted(converted.column("channels", "cid"))


@pytest.mark.parametrize("shapes", ROUTES)
@pytest.mark.parametrize("before", [[], [line("channel", channel("a:one"))]], ids=["alone", "after a channel"])
def test_what_an_object_says_of_its_channel_goes_before_its_place(
    before: list[bytes], shapes: tuple[Shape, ...], tmp_path: Path
) -> None:
    """However it says so: a row of another channel would be found by no query."""
    lines = [*before]
    for shape in shapes:
        for own in ({"channel_cid": "a:two"}, {"channel_type": "a", "channel_id": "two"}):
            written, reacted = (
                {**each, **own} for each in (message(f"{shape} {own}"), reaction(f"gone {shape} {own}"))
            )
            del written["cid"]
            lines += [line("message", written, shape), line("reaction", reacted, shape)]
    converted = convert_lines(tmp_path, *lines)
    assert_counts(converted, rejected=0, messages=2 * len(shapes), reactions=2 * len(shapes))
    assert {"a:two"} == {*converted.column("messages", "cid"), *converted.column("reactions", "cid")}


@pytest.mark.parametrize("shapes", ROUTES)
def test_a_message_whose_channel_is_empty_takes_it_from_its_place(shapes: tuple[Shape, ...], tmp_path: Path) -> None:
    """A row without channel is invisible to all coverage, and would never be replaced."""
    lines = [
        line("message", message(f"{shape} {missing}", cid=missing), shape) for shape in shapes for missing in (None, "")
    ]
    converted = convert_lines(tmp_path, line("channel", channel()), *lines)
    assert [CID] * len(lines) == converted.column("messages", "cid")


LOST_CHANNELS = [
    line("channel", channel())[:-9],
    line("channel", channel(), Shape.KEYED)[:-9],
    line("channel", channel(), Shape.BARE)[:-9],
    line("channel", channel()).replace(b"general", b"\xff"),
    b' { "kind" : "channels", "data":',
    b'{"channel":',
    b'{"members":[{"user_id":"u1"}],"channel":{"cid":"team:y"}',
    line("channel", channel(text="x" * 2000)),
    line("channel", channel(name="x" * 2000), Shape.BARE),
    encoded({"channel": channel(), "messages": [message()]})[:-1],
]
OTHER_LOST_LINES = [
    *(line("message", message(frozen=True, created_by="u1"), shape)[:-3] for shape in ENTITY_SHAPES),
    line("poll", {"cid": CID, "created_by": {"id": "u1"}})[:-2],
    line("message", message(text="channel " * 1000)),
    b'{"channel":"general","text":"a bare message","cid"',
    b"{",
    b"null",
]


def test_what_follows_a_line_that_was_a_channel_is_not_of_the_one_before(tmp_path: Path) -> None:
    """It would stand in the wrong channel, and no reader could see that. Any other lost line ends no channel."""
    lines, expected = [], {}
    for number, lost in enumerate([*LOST_CHANNELS, *OTHER_LOST_LINES]):
        following = [line("member", member(f"u{number}")), line("message", message(f"m{number}", cid=None))]
        lines += [line("channel", channel(f"team:{number}")), lost, *following]
        expected[number] = None if lost in LOST_CHANNELS else f"team:{number}"
    converted = convert_lines(tmp_path, *lines, max_line_bytes=2000)
    placed = {f"u{number}": cid for number, cid in expected.items() if cid}
    assert placed == converted.by_id("members", "cid", "user_id")
    assert {each.replace("u", "m"): cid for each, cid in placed.items()} == converted.by_id("messages", "cid")
    reasons = converted.reason_by_line
    for number, cid in expected.items():
        first = 4 * number + 1
        homeless = ["member without channel", "message without channel"] if cid is None else [None, None]
        assert homeless == [reasons.get(first + 2), reasons.get(first + 3)], lines[first]
        assert first + 1 in reasons


def test_what_follows_a_channel_that_is_a_reject_is_of_no_channel(tmp_path: Path) -> None:
    """The channel before it would be the wrong one, and no reader could see that."""
    lines = []
    for shape in (Shape.TYPED, Shape.KEYED, Shape.ITEM):
        lines += [
            line("channel", channel(f"a:{shape.value}"), shape),
            line("channel", {"frozen": True, "id": "c2"}, shape),
        ]
        lines += [line("member", member(), shape), line("message", message(cid=None), shape)]
    converted = convert_lines(tmp_path, *lines)
    reasons = ["channel without channel", "member without channel", "message without channel"]
    assert {
        4 * group + at: reason for group in range(3) for at, reason in enumerate(reasons, 2)
    } == converted.reason_by_line
    assert_counts(converted, channels=3, members=0, messages=0)


def test_a_channels_name_is_its_column_wherever_it_stands(tmp_path: Path) -> None:
    """A key of `custom` that is a column is not kept twice; another value than the column's is kept."""
    channels = [
        channel("team:a", name="A", topic="t"),
        channel("team:b", custom={"name": "B", "topic": 123456789012345678901}),
        channel("team:c", custom={"name": "C"}),
        channel("team:d", name="D", custom={"name": "E"}),
    ]
    converted = convert_lines(tmp_path, *(line("channel", fields) for fields in channels))
    assert ["A", "B", "C", "D"] == converted.column("channels", "name")
    assert ['{"topic":"t"}', '{"topic":123456789012345678901}', "{}", '{"name":"E"}'] == converted.column(
        "channels", "custom"
    )


def test_which_channels_a_file_names(tmp_path: Path) -> None:
    """A channel without messages is covered too: its silence is known."""
    lines = [line("channel", channel("a:1")), line("channel", channel("a:2")), line("message", message())]
    assert {"a:1", "a:2"} == convert(write_lines(tmp_path / "export", lines), folder=tmp_path).named


# Rejects

WITHOUT = {
    "message without id": ("message", message(id=None)),
    "message without channel": ("message", message(cid=None)),
    "message without a created_at that is a time": ("message", message(created_at=None)),
    "reaction without message_id": ("reaction", reaction(message_id=None)),
    "reaction without user_id": ("reaction", reaction(user_id="", user=None)),
    "reaction without type": ("reaction", reaction(kind="")),
    "member without user_id": ("member", member(user_id=None, user=None, cid=CID)),
    "member without channel": ("member", member()),
    "channel without channel": ("channel", channel() | {"cid": None, "id": None}),
    "user without id": ("user", user(id="")),
    "read without channel": ("read", read()),
}  # fmt: skip


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.KEYED])
def test_an_object_that_can_be_no_row_is_a_reject_with_the_reason(shape: Shape, tmp_path: Path) -> None:
    """Each names what is missing, and the line as it stood."""
    lines = [line("user", user("u0")), *(line(name, fields, shape) for name, fields in WITHOUT.values())]
    converted = convert_lines(tmp_path, *lines, kind=ExportKind.CHANNELS)
    rows = sorted(converted.rows["rejects"], key=lambda row: row["line_number"])
    assert [
        (reason, number, offset, raw)
        for reason, (number, (offset, raw)) in zip(
            WITHOUT, list(enumerate(zip(offsets(lines), lines, strict=True), 1))[1:], strict=True
        )
    ] == [(row["reason"], row["line_number"], row["byte_offset"], row["raw"].encode()) for row in rows]
    assert {"message": 3, "reaction": 3, "member": 2, "channel": 1, "user": 2, "read": 1} == converted.counts.entities
    assert_counts(converted, rejected=len(WITHOUT), lines=len(lines))


@pytest.mark.parametrize(
    "odd",
    [
        b'{"type":"reaction","data":[1]}',
        b'{"type":"reaction","data":5}',
        b'{"type":"reaction","data":{"message_id":"m1","user_id":"u1","type":"love","created_at":5e99}}',
        b'{"type":"reaction","data":{}}',
        b'{"type":"message","data":{}}',
        b'{"type":"message","data":[]}',
        b'{"type":"message","data":{"id":5,"cid":"a:b","created_at":"2026-01-01T00:00:00Z","own":null}}]',
        line("message", message(id=None)),
        line("message", message(cid=None)),
        line("message", message(created_at="2026-01-01")),
        line("message", message()).replace(b"text of", b"te\xff\xfe"),
    ],
)
def test_a_typed_line_that_is_odd_is_one_reject_with_its_place(odd: bytes, tmp_path: Path) -> None:
    """Most lines are only glanced at: one odd line alone has the file read again, and is rejected with its place."""
    lines = [line("message", message(f"m{number}", own=None)) for number in range(3)]
    lines += [line("reaction", reaction("m1", "u1")), odd, line("channel", channel())]
    converted = convert_lines(tmp_path, *lines)
    assert ["m0", "m1", "m2"] == converted.column("messages", "id")
    assert_counts(converted, rejected=1, lines=6, reactions=1)
    assert ['{"own":null}'] * 3 == converted.column("messages", "custom")
    row = converted.one("rejects")
    raw = row["raw"].encode() if row["raw_encoding"] == "utf-8" else base64.b64decode(row["raw"])
    assert (5, offsets(lines)[4], odd) == (row["line_number"], row["byte_offset"], raw)


@pytest.mark.parametrize("shape", ENTITY_SHAPES)
def test_what_only_looks_like_json_is_a_reject_in_every_shape(shape: Shape, tmp_path: Path) -> None:
    """Some writers have such values, and the database reads most of them; no other reader of the lake could."""
    words = ["NaN", "Infinity", "-Infinity", "nan", "-inf", "[1,]", '{"a":1,}', "01", "1.", "+1"]
    good = [line("message", message(f"m{at}", text=f"is it {word}, or [{word}]?", own=f":{word},"), shape)
            for at, word in enumerate(words)]  # fmt: skip
    bad = [line("message", message("bad", own="@"), shape).replace(b'"@"', word.encode()) for word in words]
    converted = convert_lines(tmp_path, *(each for pair in zip(good, bad, strict=True) for each in pair))
    assert [f"m{at}" for at in range(len(words))] == converted.column("messages", "id")
    assert {2 * at: raw.decode() for at, raw in enumerate(bad, 1)} == converted.by_id("rejects", "raw", "line_number")


@pytest.mark.parametrize("shape", ENTITY_SHAPES)
def test_what_is_nested_too_deep_is_a_reject_in_every_shape(shape: Shape, tmp_path: Path) -> None:
    """Readers recurse: a value that one tool takes must not crash the next."""
    lines = [
        line("message", message(f"m{depth}", own="@"), shape).replace(b'"@"', b"[" * depth + b"]" * depth)
        for depth in (490, 501, 5_000, 100_000)
    ]
    lines.append(line("message", message("brackets", text="[{" * 1000), shape))
    converted = convert_lines(tmp_path, *lines)
    assert {"m490", "brackets"} == set(converted.column("messages", "id"))
    assert [2, 3, 4] == sorted(converted.reason_by_line)
    assert {"nested deeper than 500 levels"} == {reason.removeprefix("message: ") for reason in converted.reasons}


def test_nesting_without_end_does_no_harm(tmp_path: Path) -> None:
    """A recursive reader would overflow its stack: the process would be gone, and with it the sentence."""
    lines = [
        line("message", message(deep="@")).replace(b'"@"', b"[" * levels + b"]" * levels)
        for levels in (600, 5_000, 200_000)
    ]
    assert_counts(convert_lines(tmp_path, *lines, line("message", message("m2"))), messages=1, rejected=3)


def test_a_message_that_is_too_deep_costs_no_other_on_its_line(tmp_path: Path) -> None:
    """A line may hold a whole channel, with more brackets than any value is deep."""
    deep = encoded(message("deep", own="@")).replace(b'"@"', b"[" * 600 + b"]" * 600)
    good = [encoded(message(f"m{number}", own=[[{}]])) for number in range(300)]
    whole = b'{"channel":%b,"messages":[%b]}' % (encoded(channel()), b",".join([*good, deep]))
    converted = convert_lines(tmp_path, whole)
    assert (300, ["message: nested deeper than 500 levels"]) == (converted.counts.rows["messages"], converted.reasons)


@pytest.mark.parametrize("shapes", ROUTES)
def test_nanoseconds_in_quotes_are_a_time_in_every_shape(shapes: tuple[Shape, ...], tmp_path: Path) -> None:
    """There are writers of JSON that put integers of 64 bits in quotes."""
    lines = [line("message", message(f"m{shape}", created_at="1767261600123456789"), shape) for shape in shapes]
    lines += [line("message", message("bad", created_at="9" * 30), shape) for shape in shapes]
    converted = convert_lines(tmp_path, *lines)
    assert dict.fromkeys((f"m{shape}" for shape in shapes), 123_456) == {
        message_id: moment.microsecond for message_id, moment in converted.by_id("messages", "created_at").items()
    }
    assert len(shapes) == converted.counts.rejected


NO_TIMES = ["", "tomorrow", "2026-01-01", "2026-01-01T10:00:00", "infinity", "epoch", "20000-01-01T00:00:00Z",
            "2026-01-01T24:00:00Z", "2026-01-01T10:00:00+25:00", True, [], {}, 10**19, 10**30,
            "-025-01-01T00:00:00.1Z", "   5-01-01T00:00:00Z", "2026-01-01T 0:00:00Z", "2026-01-01T10:00:0.1Z",
            "2026-01-01T10:00:00.Z", "2026-01-01T10:00:00.1234567890Z"]  # fmt: skip


@pytest.mark.parametrize("shapes", ROUTES)
def test_a_time_that_is_none_is_a_reject_in_every_shape(shapes: tuple[Shape, ...], tmp_path: Path) -> None:
    """The database would take dates, naive times and infinity; a guessed day is worse than a reject."""
    values = NO_TIMES * len(shapes)
    named = [(f"m{at}", value, shape) for shape in shapes for at, value in enumerate(NO_TIMES)]
    lines = [line("message", message(name, created_at=value), shape) for name, value, shape in named]
    converted = convert_lines(tmp_path, *lines)
    assert [] == converted.column("messages", "created_at")
    without = "message without a created_at that is a time"
    found = converted.reason_by_line
    assert len(values) == len(found)
    assert {without} == {reason.partition(":")[0] for reason in found.values()}
    assert {without} == {found[number] for number, value in enumerate(values, 1) if value == ""}


BROKEN = {
    "not JSON: Expecting value": b'{"type":"message","data":{"id":}}',
    "not JSON: Extra data": line("message", message()) + b'{"more":{}}',
    "not JSON: Unterminated string": line("message", message())[:-30],
    "not UTF-8": line("message", message()).replace(b"text of", b"te\xff\xfe"),
    "no entity that this version knows": b'{"id":"x","thing":"y"}',
    "message: nested deeper than 500 levels": b'{"message":' + b"[" * 600 + b"]" * 600 + b"}",
    "not a JSON object": b"[1,2]",
    "message: not a JSON object": b'{"message":[1]}',
}  # fmt: skip
DAMAGED = [b"nope", b"null", b"\xff\xfe", b"{", b'"text"', b",,"]


def test_a_line_that_is_not_well_formed_is_a_reject_and_the_next_is_read(tmp_path: Path) -> None:
    """One bad line must not cost the file."""
    bad = [*BROKEN.values(), *DAMAGED]
    lines = [each for at, raw in enumerate(bad) for each in (line("message", message(f"m{at}")), raw)]
    converted = convert_lines(tmp_path, *lines)
    assert {f"m{at}" for at in range(len(bad))} == set(converted.column("messages", "id"))
    assert_counts(converted, lines=2 * len(bad), rejected=len(bad), rejected_lines=len(bad) - 2)
    reasons = converted.reason_by_line
    assert [2 * at for at in range(1, len(bad) + 1)] == sorted(reasons)
    for at, reason in enumerate(BROKEN, 1):
        assert reasons[2 * at].startswith(reason)
    # A reject that cannot be looked at is as good as lost: bytes that are not text are kept in base64.
    raw = BROKEN["not UTF-8"]
    row = next(row for row in converted.rows["rejects"] if row["reason"].startswith("not UTF-8"))
    assert ("base64", raw, len(raw)) == (row["raw_encoding"], base64.b64decode(row["raw"]), row["raw_size_bytes"])


def test_a_reject_of_many_on_a_line_holds_its_own_bytes(tmp_path: Path) -> None:
    """Regression: each held the beginning of all, so that a line of 50 KB made rejects of 1.7 GB."""
    element = whole_channel(n_messages=300) | {"members": [member(user_id=None, user=None, note=1), 0]}
    lines = [line("message", message("before")), encoded(element)]
    converted = convert_lines(tmp_path, *lines)
    expected = [encoded(item).decode() for item in element["members"]]
    assert [(raw, len(raw), 2, len(lines[0]) + 1) for raw in expected] == [
        (row["raw"], row["raw_size_bytes"], row["line_number"], row["byte_offset"]) for row in converted.rows["rejects"]
    ]


@pytest.mark.parametrize("space", [b"", b" "])
@pytest.mark.parametrize(
    "doubled",
    [
        [b'{"type":"message","data":@,"data":@}'],
        [
            b'{"message":@,"message":@}',
            b'{"type":"message","item":@,"item":@}',
            b'{"channel":{"cid":"a:b"},"messages":[@],"messages":[@]}',
        ],
    ],
    ids=["typed", "others"],
)
def test_a_line_that_has_a_key_twice_is_a_reject(doubled: list[bytes], space: bytes, tmp_path: Path) -> None:
    """Regression: readers of JSON take the last, so that the first object was gone, and in no count."""
    lost = [each.replace(b":", b":" + space).replace(b"@", encoded(message("lost"))) for each in doubled]
    good = [line("message", message(f"m{number}", data={"data": {"message": {}}})) for number in range(3)]
    converted = convert_lines(tmp_path, *good, *lost)
    assert ["m0", "m1", "m2"] == converted.column("messages", "id")
    keys = ["data"] if len(lost) == 1 else ["message", "item", "messages"]
    assert [
        (number, f'the key "{key}" stands twice', raw)
        for number, (key, raw) in enumerate(zip(keys, lost, strict=True), 4)
    ] == [(row["line_number"], row["reason"], row["raw"].encode()) for row in converted.rows["rejects"]]


@pytest.mark.parametrize("shapes", ROUTES)
def test_a_lone_surrogate_is_repaired(shapes: tuple[Shape, ...], tmp_path: Path) -> None:
    """Clients cut texts in the middle of an emoji; all but that half of a character must come through."""
    lines = [
        line("message", message(f"m{shape}", text="cut", custom_number=123456789012345678901234567890), shape).replace(
            b'"cut"', b'"\\\\ud83d \\ud83d\\ude00 \\ud83d"'
        )
        for shape in shapes
    ]
    converted = convert_lines(tmp_path, *lines)
    assert [("\\ud83d \U0001f600 \ufffd", '{"custom_number":123456789012345678901234567890}')] * len(shapes) == [
        (row["text"], row["custom"]) for row in converted.rows["messages"]
    ]


def test_an_overlong_line_is_a_reject_of_bounded_size(tmp_path: Path) -> None:
    """The limit can be set; what is kept of the line shows what it was."""
    long = [line("message", message("long", text="x" * 300_000), shape) for shape in (Shape.TYPED, Shape.KEYED)]
    lines = [line("message", message("m1")), *long, line("message", message("m2"))]
    converted = convert_lines(tmp_path, *lines, max_line_bytes=200_000)
    assert [
        ("the line is longer than the limit of 200000 bytes", raw[:MAX_REJECT_BYTES].decode(), len(raw)) for raw in long
    ] == [(row["reason"], row["raw"], row["raw_size_bytes"]) for row in converted.rows["rejects"]]
    assert ["m1", "m2"] == converted.column("messages", "id")


def test_a_line_longer_than_the_reader_s_buffer_is_a_reject(tmp_path: Path) -> None:
    """The database reads the file before its lines have been looked at: that must not end the load."""
    lines = [line("message", message("m1")), line("message", message(text="x" * 40_000_000))]
    converted = convert_lines(tmp_path, *lines, line("message", message("m2", custom_number=1)))
    assert ["m1", "m2"] == converted.column("messages", "id")
    assert 1 == converted.counts.rejected_lines


def test_a_hundred_thousand_keys_are_kept(tmp_path: Path) -> None:
    """A resource bomb within the size limit is data like any other."""
    keys = {f"key-{number}": number for number in range(100_000)}
    row = convert_lines(tmp_path, line("message", message(**keys))).one("messages")
    assert keys == json.loads(row["custom"])


def test_a_reject_names_the_line_that_an_editor_shows(tmp_path: Path) -> None:
    """Line numbers count blank lines too, so that an editor finds the line."""
    path = tmp_path / "export"
    path.write_bytes(
        b"\n\n" + line("message", message(id=None)) + b"\n\n" + line("message", message(created_at=AT)) + b"\n"
    )
    row = convert(path, folder=tmp_path).one("rejects")
    assert (3, 2) == (row["line_number"], row["byte_offset"])
