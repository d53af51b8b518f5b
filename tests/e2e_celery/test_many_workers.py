"""Many workers: PostgreSQL, Redis, two Celery workers and two triggerers, with the lake on an S3 server.

`make e2e-celery` runs it: 500 channels are discovered, and exported and loaded in mapped batches of 25, for ten days at
once. Midway a worker and a triggerer are killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import s3_server
from airflow_stack import FOR_KILLED_PROCESSES, StackError, free_port, sandbox_connection
from celery_stack import CeleryStack, install_programs, running_postgres, running_redis
from lakes import LakeProbe, client_of, exports_of
from watcher import Watcher

from airflow_provider_chatexport.core.times import format_rfc3339, parse_rfc3339
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.sandbox import Sandbox, SandboxSettings

N_WINDOWS = int(os.environ.get("CHATEXPORT_E2E_WINDOWS", "10"))
N_CHANNELS, N_CHANNELS_PER_TASK, N_MESSAGES_PER_DAY = 500, 25, 8
N_BATCHES = N_CHANNELS // N_CHANNELS_PER_TASK
FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
DAG = "chatexport_discovery"
EXPORT, LOAD = (f"chat_export_to_lake.batch.{name}" for name in ("export", "load"))
# A busy machine does some five loads a minute.
DEADLINE_S = 600 + 400 * N_WINDOWS

pytestmark = [pytest.mark.long, pytest.mark.timeout(DEADLINE_S + 2_400)]


def day(number: int) -> str:
    return format_rfc3339(FIRST_DAY + timedelta(days=number))


def write_corpus(path: Path) -> Path:
    """Write chat of 500 channels: eight messages on each day of each."""
    with path.open("w") as corpus:
        for number in range(N_CHANNELS * N_WINDOWS * N_MESSAGES_PER_DAY):
            rest, channel = divmod(number, N_CHANNELS)
            date, hour = divmod(rest, N_MESSAGES_PER_DAY)
            line = {
                "cid": f"messaging:c{channel:03}",
                "id": f"m{number:06}",
                "at": format_rfc3339(FIRST_DAY + timedelta(days=date, hours=3 * hour, seconds=channel)),
                "author": f"u{number % 997}",
                "kind": "regular",
                "text": f"words of {number}",
                "reply_to": None,
            }
            corpus.write(json.dumps(line) + "\n")
    return path


class Deployment:
    """Everything that runs, and what it has used of the processors."""

    def __init__(self, stack: CeleryStack, sandbox: Sandbox, lake: LakeProbe, servers: dict[str, int]) -> None:
        self.stack, self.sandbox, self.lake, self._servers = stack, sandbox, lake, servers
        self._used: dict[tuple[int, float], tuple[str, float]] = {}

    def cpu_s(self) -> Counter[str]:
        """Return the CPU seconds since the start, by kind of component.

        The times of a process contain those of its children that ended, so what is killed counts up to the last call.
        """
        for name, pid in (self._servers | self.stack.roots()).items():
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(pid)
                for process in (root, *root.children(recursive=True)):
                    self._count(re.sub(r"-\d$", "", name), process)
        total: Counter[str] = Counter()
        for kind, used in self._used.values():
            total[kind] += used
        return total

    def _count(self, kind: str, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used = times.user + times.system + times.children_user + times.children_system
            self._used[process.pid, process.create_time()] = (kind, used)

    def start_runs(self) -> list[str]:
        return [
            self.stack.api(
                "POST",
                f"/dags/{DAG}/dagRuns",
                {"logical_date": None, "conf": {"since": day(number), "until": day(number + 1)}},
            )["dag_run_id"]
            for number in range(N_WINDOWS)
        ]

    def n_tasks(self, runs: list[str], task_id: str, *states: str) -> int:
        """Return how many task instances of the runs are in these states; in any, if none is given."""
        body = {"dag_ids": [DAG], "dag_run_ids": runs, "task_ids": [task_id], "page_limit": 1}
        found = self.stack.api(
            "POST", "/dags/~/dagRuns/~/taskInstances/list", body | ({"state": states} if states else {})
        )
        return int(found["total_entries"])

    def wait_for(self, condition: Any, event: str, *, every_s: float = 2.0) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"{event} did not come; see {self.stack.home}"
            self.cpu_s()
            time.sleep(every_s)

    def kill_whole(self, name: str) -> None:
        """Kill a component and every process below it at once, as the loss of its machine does."""
        self.cpu_s()
        below = self.stack.children(name)
        self.stack.kill(name)
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    try:
        install_programs()
    except StackError as error:
        pytest.fail(str(error), pytrace=False)
    with contextlib.ExitStack() as running, pytest.MonkeyPatch.context() as patch:
        watcher = running.enter_context(Watcher())
        home = Path(tempfile.mkdtemp(prefix="chatexport-celery-")).resolve()
        watcher.remove(home)
        home.chmod(0o711)  # PostgreSQL does not run as root, and its user has to get to its folder
        (home / "tmp").mkdir()
        patch.setattr(tempfile, "tempdir", str(home / "tmp"))
        store = running.enter_context(s3_server.running())
        for name, value in store.variables.items():
            patch.setenv(name, value)
        lake = LakeProbe(s3_server.new_lake())
        settings = SandboxSettings(
            data=write_corpus(home / "corpus.ndjson"), port=free_port(), task_s=6.0, rate_limit=False
        )
        sandbox = running.enter_context(Sandbox(settings))
        environment = {
            "AIRFLOW_CONN_CHATEXPORT_DEFAULT": sandbox_connection(sandbox.url),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            "CHATEXPORT_LAKE": lake.uri,
            "CHATEXPORT_CHANNELS_PER_TASK": str(N_CHANNELS_PER_TASK),
            "TMPDIR": str(home / "tmp"),
            **FOR_KILLED_PROCESSES,
            # A machine with two cores for everything is late with heartbeats.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
            # A killed Celery worker keeps the messages that it had reserved: Airflow sends those tasks again.
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "90",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
        }
        database = running.enter_context(running_postgres(home))
        broker = running.enter_context(running_redis(home))
        print(f"\nstarting Airflow in {home}; this takes some minutes", flush=True)
        for server in (database, broker):
            watcher.watch(server.process.pid)
        stack = running.enter_context(
            CeleryStack(home / "airflow", environment, database=database.address, broker=broker.address)
        )
        yield Deployment(stack, sandbox, lake, {"PostgreSQL": database.process.pid, "Redis": broker.process.pid})


def test_a_worker_and_a_triggerer_die_and_every_batch_is_loaded_once(deployment: Deployment) -> None:
    """Each batch of each day is one load, the rows are those of the service, and the lake has no fault."""
    stack, lake = deployment.stack, deployment.lake
    stack.unpause(DAG)
    cpu_s = deployment.cpu_s
    before, started_s = cpu_s(), time.monotonic()
    runs = deployment.start_runs()
    n_loads = N_BATCHES * N_WINDOWS

    def n_done(task_id: str) -> int:
        return deployment.n_tasks(runs, task_id, "success")

    # All exports are before the loads in the queue.
    deployment.wait_for(lambda: n_done(EXPORT) >= n_loads // 4, "a quarter of the exports")
    deployment.wait_for(lambda: deployment.n_tasks(runs, EXPORT, "deferred"), "a wait", every_s=0.2)
    deployment.kill_whole("triggerer-1")
    print(f"killed triggerer-1 after {n_done(EXPORT)} exports", flush=True)
    deployment.wait_for(lambda: n_done(LOAD) >= n_loads // 4, "a quarter of the loads")
    deployment.wait_for(lambda: stack.is_busy("worker-1"), "a task of the first worker", every_s=0.2)
    with_two = Phase("two workers", n_done(EXPORT), n_done(LOAD), time.monotonic() - started_s, cpu_s() - before)
    deployment.kill_whole("worker-1")
    print(f"killed worker-1 after {with_two.n_loads} loads", flush=True)
    deployment.wait_for(
        lambda: all(stack.state_of(DAG, run) in ("success", "failed") for run in runs), "the end of all runs"
    )
    whole = Phase("all", n_done(EXPORT), n_done(LOAD), time.monotonic() - started_s, cpu_s() - before)

    assert ["success"] * N_WINDOWS == [stack.state_of(DAG, run) for run in runs]
    assert n_loads == n_done(LOAD) == n_done(EXPORT)
    done_by = {name: stack.n_tasks_done(name) for name in stack.workers}
    assert all(done_by.values()), done_by

    # What the service itself says of all channels and days, in one export for each 25 channels.
    assert exported_messages(deployment.sandbox) == messages_of(lake)
    n_spans = lake.rows("SELECT count(*), count(DISTINCT (cid, since)) FROM coverage")
    assert [[N_CHANNELS * N_WINDOWS] * 2] == n_spans
    assert [[n_loads]] == lake.rows("SELECT count(*) FROM loads")
    with Lake(lake.uri) as opened:
        assert () == tuple(each for each in opened.verify().findings if each.is_fault)
    report(whole, with_two, done_by)


def messages_of(lake: LakeProbe) -> dict[str, tuple[str, str, datetime]]:
    with Lake(lake.uri) as opened:
        rows = opened.sql("SELECT id, cid, text, created_at FROM messages").fetchall()
    found = {message_id: (cid, text, at.astimezone(UTC)) for message_id, cid, text, at in rows}
    assert len(rows) == len(found)
    return found


def exported_messages(sandbox: Sandbox) -> dict[str, tuple[str, str, datetime]]:
    """Export everything in one window, and read the lines without any code of the lake."""
    found = {}
    channels = tuple(f"messaging:c{number:03}" for number in range(N_CHANNELS))
    with client_of(sandbox) as client, tempfile.TemporaryDirectory() as folder:
        for receipt in exports_of(client, day(0), day(N_WINDOWS), channels=channels):
            path = client.download(receipt.task_id, Path(folder) / "export").path
            for line in map(json.loads, path.read_text().splitlines()):
                if line["type"] == "message":
                    message = line["item"]
                    cid = f"{message['channel_type']}:{message['channel_id']}"
                    found[message["id"]] = (cid, message["text"], parse_rfc3339(message["created_at"]))
    return found


@dataclass(frozen=True, slots=True)
class Phase:
    """What was done in a part of the run, in how many seconds, with how many CPU seconds by component."""

    name: str
    n_exports: int
    n_loads: int
    seconds: float
    cpu_s: Counter[str]

    def after(self, other: Phase, name: str) -> Phase:
        """Return what was done after another phase, which began with this one."""
        return Phase(
            name,
            self.n_exports - other.n_exports,
            self.n_loads - other.n_loads,
            self.seconds - other.seconds,
            self.cpu_s - other.cpu_s,
        )

    def __str__(self) -> str:
        # Many windows at once export first and load then, so a phase has more of one than of the other.
        n_pairs = max(0.5, (self.n_exports + self.n_loads) / 2)
        return (
            f"{self.name}: {self.n_exports} exports and {self.n_loads} loads in {self.seconds:.0f} s, "
            f"{60 * self.n_loads / self.seconds:.1f} loads and {60 * n_pairs / self.seconds:.1f} pairs a minute, "
            f"{self.cpu_s.total() / n_pairs:.2f} CPU s for each pair of an export and a load"
        )


def report(whole: Phase, with_two: Phase, done_by: dict[str, int]) -> None:
    """Print what the run took, for docs/scaling.md."""
    load_1, load_5, load_15 = os.getloadavg()
    print()
    for phase in (whole, with_two, whole.after(with_two, "one worker")):
        print(phase)
    print(f"load average: {load_1:.1f} (1 min), {load_5:.1f} (5 min), {load_15:.1f} (15 min); {os.cpu_count()} cores")
    print(f"tasks done by: {', '.join(f'{name} {n}' for name, n in done_by.items())}")
    print("CPU seconds of the whole run for each export and load, by component")
    for kind, used in whole.cpu_s.most_common():
        print(f"  {kind:14}{used / whole.n_loads:6.2f}")
    print(f"Python {sys.version.split()[0]}", flush=True)
