"""``chatexport repair``: what it shows, asks and names."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Run, answer_on_a_terminal
from lakes import LakeProbe, load_file, write_export

from airflow_provider_chatexport.lake.storage.address import open_store


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    """Return a lake that has lost its messages."""
    lake = LakeProbe(str(tmp_path / "my lake"))
    record = load_file(lake, write_export(tmp_path / "one", {"m": (8, "x")}), 8, 10, "2026-01-02T01:00:00Z").record
    open_store(lake.uri).drop_data(file.path for file in record.files if file.table == "messages")
    return lake


def test_it_shows_what_is_lost_asks_and_names_the_commands(lake: LakeProbe, run: Run) -> None:
    """A loss is for good, and a slip must not record one. What to do next can be pasted."""
    refused = run("sql", "FROM messages", "--lake", lake.uri)
    assert 1 == refused.code
    assert "run chatexport repair" in refused.err
    code, out, shown = answer_on_a_terminal(["repair", "--lake", lake.uri], "n\n")
    assert (1, "") == (code, out)
    assert "messages/event_month=2026-01/" in shown
    assert "is gone" in shown
    assert "They will not come back" in shown
    assert 1 == len(lake.records())
    dry = run("repair", "--lake", lake.uri, "--dry-run", "--json").json
    assert (True, None, {"messages": 1}) == (dry["dry_run"], dry["record"], dry["rows_lost"])
    code, out, shown = answer_on_a_terminal(["repair", "--lake", lake.uri], "y\n")
    assert 0 == code
    assert f"  chatexport sync --lake '{lake.uri}'" in out
    since, until = "2026-01-01T08:00:00.000000Z", "2026-01-01T10:00:00.000000Z"
    assert f"chatexport export --channel a:1 --since {since} --until {until} --lake '{lake.uri}'" in out
    assert "load these exports again, if you have their files or the service has them: one" in out
    assert "no file is lost" in run("repair", "--lake", lake.uri).out
    found = run("repair", "--lake", lake.uri, "--full", "--json").json
    assert ([], [], None) == (found["lost"], found["export_again"], found["record"])
    assert [] == lake.rows("FROM messages")
    assert 1 == run("verify", "--lake", lake.uri).code
