"""The decisions about units, without a database: which objects a line or an element holds, and which are rejects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from export_objects import (
    AT,
    CID,
    Fields,
    channel,
    encoded,
    line,
    member,
    message,
    reaction,
    read,
    user,
    write_lines,
)

from airflow_provider_chatexport.core.entities import Entity, Shape
from airflow_provider_chatexport.core.options import MAX_LINE_BYTES
from airflow_provider_chatexport.lake.normalize.elements import units
from airflow_provider_chatexport.lake.normalize.entities import (
    ChannelContext,
    Context,
    Decision,
    NormalizedObject,
    OtherEntity,
    entities,
)
from airflow_provider_chatexport.lake.normalize.export_file import ExportReader, Line
from airflow_provider_chatexport.lake.normalize.fast_path import normalize_in_place
from airflow_provider_chatexport.lake.normalize.rejects import Reject
from airflow_provider_chatexport.lake.normalize.user_exports import UserExportContext

ENTITY_SHAPES = [Shape.TYPED, Shape.KEYED, Shape.BARE, Shape.ITEM]
NewContext = Callable[[int], Context]


def decided(
    folder: Path, content: bytes, *, limit: int = MAX_LINE_BYTES, new_context: NewContext = ChannelContext
) -> list[Decision]:
    """All decisions about a file."""
    path = folder / "export"
    path.write_bytes(content)
    context = new_context(limit)
    return [
        decision
        for unit in units(ExportReader(path), folder, context.head, limit)
        for decision in entities(unit, context)
    ]


def of_lines(*lines: bytes, new_context: NewContext = ChannelContext) -> list[Decision]:
    """All decisions about lines."""
    context = new_context(MAX_LINE_BYTES)
    return [
        decision
        for number, raw in enumerate(lines, 1)
        for decision in entities(Line(number, 0, raw, len(raw)), context)
    ]


def objects(decisions: list[Decision]) -> list[tuple[Entity, str | None, Fields]]:
    """Entity, channel by the place, and members of the objects among them."""
    return [
        (each.entity, each.channel, json.loads(each.data)) for each in decisions if isinstance(each, NormalizedObject)
    ]


def reasons(decisions: list[Decision]) -> list[str]:
    return [each.reason for each in decisions if isinstance(each, Reject)]


@pytest.mark.parametrize(
    ("entity", "name", "fields"),
    [
        (Entity.MEMBER, "channel_member", member(cid=CID)),
        (Entity.MEMBER, "members", member(cid=CID)),
        (Entity.MESSAGE, "messages", message()),
        (Entity.CHANNEL, "channels", channel()),
        (Entity.USER, "users", user()),
        (Entity.REACTION, "message_reaction", reaction()),
        (Entity.READ, "reads", read(cid=CID)),
        (Entity.READ, "channel_read", read(cid=CID)),
    ],
)
def test_an_envelope_is_known_by_any_of_its_names(entity: Entity, name: str, fields: Fields) -> None:
    """The names are guesses from the import format and the API; a tolerant reader takes them all."""
    for name_key in ("type", "kind", "entity", "_type"):
        for payload_key in ("data", "item", "object", "payload", name):
            ((found, _, members),) = objects(of_lines(encoded({name_key: name, payload_key: fields})))
            assert (entity, fields) == (found, members), (name_key, payload_key)


@pytest.mark.parametrize("shape", ENTITY_SHAPES)
def test_an_object_comes_through_as_its_bytes(shape: Shape) -> None:
    """No number, key or escape changes on the way."""
    odd = rb'{"id":"m1","cid":"a:b","text":"\u00e9 \/","user":{"id":"u"},"n":1.10,"created_at":"2026-01-01T00:00:00Z"}'
    raw = line("message", {"@": 0}, shape).replace(b'{"@":0}', odd)
    assert [odd] == [each.data for each in of_lines(raw) if isinstance(each, NormalizedObject)]


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.KEYED, Shape.ITEM])
@pytest.mark.parametrize("name", ["message", "reaction"])
def test_a_usual_line_is_not_split(name: str, shape: Shape) -> None:
    """It is recognised by its start, which is kept, so that a reject can show the line as it stood."""
    fields = message() if name == "message" else reaction()
    raw = line(name, fields, shape)
    (found,) = of_lines(raw)
    assert isinstance(found, NormalizedObject)
    assert found.start is not None
    assert raw == found.start[:-1] + found.data + b"}"


def test_the_context_carries_the_channel_from_line_to_line() -> None:
    """A lost channel, or one that is a reject, ends it; a lost line of anything else does not."""
    behind = line("member", member())
    lines = {
        line("channel", channel("a:1")): "a:1",
        b'{"type":"message","da': "a:1",
        line("channel", channel("a:2"))[:-3]: None,
        line("channel", channel("a:3"), Shape.BARE): "a:3",
        line("channel", {"frozen": True, "id": "c"}): None,
    }
    context = ChannelContext(MAX_LINE_BYTES)
    for raw, cid in lines.items():
        list(entities(Line(1, 0, raw, len(raw)), context))
        (found,) = entities(Line(2, 0, behind, len(behind)), context)
        assert cid == context.cid == (found.channel if isinstance(found, NormalizedObject) else None), raw


def test_custom_keys_and_their_nulls_are_learnt_as_objects_pass() -> None:
    """DuckDB reads each key by name, and cannot tell null from absent by itself."""
    context = ChannelContext(MAX_LINE_BYTES)
    lines = [line("message", message(own=None)), line("message", message(b=1), Shape.BARE), line("user", user(c=None))]
    found = [
        *entities(Line(1, 0, lines[0], len(lines[0])), context),
        *entities(Line(2, 0, lines[1], len(lines[1])), context),
    ]
    assert [["own"], []] == [each.nulls for each in found if isinstance(each, NormalizedObject)]
    (person,) = entities(Line(3, 0, lines[2], len(lines[2])), context)
    assert isinstance(person, NormalizedObject)
    assert ["c"] == person.nulls
    keys = {entity: context.custom_keys(entity) for entity in Entity}
    assert {Entity.MESSAGE: ("b", "own"), Entity.USER: ("c",)} == {
        entity: found.names for entity, found in keys.items() if found is not None and found.names
    }


# Elements and long lines


def backwards(cid: str) -> Fields:
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
    """Keys have no order. Parts that wait for the channel may be larger than memory: beyond the limit, in a file."""
    elements = [backwards("team:x"), backwards("team:y")]
    content = encoded(elements) if as_array else b"\n".join(map(encoded, elements))
    usual_order = b"\n".join(encoded(dict(reversed(element.items()))) for element in elements)

    def ordered(content: bytes, limit: int) -> list[str]:
        decisions = decided(tmp_path, content, limit=limit)
        others = [(each.name, each.cid, each.data.decode()) for each in decisions if isinstance(each, OtherEntity)]
        assert [] == reasons(decisions)
        return sorted(map(str, [*objects(decisions), *others]))

    assert ordered(usual_order, MAX_LINE_BYTES) == ordered(content, limit)


@pytest.mark.parametrize("as_array", [False, True])
def test_a_channel_is_not_lost_for_what_else_is_in_its_element(as_array: bool, tmp_path: Path) -> None:
    """The limit is for one object: those of an element may have more together before their lists start."""
    long = {"x": "y" * 1500}
    messages = [message("m1"), message("m2")]
    element = {"reads": [read()], "pinned": long, "draft": long, "channel": channel(), "messages": messages}
    decisions = decided(tmp_path, encoded([element] if as_array else element), limit=2000)
    assert [Entity.CHANNEL, Entity.READ, Entity.MESSAGE, Entity.MESSAGE] == [each for each, _, _ in objects(decisions)]
    assert {CID} == {cid for _, cid, _ in objects(decisions)}
    assert ["pinned", "draft"] == [each.name for each in decisions if isinstance(each, OtherEntity)]
    assert [] == reasons(decisions)


def test_a_fault_costs_nothing_that_waits_for_the_channel(tmp_path: Path) -> None:
    """The objects before it name their channel themselves."""
    raw = encoded({"messages": [message(f"m{number}") for number in range(20)], "members": [member()]})
    decisions = decided(tmp_path, line("channel", channel("team:x")) + b"\n" + raw[:-3], limit=2000)
    assert 20 == sum(entity is Entity.MESSAGE for entity, _, _ in objects(decisions))
    assert ["the line is not one whole object; what came before the fault was taken"] == reasons(decisions)


@pytest.mark.parametrize("as_array", [False, True])
def test_an_element_whose_channel_is_null_is_of_no_channel(as_array: bool, tmp_path: Path) -> None:
    """Its objects are rejects, and not of the channel before."""
    first = {"channel": channel(), "messages": [message()], "members": [member()]}
    nameless = {"channel": None, "messages": [message(cid=None)], "members": [member()]}
    content = encoded([first, nameless]) if as_array else encoded(first) + b"\n" + encoded(nameless)
    decisions = decided(tmp_path, content)
    assert [Entity.CHANNEL, Entity.MESSAGE, Entity.MEMBER] == [entity for entity, _, _ in objects(decisions)]
    assert ["channel: not a JSON object", "member without channel", "message without channel"] == sorted(
        reasons(decisions)
    )


@pytest.mark.parametrize("bad", [b"nope", b"null", b"\xff\xfe", b"{", b'"text"', b",,"])
def test_a_damaged_line_is_one_reject_even_if_it_is_the_first(bad: bytes, tmp_path: Path) -> None:
    """Regression: as the first line, it cost the whole file."""
    decisions = decided(tmp_path, b"\n".join([bad, line("message", message("m1")), line("message", message("m2"))]))
    assert ["m1", "m2"] == [members["id"] for _, _, members in objects(decisions)]
    assert 1 == len(reasons(decisions))


def test_elements_that_are_no_channel_are_rejects(tmp_path: Path) -> None:
    """An array's elements are its lines: each is accounted for."""
    decisions = decided(tmp_path, encoded([1, "two", None, [4], {}, {"channel": channel()}]))
    assert ([Entity.CHANNEL], 5) == ([entity for entity, _, _ in objects(decisions)], len(reasons(decisions)))
    assert [1, 2, 3, 4, 5] == [each.line.number for each in decisions if isinstance(each, Reject)]


