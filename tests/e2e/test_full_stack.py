"""One run through all of Airflow, each part a process of its own: what `dag.test()` cannot show."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import duckdb
import pytest
from airflow_stack import AirflowStack, sandbox_connection

from airflow_provider_chatexport.sandbox.server import Sandbox
from airflow_provider_chatexport.sandbox.settings import SandboxSettings

DAY = "2025-01-08"
# No truncation hides messages of these, so the corpus itself says what must come out.
CHANNELS = ("livestream:ubuntu", "messaging:rust", "team:ubuntu-meeting")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    # Long enough that the task must be deferred and resumed.
    with Sandbox(SandboxSettings(task_s=3.0)) as running:
        yield running


@pytest.fixture(scope="module")
def stack(sandbox: Sandbox, lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowStack]:
    environment = {
        "AIRFLOW_CONN_CHATEXPORT_DEFAULT": sandbox_connection(sandbox.url),
        "CHATEXPORT_LAKE": str(lake),
        "CHATEXPORT_CHANNELS": ",".join(CHANNELS),
    }
    with AirflowStack(tmp_path_factory.mktemp("airflow"), environment) as running:
        yield running


def told_by_the_corpus() -> Counter[str]:
    """Messages per channel on that day, counted from the published file, past all of our code."""
    shipped = resources.files("airflow_provider_chatexport.sandbox") / "data" / "irc-messages.ndjson.gz"
    with shipped.open("rb") as packed, gzip.open(packed) as lines:
        messages = map(json.loads, lines)
        return Counter(
            message["cid"] for message in messages if message["at"].startswith(DAY) and message["cid"] in CHANNELS
        )


def rows_in(lake: Path) -> Counter[str]:
    with duckdb.connect(str(lake / "catalog.duckdb"), read_only=True) as catalog:
        return Counter(dict(catalog.sql("SELECT cid, count(*) FROM messages GROUP BY cid").fetchall()))


@pytest.mark.timeout(400)
def test_a_run_triggered_over_rest_defers_and_lands_in_the_lake(stack: AirflowStack, lake: Path) -> None:
    """Scheduler, worker, triggerer and worker again: the day's rows equal a count of the corpus itself."""
    conf = {"since": f"{DAY}T00:00:00Z", "until": "2025-01-09T00:00:00Z"}

    run = stack.run("chatexport_daily", conf=conf, timeout_s=180.0)

    assert run["state"] == "success", (stack.home / "scheduler.log").read_text()[-3000:]
    assert told_by_the_corpus() == rows_in(lake)
    assert len(rows_in(lake)) == len(CHANNELS)
    logs = stack.home / "logs" / "dag_id=chatexport_daily" / f"run_id={run['dag_run_id']}" / "task_id=export"
    assert "Pausing task as DEFERRED" in (logs / "attempt=1.log").read_text()
    assert list(logs.glob("attempt=1.log.trigger.*")), "the triggerer has no log of its own for the task"


def test_no_secret_or_link_is_in_any_log(stack: AirflowStack, sandbox: Sandbox) -> None:
    """Logs are read by more people than connections are."""
    logs = "".join(path.read_text(errors="replace") for path in stack.home.rglob("*.log"))
    assert "load committed" in logs
    for secret in (sandbox.api_secret, "/download/", "signature=", "eyJ"):
        assert secret not in logs
