"""From lines of any shape to entities: recognised, placed in their channel, or rejected with the reason."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from export_objects import (
    AT,
    CID,
    Converted,
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
FIXTURE = Path(__file__).parents[2] / "fixtures" / "v1-real-shape.json"

ONE_CHANNEL: list[tuple[str, dict[str, Any]]] = [
    ("channel", channel()),
    ("member", member()),
    ("read", read()),
    ("message", message("m1", attachments=[{"type": "image", "image_url": "https://example.com/a.png"}])),
    ("reaction", reaction("m1", cid=CID)),
    ("message", message("m2", parent_id="m1", user={"id": "u2", "name": "Two"})),
]


def rows_of(converted: Converted) -> dict[str, list[dict[str, Any]]]:
    return {name: rows for name, rows in converted.rows.items() if name != "rejects"}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("typed")
    return rows_of(convert_lines(folder, *(line(name, fields) for name, fields in ONE_CHANNEL)))


@pytest.mark.parametrize("shape", ENTITY_SHAPES)
def test_every_line_shape_gives_the_same_rows(shape: Shape, expected: dict[str, Any], tmp_path: Path) -> None:
    """The service does not publish the line shape: whichever it is, the lake must not differ."""
    converted = convert_lines(tmp_path, *(line(name, fields, shape) for name, fields in ONE_CHANNEL))
    assert expected == rows_of(converted)
    assert {"channel": 1, "member": 1, "read": 1, "message": 2, "reaction": 1} == converted.counts.entities


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


def whole_channel(cid: str = CID, n_messages: int = 20) -> dict[str, Any]:
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
    assert (4, 0, 41) == (converted.counts.lines, converted.counts.rejected, converted.counts.rows["messages"])


def test_an_overlong_object_of_a_channel_s_line_is_a_reject(tmp_path: Path) -> None:
    element = whole_channel() | {"config": {"a": 1}}
    element["messages"].append(message("long", text="x" * 5000))
    raw = encoded(element)
    converted = convert_lines(tmp_path, line("message", message("before")), raw, max_line_bytes=2000)
    row = converted.one("rejects")
    begin = row["byte_offset"] - len(line("message", message("before"))) - 1
    assert ("the object is longer than the limit of 2000 bytes", 2) == (row["reason"], row["line_number"])
    assert raw[begin:].startswith(row["raw"].encode())
    assert (2, 21, 1) == (converted.counts.lines, converted.counts.rows["messages"], converted.counts.other_entities)


@pytest.mark.parametrize(
    ("fault", "n_messages"),
    [
        (lambda raw: raw[: raw.index(b":x-15") + 30], 15),
        (lambda raw: raw.replace(b'"members"', b"members"), 20),
        (lambda raw: raw + b" {}", 20),
    ],
)
def test_a_fault_in_a_channel_s_long_line_costs_what_comes_after_it(
    fault: Any, n_messages: int, tmp_path: Path
) -> None:
    """What stood before it is rows already, and the lines that follow are as they would be."""
    raw = fault(encoded(whole_channel("team:x")))
    lines = [line("message", message("before")), raw, line("message", message("after"))]
    converted = convert_lines(tmp_path, *lines, max_line_bytes=2000)
    row = converted.one("rejects")
    assert "the line is not one whole object; what came before the fault was taken" == row["reason"]
    assert (2, len(lines[0]) + 1, len(raw)) == (row["line_number"], row["byte_offset"], row["raw_size_bytes"])
    assert (3, 1) == (converted.counts.lines, converted.counts.rejected_lines)
    assert n_messages + 2 == converted.counts.rows["messages"]
    assert {"before", "after"} < set(converted.column("messages", "id"))


def backwards(cid: str) -> dict[str, Any]:
    """A channel whose lists stand before it, of objects that do not say whose they are."""
    return {
        "reactions": [reaction(f"elsewhere {cid}")],
        "reads": [read()],
        "members": [member(), member("u2")],
        "messages": [message(f"{cid}-{number}", cid=None) for number in range(20)],
        "draft": {"text": "x"},
        "channel": channel(cid),
    }


@pytest.mark.parametrize("limit", [600, 1_000_000])
@pytest.mark.parametrize("as_array", [False, True])
def test_lists_that_come_before_their_channel_wait_for_it(as_array: bool, limit: int, tmp_path: Path) -> None:
    """Keys have no order: they were of no channel, and a reaction was of the element before. What waits for the channel
    may be larger than memory, so beyond the limit it does so in a file."""
    elements = [backwards("team:x"), backwards("team:y")]
    path = tmp_path / "export"
    path.write_bytes(encoded(elements) if as_array else b"\n".join(map(encoded, elements)))
    converted = convert(path, folder=tmp_path, max_line_bytes=limit)
    path.write_bytes(b"\n".join(encoded(dict(reversed(element.items()))) for element in elements))
    expected = convert(path, folder=tmp_path)
    assert (expected.rows, expected.counts.entities) == (converted.rows, converted.counts.entities)
    assert (["team:x", "team:y"], 0) == (converted.column("reactions", "cid"), converted.counts.rejected)


def test_what_has_no_channel_in_its_element_is_not_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "v1.json"
    lost = {"messages": [message(cid=None), message("own")], "reactions": [reaction("elsewhere")]}
    path.write_bytes(encoded([whole_channel("team:x", 1), lost]))
    converted = convert(path, folder=tmp_path)
    assert (["message without channel"], [None]) == (converted.reasons, converted.column("reactions", "cid"))
    assert [CID, "team:x"] == sorted(converted.column("messages", "cid"))


@pytest.mark.parametrize("as_array", [False, True])
def test_a_channel_is_not_lost_for_what_else_is_in_its_element(as_array: bool, tmp_path: Path) -> None:
    """The limit is for one object: those of an element may have more together before their lists begin."""
    long = {"x": "y" * 1500}
    element = {"reads": [read()], "pinned": long, "draft": long, **whole_channel(n_messages=2)}
    path = tmp_path / "export"
    path.write_bytes(encoded([element] if as_array else element))
    converted = convert(path, folder=tmp_path, max_line_bytes=2000)
    assert (0, 2, 1) == (converted.counts.rejected, converted.counts.other_entities, converted.counts.rows["channels"])
    assert [CID] * 2 == converted.column("messages", "cid")


def test_a_fault_costs_nothing_that_waits_for_the_channel(tmp_path: Path) -> None:
    raw = encoded({"messages": [message(f"m{number}") for number in range(20)], "members": [member()]})
    converted = convert_lines(tmp_path, line("channel", channel("team:x")), raw[:-3], max_line_bytes=2000)
    assert (20, ["the line is not one whole object; what came before the fault was taken"]) == (
        converted.counts.rows["messages"],
        converted.reasons,
    )


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


@pytest.mark.parametrize("lost", [*LOST_CHANNELS, *OTHER_LOST_LINES])
@pytest.mark.parametrize("name", ["member", "message"])
def test_what_follows_a_line_that_was_a_channel_is_not_of_the_one_before(
    lost: bytes, name: str, tmp_path: Path
) -> None:
    """Nobody could tell that it stands in the wrong channel; a line of anything else that is lost ends none."""
    following = line("member", member()) if name == "member" else line("message", message(cid=None))
    lines = [line("channel", channel("team:x")), lost, following]
    converted = convert_lines(tmp_path, *lines, max_line_bytes=2000)
    places = converted.column("members", "cid") + converted.column("messages", "cid")
    if lost in LOST_CHANNELS:
        assert ([], f"{name} without channel") == (places, converted.reasons[-1])
    else:
        assert (["team:x"], 1) == (places, converted.counts.rejected)


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.KEYED, Shape.ITEM])
def test_what_follows_a_channel_that_is_a_reject_is_of_no_channel(shape: Shape, tmp_path: Path) -> None:
    """The channel before it would be the wrong one, and nobody could tell."""
    homeless = [line("member", member(), shape), line("message", message(cid=None), shape)]
    lines = [line("channel", channel(), shape), line("channel", {"frozen": True, "id": "c2"}, shape), *homeless]
    converted = convert_lines(tmp_path, *lines)
    assert ["channel without channel", "member without channel", "message without channel"] == sorted(converted.reasons)
    assert (1, 0, 0) == tuple(converted.counts.rows[name] for name in ("channels", "members", "messages"))


@pytest.mark.parametrize("as_array", [False, True])
def test_an_element_whose_channel_is_null_is_of_no_channel(as_array: bool, tmp_path: Path) -> None:
    nameless = {"channel": None, "messages": [message(cid=None)], "members": [member()]}
    elements = [whole_channel(n_messages=1), nameless]
    path = tmp_path / "export"
    path.write_bytes(encoded(elements) if as_array else b"\n".join(map(encoded, elements)))
    converted = convert(path, folder=tmp_path)
    assert (1, 1) == (converted.counts.rows["messages"], converted.counts.rows["members"])
    assert {"member without channel", "message without channel"} < set(converted.reasons)


def test_objects_spread_over_lines_belong_to_the_channel_before_them(tmp_path: Path) -> None:
    """As they would on a line each."""
    objects = [{"channel": channel()}, {"member": member()}, {"message": message(cid=None)}]
    path = tmp_path / "spread.json"
    path.write_bytes(b"\n".join(json.dumps(each, indent=2).encode() for each in objects))
    converted = convert(path, folder=tmp_path)
    assert ([CID], [CID]) == (converted.column("members", "cid"), converted.column("messages", "cid"))


@pytest.mark.parametrize("own", [{"channel_cid": "a:two"}, {"channel_type": "a", "channel_id": "two"}], ids=str)
@pytest.mark.parametrize("before", [[], [line("channel", channel("a:one"))]], ids=["alone", "after a channel"])
@pytest.mark.parametrize("shape", ENTITY_SHAPES)
def test_what_an_object_says_of_its_channel_goes_before_its_place(
    own: dict[str, str], before: list[bytes], shape: Shape, tmp_path: Path
) -> None:
    """However it says so: a row of another channel would be found by nobody."""
    written, reacted = ({**fields, **own} for fields in (message("m1"), reaction("m9")))
    del written["cid"]
    lines = [*before, line("message", written, shape), line("reaction", reacted, shape)]
    converted = convert_lines(tmp_path, *lines)
    assert [["a:two"], ["a:two"]] == [converted.column(table, "cid") for table in ("messages", "reactions")]
    assert 0 == converted.counts.rejected


@pytest.mark.parametrize("key", ["frozen", "config", "member_count", "created_by"])
def test_a_bare_message_may_have_custom_keys_of_channels(key: str, tmp_path: Path) -> None:
    """It would be a row of channels, and hide the channel that it is of."""
    lines = [line("channel", channel()), line("message", message("m1", **{key: {"id": "u9"}}), Shape.BARE)]
    converted = convert_lines(tmp_path, *lines)
    assert ["m1"] == converted.column("messages", "id")
    assert [CID] == converted.column("channels", "cid")


def test_a_bare_message_may_have_custom_keys_of_a_whole_channel(tmp_path: Path) -> None:
    """One with a channel and a list beside it is no element of an array."""
    fields = message("m1", channel="general", users=["a"])
    converted = convert_lines(tmp_path, line("message", fields, Shape.BARE))
    assert {"channel": "general", "users": ["a"]} == json.loads(converted.one("messages")["custom"])
    assert (0, 0) == (converted.counts.rejected, converted.counts.other_entities)


def test_a_channels_name_is_its_column_wherever_it_stands(tmp_path: Path) -> None:
    """A key of `custom` that is a column is not told twice; another value than the column's is kept."""
    flat = channel("team:a", name="A", topic="t")
    nested = channel("team:b", custom={"name": "B", "topic": 123456789012345678901})
    alone, other = channel("team:c", custom={"name": "C"}), channel("team:d", name="D", custom={"name": "E"})
    converted = convert_lines(tmp_path, *(line("channel", fields) for fields in (flat, nested, alone, other)))
    assert ["A", "B", "C", "D"] == converted.column("channels", "name")
    assert ['{"topic":"t"}', '{"topic":123456789012345678901}', "{}", '{"name":"E"}'] == converted.column(
        "channels", "custom"
    )