def test_a_value_that_is_not_json_rejects_its_entity_only(tmp_path: Path) -> None:
    """In an array, fragments are checked one by one: a bad one must not stop the load nor pass."""
    content = b'[{"channel":%b,"draft":tru,"messages":[{"id":},%b]}]' % (encoded(channel()), encoded(message()))
    decisions = decided(tmp_path, content)
    assert ["draft: not JSON: Expecting value", "message: not JSON: Expecting value"] == [
        reason.partition(": line")[0] for reason in reasons(decisions)
    ]
    assert [Entity.CHANNEL, Entity.MESSAGE] == [entity for entity, _, _ in objects(decisions)]


# Exports of users


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize("limit", [500, MAX_LINE_BYTES])
def test_in_an_export_of_users_objects_belong_to_their_user(as_array: bool, limit: int, tmp_path: Path) -> None:
    """What stands before its user as well; the duration of the reply is nothing."""
    elements = [
        {"messages": [message("m1", user=None)], "user": user("u1"), "duration": "1ms"},
        {"duration": "1ms", "user": user("u2"), "messages": [message("m2", user=None)], "call": {"id": "c"}},
    ]
    content = encoded(elements) if as_array else b"\n".join(map(encoded, elements))
    decisions = decided(tmp_path, content, limit=limit, new_context=UserExportContext)
    assert {("u1", "u1"), ("m1", "u1"), ("u2", "u2"), ("m2", "u2")} == {
        (json.loads(each.data)["id"], each.owner) for each in decisions if isinstance(each, NormalizedObject)
    }
    assert (["call"], []) == ([each.name for each in decisions if isinstance(each, OtherEntity)], reasons(decisions))


