"""The catalog's macros, as an analyst uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from export_objects import channel, line, message, reaction, write_lines

from airflow_provider_chatexport.lake.catalog.macros import MACROS, Macro
from airflow_provider_chatexport.lake.load.job import load_files

ODD = ["plain", 'say "hi"', "it's", "a.b", "back\\slash", "$[0]", "", "ключ", "0", "a/b", "~1", "*"]


@pytest.fixture
def catalog(tmp_path: Path) -> duckdb.DuckDBPyConnection:
    """A question with two answers, of which one is deleted, and a message of the next day."""
    told = [
        message("q", cid="a:1", text="why?", user={"id": "ann", "name": "Ann"}, created_at="2026-01-01T23:00:00Z"),
        message("r2", cid="a:1", parent_id="q", user={"id": "bob"}, created_at="2026-01-02T09:00:00Z"),
        message("r1", cid="a:1", parent_id="q", user={"id": "ann"}, created_at="2026-01-01T23:30:00Z"),
        message(
            "gone", cid="a:1", type="deleted", deleted_at="2026-01-02T00:00:00Z", created_at="2026-01-01T22:00:00Z"
        ),
        message("odd", cid="b:1", custom={key: number for number, key in enumerate(ODD)}),
    ]
    lines = [line("message", each) for each in told]
    lines += [line("reaction", reaction("q", user_id, cid="a:1")) for user_id in ("bob", "cyd")]
    path = write_lines(tmp_path / "export", [line("channel", channel("a:1")), *lines])
    load_files([path], lake_uri=str(tmp_path / "lake"))
    return duckdb.connect(str(tmp_path / "lake" / "catalog.duckdb"), read_only=True)


def rows(catalog: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return catalog.sql(query).fetchall()


def test_a_thread_is_told_in_order(catalog: duckdb.DuckDBPyConnection) -> None:
    """The question first, then the answers as they came, with names where they are known."""
    assert [("q", "Ann"), ("r1", "Ann"), ("r2", None)] == rows(catalog, "SELECT id, name FROM thread('q')")


def test_activity_is_by_day_within_the_bounds(catalog: duckdb.DuckDBPyConnection) -> None:
    """Half-open, in UTC whatever the session's time zone is, without deleted messages."""
    for zone in ("UTC", "Pacific/Auckland", "America/Los_Angeles"):
        catalog.execute(f"SET TimeZone = '{zone}'")
        assert [("2026-01-01", 2, 1, 1, 2)] == rows(
            catalog,
            "SELECT day::VARCHAR, * EXCLUDE (day) FROM activity('a:1', '2026-01-01 00:00Z', '2026-01-02 09:00Z')",
        )
        assert 2 == len(rows(catalog, "FROM activity('a:1', '2026-01-01 00:00Z', '2026-01-02 09:00:01Z')"))


@pytest.mark.parametrize("key", ODD)
def test_custom_keys_of_any_spelling_are_found(key: str, catalog: duckdb.DuckDBPyConnection) -> None:
    """Whatever an app has named its fields."""
    found = catalog.execute("SELECT custom_value(custom, $1) FROM messages WHERE id = 'odd'", [key]).fetchall()
    assert [(str(ODD.index(key)),)] == found


def test_a_custom_key_that_is_not_there_is_null(catalog: duckdb.DuckDBPyConnection) -> None:
    """And no error."""
    assert [(None,)] == rows(catalog, "SELECT DISTINCT custom_value(custom, 'none') FROM messages")


@pytest.mark.parametrize("macro", MACROS, ids=lambda macro: macro.name)
def test_every_macro_explains_itself(macro: Macro, catalog: duckdb.DuckDBPyConnection) -> None:
    """With a comment in the catalog, and an example that runs."""
    told = "SELECT comment, parameters FROM duckdb_functions() WHERE database_name = 'catalog' AND function_name = "
    assert [(macro.doc, list(macro.parameters))] == rows(catalog, f"{told}'{macro.name}'")
    json.dumps(rows(catalog, macro.example), default=str)