@pytest.mark.parametrize("custom", ["email", {"id": "c1"}, None])
def test_a_message_of_an_array_may_have_a_custom_channel(custom: Any, tmp_path: Path) -> None:
    """It was taken for a channel's element, and torn apart."""
    path = tmp_path / "array.json"
    path.write_bytes(encoded([message(channel=custom)]))
    converted = convert(path, folder=tmp_path)
    assert {"channel": custom} == json.loads(converted.one("messages")["custom"])
    assert (0, {"message": 1}) == (converted.counts.rejected, {k: v for k, v in converted.counts.entities.items() if v})


def test_a_channel_with_empty_lists_keeps_what_else_is_in_its_element(tmp_path: Path) -> None:
    path = tmp_path / "v1.json"
    path.write_bytes(encoded([{"channel": channel(), "messages": [], "draft": {"text": "x"}}]))
    converted = convert(path, folder=tmp_path)
    assert (1, 1, 0) == (converted.counts.rows["channels"], converted.counts.other_entities, converted.counts.rejected)


def test_an_array_of_lines_gives_the_same_rows(expected: dict[str, Any], tmp_path: Path) -> None:
    """The old import format was one array of envelopes."""
    path = tmp_path / "array.json"
    path.write_bytes(b"[" + b",\n".join(line(name, fields, Shape.ITEM) for name, fields in ONE_CHANNEL) + b"]")
    assert expected == rows_of(convert(path, folder=tmp_path))


