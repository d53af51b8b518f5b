"""The dbt project in environments of its own, as its pages say: with the pip of a new Python, MetricFlow and Cosmos."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow_stack import ROOT
from dbt_project import DBT, Project
from lakes import client_of, exports_of
from pages import commands
from wheels import Installed

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.cli import main
from airflow_provider_chatexport.sandbox import Sandbox

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

COSMOS = ROOT / ".venv-cosmos" / "bin"


@pytest.fixture
def lake(start_sandbox: Callable[..., Sandbox], tmp_path: Path) -> str:
    """Load two days from a sandbox without an Airflow, which is quicker than the one of the other suites."""
    with client_of(start_sandbox()) as client:
        receipts = exports_of(client, "2025-01-06", "2025-01-08", channels=("livestream:ubuntu",), export_users=True)
        pipeline.load_exports(client, receipts, lake_uri=str(tmp_path / "lake"))
    return str(tmp_path / "lake")


def test_the_commands_of_the_pages_run(lake: str, tmp_path: Path, installed: Installed) -> None:
    """A new user has the pip that came with Python, types what ``init`` printed, and then the rest of the README."""
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    environment = {**os.environ, "PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(tmp_path), "COLUMNS": "200"}
    init, *of_page = (each.text for each in commands("docs/dbt.md"))
    init = [installed.chatexport, *shlex.split(init)[1:-1], lake]
    ran = subprocess.run(init, cwd=tmp_path, check=True, capture_output=True, text=True)
    printed = [row.strip() for row in ran.stdout.splitlines() if row.startswith("  ")]
    assert [text.removeprefix("cd ./") for text in of_page] == [text.removeprefix("cd ") for text in printed]
    of_readme = [each.text for each in commands("dbt/README.md")]
    assert of_page[1:] == of_readme[:2]
    # The rest of that line serves the documentation until Ctrl-C.
    rest = [text.removesuffix(" && .venv/bin/dbt docs serve") for text in of_readme[2:]]
    script = "\n".join(["set -e", *printed, *rest])
    ran = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
    )
    assert 0 == ran.returncode, ran.stdout + ran.stderr
    folder = tmp_path / "chat-dbt"
    assert "Completed successfully" in ran.stdout
    assert (folder / "target" / "catalog.json").exists()
    weeks, channels = ran.stdout.split("metric_time__week")[1], ran.stdout.split("conversation__cid")[1]
    ((messages, people),) = Project(folder, {}).rows(
        "SELECT sum(messages), (SELECT count(*) FROM people WHERE messages > 0) FROM channel_activity_daily"
    )
    assert [str(messages), str(people)] == weeks.split("2025-01-06T00:00:00")[1].split()[:2]
    assert "livestream:ubuntu" in channels


def test_the_cosmos_dag_of_the_page_builds_the_marts(lake: str, tmp_path: Path) -> None:
    """Every model is a task, in Cosmos as users have it."""
    assert COSMOS.exists(), "Cosmos is missing; run `make .venv-cosmos/.ready`"
    folder, home = tmp_path / "chat-dbt", tmp_path / "airflow"
    main(["dbt", "init", str(folder), "--lake", lake])
    (folder / ".venv").symlink_to(DBT.parents[1])
    (home / "dags").mkdir(parents=True)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "dbt.md").read_text(), re.DOTALL)
    (home / "dags" / "chat_dbt.py").write_text(code)
    environment = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
        "CHATEXPORT_DBT_PROJECT": str(folder),
        "HOME": str(tmp_path),
        "PATH": f"{COSMOS}:/usr/bin:/bin",
        "DO_NOT_TRACK": "1",
    }
    for command in (
        ["db", "migrate"],
        ["dags", "reserialize"],
        ["dags", "test", "chat_dbt"],
    ):
        ran = subprocess.run(
            [COSMOS / "airflow", *command], env=environment, check=False, capture_output=True, text=True
        )
        assert 0 == ran.returncode, ran.stdout[-5000:] + ran.stderr[-5000:]
    assert "state=success" in ran.stdout + ran.stderr, ran.stdout[-3000:] + ran.stderr[-3000:]
    project = Project(folder, {})
    assert 0 < project.rows("SELECT sum(messages) FROM channel_activity_daily")[0][0]
    assert 0 < project.rows("SELECT count(*) FROM retention_cohorts")[0][0]
