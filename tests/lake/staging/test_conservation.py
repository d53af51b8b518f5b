"""The law of conservation, over generated files: whatever comes in is a row or is counted in exactly one place."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from effort import examples
from export_objects import CID, Fields, channel, convert, encoded, line, member, message, reaction, read, user
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_chatexport.core.entities import Shape
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import ChatExportError, InputError
from airflow_provider_chatexport.lake.schema.tables import TABLE_BY_ENTITY

DAY = Window.parse("2026-01-01", "2026-01-02")
few = settings(max_examples=examples(8), deadline=None, suppress_health_check=[HealthCheck.too_slow])

ENTITY_SHAPES = [Shape.TYPED, Shape.KEYED, Shape.BARE, Shape.ITEM]
times = st.sampled_from(
    ["2025-12-31T23:59:59.5Z", "2026-01-01T00:00:00Z", "2026-01-01T12:00:00.123456789Z", "2026-01-02T00:00:00Z"]
)
people = st.sampled_from(["u1", "u2", "u3"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
# Keys with a capital or a mark cannot meet a field's name, nor make an object look like another entity.
own_keys = st.text(max_size=6).map(lambda text: f"X {text}")
own_fields = st.dictionaries(own_keys, json_values, max_size=2)
customs = st.builds(
    lambda flat, nested: {**flat, **({"custom": nested} if nested is not None else {})},
    own_fields,
    st.none() | own_fields,
)

Entity = tuple[str, Fields]


def made(name: str, build: Any, **parts: Any) -> st.SearchStrategy[Entity]:
    return st.builds(lambda custom, **chosen: (name, build(**chosen) | custom), customs, **parts)


# What lists of a channel may hold.
of_a_channel = st.one_of(
    made(
        "message",
        lambda number, **others: message(f"m{number}", **others),
        number=st.integers(0, 5),
        created_at=times,
        updated_at=times,
        user=people.map(lambda name: {"id": name}),
        text=st.text(max_size=10),
    ),
    made(
        "reaction",
        lambda number, **others: reaction(f"m{number}", **others),
        number=st.integers(0, 7),
        user_id=people,
        created_at=times,
    ),
    made("member", member, user_id=people),
    made("read", read, user_id=people),
)
entities = st.one_of(
    of_a_channel,
    made("channel", lambda number: channel(f"messaging:{number}"), number=st.integers(0, 2)),
    made("user", user, user_id=people),
)
# What cannot become a row, with the entity that it counts as (None: the line is not understood at all).
faulty = st.sampled_from(
    [
        (None, b"{"),
        (None, b"[]"),
        (None, b'{"nothing":"known","about":"it"}'),
        (None, b'{"message":"\xff"}'),
        ("message", line("message", message(id=None))),
        ("message", line("message", message(created_at="never"))),
        ("message", line("message", message(cid=None))[:-2] + b"]}"),
        ("reaction", line("reaction", reaction(user_id="", user=None), Shape.KEYED)),
        ("member", line("member", member(user_id=None, user={}, cid=CID), Shape.ITEM)),
    ]
)
others = st.sampled_from(["poll", "call", "draft", "a_new_thing"])


def loaded(content: bytes, window: Window | None = None) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export"
        path.write_bytes(content)
        return convert(path, folder=Path(folder), window=window)


@given(
    rows=st.lists(st.tuples(entities, st.sampled_from(ENTITY_SHAPES)), max_size=12),
    bad=st.lists(faulty, max_size=3),
    other=st.lists(others, max_size=2),
    random=st.randoms(),
)
@few
def test_every_line_and_every_entity_is_accounted_for(rows: Any, bad: Any, other: Any, random: Any) -> None:
    """Lines in = rows + duplicates + out of window + other entities + rejects, whatever is mixed in a file."""
    lines = [line("channel", channel())]  # a first line that makes the file an export file
    rest = [line(name, fields, shape) for (name, fields), shape in rows]
    rest += [raw for _, raw in bad] + [line(name, {"id": "x"}) for name in other]
    random.shuffle(rest)
    converted = loaded(b"\n".join(lines + rest), DAY)
    counts = converted.counts

    expected = Counter(["channel", *(name for (name, _), _ in rows), *(name for name, _ in bad if name), *other])
    # A line cut off inside an envelope is one entity by its first bytes, and none to a reader that parses it whole.
    assert expected["message"] >= counts.entities.get("message", 0)
    assert {name: count for name, count in expected.items() if name != "message"} == {
        name: count for name, count in counts.entities.items() if name != "message"
    }
    assert (1 + len(rest), len(bad), len(other)) == (counts.lines, counts.rejected, counts.other_entities)

    in_own_tables = {table.name: counts.rows[table.name] for table in TABLE_BY_ENTITY.values()}
    known_users = {fields["id"] for (name, fields), _ in rows if name == "user"}
    in_own_tables["users"] = len(known_users)  # all other users were extracted from inside objects
    n_good = 1 + len(rows)
    assert n_good == sum(in_own_tables.values()) + counts.duplicates + counts.out_of_window
    assert (counts.rejected, counts.other_entities) == (counts.rows["rejects"], counts.rows["other_entities"])


@given(
    objects=st.lists(entities, min_size=1, max_size=10),
    shapes=st.lists(st.sampled_from(ENTITY_SHAPES), min_size=11, max_size=11),
)
@few
def test_the_same_entities_in_any_mix_of_shapes_give_the_same_rows(objects: list[Entity], shapes: list[Shape]) -> None:
    """Values, custom fields, order of versions: nothing may depend on the route that a line takes."""
    objects = [("channel", channel()), *objects]
    typed = loaded(b"\n".join(line(name, fields) for name, fields in objects))
    mixed = loaded(
        b"\n".join(line(name, fields, shape) for (name, fields), shape in zip(objects, shapes, strict=False))
    )
    assert typed.rows == mixed.rows
    assert typed.counts == mixed.counts


LISTS = {"messages": "message", "members": "member", "reads": "read", "reactions": "reaction"}


def in_lists(objects: list[Entity]) -> Fields:
    """A channel's element, with its lists one after another."""
    return {"channel": channel(), **{key: [f for name, f in objects if name == kind] for key, kind in LISTS.items()}}