def test_in_an_export_of_users_a_lost_user_ends_the_one_before() -> None:
    """Regression: what follows would pass for what another wrote."""
    behind = line("message", message(user=None))
    for lost in (line("user", user("u2"))[:-3], b'{"user":[]}', line("user", user(""))):
        *_, last = of_lines(line("user", user("u1")), lost, behind, new_context=UserExportContext)
        assert isinstance(last, NormalizedObject)
        assert last.owner is None, lost


# The fast path

ODD_JSON = ["NaN", "Infinity", "-Infinity", "nan", "-inf", "[1,]", '{"a":1,}', "01", "1.", "+1"]
NOT_IN_PLACE = {
    **{word: line("message", message("m2", own="@")).replace(b'"@"', word.encode()) for word in ODD_JSON},
    "another shape": line("message", message("m2"), Shape.KEYED),
    "spaces, and a new key": line("message", message("m2", own=1)).replace(b'"data":', b'"data": '),
    "a lone surrogate": line("message", message("m2")).replace(b"text of", rb"\ud83d"),
    "a key more": line("message", message("m2"))[:-1] + b',"v":2}',
    "its object twice": line("message", message("m2"))[:-1] + b',"data":{}}',
    "cut off": line("message", message("m2"))[:-1],
    "too deep": line("message", message("m2", own="@")).replace(b'"@"', b"[" * 600 + b"]" * 600),
    "an id that is no text, and a null": line("message", message(5, own=None)),  # type: ignore[arg-type]
    "a reaction that is no object": b'{"type":"reaction","data":[1]}',
}  # fmt: skip
IN_PLACE = {
    "custom keys": line("message", message("m2", own=1, other=None)),
    "spaces": line("message", message("m2")).replace(b'"data":', b'"data": '),
    "not UTF-8, which DuckDB will refuse": line("message", message("m2")).replace(b"text of", b"te\xff\xfe"),
    "no id": line("message", message(None)),  # type: ignore[arg-type]
    "another line that is not JSON": b'{"type":"channel","data":{',
    "another entity": line("poll", {"id": "p"}),
    "a bracket in a text": line("message", message("m2", text="[{" * 200)),
    "a blank line": b"",
}