def test_shapes_may_be_mixed_in_one_file(expected: dict[str, Any], tmp_path: Path) -> None:
    """Recognition is per line, so that nothing hangs on a guess made at the first."""
    lines = [line(name, fields, ENTITY_SHAPES[at % 4]) for at, (name, fields) in enumerate(ONE_CHANNEL)]
    assert expected == rows_of(convert_lines(tmp_path, *lines))


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


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_objects_may_be_spread_over_lines(end: bytes, expected: dict[str, Any], tmp_path: Path) -> None:
    """Somebody looked at the file with jq and saved what they saw; objects take the place of lines."""
    path = tmp_path / "export.json"
    spread = [json.dumps({"type": name, "data": fields}, indent=2) for name, fields in ONE_CHANNEL]
    path.write_bytes(end.join(each.encode().replace(b"\n", end) for each in spread) + end)
    converted = convert(path, folder=tmp_path)
    assert (expected, len(ONE_CHANNEL)) == (rows_of(converted), converted.counts.lines)


@pytest.mark.parametrize(
    ("table", "name", "fields"),
    [
        ("members", "channel_member", member(cid=CID)),
        ("members", "members", member(cid=CID)),
        ("messages", "messages", message()),
        ("channels", "channels", channel()),
        ("users", "users", user()),
        ("reactions", "message_reaction", reaction()),
        ("reads", "reads", read(cid=CID)),
        ("reads", "channel_read", read(cid=CID)),
    ],
)
def test_an_envelope_is_known_by_any_of_its_names(
    table: str, name: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    """The names are guesses from the import format and the API; a tolerant reader takes them all."""
    lines = [
        encoded({name_key: name, payload_key: fields})
        for name_key in ("type", "kind", "entity", "_type")
        for payload_key in ("data", "item", "object", "payload", name)
    ]
    converted = convert_lines(tmp_path, *lines)
    assert (1, 19, 0) == (converted.counts.rows[table], converted.counts.duplicates, converted.counts.rejected)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({}, {"v": 2, "updated_at": "2020-01-01T00:00:00Z"}),
        ({"mood": "fine"}, {"v": 2, "updated_at": "2020-01-01T00:00:00Z", "mood": "fine"}),
        ({"custom": {"v": 3}}, {"v": 3, "updated_at": "2020-01-01T00:00:00Z"}),
        ({"custom": "x"}, {"v": 2, "updated_at": "2020-01-01T00:00:00Z", "custom": "x"}),
    ],
)
def test_what_an_envelope_holds_beside_the_object_is_kept(
    own: dict[str, Any], told: dict[str, Any], tmp_path: Path
) -> None:
    """The envelope is not documented: a key more was dropped without a word. It must not pass for one of the object's
    own fields either."""
    usual = convert_lines(tmp_path, line("message", message())).one("messages")
    beside = {"v": 2, "updated_at": "2020-01-01T00:00:00Z"}
    kept = convert_lines(tmp_path, encoded({"type": "message", "data": message(**own), **beside})).one("messages")
    assert (told, usual["updated_at"]) == (json.loads(kept["custom"]), kept["updated_at"])


