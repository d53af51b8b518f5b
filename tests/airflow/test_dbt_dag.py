"""The example DAG that runs dbt after a load, with the real dbt."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from airflow_provider_chatexport.cli import main

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("airflow_database")


def dag_of(name: str) -> Any:
    return runpy.run_path(str(ROOT / "dags" / f"{name}.py"))["dag"]


def test_a_load_sets_off_dbt(connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daily DAG's load tells of the lake, dbt's DAG waits for that, and builds marts over what was loaded."""
    lake, project = tmp_path / "lake", tmp_path / "project"
    monkeypatch.setenv("CHATEXPORT_LAKE", str(lake))
    monkeypatch.setenv("CHATEXPORT_CHANNELS", "livestream:ubuntu")
    monkeypatch.setenv("CHATEXPORT_DBT_PROJECT", str(project))
    dbt = ROOT / ".venv-dbt" / "bin" / "dbt"
    assert dbt.exists(), "dbt's environment is missing; run `make .venv-dbt/.ready`"
    monkeypatch.setenv("CHATEXPORT_DBT", str(dbt))
    daily = dag_of("chatexport_daily")
    assert daily.test(logical_date=datetime(2025, 1, 7, tzinfo=UTC)).state == "success"
    main(["dbt", "init", str(project), "--lake", str(lake)])
    building = dag_of("chatexport_dbt")
    told = {outlet.name for outlet in daily.get_task("load").outlets}
    assert told == {asset.name for asset in building.timetable.asset_condition.objects}
    assert building.test(logical_date=datetime(2025, 1, 8, tzinfo=UTC)).state == "success"
    with duckdb.connect(str(project / "chat.duckdb"), read_only=True) as marts:
        built = marts.sql("SELECT event_date::VARCHAR, messages > 0 FROM channel_activity_daily").fetchall()
    assert {("2025-01-06", True)} == set(built)
