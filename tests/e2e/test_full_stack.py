"""One run with all of Airflow, each component a process of its own, which `dag.test()` does not cover."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow_stack import AirflowStack
from e2e_counts import CHANNELS, DAG, messages_in_the_corpus, rows_in

from airflow_provider_chatexport.sandbox import Sandbox

DAY, NEXT_DAY = "2025-01-08", "2025-01-09"


@pytest.mark.timeout(1800)
def test_a_run_triggered_over_rest_defers_and_lands_in_the_lake(
    stack: AirflowStack, lake: Path, sandbox: Sandbox
) -> None:
    """The scheduler, a worker, the triggerer and a worker again: the day's rows equal a count of the corpus.

    No log contains a secret: more people may read logs than connections.
    """
    conf = {"since": f"{DAY}T00:00:00Z", "until": f"{NEXT_DAY}T00:00:00Z"}

    run = stack.run(DAG, conf=conf, timeout_s=300.0)

    assert run["state"] == "success", (stack.home / "scheduler.log").read_text()[-3000:]
    assert messages_in_the_corpus(DAY, NEXT_DAY) == rows_in(lake, DAY, NEXT_DAY)
    assert len(rows_in(lake, DAY, NEXT_DAY)) == len(CHANNELS)
    logs = stack.home / "logs" / f"dag_id={DAG}" / f"run_id={run['dag_run_id']}" / "task_id=export"
    assert "Pausing task as DEFERRED" in (logs / "attempt=1.log").read_text()
    assert list(logs.glob("attempt=1.log.trigger.*")), "the triggerer has no log of its own for the task"

    logged = "".join(path.read_text(errors="replace") for path in stack.home.rglob("*.log"))
    assert "load committed" in logged
    for secret in (sandbox.api_secret, "/download/", "signature=", "eyJ"):
        assert secret not in logged
