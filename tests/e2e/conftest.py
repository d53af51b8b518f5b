"""All of Airflow over the sandbox, each component a process of its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_stack import FOR_KILLED_PROCESSES, ROOT, AirflowStack, free_port, sandbox_connection
from e2e_counts import CHANNELS, DAG

from airflow_provider_chatexport.sandbox import Sandbox, SandboxSettings


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    # An export takes long enough that the task is deferred and the scheduler has seen that. The port is fixed, so that
    # Airflow finds the sandbox again after a restart.
    with Sandbox(SandboxSettings(port=free_port(), task_s=6.0, rate_limit=False)) as running:
        yield running


@pytest.fixture(scope="module")
def stack(sandbox: Sandbox, lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowStack]:
    environment = {
        "AIRFLOW_CONN_CHATEXPORT_DEFAULT": sandbox_connection(sandbox.url),
        "CHATEXPORT_LAKE": str(lake),
        "CHATEXPORT_CHANNELS": ",".join(CHANNELS),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",  # so that the other examples do not run
        # Tests kill processes. And on a slow machine the scheduler may get the end of a task's first half while the
        # second half runs: it then marks the task as failed.
        **FOR_KILLED_PROCESSES,
    }
    dags = tmp_path_factory.mktemp("dags")
    for folder in (ROOT / "dags", Path(__file__).parent / "dags"):
        shutil.copytree(folder, dags, dirs_exist_ok=True)
    with AirflowStack(tmp_path_factory.mktemp("airflow"), environment, dags=dags) as running:
        running.unpause(DAG)
        # The newest run of the schedule starts at once. Tests that count exports must come after it.
        deadline = time.monotonic() + 200
        while not (runs := running.api("GET", f"/dags/{DAG}/dagRuns")["dag_runs"]):
            assert time.monotonic() < deadline, "the schedule has created no run"
            time.sleep(0.5)
        running.wait(DAG, runs[0]["dag_run_id"], timeout_s=200)
        yield running
