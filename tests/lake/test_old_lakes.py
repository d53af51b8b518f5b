"""A lake that commit 5192e9a wrote: day folders, and records of version 1."""

from __future__ import annotations

import json
import tarfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fixtures.make_old_lake import export
from lakes import LakeProbe

from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.schema.tables import MESSAGES

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "lake-5192e9a.tar.gz"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[LakeProbe, dict[str, Any]]:
    """Return the lake, and what its views showed when it was made."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    lake = LakeProbe(str(folder / "lake"))
    Lake(lake.uri).rebuild_catalog()
    return lake, json.loads((folder / "shown.json").read_text())


def kinds_of_faults(lake: LakeProbe) -> set[str]:
    """Return what verify finds wrong. The lake has gaps."""
    return {finding.kind for finding in Lake(lake.uri).verify().findings if finding.is_fault}


def shown(lake: LakeProbe, like: dict[str, Any]) -> dict[str, Any]:
    """Return what the views show, in the columns of another answer."""
    found = {
        name: sorted(lake.rows(f"SELECT {', '.join(each['columns'])} FROM {name}"), key=str)
        for name, each in like.items()
    }
    return json.loads(json.dumps(found, default=str))


def test_an_old_lake_is_read_loaded_compacted_and_verified(old: tuple[LakeProbe, dict[str, Any]]) -> None:
    """A person must not have to load years of exports a second time because the layout of files has changed."""
    lake, before = old
    expected = {name: each["rows"] for name, each in before.items()}
    assert expected == shown(lake, before)
    assert {"gap"} == kinds_of_faults(lake)
    # One day is looked up among files that have it as a column, and files that have it as the name of their folder.
    Lake(lake.uri).load(
        export(Path(lake.uri).parent / "new", range(10, 13), "v5"),
        since="2026-01-10",
        until="2026-01-13",
        exported_at="2026-02-05T00:00:00Z",
    )
    folders = {path.rpartition("/")[0] for path in lake.files() if path.startswith("messages/")}
    assert {"messages/event_month=2026-01", "messages/event_date=2026-01-09"} <= folders
    of_days = (
        "SELECT event_date::VARCHAR, count(*) FROM messages WHERE event_date IN ('2026-01-09', '2026-01-10') GROUP BY 1"
    )
    assert [["2026-01-09", 1], ["2026-01-10", 1]] == sorted(lake.rows(of_days))
    lake.assert_tidy()
    after = shown(lake, before)
    Lake(lake.uri).compact()
    assert {name: rows for name, rows in after.items() if name != "messages_history"} == {
        name: rows for name, rows in shown(lake, before).items() if name != "messages_history"
    }
    live = {each.file.path for each in lake.snapshot().live_files_of(MESSAGES)}
    assert {"messages/event_month=2026-01"} == {path.rpartition("/")[0] for path in live}
    lake.assert_glob_equals_view()
    lake.assert_tidy()
    Lake(lake.uri).vacuum(keep=timedelta(0))
    assert {"gap"} == kinds_of_faults(lake)
    assert Lake(lake.uri).forget_user("cyd").removed["reactions"] > 0
    assert {"gap"} == kinds_of_faults(lake)
