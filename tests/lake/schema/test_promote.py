"""Promoted columns: custom fields as typed columns, in files with and without them, of one type in a lake."""

from __future__ import annotations

import json
import re
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


NOON = "2026-02-03T12:00:00.000000Z"
# What each type takes, as JSON text, and as what; then what it does not take.
CASTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "VARCHAR": ({'"x"': "x", '{"a":[1]}': '{"a":[1]}', "5": "5", "true": "true", '""': ""}, []),
    "BIGINT": (
        {"0": 0, "-0": 0, '"007"': 7, "-15": -15, str(2**63 - 1): 2**63 - 1, f'"{-(2**63)}"': -(2**63)},
        ["15e-1", "1.0", "true", "[1]", '{"a":1}', str(2**63)]
        + [f'"{text}"' for text in ("1e3", "1_000", "0x10", "0b1", "1.0", ".5", "+5", " 5", "-", "", "true", "high")],
    ),
    "DOUBLE": (
        {
            "0": 0.0,
            "-1.5": -1.5,
            '"2.5"': 2.5,
            "1e3": 1000.0,
            '"1E-3"': 0.001,
            "1e308": 1e308,
            str(2**70): float(2**70),
        },
        ["1e400", "-1e400", "true", "[1]", "{}"]
        + [
            f'"{text}"'
            for text in ("nan", "inf", "-Infinity", "1e400", "1_000", "0x10", ".5", "5.", "+5", " 5", "", "x")
        ],
    ),
    "BOOLEAN": (
        {"true": True, "false": False, '"true"': True, '"false"': False},
        ["1", "0", "[]", *(f'"{text}"' for text in ("yes", "no", "t", "f", "y", "1", "0", "TRUE", "on", "", " true"))],
    ),
    "DATE": (
        {f'"{day}"': day for day in ("1582-10-15", "1969-12-31", "2024-02-29", "9999-12-31")},
        ["20260101", "true", "[]"]
        + [f'"{text}"' for text in ("infinity", "-infinity", "epoch", "290000-01-01", "0044-03-15 (BC)", "0001-01-01")]
        + [f'"{text}"' for text in ("0000-01-01", "1582-10-14", "-026-01-01", "2026-1-1", "2026/01/01", "2023-02-29")]
        + [f'"{text}"' for text in ("2026-01-01 10:00:00", "2026-01-01T00:00:00Z", " 2026-01-01", "")],
    ),
    "TIMESTAMPTZ": (
        {
            '"2026-02-03T12:00:00Z"': NOON,
            '"2026-02-03T14:00:00.000000999+02:00"': NOON,
            "1770120000000000000": NOON,
            '"1770120000000000000"': NOON,
            **dict.fromkeys(("0", '""', '"0001-01-01T00:00:00Z"')),  # there is no time, and nothing that is lost
        },
        ["1770120000", "1770120000000", "1770120000000000", "3.7", "-1", "true", "[]", "9214646400000000000"]
        + [f'"{text}"' for text in ("1770120000", "1e3", "2026-02-03", "2026-02-03T12:00:00", "yesterday", "infinity")]
        + ['"1899-12-31T23:59:59Z"', '"2262-01-01T00:00:00Z"', '"9999-12-31T00:00:00Z"'],
    ),
}


def test_a_promoted_column_takes_only_what_its_type_writes(lake: LakeProbe, tmp_path: Path) -> None:
    """A cast that guesses gives numbers that no one wrote, and times that no reader of the files can hold.

    The view computes the column by the same rule for files that were loaded without it.
    """
    n_rows = max(len(taken) + len(others) for taken, others in CASTS.values())
    written = {kind: [*taken, *others] + ["null"] * n_rows for kind, (taken, others) in CASTS.items()}
    promote = {"messages": {kind.lower(): kind for kind in CASTS}}
    for hour, options in ((9, LoadOptions(promote=promote)), (10, LoadOptions())):
        lines = []
        for at_ in range(n_rows):
            fields = message(
                f"{hour}-{at_:02}", cid="a:1", created_at=at(hour), **dict.fromkeys(promote["messages"], "@")
            )
            values = iter([written[kind][at_].encode() for kind in CASTS])
            lines.append(re.sub(rb'"@"', lambda _, values=values: next(values), line("message", fields)))
        path = write_lines(tmp_path / f"{hour}", lines)
        report = load_files([path], lake_uri=lake.uri, window=Window.parse(at(hour), at(hour + 1)), options=options)
        expected = {f"messages.{kind.lower()}": len(others) for kind, (_, others) in CASTS.items() if others}
        assert (expected if hour == 9 else {}) == report.to_json()["cast_failures"]
    for kind, (taken, _) in CASTS.items():
        rows = lake.rows(f"SELECT {kind.lower()} FROM messages ORDER BY created_at, id")
        found = [str(value) if isinstance(value, date) else value for (value,) in rows]
        assert ([*taken.values()] + [None] * n_rows)[:n_rows] * 2 == found, kind


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
        assert compact(open_store(lake.uri)).merges > 0
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