@pytest.mark.parametrize("own", [{}, {"cid": None}, {"cid": ""}])
@pytest.mark.parametrize("key", ["cid", "channel_cid"])
def test_an_envelope_may_name_the_channel(key: str, own: dict[str, Any], tmp_path: Path) -> None:
    """Members carry none: beside them is where a writer of lines would put it."""
    converted = convert_lines(
        tmp_path, line("channel", channel()), encoded({"type": "member", key: "team:other", "data": member(**own)})
    )
    assert "team:other" == converted.one("members")["cid"]


def test_an_object_s_own_channel_goes_before_its_envelope_s(tmp_path: Path) -> None:
    """Of two that differ none is lost."""
    lines = [
        encoded({"type": "message", "cid": CID, "data": message("m1")}),
        encoded({"type": "message", "cid": "team:other", "data": message("m2")}),
    ]
    found = convert_lines(tmp_path, *lines).rows["messages"]
    assert [("m1", CID, "{}"), ("m2", CID, '{"cid":"team:other"}')] == [
        (row["id"], row["cid"], row["custom"]) for row in found
    ]


def test_an_envelope_without_a_table_is_kept_with_what_is_beside_the_object(tmp_path: Path) -> None:
    whole = {"type": "poll", "data": {"id": "p1"}, "v": 2}
    converted = convert_lines(tmp_path, line("channel", channel()), encoded(whole))
    assert whole == json.loads(converted.one("other_entities")["data"])


def test_a_message_of_type_regular_is_no_envelope(tmp_path: Path) -> None:
    """Bare objects have a type of their own; only one with a payload object wraps another."""
    fields = message(data={"not": "a payload"})
    assert {"data": {"not": "a payload"}} == json.loads(
        convert_lines(tmp_path, line("message", fields, Shape.BARE)).one("messages")["custom"]
    )


