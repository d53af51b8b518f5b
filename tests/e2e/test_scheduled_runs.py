"""Runs that Airflow's own scheduler creates, for every way in which a run gets its window, and mapped ones."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow_stack import AirflowStack
from e2e_counts import CHANNELS, messages_in_the_corpus, rows_in

from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.sandbox import Sandbox

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

GROUP = "chat_export_to_lake"
DAY = {"since": "2025-01-08T00:00:00Z", "until": "2025-01-09T00:00:00Z"}


def lake_of(name: str, lake: Path) -> Path:
    return lake.with_name(f"lake-{name}")


def last_run(stack: AirflowStack, name: str, n_runs: int = 1) -> dict[str, Any]:
    """Wait for the runs of the schedule; return the last one."""
    stack.unpause(f"e2e_{name}")
    deadline = time.monotonic() + 300
    runs: list[dict[str, Any]] = []
    while len(runs) < n_runs:
        assert time.monotonic() < deadline, f"the schedule of {name} has created {len(runs)} runs"
        time.sleep(0.5)
        runs = stack.api("GET", f"/dags/e2e_{name}/dagRuns?order_by=run_after")["dag_runs"]
    return [stack.wait(f"e2e_{name}", run["dag_run_id"], timeout_s=300) for run in runs][-1]


def logs_of(stack: AirflowStack, name: str) -> list[str]:
    return [path.read_text() for path in (stack.home / "logs" / f"dag_id=e2e_{name}").rglob("attempt=*.log")]


def holds_the_day(lake: Path, since: str, until: str) -> bool:
    """Return whether the lake has the rows of that time and covers nothing else."""
    expected = messages_in_the_corpus(since, until)
    assert expected
    return rows_in(lake) == expected and verify(open_store(lake), now=datetime.now(UTC)).ok


@pytest.mark.parametrize(
    ("name", "since", "until"),
    [
        ("cron_interval", "2025-01-07", "2025-01-08"),
        ("asset", "2025-01-07", "2025-01-08"),  # its window is that of the load that updated the asset
        ("cron_trigger", "2025-01-06", "2025-01-07"),
        ("partition", "2025-01-06", "2025-01-07"),
    ],
)
def test_a_scheduled_run_loads_the_day_of_its_window(stack, lake, name, since, until) -> None:
    """Every timetable gives whole days; the window of a run by an asset is that of the load that updated it."""
    stack.unpause("e2e_asset")  # Airflow does not keep updates of the asset for a paused DAG
    # With CronTriggerTimetable, the logical date of the first run is before the DAG's start_date: no task runs.
    assert "success" == last_run(stack, name, n_runs=2 if name == "cron_trigger" else 1)["state"]
    assert holds_the_day(lake_of(name, lake), since, until)


def test_plain_daily_fails_at_once_and_names_the_timetable_to_use(stack, lake) -> None:
    """Three retries are allowed here; none of them could succeed."""
    assert "failed" == last_run(stack, "plain_daily")["state"]
    (log,) = logs_of(stack, "plain_daily")
    assert "CronDataIntervalTimetable" in log
    assert not lake_of("plain_daily", lake).exists()


def test_a_run_from_the_form_has_the_window_and_the_channels_of_the_form(stack, lake) -> None:
    """A run without a window fails at once, and the error asks for one."""
    stack.unpause("e2e_by_hand")
    assert "failed" == stack.run("e2e_by_hand")["state"]
    (log,) = logs_of(stack, "by_hand")
    assert "this run has no window" in log
    assert "success" == stack.run("e2e_by_hand", conf=DAY, timeout_s=300)["state"]
    assert holds_the_day(lake_of("by_hand", lake), "2025-01-08", "2025-01-09")


def test_a_deferred_task_has_a_link_to_its_exports(stack) -> None:
    """The page of the task shows it while no worker runs the task."""
    stack.unpause("e2e_by_hand")
    run = stack.api("POST", "/dags/e2e_by_hand/dagRuns", {"logical_date": None, "conf": DAY})
    task = f"/dags/e2e_by_hand/dagRuns/{run['dag_run_id']}/taskInstances/{GROUP}.export"
    deadline = time.monotonic() + 120
    while "deferred" != stack.api("GET", task)["state"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    links = stack.api("GET", f"{task}/links")["extra_links"]
    assert links["Exports at the service"].startswith(f"{stack.url}/dags/e2e_by_hand/runs/")
    shown = stack.api("GET", f"{task}/xcomEntries/exports")["value"]
    assert {"status": "submitted", "n_exports": 1} == {name: shown[name] for name in ("status", "n_exports")}
    assert "success" == stack.wait("e2e_by_hand", run["dag_run_id"], timeout_s=300)["state"]


def test_an_export_that_fails_is_halved_while_the_task_stays_one(stack, sandbox: Sandbox, lake) -> None:
    """The trigger ends, a worker halves the window, another trigger waits for both halves."""
    sandbox.control.fault("fail-task", "/api/v2/chat/export_channels", method="POST")
    stack.unpause("e2e_splits")
    assert "success" == stack.run("e2e_splits", conf=DAY, timeout_s=300)["state"]
    assert holds_the_day(lake_of("splits", lake), "2025-01-08", "2025-01-09")
    assert 1 == " ".join(logs_of(stack, "splits")).count("export is split in two")


def test_channels_that_a_query_finds_are_loaded_in_mapped_batches(stack, sandbox: Sandbox, lake) -> None:
    """The query finds six channels, and each three of them are one load; the seventh is deleted."""
    stack.unpause("e2e_mapped")
    run = stack.run("e2e_mapped", conf=DAY, timeout_s=400)
    assert "success" == run["state"]
    tasks = stack.api("GET", f"/dags/e2e_mapped/dagRuns/{run['dag_run_id']}/taskInstances")["task_instances"]
    loads = [task for task in tasks if task["task_id"] == f"{GROUP}.batch.load"]
    assert 2 == len(loads)
    assert 7 == len(sandbox.world.cids)
    rows = rows_in(lake_of("mapped", lake))
    expected = messages_in_the_corpus("2025-01-08", "2025-01-09")
    assert expected == Counter({cid: rows[cid] for cid in CHANNELS})
    assert verify(open_store(lake_of("mapped", lake)), now=datetime.now(UTC)).ok
