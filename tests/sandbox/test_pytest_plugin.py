"""The pytest plugin, in pytest runs of their own in a project that only has the package installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RUN = """
import sys, pytest
code = pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]])
print("imported", sorted({"starlette", "uvicorn", "httpx", "msgspec", "duckdb", "airflow"} & set(sys.modules)))
sys.exit(code)
"""

FIXTURES = """
import json, os

def test_fresh(chatexport_sandbox):
    assert chatexport_sandbox.control.is_ready()
    chatexport_sandbox.control.add_message("messaging:rust", id="added")

def test_fresh_again(chatexport_sandbox):
    assert chatexport_sandbox.control.requests() == []
    assert chatexport_sandbox.world.message("added") is None

def test_factory(chatexport_sandbox_factory):
    first, second = chatexport_sandbox_factory(), chatexport_sandbox_factory(gzip=True, frozen_clock=True)
    assert first.url != second.url

def test_connection(chatexport_connection):
    connection = json.loads(os.environ["AIRFLOW_CONN_CHATEXPORT_DEFAULT"])
    assert connection["host"] == chatexport_connection.url
"""

CONFTEST = """
import pytest

@pytest.fixture(scope="session", autouse=True)
def airflow_database():
    from airflow.utils.db import initdb
    initdb()
"""

DAG = """
import os
from airflow.sdk import DAG
from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator

with DAG(dag_id="mine", schedule=None) as dag:
    export = ExportChannelsOperator(
        task_id="export", channels=["messaging:rust"], since="2025-01-08", until="2025-01-09", deferrable=False
    )
    LoadExportOperator(task_id="load", exports=export.output, lake=os.environ["LAKE"])
"""

DAG_TEST = """
from pathlib import Path

def test_my_dag_survives_a_service_that_fails_twice(chatexport_connection, tmp_path, monkeypatch):
    monkeypatch.setenv("LAKE", str(tmp_path))
    from my_dag import dag
    control = chatexport_connection.control
    control.fault("status:503", "/api/v2/tasks", times=2)
    assert dag.test().state == "success"
    assert [request.status for request in control.requests("/api/v2/tasks")][:2] == [503, 503]
    assert Path(tmp_path, "catalog.duckdb").exists()
"""


def run_pytest(folder: Path, *arguments: str, **environment: str) -> str:
    """Run pytest in a folder, and return what it prints. Its environment has nothing of this pytest run."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV", "AIRFLOW"))}
    command = [sys.executable, "-c", RUN, *arguments]
    ran = subprocess.run(
        command, cwd=folder, env={**variables, **environment}, capture_output=True, text=True, check=False
    )
    assert ran.returncode in (0, 5), f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def test_a_run_that_uses_no_fixture_imports_nothing(tmp_path: Path) -> None:
    """Every pytest run of a user's environment loads the plugin; it must not cost them a web server or an Airflow."""
    (tmp_path / "test_nothing.py").write_text("")
    assert "imported []" in run_pytest(tmp_path, "--collect-only")
    assert "chatexport_sandbox -- " in run_pytest(tmp_path, "--fixtures")


def test_each_test_gets_a_fresh_sandbox(tmp_path: Path) -> None:
    """Changes of one test must not reach the next, and a connection must lead to the sandbox of its test."""
    (tmp_path / "test_fixtures.py").write_text(FIXTURES)
    output = run_pytest(tmp_path)
    assert "4 passed" in output
    assert "'airflow'" not in output


def test_a_users_dag_runs_against_the_sandbox(tmp_path: Path) -> None:
    """The use that docs/sandbox.md describes: the user's own DAG, on a real Airflow, with faults."""
    dags, home = tmp_path / "dags", tmp_path / "home"
    dags.mkdir()
    (dags / "my_dag.py").write_text(DAG)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_my_dag.py").write_text(DAG_TEST)
    airflow = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(dags),
    }
    assert "1 passed" in run_pytest(tmp_path, "test_my_dag.py", **airflow)