@pytest.mark.parametrize("name", [*sorted(OTHER_NAMES), "a_thing_of_next_year"])
@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.KEYED])
def test_an_entity_without_a_table_is_kept_whole(name: str, shape: Shape, tmp_path: Path) -> None:
    """What the service adds later must not be lost, nor stop a load."""
    thing = {"id": "p1", "big": 12345678901234567890123, "text": "é"}
    converted = convert_lines(tmp_path, line("channel", channel()), line(name, thing, shape))
    assert (name, CID, 2, thing) == tuple(
        json.loads(value) if column == "data" else value
        for column, value in converted.one("other_entities").items()
        if column in ("entity", "cid", "line_number", "data")
    )
    assert (1, 1, 0) == (converted.counts.other_entities, converted.counts.entities[name], converted.counts.rejected)


# Which channel


@pytest.mark.parametrize(("table", "name", "fields"), [("members", "member", member()), ("reads", "read", read())])
def test_an_object_without_a_channel_belongs_to_the_channel_before_it(
    table: str, name: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    """Members and reads carry no cid in a real export."""
    lines = [
        line("channel", channel("messaging:one")),
        line(name, fields),
        line("channel", channel("messaging:two")),
        line(name, fields),
    ]
    assert ["messaging:one", "messaging:two"] == convert_lines(tmp_path, *lines).column(table, "cid")


@pytest.mark.parametrize(
    "fields", [{"channel_cid": "team:x"}, {"channel_type": "team", "channel_id": "x"}, {"cid": "team:x"}]
)
def test_an_object_may_name_its_channel_itself(fields: dict[str, Any], tmp_path: Path) -> None:
    """Import objects name theirs by type and id; their own word counts before the place in the file."""
    converted = convert_lines(tmp_path, line("channel", channel()), line("member", member(**fields)))
    assert "team:x" == converted.one("members")["cid"]


@pytest.mark.parametrize("shape", ENTITY_SHAPES)
@pytest.mark.parametrize("missing", [None, ""])
def test_a_message_whose_channel_is_empty_takes_it_from_its_place(
    shape: Shape, missing: str | None, tmp_path_factory: Any
) -> None:
    """A row without channel is invisible to every claim, and would never be replaced."""
    lines = [line("channel", channel()), line("message", message(cid=missing), shape)]
    assert CID == convert_lines(tmp_path_factory.mktemp("place"), *lines).one("messages")["cid"]


def test_lists_that_come_before_their_channel_belong_to_it(tmp_path: Path) -> None:
    """Keys of a JSON object have no order."""
    first = {"members": [member()], "channel": channel("messaging:one")}
    second = {"channel": channel("messaging:two"), "members": [member()]}
    path = tmp_path / "v1.json"
    path.write_bytes(encoded([first, second]))
    assert ["messaging:one", "messaging:two"] == convert(path, folder=tmp_path).column("members", "cid")


def test_a_channel_without_cid_is_named_by_type_and_id(tmp_path: Path) -> None:
    """Import objects have no cid."""
    fields = {"type": "team", "id": "x", "created_by": {"id": "u1"}}
    assert "team:x" == convert_lines(tmp_path, line("channel", fields)).one("channels")["cid"]


@pytest.mark.parametrize("empty", [None, [], {}])
def test_lists_that_are_null_or_empty_are_nothing(empty: Any, tmp_path: Path) -> None:
    """Go writes a list without items as null."""
    element = {"channel": channel(), "messages": empty, "members": empty, "reads": empty, "draft": empty}
    converted = convert_lines(tmp_path, encoded(element))
    assert ({"channel": 1}, 0) == (converted.counts.entities, converted.counts.rejected)


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
@pytest.mark.parametrize("reason", WITHOUT)
def test_an_object_that_can_be_no_row_is_a_reject_with_the_reason(
    reason: str, shape: Shape, tmp_path_factory: Any
) -> None:
    """Each names what is missing, and the line as it stood."""
    name, fields = WITHOUT[reason]
    lines = [line("user", user("u0")), line(name, fields, shape)]
    converted = convert_lines(tmp_path_factory.mktemp("reject"), *lines, kind=ExportKind.CHANNELS)
    row = converted.one("rejects")
    assert (reason, 2, len(line("user", user("u0"))) + 1) == (row["reason"], row["line_number"], row["byte_offset"])
    assert (1, 1) == (converted.counts.rejected, converted.counts.entities[name] - (name == "user"))
    assert encoded(fields) in row["raw"].encode()


@pytest.mark.parametrize("shape", ENTITY_SHAPES)
@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "nan", "-inf", "[1,]", '{"a":1,}', "01", "1.", "+1"])
def test_what_only_looks_like_json_is_a_reject_in_every_shape(word: str, shape: Shape, tmp_path: Path) -> None:
    """Some writers have such values, and the database reads most of them; no other reader of the lake could."""
    good = line("message", message("m1", text=f"is it {word}, or [{word}]?", own=f":{word},"), shape)
    bad = line("message", message("m2", own="@"), shape).replace(b'"@"', word.encode())
    converted = convert_lines(tmp_path, good, bad, line("message", message("m3"), shape))
    assert (["m1", "m3"], 1) == (converted.column("messages", "id"), converted.counts.rejected)
    assert (2, bad) == (converted.one("rejects")["line_number"], converted.one("rejects")["raw"].encode())


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
    ],
)
def test_a_typed_line_that_is_odd_is_one_reject_with_its_place(odd: bytes, tmp_path: Path) -> None:
    """Most lines are only glanced at: those among them that are no row are still told one by one."""
    good = [line("message", message(f"m{number}", own=None)) for number in range(3)]
    converted = convert_lines(tmp_path, *good, line("reaction", reaction("m1", "u1")), odd, line("channel", channel()))
    assert (["m0", "m1", "m2"], 1, 6) == (
        converted.column("messages", "id"),
        converted.counts.rejected,
        converted.counts.lines,
    )
    assert ['{"own":null}'] * 3 == converted.column("messages", "custom")
    row = converted.one("rejects")
    before = sum(len(each) + 1 for each in (*good, line("reaction", reaction("m1", "u1"))))
    assert (5, before, odd) == (row["line_number"], row["byte_offset"], row["raw"].encode())


