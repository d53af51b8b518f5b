"""From entities to rows: types, times, custom fields, duplicates, the window, what lies inside objects."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from export_objects import (
    AT,
    CID,
    EXPORTED_AT,
    Converted,
    Fields,
    assert_counts,
    channel,
    convert,
    convert_lines,
    line,
    member,
    message,
    reaction,
    user,
    write_lines,
)

from airflow_provider_chatexport.core.entities import Shape
from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.normalize.custom_keys import MAX_KEYS

MOMENT = datetime(2026, 1, 1, 10, tzinfo=UTC)
DAY = Window.parse("2026-01-01", "2026-01-02")


def convert_messages(
    folder: Path, messages: dict[str, Fields], shape: Shape = Shape.TYPED, **options: Any
) -> Converted:
    """Messages by id, on the lines of one file."""
    return convert_lines(
        folder, *(line("message", message(name, **fields), shape) for name, fields in messages.items()), **options
    )


def customs(converted: Converted, table: str = "messages", key: str = "id") -> dict[str, Any]:
    """Custom fields by id."""
    return {each: json.loads(custom) for each, custom in converted.by_id(table, "custom", key).items()}


# Types


def test_a_message_has_its_fields_typed(tmp_path: Path) -> None:
    """The table is read by people and dbt: a number that is text, or a time that is local, misleads them."""
    fields = message(
        "m1",
        parent_id="m0",
        quoted_message_id="q",
        reply_count=2,
        pinned=True,
        pinned_at="2026-01-01T11:00:00.5Z",
        pinned_by={"id": "u9"},
        silent=False,
        show_in_channel=None,
        reaction_counts={"love": 2},
        mentioned_users=[{"id": "u3"}, {"id": "u4"}],
        thread_participants=[{"id": "u5"}],
        restricted_visibility=["u1"],
        i18n={"language": "en", "fr_text": "é"},
        deleted_at=1767268800000000000,
        attachments=[{}, {}],
    )
    row = convert_lines(tmp_path, line("message", fields)).one("messages")
    expected = {
        "id": "m1",
        "cid": CID,
        "channel_type": "messaging",
        "channel_id": "general",
        "user_id": "u1",
        "type": "regular",
        "text": "text of m1",
        "parent_id": "m0",
        "quoted_message_id": "q",
        "reply_count": 2,
        "pinned": True,
        "pinned_at": datetime(2026, 1, 1, 11, 0, 0, 500_000, tzinfo=UTC),
        "pinned_by_id": "u9",
        "silent": False,
        "show_in_channel": None,
        "reaction_counts": '{"love":2}',
        "mentioned_user_ids": ["u3", "u4"],
        "thread_participant_ids": ["u5"],
        "restricted_visibility": ["u1"],
        "i18n": '{"language":"en","fr_text":"é"}',
        "attachment_count": 2,
        "created_at": MOMENT,
        "deleted_at": datetime(2026, 1, 1, 12, tzinfo=UTC),
        "custom": "{}",
        "_exported_at": EXPORTED_AT,
        "_load_id": "load-1",
    }
    assert expected == {name: row[name] for name in expected}


def test_both_spellings_of_a_time_end_as_utc_microseconds(tmp_path: Path) -> None:
    """Strings with any number of digits and any offset, and nanoseconds: digits are cut, never rounded."""
    micros = {
        "2026-01-01T10:00:00Z": 0,
        "2026-01-01T10:00:00.49125Z": 491_250,
        "2026-01-01T10:00:00.365621247Z": 365_621,
        "2026-01-01T10:00:00.999999999Z": 999_999,
        "2026-01-01T15:30:00.5+05:30": 500_000,
        1767261600123456789: 123_456,
    }
    converted = convert_messages(tmp_path, {str(text): {"created_at": text} for text in micros})
    assert {str(text): MOMENT + timedelta(microseconds=each) for text, each in micros.items()} == converted.by_id(
        "messages", "created_at"
    )


ODD_VALUES: dict[str, Any] = {
    "reply_count": "many", "deleted_reply_count": 1.5, "pinned": "perhaps", "updated_at": "later",
    "pin_expires": {"a": 1}, "mentioned_users": "all", "mentioned_roles": {"admin": 1}, "silent": [],
    "attachments": {"type": "image"}, "latest_reactions": 7, "pinned_by": {"name": "no id"},
}  # fmt: skip


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.KEYED])
def test_a_value_that_its_column_cannot_hold_is_kept_and_counted(shape: Shape, tmp_path: Path) -> None:
    """One field gone wrong at the service costs neither the message nor the value, and the counts show it."""
    extras: dict[str, Fields] = {"m1": {}, "m2": {"own": 1}, "m3": {"own": None, "custom": {"nested": 2}}}
    odd = {name: ODD_VALUES | extra for name, extra in extras.items()}
    converted = convert_messages(tmp_path, {"good": {}, **odd}, shape)
    flat = {
        name: {key: value for key, value in extra.items() if key != "custom"} | extra.get("custom", {})
        for name, extra in extras.items()
    }
    assert {"good": {}, **{name: ODD_VALUES | own for name, own in flat.items()}} == customs(converted)
    assert {f"messages.{key}": len(odd) for key in ODD_VALUES} == converted.counts.cast_failures
    assert 0 == converted.counts.rejected
    assert [(None, None, None, 0)] * len(odd) == [
        tuple(row[name] for name in ("reply_count", "pinned", "updated_at", "attachment_count"))
        for row in converted.rows["messages"]
        if row["id"] != "good"
    ]


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.KEYED])
def test_a_value_that_its_column_cannot_hold_has_the_file_read_again_once(shape: Shape, tmp_path: Path) -> None:
    """Alone in its file as well, whatever custom keys there are or are not."""
    for number, extra in enumerate(({}, {"own": None})):
        folder = tmp_path / str(number)
        folder.mkdir()
        converted = convert_messages(folder, {"m1": {"reply_count": "many", **extra}}, shape)
        assert {"m1": {"reply_count": "many", **extra}} == customs(converted)


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.KEYED])
def test_an_integer_is_what_is_written_as_one(shape: Shape, tmp_path: Path) -> None:
    """However it is read: from the file as it stands, or from an entity file. A guessed number is worse than none."""
    integers: dict[str, int | None] = {
        "0": 0,
        "-12": -12,
        '"12"': 12,
        str(2**53 + 1): 2**53 + 1,
        str(2**63 - 1): 2**63 - 1,
        **dict.fromkeys(("15e-1", '"15e-1"', "1.0", '"0x10"', '"1_000"', '" 5"', str(2**63))),
    }
    names = [f"m{at}" for at in range(len(integers))]
    lines = [
        line("message", message(name, reply_count="?"), shape).replace(b'"?"', written.encode())
        for name, written in zip(names, integers, strict=True)
    ]
    converted = convert_lines(tmp_path, *lines)
    assert list(integers.values()) == [converted.by_id("messages", "reply_count")[name] for name in names]
    kept = [{} if value is not None else {"reply_count": json.loads(written)} for written, value in integers.items()]
    assert kept == [customs(converted)[name] for name in names]


def test_a_value_that_is_kept_does_not_hide_one_under_custom(tmp_path: Path) -> None:
    """An app may have a custom field of the same name: both are there."""
    converted = convert_messages(tmp_path, {"m1": {"reply_count": "many", "custom": {"reply_count": 3}}})
    assert {"m1": {"reply_count": "many", "custom": {"reply_count": 3}}} == customs(converted)


def test_what_lies_inside_a_message_keeps_such_values_as_well(tmp_path: Path) -> None:
    """Users, attachments and reactions are extracted from messages by another route."""
    converted = convert_messages(
        tmp_path,
        {
            "m1": {"user": {"id": "u1", "banned": "x"}},
            "m2": {"user": None, "attachments": [{"original_width": "wide"}]},
            "m3": {"user": None, "latest_reactions": [reaction(user=None, score="high")]},
            "m4": {"user": None, "latest_reactions": [reaction(user=None, created_at="soon")]},
        },
    )
    assert {
        "users.banned": 1,
        "attachments.original_width": 1,
        "reactions.score": 1,
        "reactions.created_at": 1,
    } == converted.counts.cast_failures
    assert {"u1": {"banned": "x"}} == customs(converted, "users")
    assert {"m2": {"original_width": "wide"}} == customs(converted, "attachments", "message_id")
    assert {"m3": {"score": "high"}, "m4": {"created_at": "soon"}} == customs(converted, "reactions", "message_id")


ODD_LISTS: dict[str, tuple[Any, list[Any]]] = {
    "attachments": ({"type": "image"}, [None, 1, "x", ["y"]]),
    "latest_reactions": (reaction(), [None, {"type": "like"}, {"user_id": "u1"}, {"user_id": "", "type": "like"}]),
    "mentioned_users": ({"id": "u2"}, [None, "u3", {"name": "no id"}]),
    "thread_participants": ({"id": "u2"}, [{}]),
    "mentioned_roles": ("admin", [None, ""]),
}


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.KEYED])
def test_a_list_with_odd_items_is_kept_and_counted(shape: Shape, tmp_path: Path) -> None:
    """What can be a row or an id is one; nothing of the rest vanishes."""
    owns: list[Fields] = [{}, {"own": 1}, {"custom": {"attachments": "mine", "latest_reactions": "mine"}}]
    messages, expected = {}, {}
    for key, (good, odd) in ODD_LISTS.items():
        for number, own in enumerate(owns):
            nested, flat = own.get("custom", {}), {name: value for name, value in own.items() if name != "custom"}
            messages[f"{key} {number}"] = {key: [good, *odd], **own}
            contradicted = {"custom": nested} if key in nested else {}
            expected[f"{key} {number}"] = nested | flat | {key: [good, *odd]} | contradicted
    converted = convert_messages(tmp_path, messages, shape)
    assert expected == customs(converted)
    assert {f"messages.{key}": len(owns) for key in ODD_LISTS} == converted.counts.cast_failures
    assert_counts(converted, attachments=len(owns), reactions=len(owns))


def test_an_id_is_kept_of_a_message_that_is_quoted_whole(tmp_path: Path) -> None:
    quoted = message("m0", text="the copy of it")
    rows = convert_lines(
        tmp_path,
        line("message", message("m1", quoted_message=quoted)),
        line("message", message("m2", quoted_message=quoted, quoted_message_id="m0")),
        line("message", message("m3", quoted_message_id="m0")),
        line("message", message("m4", quoted_message={"id": "m9"}, quoted_message_id="m0")),
        line("message", message("m5", quoted_message=quoted, quoted_message_id="")),
    ).rows["messages"]
    assert ["m0"] * 5 == [row["quoted_message_id"] for row in rows]
    assert ["{}", "{}", "{}", '{"quoted_message":{"id":"m9"}}', "{}"] == [row["custom"] for row in rows]


def test_a_user_without_an_id_is_not_a_row(tmp_path: Path) -> None:
    """The plain id may stand next to it; what has no id is kept with the values that no column can hold."""
    nameless = {"id": "", "name": "x"}
    converted = convert_lines(
        tmp_path,
        line("message", message("m1", user=nameless)),
        line("message", message("m2", user=nameless, user_id="u2")),
        line("reaction", reaction("m2", user=nameless, user_id="u3")),
    )
    assert {"m1": None, "m2": "u2"} == converted.by_id("messages", "user_id")
    assert {"m1": {"user": nameless}, "m2": {"user": nameless}} == customs(converted)
    assert (["u3"], []) == (converted.column("reactions", "user_id"), converted.rows["users"])


def test_an_empty_user_falls_back_to_the_plain_id(tmp_path: Path) -> None:
    """Regression: a user of empty text hid the `user_id` next to it."""
    converted = convert_lines(
        tmp_path,
        line("message", message("m1", user="", user_id="u1")),
        line("message", message("m2", user=None, user_id="")),
        line("message", message("m3", user="", user_id="")),
        line("reaction", reaction("m1", user="", user_id="u2")),
        line("reaction", reaction("m2", user="", user_id="")),
    )
    assert ["u1", None, None] == converted.column("messages", "user_id")
    assert ["u2"] == converted.column("reactions", "user_id")
    assert ["reaction without user_id"] == converted.column("rejects", "reason")
    assert ["{}"] * 3 == converted.column("messages", "custom")


def test_nothing_is_no_value_that_is_lost(tmp_path: Path) -> None:
    """Lists and maps may be null, empty or absent, whatever their kind."""
    names = ("attachments", "latest_reactions", "mentioned_users", "thread_participants", "pinned_by", "user")
    nothings: list[Any] = [None, [], {}, ""]
    converted = convert_messages(tmp_path, {repr(nothing): dict.fromkeys(names, nothing) for nothing in nothings})
    assert ({repr(nothing): {} for nothing in nothings}, {}) == (customs(converted), converted.counts.cast_failures)


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.ITEM])
def test_a_number_or_null_may_stand_for_text(shape: Shape, tmp_path: Path) -> None:
    """A text column holds anything, as it is written."""
    row = convert_lines(tmp_path, line("message", message(text=5, mentioned_users=None), shape)).one("messages")
    assert ("5", None, "{}") == (row["text"], row["mentioned_user_ids"], row["custom"])


def test_an_author_may_be_an_id_instead_of_an_object(tmp_path: Path) -> None:
    """Import objects refer to people by id, in the field itself or next to it."""
    lines = [
        line("message", message("m1", user="u7")),
        line("message", message("m2", user=None, user_id="u8")),
        line("message", message("m3")),
    ]
    assert ["u7", "u8", "u1"] == convert_lines(tmp_path, *lines).column("messages", "user_id")


# Custom fields


CUSTOM: list[tuple[Fields, Fields]] = [
    ({}, {}),
    ({}, {"custom": None}),
    ({}, {"custom": {}}),
    ({"a": 1}, {"a": 1}),
    ({"a": 1}, {"custom": {"a": 1}}),
    ({"a": 1, "b": 2}, {"a": 1, "custom": {"b": 2}}),
    ({"a": 1}, {"a": 1, "custom": {"a": 1}}),
    ({"a": 1, "b": 3, "custom": {"a": 2, "b": 3}}, {"a": 1, "custom": {"a": 2, "b": 3}}),
    ({"a": None}, {"a": None}),
    ({"a": None, "b": {"c": None}}, {"a": None, "custom": {"b": {"c": None}}}),
    ({"custom": [1]}, {"custom": [1]}),
    ({"a": 1, "custom": "text"}, {"a": 1, "custom": "text"}),
]


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.KEYED])
def test_custom_fields_are_one_object_wherever_they_stood(shape: Shape, tmp_path: Path) -> None:
    """Flat in a real export, under ``custom`` in the API, or both; a contradiction keeps both values."""
    messages = {json.dumps(fields): fields for _, fields in CUSTOM}
    converted = convert_messages(tmp_path, messages, shape)
    assert {json.dumps(fields): expected for expected, fields in CUSTOM} == customs(converted)


def test_a_contradiction_is_kept_in_what_is_extracted_from_messages_as_well(tmp_path: Path) -> None:
    """Attachments, reactions and users have custom fields of their own."""
    own = {"a": 1, "custom": {"a": 2, "b": 3}}
    inside = {"attachments": [{"type": "image", **own}], "latest_reactions": [reaction(user=None, **own)]}
    converted = convert_messages(tmp_path, {"m1": {"user": user(**own), **inside}})
    for table in ("attachments", "reactions", "users"):
        assert {"a": 1, "b": 3, "custom": {"a": 2, "b": 3}} == json.loads(converted.one(table)["custom"]), table


def test_a_contradiction_keeps_integers_longer_than_languages_take(tmp_path: Path) -> None:
    digits = "7" * 5000
    clash = b'{"a":1,"custom":{"a":2,"n":%s}}' % digits.encode()
    whole = line("message", message())[:-2] + b"," + clash[1:-1] + b"}}"
    custom = convert_lines(tmp_path, whole).one("messages")["custom"]
    assert f'{{"a":1,"n":{digits},"custom":{{"a":2,"n":{digits}}}}}' == custom


NO_TIMES = ["infinity", "epoch", "2026-01-01", "2026-01-01T10:00:00", "2026-01-01T24:00:00Z",
            "2026-01-01T10:00:00+25:00", "20000-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "-025-01-01T00:00:00.1Z",
            "   5-01-01T00:00:00Z", "2026-01-01T 0:00:00Z", "2026-01-01T10:00:00.1234567890Z"]  # fmt: skip


def test_a_guessed_time_is_worse_than_one_that_stays_as_it_was_written(tmp_path: Path) -> None:
    """In every column: a version that is infinitely new would win for ever."""
    messages = {odd: {"updated_at": odd, "deleted_at": odd} for odd in NO_TIMES}
    converted = convert_messages(tmp_path, messages)
    assert messages == customs(converted)
    assert {None} == {row[name] for row in converted.rows["messages"] for name in ("updated_at", "deleted_at")}


def test_rfc3339_in_any_spelling_is_a_time(tmp_path: Path) -> None:
    texts = ["2026-01-01t10:00:00z", "2026-01-01 10:00:00.5Z", "2026-01-01T12:00:00+02:00"]
    converted = convert_messages(tmp_path, {text: {"created_at": text, "deleted_at": text} for text in texts})
    for name in ("created_at", "deleted_at"):
        assert {text: parse_rfc3339(text) for text in texts} == converted.by_id("messages", name)


ODD_KEYS = ["", "select", "order by", 'qu"ote', "it's", "a.b", "$.a", "[0]", "*", "😀", "back\\slash", "new\nline",
            "\x00", "k" * 300, "Text", "ID", "CREATED_AT", "Custom", "n", "data", "_load_id", "e\u0301"]  # fmt: skip


@pytest.mark.parametrize("entity", ["message", "reaction"])
def test_a_key_with_null_is_not_one_that_is_absent(entity: str, tmp_path: Path) -> None:
    """A STRUCT has no difference between them; yet a key that was set to null is what the app said."""
    objects: dict[str, dict[str, Any]] = {"a": {"k": 1}, "b": {"k": None}, "c": {}, "d": {"k": {"k": None}}}
    lines = [
        line("message", message(name, **fields))
        if entity == "message"
        else line("reaction", reaction("m1", name, **fields))
        for name, fields in objects.items()
    ]
    converted = convert_lines(tmp_path, line("message", message("m1")), *lines)
    key = "id" if entity == "message" else "user_id"
    names = converted.column(f"{entity}s", key)
    customs = converted.column(f"{entity}s", "custom")
    found = {name: json.loads(custom) for name, custom in zip(names, customs, strict=True)}
    assert objects == {name: found[name] for name in objects}


@pytest.mark.parametrize("n_keys", [MAX_KEYS - 1, MAX_KEYS + 1])
def test_keys_may_be_more_than_one_type_holds(n_keys: int, tmp_path: Path) -> None:
    """An app that makes keys of its own data has thousands of them over a file: they take a slower way, whole."""
    lines = [line("message", message(f"m{n}", **{f"key {n}": n})) for n in range(n_keys)]
    customs = convert_lines(tmp_path, *lines).column("messages", "custom")
    assert sorted(f'{{"key {n}":{n}}}' for n in range(n_keys)) == sorted(customs)


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_keys_of_any_spelling_are_kept(nested: bool, tmp_path: Path) -> None:
    """Also those that differ only in case from a field: they are other fields."""
    odd = {key: number for number, key in enumerate(ODD_KEYS)}
    row = convert_lines(tmp_path, line("message", message(**({"custom": odd} if nested else odd)))).one("messages")
    assert odd == json.loads(row["custom"])
    assert ("m1", "text of m1", MOMENT) == (row["id"], row["text"], row["created_at"])


def test_integers_of_any_size_are_kept_digit_by_digit(tmp_path: Path) -> None:
    """Ids of other systems are larger than a float can hold; one wrong digit is another id."""
    numbers = ["9007199254740993", "18446744073709551616", "-9223372036854775809", "1" * 60]
    places: list[Fields] = [{"n": "@"}, {"custom": {"n": "@"}}, {"n": "@", "custom": {"n": 1}}]
    lines, digits_of = [], {}
    for place, fields in enumerate(places):
        for digits in numbers:
            name = f"{place} {digits}"
            lines.append(line("message", message(name, **fields)).replace(b'"@"', digits.encode()))
            digits_of[name] = digits
    converted = convert_lines(tmp_path, *lines)
    assert {name: int(digits) for name, digits in digits_of.items()} == {
        name: custom["n"] for name, custom in customs(converted).items()
    }
    assert all(digits_of[name] in custom for name, custom in converted.by_id("messages", "custom").items())


def test_a_key_may_hold_another_type_on_every_line(tmp_path: Path) -> None:
    """A reader that infers types would fail, or turn one of them into text."""
    values: list[Any] = [1, "one", {"a": 1}, [1, 2], None, True, 1.5]
    lines = [line("message", message(f"m{number}", it=value)) for number, value in enumerate(values)]
    assert [{"it": value} for value in values] == [
        json.loads(custom) for custom in convert_lines(tmp_path, *lines).column("messages", "custom")
    ]


def test_every_entity_keeps_its_custom_fields(tmp_path: Path) -> None:
    """Apps put their own keys on each kind of object."""
    entities = {
        "channels": ("channel", channel(mood="blue", created_by=None, custom={"name": "General"})),
        "members": ("member", member(cid=CID, user=None, mood="blue", custom={"name": "General"})),
        "users": ("user", user(mood="blue", custom={"x": "General"})),
        "reactions": ("reaction", reaction(user=None, mood="blue", custom={"name": "General"})),
    }
    converted = convert_lines(tmp_path, *(line(name, fields) for name, fields in entities.values()))
    for table in entities:
        assert {"mood": "blue"}.items() <= json.loads(converted.one(table)["custom"]).items(), table


# Duplicates


def test_of_two_versions_of_a_message_the_newest_stays(tmp_path: Path) -> None:
    """A message edited while it was exported may come twice; the order of lines says nothing."""
    lines = [
        line("message", message(text="second", updated_at="2026-01-02T00:00:00Z")),
        line("message", message(text="first", updated_at="2026-01-01T12:00:00Z")),
    ]
    converted = convert_lines(tmp_path, *lines)
    assert ("second", 1) == (converted.one("messages")["text"], converted.counts.duplicates)


def test_of_two_equal_versions_the_later_line_stays(tmp_path: Path) -> None:
    """The same file must always give the same rows, whatever the threads do."""
    lines = [line("message", message(text=f"line {number}")) for number in range(50)]
    converted = convert_lines(tmp_path, *lines)
    assert ("line 49", 49) == (converted.one("messages")["text"], converted.counts.duplicates)


def test_of_two_files_the_newer_export_stays(tmp_path: Path) -> None:
    """A whole load obeys the truth rule within itself."""
    newer = write_lines(tmp_path / "newer", [line("message", message(text="new"))])
    older = write_lines(tmp_path / "older", [line("message", message(text="old", updated_at="2027-01-01T00:00:00Z"))])
    moments = [EXPORTED_AT, EXPORTED_AT - timedelta(hours=1)]
    converted = convert(newer, older, folder=tmp_path, exported_at=moments)
    assert ("new", EXPORTED_AT, 1) == (
        converted.one("messages")["text"],
        converted.one("messages")["_exported_at"],
        converted.counts.duplicates,
    )


def test_a_user_reacts_once_with_each_kind(tmp_path: Path) -> None:
    """Message, user and kind are the key of a reaction."""
    lines = [line("message", message())] + [
        line("reaction", reaction(kind=kind, score=score)) for kind, score in (("love", 1), ("wow", 1), ("love", 2))
    ]
    converted = convert_lines(tmp_path, *lines)
    assert (["love", "wow"], 1) == (converted.column("reactions", "type"), converted.counts.duplicates)


# The window


def test_messages_outside_of_the_window_are_cut_and_counted(tmp_path: Path) -> None:
    """Requests ask a second more on both sides; a row on the edge belongs to one window only."""
    is_inside = {
        "2025-12-31T23:59:59.999999Z": False,
        "2026-01-01T00:00:00Z": True,
        "2026-01-01T23:59:59.999999999Z": True,
        "2026-01-02T00:00:00Z": False,
        "2026-01-02T01:00:00+02:00": True,
    }
    converted = convert_messages(tmp_path, {moment: {"created_at": moment} for moment in is_inside}, window=DAY)
    assert {moment for moment, inside in is_inside.items() if inside} == set(converted.column("messages", "id"))
    assert_counts(converted, messages=3, out_of_window=2)


def test_a_reaction_goes_with_its_message(tmp_path: Path) -> None:
    """A message cut off takes its reactions along; a late reaction to one that stays, stays."""
    lines = [
        line("message", message("in")),
        line("message", message("out", created_at="2026-01-02T00:00:00Z")),
        line("reaction", reaction("in", created_at="2026-01-05T00:00:00Z")),
        line("reaction", reaction("out")),
    ]
    converted = convert_lines(tmp_path, *lines, window=DAY)
    assert ("in", MOMENT, CID) == tuple(
        converted.one("reactions")[name] for name in ("message_id", "message_created_at", "cid")
    )
    assert 2 == converted.counts.out_of_window


def test_a_reaction_is_placed_by_the_version_of_its_message_that_remains(tmp_path: Path) -> None:
    """Of two versions in one load one goes; its channel and day are not where the message is then."""
    at = "2026-01-0{}T00:00:00Z".format
    old = message("m1", cid="a:old", created_at=at(1), updated_at=at(1))
    new = message("m1", cid="a:new", created_at=at(2), updated_at=at(3))
    lines = [line("message", new), line("message", old), line("reaction", reaction("m1"))]
    for order in (lines, [lines[1], lines[0], lines[2]]):
        row = convert_lines(tmp_path, *order).one("reactions")
        assert ("a:new", parse_rfc3339(at(2))) == (row["cid"], row["message_created_at"])


def test_users_inside_what_is_kept_whole_are_users_too(tmp_path: Path) -> None:
    """The author of a quoted message may have written nothing else in the window."""
    inside = {
        "quoted_message": {"id": "m0", "user": {"id": "quoted"}, "mentioned_users": [{"id": "named"}, {"id": "too"}]},
        "poll": {"id": "p", "created_by": {"id": "asker"}},
        "member": {"user": {"id": "member"}},
        "reminder": {"user": {"id": "reminded"}},
        "reaction_groups": {"love": {"latest_reactions_by": [{"user_id": "lover", "user": {"id": "lover"}}]}},
    }
    odd = {"quoted_message": "m0", "poll": [], "member": {"user": 5}, "reaction_groups": {"love": 1}}
    lines = [line("message", message("m1", **inside)), line("message", message("m2", **odd))]
    found = set(convert_lines(tmp_path, *lines).column("users", "id"))
    assert {"u1", "quoted", "named", "too", "asker", "member", "reminded", "lover"} == found


def test_an_id_that_is_none_is_no_item_of_a_list(tmp_path: Path) -> None:
    """The list stays in ``custom``, whole."""
    row = convert_lines(tmp_path, line("message", message(mentioned_users=[{"id": None}, {"id": "u2"}]))).one(
        "messages"
    )
    assert ["u2"] == row["mentioned_user_ids"]
    assert {"mentioned_users"} == json.loads(row["custom"]).keys()


def test_a_reaction_without_its_message_is_placed_by_its_own_time(tmp_path: Path) -> None:
    """It would otherwise have no day folder."""
    late = "2026-01-05T00:00:00Z"
    row = convert_lines(tmp_path, line("reaction", reaction("gone", created_at=late))).one("reactions")
    assert (datetime(2026, 1, 5, tzinfo=UTC), None) == (row["message_created_at"], row["cid"])


# Rows from inside objects


def test_attachments_keep_their_place(tmp_path: Path) -> None:
    """Position is part of their key, and the order in which people see them."""
    items = [
        {"type": "image", "image_url": "https://e.com/0"},
        {"type": "file", "size": 7},
        {"type": "x", "custom": {"a": 1}},
    ]
    converted = convert_lines(tmp_path, line("message", message(attachments=items)), line("message", message("m2")))
    assert [("m1", 0, "image", {}), ("m1", 1, "file", {"size": 7}), ("m1", 2, "x", {"a": 1})] == [
        (row["message_id"], row["position"], row["type"], json.loads(row["custom"]))
        for row in converted.rows["attachments"]
    ]
    assert {(CID, MOMENT)} == {(row["cid"], row["message_created_at"]) for row in converted.rows["attachments"]}


def test_latest_reactions_count_if_no_line_has_them(tmp_path: Path) -> None:
    """They travel inside messages, ten at most, and are the only ones that v1 has."""
    on_a_line, only_inside = reaction("m1", "u2"), reaction("m1", "u3")
    lines = [line("message", message(latest_reactions=[on_a_line, only_inside])), line("reaction", on_a_line)]
    converted = convert_lines(tmp_path, *lines)
    assert ["u2", "u3"] == converted.column("reactions", "user_id")
    assert (0, 2) == (converted.counts.duplicates, sum(converted.counts.entities.values()))
    assert [CID, CID] == converted.column("reactions", "cid")


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.KEYED])
def test_members_inside_a_channel_count_if_no_line_has_them(shape: Shape, tmp_path: Path) -> None:
    """The service's channel object may carry up to a hundred of them."""
    inside = [member("u1", banned=True), member("u2", nickname="two", user={"id": "u2", "name": "Two"})]
    lines = [line("channel", channel(members=inside), shape), line("member", member("u1", banned=False), shape)]
    converted = convert_lines(tmp_path, *lines)
    assert [(CID, "u1", False, "{}"), (CID, "u2", None, '{"nickname":"two"}')] == [
        (row["cid"], row["user_id"], row["banned"], row["custom"]) for row in converted.rows["members"]
    ]
    assert ({"channel": 1, "member": 1}, {"members": 1}, 0) == (
        {name: count for name, count in converted.counts.entities.items() if count},
        {name: count for name, count in converted.counts.drawn.items() if name != "users"},
        converted.counts.duplicates,
    )
    assert ["Two"] == [row["name"] for row in converted.rows["users"] if row["id"] == "u2"]
    assert "{}" == converted.one("channels")["custom"]