def in_order(objects: list[Entity]) -> list[Entity]:
    """The same objects in the order of the lists: of two equal versions the later one stays."""
    return [("channel", channel()), *(each for kind in LISTS.values() for each in objects if each[0] == kind)]


def without_places(rows: dict[str, Any]) -> dict[str, Any]:
    return {name: [{k: v for k, v in row.items() if k != "line_number"} for row in of] for name, of in rows.items()}


@given(
    chunks=st.lists(
        st.tuples(st.lists(of_a_channel, max_size=4), st.sampled_from([*ENTITY_SHAPES, Shape.CHANNEL])),
        min_size=1,
        max_size=4,
    )
)
@few
def test_whole_channels_among_lines_of_other_shapes_give_the_same_rows(chunks: Any) -> None:
    """A channel with its lists on one line, next to the same on lines of their own."""
    typed, mixed = [], []
    for objects, shape in chunks:
        ordered = in_order(objects)
        typed += [line(name, fields) for name, fields in ordered]
        if shape is Shape.CHANNEL:
            mixed.append(encoded(in_lists(objects)))
        else:
            mixed += [line(name, fields, shape) for name, fields in ordered]
    by_line, by_channel = loaded(b"\n".join(typed)), loaded(b"\n".join(mixed))
    assert without_places(by_line.rows) == without_places(by_channel.rows)
    assert by_line.counts.entities == by_channel.counts.entities


@given(objects=st.lists(of_a_channel, max_size=8))
@few
def test_a_v1_array_gives_the_same_rows_as_lines(objects: list[Entity]) -> None:
    """The older format streams its lists item by item, by another reader."""
    array = loaded(json.dumps([in_lists(objects)], ensure_ascii=False).encode("utf-8", "surrogatepass"))
    lines = loaded(b"\n".join(line(name, fields) for name, fields in in_order(objects)))
    assert without_places(lines.rows) == without_places(array.rows)
    assert lines.counts.entities == array.counts.entities


@given(
    fields=st.dictionaries(own_keys, json_values, max_size=4),
    nested=st.none() | st.dictionaries(own_keys, json_values, max_size=4),
)
@few
def test_custom_fields_come_out_as_they_went_in(fields: Fields, nested: Fields | None) -> None:
    """Any key, any value, flat or nested: nothing is lost, and a contradiction keeps both."""
    given_custom = {} if nested is None else {"custom": nested}
    custom = json.loads(loaded(line("message", message(**fields, **given_custom))).one("messages")["custom"])
    inner = nested or {}
    if any(encoded(inner[key]) != encoded(fields[key]) for key in inner.keys() & fields.keys()):
        assert inner == custom.pop("custom")
    assert {**inner, **fields} == custom


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([line("message", message()), encoded([channel()]), b"\x1f\x8b"]),
        max_size=6,
    ),
    st.sampled_from([b"", b"{", b"[", b'{"a":', b"\x1f\x8b\x08\x00"]),
)
@few
def test_random_bytes_end_in_rows_rejects_or_a_sentence(parts: list[bytes], start: bytes) -> None:
    """Nothing that a disk or a network can produce may end in a traceback."""
    try:
        converted = loaded(start + b"\n".join(parts))
    except ChatExportError as refused:
        sentence = str(refused)
    else:
        sentence = f"{converted.counts.lines} lines; fine"
    assert ";" in sentence


@given(st.data())
@few
def test_a_damaged_export_ends_in_rows_rejects_or_a_sentence(data: st.DataObject) -> None:
    """One byte changed anywhere in a real file: the rest is still read, and the lines still add up."""
    content = bytearray(
        b"".join(line("message", message(f"m{number}", own=[1, {"x": "é"}])) + b"\n" for number in range(6))
    )
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    try:
        counts = loaded(bytes(content)).counts
    except InputError:
        assert at == 0, "only a damaged first byte makes it no export file"
    else:
        assert sum(counts.entities.values()) <= counts.lines + 1
        n_users = counts.rows["users"]
        n_placed = sum(counts.rows.values()) - n_users + counts.duplicates + counts.out_of_window
        assert counts.lines == n_placed
