"""``messages_history``, and what loads find changed: right in any order of loads, and after rewrites."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lakes import LakeProbe, at, load_file, write_export

from airflow_provider_chatexport.errors import ShrinkError
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.storage.address import open_store

SPANS = "SELECT text, valid_from, valid_to FROM messages_history WHERE id = '{}' ORDER BY valid_from"


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    return LakeProbe(str(tmp_path / "lake"))


@pytest.fixture(params=["as loaded", "compacted"])
def rewrite(request: pytest.FixtureRequest, lake: LakeProbe) -> Any:
    """Does nothing, or compacts and cleans up between one load and the next."""

    def rewrite() -> None:
        if request.param == "compacted":
            compact(open_store(lake.uri))
            vacuum(open_store(lake.uri), keep=timedelta(0), now=datetime.now(UTC))

    return rewrite


def on(day: int) -> str:
    return f"2026-01-{day:02}T00:00:00.000000Z"


def export_on(lake: LakeProbe, day: int, texts: dict[str, str], since: int = 8, until: int = 10, **others: Any) -> None:
    """A kept export of the window, made on a day of January."""
    said = {message_id: (8, text) for message_id, text in texts.items()}
    path = write_export(Path(lake.uri).parent / "export", said, updated_at=at(8, 30), **others)
    load_file(lake, path, since, until, on(day), keep_superseded=True, accept_shrink=True)


def test_a_message_stays_gone_from_when_it_was_found_gone(lake: LakeProbe, rewrite: Any) -> None:
    """However often its window is exported again."""
    export_on(lake, 5, {"m": "x", "gone": "x"})
    for day in (10, 20, 30):
        export_on(lake, day, {"m": "x"})
        rewrite()
    assert [["x", at(8, 30)[:-1] + ".000000Z", on(10)]] == lake.rows(SPANS.format("gone"))
    assert [["x", at(8, 30)[:-1] + ".000000Z", None]] == lake.rows(SPANS.format("m"))


def test_a_message_that_came_back_was_gone_between(lake: LakeProbe, rewrite: Any) -> None:
    export_on(lake, 5, {"m": "x", "back": "x"})
    export_on(lake, 10, {"m": "x"})
    rewrite()
    export_on(lake, 20, {"m": "x", "back": "x"})
    rewrite()
    assert [["x", at(8, 30)[:-1] + ".000000Z", on(10)], ["x", on(20), None]] == lake.rows(SPANS.format("back"))


def test_exports_that_cannot_be_read_any_more_say_nothing_of_what_they_did_not_tell(lake: LakeProbe) -> None:
    """The second export told the message as well, and was not kept: its silence is no sign."""
    export_on(lake, 5, {"m": "x"})
    path = write_export(Path(lake.uri).parent / "second", {"m": (8, "x")}, updated_at=at(8, 30))
    load_file(lake, path, 8, 10, on(10))
    export_on(lake, 20, {"m": "x"})
    compact(open_store(lake.uri))
    vacuum(open_store(lake.uri), keep=timedelta(0), now=datetime.now(UTC))
    assert [["x", at(8, 30)[:-1] + ".000000Z", None]] == lake.rows(SPANS.format("m"))


def test_a_change_without_a_time_of_its_own_came_with_the_export_that_told_it(lake: LakeProbe, rewrite: Any) -> None:
    """Reactions change a message and not its ``updated_at``; the export before still told it otherwise."""
    export_on(lake, 5, {"m": "x"}, reaction_counts={})
    export_on(lake, 10, {"m": "x"}, reaction_counts={"love": 1})
    rewrite()
    spans = lake.rows("SELECT reaction_counts, valid_from, valid_to FROM messages_history ORDER BY valid_from")
    assert [[{}, on(10)], [{"love": 1}, None]] == [[json.loads(counts), valid_to] for counts, _, valid_to in spans]
    assert on(10) == spans[1][1]


def test_an_edit_after_a_soft_delete_counts_from_the_edit(lake: LakeProbe) -> None:
    """Both times are the message's; the later one is that of the change."""
    export_on(lake, 5, {"m": "x"}, deleted_at="2026-01-02T00:00:00Z")
    path = write_export(
        Path(lake.uri).parent / "later", {"m": (8, "y")}, deleted_at="2026-01-02T00:00:00Z", updated_at=on(25)
    )
    load_file(lake, path, 8, 10, on(30), keep_superseded=True)
    assert [["x", on(2), on(25)], ["y", on(25), None]] == lake.rows(SPANS.format("m"))
    assert [[23, 1]] == lake.rows("SELECT age_days, edited FROM late_changes")


def test_history_has_promoted_columns(lake: LakeProbe) -> None:
    export_on(lake, 5, {"m": "x"}, priority=1)
    path = write_export(Path(lake.uri).parent / "later", {"m": (8, "x")}, priority=2)
    load_file(lake, path, 8, 10, on(10), keep_superseded=True, promote={"messages": {"priority": "BIGINT"}})
    assert [[1], [2]] == lake.rows("SELECT priority FROM messages_history ORDER BY valid_from")


def test_a_load_that_comes_late_is_judged_by_what_it_will_show(lake: LakeProbe, tmp_path: Path) -> None:
    """Its messages that a newer export hides do not make up for those that it takes away."""
    days = {f"m{hour}": (hour, "x") for hour in range(10)}
    load_file(lake, write_export(tmp_path / "all", days), 0, 10, on(20))
    first_half = {f"m{hour}": (hour, "x") for hour in range(5)}
    load_file(lake, write_export(tmp_path / "newest", first_half), 0, 5, on(22))
    with pytest.raises(ShrinkError, match="has no message of a:1 where the lake shows 5"):
        load_file(lake, write_export(tmp_path / "late", first_half), 0, 10, on(21))
    assert 10 == lake.value("SELECT count(*) FROM messages")
    load_file(lake, write_export(tmp_path / "late", days), 0, 10, on(21))
    assert [] == lake.rows("FROM late_changes")


def test_a_load_stays_retired_when_it_is_rewritten(lake: LakeProbe, tmp_path: Path) -> None:
    load_file(lake, write_export(tmp_path / "one", {"a": (8, "1"), "b": (9, "1")}), 8, 10, on(20))
    load_file(lake, write_export(tmp_path / "two", {"b": (9, "2"), "c": (10, "2")}), 9, 12, on(21))
    compact(open_store(lake.uri))
    everything = {"a": (8, "3"), "b": (9, "3"), "c": (10, "3")}
    load_file(lake, write_export(tmp_path / "three", everything), 8, 12, on(22))
    retired = "SELECT retired_at IS NOT NULL, rewritten_into IS NOT NULL FROM loads ORDER BY exported_at"
    assert [[True, True], [True, True], [False, False]] == lake.rows(retired)
    moments = lake.rows("SELECT retired_at FROM loads ORDER BY exported_at")
    compact(open_store(lake.uri))
    assert moments == lake.rows("SELECT retired_at FROM loads ORDER BY exported_at")


def test_every_column_of_a_view_has_a_comment(lake: LakeProbe, tmp_path: Path) -> None:
    load_file(lake, write_export(tmp_path / "one", {"a": (8, "1")}), 8, 10, on(20))
    assert [] == lake.rows(
        "SELECT table_name, column_name FROM duckdb_columns() "
        "WHERE database_name = 'lake' AND comment IS NULL AND NOT starts_with(table_name, '_')"
    )