def test_members_that_can_be_no_rows_stay_with_their_channel(tmp_path: Path) -> None:
    """Whatever the channel has in place of a list of members."""
    odd: dict[str, Any] = {"a:1": [None], "a:2": [{"channel_role": "owner"}], "a:3": {"u1": {}}, "a:4": "all"}
    converted = convert_lines(tmp_path, *(line("channel", channel(cid, members=each)) for cid, each in odd.items()))
    assert {cid: {"members": each} for cid, each in odd.items()} == customs(converted, "channels", "cid")
    assert {"channels.members": len(odd)} == converted.counts.cast_failures
    assert_counts(converted, members=0, channels=len(odd))


def test_a_message_says_how_many_of_its_reactions_are_missing(tmp_path: Path) -> None:
    """Only the last ten travel inside a message: a sum over reactions must be known to be short."""
    groups = {"love": {"count": 50, "sum_scores": 60}, "wow": {"count": 1, "sum_scores": 1}}
    cases: list[tuple[int, Any, Any, int, int]] = [  # missing, counts, groups, reactions on lines, reactions inside
        (0, {}, None, 0, 0),
        (0, None, {}, 0, 0),
        (0, {"love": 2}, None, 1, 1),
        (0, {"love": 1}, None, 2, 0),
        (3, {"love": 4, "wow": 1}, None, 0, 2),
        (2, {"love": 2}, {}, 0, 0),
        (1, {"wow": 1}, None, 1, 0),
        (0, {"love": "many"}, None, 0, 0),
        (41, None, groups, 0, 10),
        (41, {}, groups, 5, 5),
        (41, {"love": 50, "wow": 1}, groups, 0, 10),
        (41, {"love": 10}, groups, 0, 10),
        (1, None, {"love": 7, "wow": {"count": "1"}, "sad": {"count": "x"}}, 0, 0),
    ]
    lines = [line("message", message("none"))]
    for at, (_, counts, by_group, n_lines, n_inside) in enumerate(cases):
        inside = [reaction(f"m{at}", f"in{number}") for number in range(n_inside)]
        fields = {"reaction_counts": counts, "reaction_groups": by_group, "latest_reactions": inside}
        lines.append(line("message", message(f"m{at}", **fields)))
        lines += [line("reaction", reaction(f"m{at}", f"line{number}")) for number in range(n_lines)]
    converted = convert_lines(tmp_path, *lines)
    assert {"none": 0, **{f"m{at}": missing for at, (missing, *_) in enumerate(cases)}} == converted.by_id(
        "messages", "reactions_missing"
    )