@pytest.mark.parametrize(("lines", "stays"), [(NOT_IN_PLACE, False), (IN_PLACE, True)], ids=["out", "in"])
def test_which_lines_end_the_fast_path(lines: dict[str, bytes], stays: bool, tmp_path: Path) -> None:
    """One message that cannot stay in the file has all of them written."""
    for what, raw in lines.items():
        good = [line("message", message("m1")), line("reaction", reaction("m1"))]
        path = write_lines(tmp_path / "export", [*good, raw, *good])
        context = ChannelContext(MAX_LINE_BYTES)
        context.watches[Entity.MESSAGE].saw(encoded(message("m0")))  # blocks with new keys are taken line by line
        normalized = normalize_in_place(ExportReader(path), tmp_path / "work", context)
        assert stays == (normalized is not None), what
        if normalized is not None:
            in_place, *others = normalized.files
            assert (path, "data", False) == (in_place.path, in_place.in_place, in_place.has_places)
            assert 2 + (b'"message"' in raw) == in_place.n_objects, what
            assert [(Entity.REACTION, 2, False)] == [(each.entity, each.n_objects, each.has_places) for each in others]


def test_a_packed_file_is_unpacked_for_messages_in_place(tmp_path: Path) -> None:
    """DuckDB reads them from the plain copy."""
    path = tmp_path / "export"
    path.write_bytes(b"\xef\xbb\xbf" + line("message", message("m1", created_at=AT)) + b"\n")
    normalized = normalize_in_place(ExportReader(path), tmp_path / "work", ChannelContext(MAX_LINE_BYTES))
    assert normalized is not None
    (in_place,) = normalized.files
    assert path.read_bytes()[3:] == in_place.path.read_bytes()