@pytest.mark.parametrize("shape", ENTITY_SHAPES)
@pytest.mark.parametrize("depth", [490, 501, 5_000, 100_000])
def test_what_is_nested_too_deep_is_a_reject_in_every_shape(depth: int, shape: Shape, tmp_path: Path) -> None:
    """Readers recurse: a value that one tool takes must not crash the next."""
    lines = [
        line("message", message("m1", own="@"), shape).replace(b'"@"', b"[" * depth + b"]" * depth),
        line("message", message("m2", text="[{" * 1000), shape),
    ]
    converted = convert_lines(tmp_path, *lines)
    assert (1 + (depth < 500), depth > 500) == (converted.counts.rows["messages"], bool(converted.counts.rejected))
    told = {reason.removeprefix("message: ") for reason in converted.reasons}
    assert told <= {"nested deeper than 500 levels"}


def test_a_message_that_is_too_deep_costs_no_other_on_its_line(tmp_path: Path) -> None:
    """A line may hold a whole channel, with more brackets than any value is deep."""
    deep = encoded(message("deep", own="@")).replace(b'"@"', b"[" * 600 + b"]" * 600)
    good = [encoded(message(f"m{number}", own=[[{}]])) for number in range(300)]
    whole = b'{"channel":%b,"messages":[%b]}' % (encoded(channel()), b",".join([*good, deep]))
    converted = convert_lines(tmp_path, whole)
    assert (300, ["message: nested deeper than 500 levels"]) == (converted.counts.rows["messages"], converted.reasons)


@pytest.mark.parametrize("shape", ENTITY_SHAPES)
def test_nanoseconds_in_quotes_are_a_time_in_every_shape(shape: Shape, tmp_path: Path) -> None:
    """There are writers of JSON that put integers of 64 bits in quotes."""
    lines = [line("message", message("m1", created_at="1767261600123456789"), shape)]
    lines.append(line("message", message("m2", created_at="9" * 30), shape))
    converted = convert_lines(tmp_path, *lines)
    assert ("m1", 123_456) == (converted.one("messages")["id"], converted.one("messages")["created_at"].microsecond)
    assert 1 == converted.counts.rejected


NO_TIMES = ["", "tomorrow", "2026-01-01", "2026-01-01T10:00:00", "infinity", "epoch", "20000-01-01T00:00:00Z",
            "2026-01-01T24:00:00Z", "2026-01-01T10:00:00+25:00", True, [], {}, 10**19, 10**30,
            "-025-01-01T00:00:00.1Z", "   5-01-01T00:00:00Z", "2026-01-01T 0:00:00Z", "2026-01-01T10:00:0.1Z",
            "2026-01-01T10:00:00.Z", "2026-01-01T10:00:00.1234567890Z"]  # fmt: skip


@pytest.mark.parametrize("shape", ENTITY_SHAPES)
def test_a_time_that_is_none_is_a_reject_in_every_shape(shape: Shape, tmp_path: Path) -> None:
    """The database would take dates, naive times and infinity; a guessed day is worse than a reject."""
    lines = [line("message", message(f"m{at}", created_at=value), shape) for at, value in enumerate(NO_TIMES)]
    converted = convert_lines(tmp_path, *lines)
    assert [] == converted.column("messages", "created_at")
    assert len(NO_TIMES) == converted.counts.rejected


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