# One fact in two fields


@pytest.mark.parametrize("shape", [Shape.ITEM, Shape.KEYED])
def test_a_fact_is_read_from_whichever_of_its_fields_has_it(shape: Shape, tmp_path: Path) -> None:
    """An object of an export has what another shape of the same object has elsewhere."""
    groups = {"love": {"count": 50, "sum_scores": 60}, 'a"b': {"count": 1, "sum_scores": 2}, "odd": 3}
    cases: dict[str, tuple[Fields, Fields]] = {
        "groups": (
            {"reaction_groups": groups},
            {"reaction_counts": '{"love":50,"a\\"b":1}', "reaction_scores": '{"love":60,"a\\"b":2}'},
        ),
        "empty counts": (
            {"reaction_groups": groups, "reaction_counts": {}, "reaction_scores": None},
            {"reaction_counts": '{"love":50,"a\\"b":1}', "reaction_scores": '{"love":60,"a\\"b":2}'},
        ),
        "counts": ({"reaction_counts": {"wow": 2}, "reaction_groups": None}, {"reaction_counts": '{"wow":2}'}),
        "no reactions": ({"reaction_counts": {}, "reaction_groups": {}}, {"reaction_counts": "{}"}),
        "pinned": ({"pinned_at": AT}, {"pinned": True}),
        "not pinned": ({"pinned_at": None}, {"pinned": None}),
        "unpinned": ({"pinned": False, "pinned_at": AT}, {"pinned": False}),
        "zero pinned": ({"pinned_at": "0001-01-01T00:00:00Z"}, {"pinned": None, "pinned_at": None}),
        "poll": ({"poll": {"id": "p1"}}, {"poll_id": "p1"}),
        "poll id": ({"poll_id": "p2", "poll": None}, {"poll_id": "p2"}),
        "groups of users": ({"mentioned_groups": [{"id": "g1"}, {"id": "g2"}]}, {"mentioned_group_ids": ["g1", "g2"]}),
        "group ids": (
            {"mentioned_group_ids": ["g3"], "mentioned_groups": [{"id": "g1"}]},
            {"mentioned_group_ids": ["g3"]},
        ),
        "author": ({"user": {"id": "u1"}, "user_id": "u1"}, {"user_id": "u1", "custom": "{}"}),
        "two authors": ({"user": {"id": "u1"}, "user_id": "u2"}, {"user_id": "u1", "custom": '{"user_id":"u2"}'}),
    }
    lines = [line("message", message(name, **fields), shape) for name, (fields, _) in cases.items()]
    lines.append(line("channel", {"cid": "team:x", "config": {}}, shape))
    converted = convert_lines(tmp_path, *lines)
    rows = {row["id"]: row for row in converted.rows["messages"]}
    for name, (_, expected) in cases.items():
        assert expected == {column: rows[name][column] for column in expected}, name
    assert ("team", "x") == (converted.one("channels")["type"], converted.one("channels")["id"])
    assert {"messages.user_id": 1} == converted.counts.cast_failures


