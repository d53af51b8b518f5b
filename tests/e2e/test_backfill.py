"""A month of history with Airflow's own backfill, twice."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from airflow_stack import AirflowStack, StackError
from e2e_counts import DAG, messages_in_the_corpus, rows_in

from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store

pytestmark = pytest.mark.long

FIRST, LAST, END = "2025-01-03", "2025-02-01", "2025-02-02"
N_DAYS = 30
BACKFILLS = f"/backfills?dag_id={DAG}"
WRITERS = ("scheduler", "triggerer", "dag-processor")


def backfill(stack: AirflowStack, *more: str) -> None:
    """Create a backfill, and wait until all of its runs have succeeded."""
    before = time.time()
    dates = ("--from-date", FIRST, "--to-date", LAST)
    # SQLite refuses a long transaction if another process has written since its start. No run is active now.
    for component in WRITERS:
        stack.kill(component)
    created = stack.airflow("backfill", "create", "--dag-id", DAG, *dates, "--max-active-runs", "4", *more)
    for component in WRITERS:
        stack.start(component)
    assert created.returncode == 0, created.stderr[-2000:]
    deadline = time.monotonic() + 1200
    while True:
        runs = stack.api("GET", f"/dags/{DAG}/dagRuns?limit=100&run_type=backfill")["dag_runs"]
        ended = [run for run in runs if run["state"] == "success" and _epoch_s(run["end_date"]) > before]
        assert not [run for run in runs if run["state"] == "failed"]
        if len(ended) == N_DAYS and all(each["completed_at"] for each in stack.api("GET", BACKFILLS)["backfills"]):
            return
        if time.monotonic() > deadline:
            raise StackError(f"{len(ended)} of {N_DAYS} runs have ended")
        time.sleep(2)


def faults(lake: Path) -> list[str]:
    """Return the faults that verify finds, except for the gap before the day of the schedule's own run."""
    findings = verify(open_store(lake), now=datetime.now(UTC)).findings
    return [each.what for each in findings if each.is_fault and f"not covered from {END}T00" not in each.what]


def _epoch_s(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


@pytest.mark.timeout(3000)
def test_a_backfill_of_thirty_days_that_runs_twice_has_each_row_once(stack: AirflowStack, lake: Path) -> None:
    """Four windows run at a time, in any order; after the second backfill every row is from the second."""
    backfill(stack)
    expected = messages_in_the_corpus(FIRST, END)
    assert expected == rows_in(lake, FIRST, END)
    assert [] == faults(lake)
    again_from = datetime.now(UTC)
    backfill(stack, "--reprocess-behavior", "completed")
    assert expected == rows_in(lake, FIRST, END)
    with duckdb.connect(str(lake / "catalog.duckdb"), read_only=True) as catalog:
        catalog.execute("SET TimeZone = 'UTC'")
        ((n_old, n_loads),) = catalog.execute(
            "SELECT (SELECT count(*) FROM messages WHERE _exported_at < $1 AND created_at >= $2::TIMESTAMPTZ "
            "AND created_at < $3::TIMESTAMPTZ), (SELECT count(*) FROM loads WHERE since >= $2::TIMESTAMPTZ "
            "AND until <= $3::TIMESTAMPTZ)",
            [again_from, f"{FIRST}T00:00:00Z", f"{END}T00:00:00Z"],
        ).fetchall()
    assert (0, 2 * N_DAYS) == (n_old, n_loads)
    assert [] == faults(lake)
