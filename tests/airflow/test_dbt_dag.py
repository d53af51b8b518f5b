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


def test_a_load_starts_dbt(connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The load of the daily DAG updates an asset; dbt's DAG waits for that asset and builds marts of the new rows."""
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
    dbt_dag = dag_of("chatexport_dbt")
    updated = {outlet.name for outlet in daily.get_task("load").outlets}
    assert updated == {asset.name for asset in dbt_dag.timetable.asset_condition.objects}
    assert dbt_dag.test(logical_date=datetime(2025, 1, 8, tzinfo=UTC)).state == "success"
    with duckdb.connect(str(project / "chat.duckdb"), read_only=True) as marts:
        rows = marts.sql("SELECT event_date::VARCHAR, messages > 0 FROM channel_activity_daily").fetchall()
    assert {("2025-01-06", True)} == set(rows)