def test_a_reply_of_the_type_deleted_is_deleted(tmp_path: Path) -> None:
    """The count of replies leaves it out, whether the export says when it was deleted or not."""
    lines = [line("message", message("a", reply_count=2)), line("message", message("b", parent_id="a"))]
    lines.append(line("message", message("c", parent_id="a", type="deleted", deleted_at="0001-01-01T00:00:00Z")))
    assert 1 == convert_lines(tmp_path, *lines).by_id("messages", "replies_missing")["a"]


def test_users_come_from_everywhere_and_the_newest_version_stays(tmp_path: Path) -> None:
    """The author as of the message, the member as of the export: people are known by their latest snapshot."""
    at = "2026-01-0{}T00:00:00Z".format
    lines = [
        line("channel", channel(created_by={"id": "creator"}, truncated_by={"id": "truncater"})),
        line("member", member(user={"id": "u1", "name": "newest", "updated_at": at(3)})),
        line("message", message(
            user={"id": "u1", "name": "older", "updated_at": at(2)},
            mentioned_users=[{"id": "mentioned"}],
            thread_participants=[{"id": "participant"}],
            pinned_by={"id": "pinner"},
            latest_reactions=[reaction(user={"id": "reactor"}, user_id="reactor")],
        )),
        line("user", user("u1", name="oldest", updated_at=at(1))),
    ]  # fmt: skip
    converted = convert_lines(tmp_path, *lines)
    names = dict(zip(converted.column("users", "id"), converted.column("users", "name"), strict=True))
    assert "newest" == names.pop("u1")
    assert {"creator", "truncater", "mentioned", "participant", "pinner", "reactor"} == names.keys()
    assert 0 == converted.counts.duplicates


