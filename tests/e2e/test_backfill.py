"""A month of history through Airflow's own backfill, and once more."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from airflow_stack import AirflowStack, StackError
from e2e_counts import DAG, rows_in, told_by_the_corpus

from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store

pytestmark = pytest.mark.long

FIRST, LAST, END = "2025-01-03", "2025-02-01", "2025-02-02"
N_DAYS = 30
BACKFILLS = f"/backfills?dag_id={DAG}"
WRITERS = ("scheduler", "triggerer", "dag-processor")


def backfill(stack: AirflowStack, *more: str) -> None:
    """Creates one, and waits until all of its runs have ended well."""
    before = time.time()
    dates = ("--from-date", FIRST, "--to-date", LAST)
    # SQLite refuses a long transaction when somebody else has written meanwhile; nothing is under way at this moment.
    for part in WRITERS:
        stack.kill(part)
    created = stack.airflow("backfill", "create", "--dag-id", DAG, *dates, "--max-active-runs", "4", *more)
    for part in WRITERS:
        stack.start(part)
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
    """What verify finds, but for the gap between the month and the day of the schedule's own run."""
    findings = verify(open_store(lake), now=datetime.now(UTC)).findings
    return [each.what for each in findings if each.is_fault and f"not covered from {END}T00" not in each.what]


def _epoch_s(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


@pytest.mark.timeout(3000)
def test_thirty_days_twice_over_are_the_days_once(stack: AirflowStack, lake: Path) -> None:
    """Four windows at a time, in any order; reprocessed as a whole, every row is there once and is the newer one."""
    backfill(stack)
    expected = told_by_the_corpus(FIRST, END)
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