@pytest.mark.parametrize("reason", BROKEN)
def test_a_line_that_is_not_well_formed_is_a_reject_and_the_next_is_read(reason: str, tmp_path: Path) -> None:
    """One bad line must not cost the file."""
    converted = convert_lines(tmp_path, line("message", message("m1")), BROKEN[reason], line("message", message("m2")))
    assert converted.one("rejects")["reason"].startswith(reason)
    assert (["m1", "m2"], 3, 1) == (
        converted.column("messages", "id"),
        converted.counts.lines,
        converted.counts.rejected,
    )


def test_a_reject_of_many_on_a_line_holds_its_own_bytes(tmp_path: Path) -> None:
    """Each held the beginning of all: a line of 50 KB made rejects of 1.7 GB."""
    element = whole_channel(n_messages=300) | {"members": [member(user_id=None, user=None, note=1), 0]}
    lines = [line("message", message("before")), encoded(element)]
    converted = convert_lines(tmp_path, *lines)
    rows = converted.rows["rejects"]
    expected = [encoded(item).decode() for item in element["members"]]
    assert [(raw, len(raw), 2, len(lines[0]) + 1) for raw in expected] == [
        (row["raw"], row["raw_size_bytes"], row["line_number"], row["byte_offset"]) for row in rows
    ]


@pytest.mark.parametrize("space", [b"", b" "])
@pytest.mark.parametrize(
    "doubled",
    [
        b'{"type":"message","data":@,"data":@}',
        b'{"message":@,"message":@}',
        b'{"type":"message","item":@,"item":@}',
        b'{"channel":{"cid":"a:b"},"messages":[@],"messages":[@]}',
    ],
)
def test_a_line_that_tells_a_key_twice_is_a_reject(doubled: bytes, space: bytes, tmp_path: Path) -> None:
    """Readers of JSON take the last: what the first one told was gone, and in no count."""
    lost = doubled.replace(b":", b":" + space).replace(b"@", encoded(message("lost")))
    good = [line("message", message(f"m{number}", data={"data": {"message": {}}})) for number in range(3)]
    converted = convert_lines(tmp_path, *good, lost)
    assert (["m0", "m1", "m2"], ["a key stands twice in the line"]) == (
        converted.column("messages", "id"),
        converted.reasons,
    )
    assert lost == converted.one("rejects")["raw"].encode()


@pytest.mark.parametrize("bad", [b"nope", b"null", b"\xff\xfe", b"{", b'"text"', b",,"])
def test_a_line_that_is_damaged_is_one_reject_also_where_it_is_the_first(bad: bytes, tmp_path: Path) -> None:
    """On any other line it was one; here it cost the file."""
    lines = [line("message", message("m1")), line("message", message("m2"))]
    for converted in (convert_lines(tmp_path, bad, *lines), convert_lines(tmp_path, *lines, bad)):
        assert (["m1", "m2"], 1, 3) == (
            converted.column("messages", "id"),
            converted.counts.rejected_lines,
            converted.counts.lines,
        )


def test_bytes_that_are_no_text_are_kept_in_base64(tmp_path: Path) -> None:
    """A reject that cannot be looked at is as good as lost."""
    raw = BROKEN["not UTF-8"]
    row = convert_lines(tmp_path, raw).one("rejects")
    assert ("base64", raw, len(raw)) == (row["raw_encoding"], base64.b64decode(row["raw"]), row["raw_size_bytes"])


@pytest.mark.parametrize("shape", ENTITY_SHAPES)
def test_a_lone_surrogate_is_mended(shape: Shape, tmp_path_factory: Any) -> None:
    """Clients cut texts in the middle of an emoji; all but that half of a character must come through."""
    fields = message(text="cut", custom_number=123456789012345678901234567890)
    raw = line("message", fields, shape).replace(b'"cut"', b'"\\\\ud83d \\ud83d\\ude00 \\ud83d"')
    row = convert_lines(tmp_path_factory.mktemp("surrogate"), raw).one("messages")
    assert ("\\ud83d \U0001f600 \ufffd", '{"custom_number":123456789012345678901234567890}') == (
        row["text"],
        row["custom"],
    )


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.KEYED])
def test_an_overlong_line_is_a_reject_of_bounded_size(shape: Shape, tmp_path_factory: Any) -> None:
    """The limit can be set; what is kept of the line shows what it was."""
    long = line("message", message("long", text="x" * 300_000), shape)
    lines = [line("message", message("m1")), long, line("message", message("m2"))]
    converted = convert_lines(tmp_path_factory.mktemp("long"), *lines, max_line_bytes=200_000)
    row = converted.one("rejects")
    assert "the line is longer than the limit of 200000 bytes" == row["reason"]
    assert (long[:MAX_REJECT_BYTES].decode(), len(long)) == (row["raw"], row["raw_size_bytes"])
    assert ["m1", "m2"] == converted.column("messages", "id")