def test_odd_values_where_objects_belong_do_no_harm(tmp_path: Path) -> None:
    """Maps may be {} or null, lists may hold anything: the message itself is still a message."""
    names = ("attachments", "latest_reactions", "own_reactions", "mentioned_users", "thread_participants", "pinned_by",
             "quoted_message", "reaction_counts", "reaction_groups", "i18n", "member", "poll", "user")  # fmt: skip
    odd: list[Any] = [None, [], {}, "text", 5, [1, "two", None, {"id": None}]]
    converted = convert_messages(tmp_path, {str(each): dict.fromkeys(names, each) for each in odd})
    assert_counts(converted, messages=len(odd), rejected=0)


def test_rows_come_sorted_within_their_day(tmp_path: Path) -> None:
    """The order inside a file is what lets a reader skip most of it."""
    lines = [
        line(
            "message",
            message(f"m{number}", cid=f"a:{number % 3}", created_at=f"2026-01-0{1 + number % 2}T0{number % 5}:00:00Z"),
        )
        for number in range(30)
    ]
    rows = convert_lines(tmp_path, *lines).rows["messages"]
    keys = [(row["created_at"].date(), row["cid"], row["created_at"], row["id"]) for row in rows]
    assert sorted(keys) == keys


def test_a_day_is_a_utc_day_whatever_the_machine_s_zone(tmp_path: Path, monkeypatch: Any) -> None:
    """The day folder is a UTC day on every machine."""
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    row = convert_lines(tmp_path, line("message", message(created_at=AT))).one("messages")
    assert (MOMENT, date(2026, 1, 1)) == (row["created_at"], row["_day"])
