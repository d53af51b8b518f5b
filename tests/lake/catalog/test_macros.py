"""The catalog's macros, as an analyst uses them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from export_objects import channel, line, message, reaction, write_lines

from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.catalog.macros import MACROS, Macro

ODD = ["plain", 'say "hi"', "it's", "a.b", "back\\slash", "$[0]", "", "ключ", "0", "a/b", "~1", "*"]
ZONES = ("UTC", "Pacific/Auckland", "America/New_York")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with a thread of three messages over two days, a deleted message, and one with odd custom keys."""
    messages = [
        message("q", cid="a:1", text="why?", user={"id": "ann", "name": "Ann"}, created_at="2026-01-01T23:00:00Z"),
        message("r2", cid="a:1", parent_id="q", user={"id": "bob"}, created_at="2026-01-02T09:00:00Z"),
        message("r1", cid="a:1", parent_id="q", user={"id": "ann"}, created_at="2026-01-01T23:30:00Z"),
        message(
            "gone", cid="a:1", type="deleted", deleted_at="2026-01-02T00:00:00Z", created_at="2026-01-01T22:00:00Z"
        ),
        message("odd", cid="b:1", custom={key: number for number, key in enumerate(ODD)}),
    ]
    lines = [line("message", each) for each in messages]
    lines += [line("reaction", reaction("q", user_id, cid="a:1")) for user_id in ("bob", "cyd")]
    folder = tmp_path_factory.mktemp("macros")
    lake = Lake(folder / "lake")
    lake.load(write_lines(folder / "export", [line("channel", channel("a:1")), *lines]))
    return lake


@pytest.fixture
def catalog(lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    """The catalog, opened with DuckDB alone."""
    with duckdb.connect(lake.catalog, read_only=True) as catalog:
        yield catalog


def rows(catalog: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return catalog.sql(query).fetchall()


def test_a_thread_is_in_order(catalog: duckdb.DuckDBPyConnection) -> None:
    """The question comes first, then the answers by time, with the names that are known."""
    assert [("q", "Ann"), ("r1", "Ann"), ("r2", None)] == rows(catalog, "SELECT id, name FROM thread('q')")


def test_activity_is_by_day_within_the_bounds(catalog: duckdb.DuckDBPyConnection) -> None:
    """The bounds are half-open, days are in UTC in any session, and deleted messages do not count."""
    for zone in ZONES:
        catalog.execute(f"SET TimeZone = '{zone}'")
        assert [("2026-01-01", 2, 1, 1, 2)] == rows(
            catalog,
            "SELECT day::VARCHAR, * EXCLUDE (day) FROM activity('a:1', '2026-01-01 00:00Z', '2026-01-02 09:00Z')",
        )
        assert 2 == len(rows(catalog, "FROM activity('a:1', '2026-01-01 00:00Z', '2026-01-02 09:00:01Z')"))


@pytest.mark.parametrize(
    "until",
    [
        "'2026-01-02'", "'2026-01-02 00:00'", "DATE '2026-01-02'", "TIMESTAMP '2026-01-02 00:00:00'",
        "'2026-01-02T00:00:00Z'", "'2026-01-02 01:00:00+01'", "TIMESTAMPTZ '2026-01-02 00:00:00Z'",
        "'2026-01-01 19:00 America/New_York'",
    ],
)  # fmt: skip
def test_a_bound_means_the_same_time_in_every_session(until: str, catalog: duckdb.DuckDBPyConnection) -> None:
    """Regression: a shell in New York counted five more hours. A bound without a time zone is in UTC."""
    for zone in ZONES:
        catalog.execute(f"SET TimeZone = '{zone}'")
        query = f"SELECT day::VARCHAR, messages FROM activity('a:1', '2026-01-01', {until})"
        assert [("2026-01-01", 2)] == rows(catalog, query)


@pytest.mark.parametrize("macro", MACROS, ids=lambda macro: macro.name)
def test_a_macro_returns_the_same_in_every_session(macro: Macro, catalog: duckdb.DuckDBPyConnection) -> None:
    """What an analyst counts must not depend on where the shell runs."""
    examples = {"thread": "FROM thread('q')", "activity": "FROM activity('a:1', '2026-01-01', '2026-01-03')"}
    query = examples.get(macro.name, macro.example)
    answers = []
    for zone in ZONES:
        catalog.execute(f"SET TimeZone = '{zone}'")
        answers.append(catalog.sql(query).fetchall())
    assert [answers[0]] * len(ZONES) == answers


def test_custom_keys_of_any_spelling_are_found(catalog: duckdb.DuckDBPyConnection) -> None:
    """An app may have any names for its fields."""
    query = "SELECT custom_value(custom, $1) FROM messages WHERE id = 'odd'"
    values = {key: catalog.execute(query, [key]).fetchall() for key in ODD}
    assert {key: [(str(number),)] for number, key in enumerate(ODD)} == values


def test_a_custom_key_that_is_not_there_is_null(catalog: duckdb.DuckDBPyConnection) -> None:
    """It is not an error: most messages lack most keys."""
    assert [(None,)] == rows(catalog, "SELECT DISTINCT custom_value(custom, 'none') FROM messages")


@pytest.mark.parametrize("macro", MACROS, ids=lambda macro: macro.name)
def test_every_macro_explains_itself(macro: Macro, catalog: duckdb.DuckDBPyConnection) -> None:
    """It has a comment in the catalog, and an example that runs."""
    query = "SELECT comment, parameters FROM duckdb_functions() WHERE database_name = 'catalog' AND function_name = "
    assert [(macro.doc, list(macro.parameters))] == rows(catalog, f"{query}'{macro.name}'")
    json.dumps(rows(catalog, macro.example), default=str)
