"""Promoted columns: custom fields as typed columns, in files with and without them, of one type in a lake."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from export_objects import channel, line, message, user, write_lines
from lakes import LakeProbe, at

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.options import PROMOTED_TYPES, LoadOptions, parse_promote
from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.maintenance.forget import forget_user
from airflow_provider_chatexport.lake.storage.address import open_store

PRIORITY = {"messages": {"priority": "BIGINT"}}


def load(
    lake: LakeProbe, folder: Path, hour: int, values: list[Any], *, key: str = "priority", day: int = 2, **promote: Any
) -> Any:
    """Load messages of one hour, each with its own value under the key."""
    lines = [line("channel", channel("a:1"))] + [
        line("message", message(f"m{hour}-{at_}", cid="a:1", created_at=at(hour, at_), **{key: value}))
        for at_, value in enumerate(values)
    ]
    path = write_lines(folder / f"{hour}-{day}", lines)
    return load_files(
        [path],
        lake_uri=lake.uri,
        window=Window.parse(at(hour), at(hour + 1)),
        exported_at=parse_rfc3339(f"2026-01-0{day}T00:00:00Z"),
        options=LoadOptions(**promote),
    ).to_json()


def test_a_promoted_field_is_typed_and_stays_in_custom(lake: LakeProbe, tmp_path: Path) -> None:
    """A query needs no JSON, and a value of another kind is neither lost nor uncounted."""
    report = load(lake, tmp_path, 9, [1, "2", "high", 2.5, None, {"a": 1}, 2**70], promote=PRIORITY)
    assert {"messages.priority": 4} == report["cast_failures"]
    rows = lake.rows("SELECT priority, custom FROM messages ORDER BY id")
    assert [1, 2, None, None, None, None, None] == [priority for priority, _ in rows]
    assert [1, "2", "high", 2.5, None, {"a": 1}, 2**70] == [json.loads(custom)["priority"] for _, custom in rows]
    assert [["BIGINT"]] == lake.rows("SELECT DISTINCT typeof(priority) FROM messages")


@pytest.mark.parametrize("fields", [{"rank": 3}, {"custom": {"rank": 3}}, {"rank": 3, "custom": {"rank": 4}}])
def test_a_field_is_promoted_flat_and_nested(fields: dict[str, Any], lake: LakeProbe, tmp_path: Path) -> None:
    """If it is in both places, the flat one counts, as it does in custom."""
    path = write_lines(tmp_path / "export", [line("message", message(**fields)), line("user", user("u9", **fields))])
    options = LoadOptions(promote={"messages": {"rank": "DOUBLE"}, "users": {"rank": "VARCHAR"}})
    kind = ExportKind.CHANNELS
    load_files([path], lake_uri=lake.uri, options=options, kind=kind)
    assert [[3.0]] == lake.rows("SELECT rank FROM messages")
    assert [["u1", None], ["u9", "3"]] == lake.rows("SELECT id, rank FROM users ORDER BY id")


@pytest.mark.parametrize("value", [1735689600, 1735689600000, 3.7, "1e3", "1735689600"])
def test_only_a_number_of_nanoseconds_is_a_time(value: Any, lake: LakeProbe, tmp_path: Path) -> None:
    """Apps count seconds or milliseconds. Read as nanoseconds, they would all be in the year 1970."""
    report = load(lake, tmp_path, 9, [value], promote={"messages": {"priority": "TIMESTAMPTZ"}})
    assert [[None]] == lake.rows("SELECT priority FROM messages")
    assert {"messages.priority": 1} == report["cast_failures"]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("VARCHAR", {"a": [1]}, '{"a":[1]}'),
        ("BIGINT", -5, -5),
        ("DOUBLE", 1.5, 1.5),
        ("BOOLEAN", True, True),
        ("DATE", "2026-02-03", "2026-02-03"),
        ("timestamptz", "2026-02-03T04:05:06.789Z", "2026-02-03T04:05:06.789000Z"),
        ("TIMESTAMP WITH TIME ZONE", 1770091506789000000, "2026-02-03T04:05:06.789000Z"),
    ],
)
def test_each_type_reads_what_json_writes_for_it(
    kind: str, value: Any, expected: Any, lake: LakeProbe, tmp_path: Path
) -> None:
    """Each type of the short list survives the way through Parquet."""
    report = load(lake, tmp_path, 9, [value, [value]], promote={"messages": {"priority": kind}})
    ((found,), *_) = lake.rows("SELECT priority FROM messages ORDER BY id")
    assert (expected, kind.upper() != "VARCHAR") == (
        str(found) if kind == "DATE" else found,
        bool(report["cast_failures"]),
    )


@pytest.mark.parametrize(
    ("kind", "taken", "others"),
    [
        (
            "BIGINT",
            {"0": 0, "-0": 0, "007": 7, "-15": -15, str(2**63 - 1): 2**63 - 1, str(-(2**63)): -(2**63)},
            ["15e-1", "1e3", "1_000", "0x10", "0b1", "1.0", ".5", "+5", " 5", "-", "", "true", str(2**63)],
        ),
        (
            "DATE",
            {day: day for day in ("0001-01-01", "1969-12-31", "2024-02-29", "9999-12-31")},
            [
                "infinity",
                "-infinity",
                "epoch",
                "290000-01-01",
                "0044-03-15 (BC)",
                "0000-01-01",
                "-026-01-01",
                "2026-1-1",
                "2026/01/01",
                "2023-02-29",
                "2026-01-01 10:00:00",
                "2026-01-01T00:00:00Z",
                " 2026-01-01",
            ],
        ),
    ],
    ids=["BIGINT", "DATE"],
)
def test_only_text_in_the_right_form_is_an_integer_or_a_date(
    kind: str, taken: dict[str, Any], others: list[str], lake: LakeProbe, tmp_path: Path
) -> None:
    """A cast that guesses gives numbers that no one wrote, and dates that no reader of the files can hold."""
    report = load(lake, tmp_path, 9, [*taken, *others], promote={"messages": {"priority": kind}})
    assert {"messages.priority": len(others)} == report["cast_failures"]
    rows = lake.rows("SELECT json_extract_string(custom, '/priority'), priority FROM messages")
    typed = {text: str(each) if isinstance(each, date) else each for text, each in rows}
    assert {**taken, **dict.fromkeys(others)} == typed


@pytest.mark.parametrize("key", ["a.b", "a/b~c", "select", "Ünï cöde", 'quo"te', "it's", "😀"])
def test_a_key_of_any_spelling_can_be_promoted(key: str, lake: LakeProbe, tmp_path: Path) -> None:
    """Apps name their fields as they like."""
    load(lake, tmp_path, 9, [7], key=key, promote={"messages": {key: "BIGINT"}})
    load(lake, tmp_path, 10, [8], key=key)
    column = '"' + key.replace('"', '""') + '"'
    assert [[7], [8]] == lake.rows(f"SELECT {column} FROM messages ORDER BY created_at")


def test_keys_may_have_the_names_of_internal_columns(lake: LakeProbe, tmp_path: Path) -> None:
    """Staging, redaction and compaction have columns of their own, and an app cannot know their names."""
    names = ["_n", "_read", "_input", "_cast_failures", "_complete", "_in_window", "_attachments", "_latest_reactions"]
    names += ["_created_at", "_reply_count", "_cid", "_embeds_users", "j", "d", "flat", "data", "rows", "told"]
    names += ["original", "redacted"]
    lines = [line("message", message(f"m{n}", user={"id": f"u{n}"}, **dict.fromkeys(names, n))) for n in (1, 2)]
    options = LoadOptions(promote={"messages": dict.fromkeys(names, "BIGINT")})
    load_files([write_lines(tmp_path / "export", lines)], lake_uri=lake.uri, options=options)
    columns = ", ".join(f'"{name}"' for name in names)
    assert [[n] * len(names) for n in (1, 2)] == lake.rows(f"SELECT {columns} FROM messages ORDER BY id")
    forget_user(open_store(lake.uri), "u2", now=datetime(2026, 2, 1, tzinfo=UTC))
    assert [[1] * len(names)] == lake.rows(f"SELECT {columns} FROM messages")


@pytest.mark.parametrize("compacted", [False, True])
def test_files_with_and_without_the_column_are_one_table(compacted: bool, lake: LakeProbe, tmp_path: Path) -> None:
    """Rows that were loaded before the field was promoted, or by a DAG that does not promote it, have it as well."""
    load(lake, tmp_path, 8, [80])
    load(lake, tmp_path, 9, [90, "x"], promote=PRIORITY)
    load(lake, tmp_path, 10, [100], promote={"messages": {"other": "VARCHAR"}})
    load(lake, tmp_path, 9, [91], day=3, promote=PRIORITY)
    load(lake, tmp_path, 8, [81, 82], day=3)
    if compacted:
        assert compact(open_store(lake.uri)).days > 0
    assert [["m10-0", 100], ["m8-0", 81], ["m8-1", 82], ["m9-0", 91]] == lake.rows(
        "SELECT id, priority FROM messages ORDER BY id"
    )
    assert [[4, 0]] == lake.rows("SELECT count(custom), count(other) FROM messages")
    comments = lake.rows(
        "SELECT comment FROM duckdb_columns() WHERE table_name = 'messages' AND column_name = 'priority'"
    )
    assert [["The custom field `priority`; null if it is not of this type."]] == comments


def test_promoted_columns_of_snapshots_keep_the_newest_row_of_each_key(lake: LakeProbe, tmp_path: Path) -> None:
    """Rows of files with and without the column compete for the same key."""
    for day, promote in ((2, {}), (3, {"users": {"karma": "BIGINT"}}), (4, {})):
        path = write_lines(tmp_path / f"{day}", [line("user", user("u1", karma=day)), line("user", user(f"of{day}"))])
        load_files(
            [path],
            lake_uri=lake.uri,
            exported_at=parse_rfc3339(f"2026-01-0{day}T00:00:00Z"),
            options=LoadOptions(promote=promote),
        )
    assert [["of2", None], ["of3", None], ["of4", None], ["u1", 4]] == lake.rows(
        "SELECT id, karma FROM users ORDER BY 1"
    )


@pytest.mark.parametrize(
    ("promote", "message"),
    [
        (
            {"massages": {"a": "BIGINT"}},
            r"'massages' is not a table with custom fields to promote; those are messages, rea",
        ),
        ({"rejects": {"a": "BIGINT"}}, r"'rejects' is not a table with custom fields"),
        ({"messages": {"TEXT": "BIGINT"}}, r"messages\.TEXT cannot be promoted, because messages has a column of that"),
        ({"messages": {"event_date": "DATE"}}, r"event_date cannot be promoted"),
        ({"users": {"_Day": "BIGINT"}}, r"users\._Day cannot be promoted, because users has a column of that name"),
        ({"messages": {"day": "BIGINT"}}, r"messages\.day cannot be promoted"),
        ({"messages": {"a": "BIGINT", "A": "BIGINT"}}, r"messages\.A cannot be promoted"),
    ],
)
def test_a_key_that_cannot_be_promoted_is_refused_before_anything_is_done(
    promote: dict[str, dict[str, str]], message: str, lake: LakeProbe, tmp_path: Path
) -> None:
    """A slip in a DAG must not give a lake two columns of one name."""
    with pytest.raises(CallError, match=message):
        load(lake, tmp_path, 9, [1], promote=promote)
    assert not Path(lake.uri).exists()


def test_a_key_has_one_type_in_a_lake(lake: LakeProbe, tmp_path: Path) -> None:
    """A column that is a number in one file and text in another cannot be read as either."""
    load(lake, tmp_path, 9, [1], promote=PRIORITY)
    files = lake.files()
    with pytest.raises(
        CallError, match=r"messages\.priority is BIGINT in this lake, and cannot be VARCHAR as well; pro"
    ):
        load(lake, tmp_path, 10, [2], promote={"messages": {"priority": "VARCHAR"}})
    assert files == lake.files()


@pytest.mark.parametrize("kind", ["DECIMAL(9)", "bigint[]", "", "INT; DROP TABLE x"])
def test_a_type_that_is_not_listed_is_refused_at_once(kind: str) -> None:
    """The options refuse it when they are created, so a DAG that cannot work does not parse."""
    with pytest.raises(CallError, match=r"messages\.a cannot be promoted to .*; types are VARCHAR, BIGINT"):
        LoadOptions(promote={"messages": {"a": kind}})


def test_the_command_line_takes_it_as_one_word() -> None:
    """Keys may have dots and equals signs; tables and types have none."""
    assert {"messages": {"a.b": "BIGINT", "c=d": "DATE"}, "users": {"k": "DOUBLE"}} == parse_promote(
        ["messages.a.b=BIGINT", "messages.c=d=DATE", "users.k=DOUBLE"]
    )
    for wrong in ("messages", "messages.a", "messages=BIGINT", ".a=BIGINT", "messages.=BIGINT", "messages.a="):
        with pytest.raises(CallError, match=r"promotes nothing; write TABLE\.KEY=TYPE, such as messages\.priority=BIG"):
            parse_promote([wrong])
    assert {"TIMESTAMP WITH TIME ZONE", "DATE"} <= set(PROMOTED_TYPES.values())
