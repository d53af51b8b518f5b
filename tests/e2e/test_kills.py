"""Components of Airflow that are killed during a run: the result is right, and an export is not started twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from airflow_stack import AirflowStack
from e2e_counts import DAG, messages_in_the_corpus, rows_in

from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.sandbox import Sandbox

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SUBMIT, STATUS, DOWNLOAD = "/api/v2/chat/export_channels", "/api/v2/tasks", "/download"


class Run:
    """A run for a day of its own, which the test disturbs."""

    def __init__(self, stack: AirflowStack, sandbox: Sandbox, lake: Path, day: datetime) -> None:
        self.stack, self.sandbox, self.lake = stack, sandbox, lake
        self.since, self.until = day.date().isoformat(), (day + timedelta(days=1)).date().isoformat()
        self.id = ""

    def start(self) -> None:
        self.sandbox.control.clear_requests()
        conf = {"since": f"{self.since}T00:00:00Z", "until": f"{self.until}T00:00:00Z"}
        run = self.stack.api("POST", f"/dags/{DAG}/dagRuns", {"logical_date": None, "conf": conf})
        self.id = run["dag_run_id"]

    def slow_down(self, path: str, seconds: float, method: str = "GET") -> None:
        """Delay the reply to the next request of this kind."""
        self.sandbox.control.fault(f"slow:{seconds}", path, method=method)

    def n_requests(self, path: str) -> int:
        return len(self.sandbox.control.requests(path))

    def wait_until(self, condition: Callable[[], Any], event: str, *, every_s: float = 0.1) -> Any:
        deadline = time.monotonic() + 120
        while not (value := condition()):
            assert time.monotonic() < deadline, f"{event} did not come"
            time.sleep(every_s)
        return value

    def state_of(self, task_id: str) -> str | None:
        state: str | None = self.stack.api("GET", f"/dags/{DAG}/dagRuns/{self.id}/taskInstances/{task_id}")["state"]
        return state

    def kill_task(self, with_signal: signal.Signals) -> None:
        """Send a signal to the process that runs the task, a leaf of the scheduler's process tree."""
        running = self.task_processes()
        assert running, [each.cmdline() for each in self.stack.children("scheduler")]
        for process in running:
            os.kill(process.pid, with_signal)

    def task_processes(self) -> list[psutil.Process]:
        processes = self.stack.children("scheduler")
        parents = {process.ppid() for process in processes}
        return [each for each in processes if each.pid not in parents and self._runs_a_task(each)]

    @staticmethod
    def _runs_a_task(process: psutil.Process) -> bool:
        parent = process.parent()
        return parent is not None and "LocalExecutor" in " ".join(parent.cmdline()) + parent.name()

    def n_data_files(self) -> int:
        return sum(1 for _ in self.lake.glob("_files/**/*.pq"))

    def ends_well(self, *, exports: Collection[int] = (1,)) -> None:
        """Assert that the run succeeds, with the rows of the corpus, a lake without faults, and so many exports."""
        run = self.stack.wait(DAG, self.id, timeout_s=400)
        assert run["state"] == "success"
        assert messages_in_the_corpus(self.since, self.until) == rows_in(self.lake, self.since, self.until)
        findings = verify(open_store(self.lake), now=datetime.now(UTC)).findings
        assert [] == [each for each in findings if each.is_fault and each.kind != "gap"]
        assert self.n_requests(SUBMIT) in exports