def test_a_line_longer_than_the_reader_s_buffer_is_a_reject(tmp_path: Path) -> None:
    """The database looks at the file before anyone has looked at its lines: it must not end the load."""
    lines = [line("message", message("m1")), line("message", message(text="x" * 40_000_000))]
    converted = convert_lines(tmp_path, *lines, line("message", message("m2", custom_number=1)))
    assert ["m1", "m2"] == converted.column("messages", "id")
    assert 1 == converted.counts.rejected_lines


def test_an_overlong_item_of_an_array_is_a_reject(tmp_path: Path) -> None:
    """The limit is that of an object, however its file is laid out."""
    path = tmp_path / "v1.json"
    path.write_bytes(encoded([{"channel": channel(), "messages": [message("m1"), message("long", text="x" * 5000)]}]))
    converted = convert(path, folder=tmp_path, max_line_bytes=2000)
    assert ["the object is longer than the limit of 2000 bytes"] == converted.reasons
    assert (["m1"], 2) == (converted.column("messages", "id"), converted.counts.entities["message"])


@pytest.mark.parametrize("levels", [600, 5_000, 200_000])
def test_nesting_without_end_does_no_harm(levels: int, tmp_path: Path) -> None:
    """A recursive reader would overflow its stack: the process would be gone, and with it the sentence."""
    raw = line("message", message(deep="@")).replace(b'"@"', b"[" * levels + b"]" * levels)
    converted = convert_lines(tmp_path, raw, line("message", message("m2")))
    assert 2 == converted.counts.rows["messages"] + converted.counts.rejected


def test_a_hundred_thousand_keys_are_kept(tmp_path: Path) -> None:
    """A resource bomb within the size limit is data like any other."""
    keys = {f"key-{number}": number for number in range(100_000)}
    row = convert_lines(tmp_path, line("message", message(**keys))).one("messages")
    assert keys == json.loads(row["custom"])


def test_elements_that_are_no_channel_are_rejects(tmp_path: Path) -> None:
    """An array's elements are its lines: each is accounted for."""
    path = tmp_path / "v1.json"
    path.write_bytes(encoded([1, "two", None, [4], {}, {"channel": channel()}]))
    converted = convert(path, folder=tmp_path)
    assert (6, 5, 1) == (converted.counts.lines, converted.counts.rejected, converted.counts.rows["channels"])


def test_keys_of_an_array_s_elements_keep_their_escapes(tmp_path: Path) -> None:
    """Elements are put together from their members again; an empty key and quotes in keys are legal."""
    odd = {"": 1, 'qu"ote': 2, "back\\slash": 3}
    path = tmp_path / "array.json"
    path.write_bytes(encoded([message(**odd), {"type": "message", "data": message("m2"), "": 1}]))
    converted = convert(path, folder=tmp_path)
    assert [odd, {"": 1}] == [json.loads(custom) for custom in converted.column("messages", "custom")]


def test_a_value_that_is_not_json_rejects_its_entity_only(tmp_path: Path) -> None:
    """In an array, fragments are checked one by one: a bad one must not stop the load nor pass."""
    path = tmp_path / "v1.json"
    path.write_bytes(b'[{"channel":%b,"draft":tru,"messages":[{"id":},%b]}]' % (encoded(channel()), encoded(message())))
    converted = convert(path, folder=tmp_path)
    assert ["draft: not JSON: Expecting value", "message: not JSON: Expecting value"] == sorted(
        reason.partition(": line")[0] for reason in converted.reasons
    )
    assert (1, 0) == (converted.counts.rows["messages"], converted.counts.other_entities)


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


def test_which_channels_a_file_names(tmp_path: Path) -> None:
    """A channel without messages is covered too: its silence is known."""
    lines = [line("channel", channel("a:1")), line("channel", channel("a:2")), line("message", message())]
    assert {"a:1", "a:2"} == convert(write_lines(tmp_path / "export", lines), folder=tmp_path).named


def test_a_reject_names_the_line_that_an_editor_shows(tmp_path: Path) -> None:
    """Line numbers count blank lines too, so that an editor finds the line."""
    path = tmp_path / "export"
    path.write_bytes(
        b"\n\n" + line("message", message(id=None)) + b"\n\n" + line("message", message(created_at=AT)) + b"\n"
    )
    row = convert(path, folder=tmp_path).one("rejects")
    assert (3, 2) == (row["line_number"], row["byte_offset"])
