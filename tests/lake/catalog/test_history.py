"""``messages_history`` and ``late_changes`` are right in any order of loads, and after rewrites."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lakes import LakeProbe, at, load_file, write_export

from airflow_provider_chatexport.errors import ShrinkError
from airflow_provider_chatexport.lake import Lake

SPANS = "SELECT text, valid_from, valid_to FROM messages_history WHERE id = '{}' ORDER BY valid_from"


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    return LakeProbe(str(tmp_path / "lake"))


@pytest.fixture(params=["as loaded", "compacted"])
def rewrite(request: pytest.FixtureRequest, lake: LakeProbe) -> Any:
    """Does nothing, or compacts and vacuums between one load and the next."""

    def rewrite() -> None:
        if request.param == "compacted":
            compact_and_vacuum(lake)

    return rewrite


def compact_and_vacuum(lake: LakeProbe) -> None:
    with Lake(lake.uri) as opened:
        opened.compact()
        opened.vacuum(keep=timedelta(0))


def on(day: int) -> str:
    return f"2026-01-{day:02}T00:00:00.000000Z"


def export_on(lake: LakeProbe, day: int, texts: dict[str, str], since: int = 8, until: int = 10, **others: Any) -> None:
    """Load an export of the window with ``keep_superseded``, made on a day of January."""
    timed = {message_id: (8, text) for message_id, text in texts.items()}
    path = write_export(Path(lake.uri).parent / "export", timed, updated_at=at(8, 30), **others)
    load_file(lake, path, since, until, on(day), keep_superseded=True, accept_shrink=True)


def test_a_message_stays_gone_from_the_export_that_found_it_gone(lake: LakeProbe, rewrite: Any) -> None:
    """It does not matter how often its window is exported after that."""
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


def test_an_export_that_was_not_kept_does_not_prove_that_a_message_was_gone(lake: LakeProbe) -> None:
    """The second export contains the message as well. Its rows are deleted, so nothing in the lake shows that."""
    export_on(lake, 5, {"m": "x"})
    path = write_export(Path(lake.uri).parent / "second", {"m": (8, "x")}, updated_at=at(8, 30))
    load_file(lake, path, 8, 10, on(10))
    export_on(lake, 20, {"m": "x"})
    compact_and_vacuum(lake)
    assert [["x", at(8, 30)[:-1] + ".000000Z", None]] == lake.rows(SPANS.format("m"))


def test_a_change_without_a_time_of_its_own_has_the_time_of_its_export(lake: LakeProbe, rewrite: Any) -> None:
    """A reaction changes a message, but not its ``updated_at``. The export before still has the old version."""
    export_on(lake, 5, {"m": "x"}, reaction_counts={})
    export_on(lake, 10, {"m": "x"}, reaction_counts={"love": 1})
    rewrite()
    spans = lake.rows("SELECT reaction_counts, valid_from, valid_to FROM messages_history ORDER BY valid_from")
    assert [[{}, on(10)], [{"love": 1}, None]] == [[json.loads(counts), valid_to] for counts, _, valid_to in spans]
    assert on(10) == spans[1][1]


def test_an_edit_after_a_soft_delete_counts_from_the_edit(lake: LakeProbe) -> None:
    """The message has both times, and the later one is the time of the change."""
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
    """Messages that a newer export hides do not make up for messages that the load takes away."""
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
    Lake(lake.uri).compact()
    everything = {"a": (8, "3"), "b": (9, "3"), "c": (10, "3")}
    load_file(lake, write_export(tmp_path / "three", everything), 8, 12, on(22))
    retired = "SELECT retired_at IS NOT NULL, rewritten_into IS NOT NULL FROM loads ORDER BY exported_at"
    assert [[True, True], [True, True], [False, False]] == lake.rows(retired)
    moments = lake.rows("SELECT retired_at FROM loads ORDER BY exported_at")
    Lake(lake.uri).compact()
    assert moments == lake.rows("SELECT retired_at FROM loads ORDER BY exported_at")


def test_every_column_of_a_view_has_a_comment(lake: LakeProbe, tmp_path: Path) -> None:
    load_file(lake, write_export(tmp_path / "one", {"a": (8, "1")}), 8, 10, on(20))
    assert [] == lake.rows(
        """
        SELECT table_name, column_name FROM duckdb_columns()
        WHERE database_name = 'lake' AND comment IS NULL AND NOT starts_with(table_name, '_')
        """
    )