@pytest.fixture
def run(stack: AirflowStack, sandbox: Sandbox, lake: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    days = request.config.stash.setdefault(DAYS, iter(range(30)))
    run = Run(stack, sandbox, lake, datetime(2025, 1, 2, tzinfo=UTC) + timedelta(days=next(days)))
    yield run
    run.sandbox.control.clear_faults()


DAYS = pytest.StashKey[Iterator[int]]()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_a_worker_killed_while_it_submits(run: Run, how: signal.Signals) -> None:
    """The id of its export is lost: the retry starts another export, and the first one stays unused.

    After SIGTERM the request may end, and then the id is stored.
    """
    run.slow_down(SUBMIT, 30, "POST")
    run.start()
    run.wait_until(lambda: run.n_requests(SUBMIT), "the submit")
    run.kill_task(how)
    run.ends_well(exports=(2,) if how is signal.SIGKILL else (1, 2))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_a_worker_killed_while_it_downloads(run: Run, how: signal.Signals) -> None:
    """The retry loads the same export."""
    run.slow_down(DOWNLOAD, 30)
    run.start()
    run.wait_until(lambda: run.n_requests(DOWNLOAD), "the download")
    run.kill_task(how)
    run.ends_well()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_a_triggerer_killed_while_it_waits(run: Run, how: signal.Signals) -> None:
    """Another triggerer waits for the same export, under the same deadline."""
    run.start()
    run.wait_until(lambda: run.n_requests(STATUS), "a status request")
    run.stack.kill("triggerer", how)
    run.stack.start("triggerer")
    run.ends_well()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_a_worker_killed_while_it_resumes(run: Run, how: signal.Signals) -> None:
    """The retry finds the export of the first try, unless that try had recorded its success already."""
    run.start()
    run.wait_until(lambda: run.state_of("export") == "deferred", "the wait")
    run.wait_until(run.task_processes, "the end of the wait")
    run.kill_task(how)
    run.ends_well(exports=(1, 2))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_a_worker_killed_while_it_commits(run: Run, how: signal.Signals) -> None:
    """Its data files are in the lake, and its record may be missing: the retry commits one load."""
    run.start()
    before = run.n_data_files()
    run.wait_until(lambda: run.n_data_files() > before, "a data file", every_s=0.005)
    run.kill_task(how)
    run.ends_well()


def test_one_of_two_triggerers_dies(run: Run) -> None:
    """The other one takes over its triggers."""
    run.stack.start("triggerer", name="second")
    run.start()
    run.wait_until(lambda: run.n_requests(STATUS), "a status request")
    run.stack.kill("triggerer")
    run.ends_well()
    run.stack.start("triggerer")
    run.stack.kill("second")


def test_a_scheduler_killed_while_the_run_waits(run: Run) -> None:
    """The triggerer waits without a scheduler; the next scheduler resumes the task."""
    run.start()
    run.wait_until(lambda: run.state_of("export") == "deferred", "the wait")
    run.stack.kill("scheduler")
    run.stack.start("scheduler")
    run.ends_well()


def test_a_deferred_task_that_is_cleared(run: Run) -> None:
    """It finds its own export."""
    run.start()
    run.wait_until(lambda: run.n_requests(STATUS), "a status request")
    body = {"dry_run": False, "dag_run_id": run.id, "task_ids": ["export"], "only_failed": False}
    run.stack.api("POST", f"/dags/{DAG}/clearTaskInstances", body)
    run.ends_well()


def test_a_deferred_task_that_is_marked_as_failed_and_then_cleared(run: Run) -> None:
    """The export was not cancelled, and the next try uses it."""
    run.start()
    run.wait_until(lambda: run.n_requests(STATUS), "a status request")
    path = f"/dags/{DAG}/dagRuns/{run.id}/taskInstances/export"
    run.stack.api("PATCH", path, {"new_state": "failed"})
    run.wait_until(lambda: run.stack.api("GET", f"/dags/{DAG}/dagRuns/{run.id}")["state"] == "failed", "the failure")
    body = {"dry_run": False, "dag_run_id": run.id, "only_failed": True}
    run.stack.api("POST", f"/dags/{DAG}/clearTaskInstances", body)
    run.ends_well()


@pytest.mark.parametrize("do", ["status:503", "status:429", "drop", "slow:5"])
def test_a_service_that_is_unavailable_for_a_while(run: Run, do: str) -> None:
    """The wait survives status requests that fail, and submits nothing again."""
    run.sandbox.control.fault(do, STATUS, times=4)
    run.start()
    run.ends_well()


def test_a_link_that_expired_before_the_load_started(run: Run) -> None:
    """The load asks for a fresh link."""
    run.sandbox.control.fault("expire", DOWNLOAD)
    run.start()
    run.ends_well()


def test_a_service_that_has_forgotten_the_export(run: Run) -> None:
    """A restart of the sandbox loses everything: the retry starts a new export."""
    run.start()
    run.wait_until(lambda: run.n_requests(STATUS), "a status request")
    run.sandbox.__exit__(None, None, None)
    run.sandbox.__enter__()
    run.ends_well()


def test_a_file_that_is_gone_when_the_load_starts(run: Run) -> None:
    """After 60 days the load is not retried, and a clear of the export starts a new one.

    This test comes last: it moves the sandbox's clock.
    """
    run.slow_down(DOWNLOAD, 30)
    run.start()
    run.wait_until(lambda: run.n_requests(DOWNLOAD), "the download")
    tasks = f"/dags/{DAG}/dagRuns/{run.id}/taskInstances"
    run.stack.api("PATCH", f"{tasks}/load", {"new_state": "failed"})
    run.wait_until(lambda: run.stack.api("GET", f"/dags/{DAG}/dagRuns/{run.id}")["state"] == "failed", "the failure")
    run.sandbox.control.advance_clock(timedelta(days=61))
    again = {"dry_run": False, "dag_run_id": run.id, "only_failed": False}
    run.stack.api("POST", f"/dags/{DAG}/clearTaskInstances", {**again, "task_ids": ["load"]})
    assert "failed" == run.stack.wait(DAG, run.id, timeout_s=200)["state"]
    logs = run.stack.home / "logs" / f"dag_id={DAG}" / f"run_id={run.id}" / "task_id=load"
    assert 1 == sum("keeps export files for 60 days" in each.read_text() for each in logs.glob("attempt=*.log"))
    run.stack.api("POST", f"/dags/{DAG}/clearTaskInstances", again)
    run.ends_well(exports=(2,))
