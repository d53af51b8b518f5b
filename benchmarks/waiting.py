"""How late a triggerer notices that an export is done, with 100, 1,000 and 10,000 waits, and what the waiting costs.

    python benchmarks/waiting.py [N_WAITS ...]

Exports start at the service's limit, one a second, and end at the same rate. So with N waits each export takes N
seconds. The waits are real triggers on one event loop, of all ages, as after a restart of the triggerer. They talk over
sockets to a sandbox in a process of its own, whose clock was moved while the exports were submitted. After half a
minute, the exports that are done in the next 90 seconds count. The measurement ends when the last of them is noticed.
Print a table and write ``.cache/bench/waiting.json``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_provider_chatexport.sandbox import Sandbox, SandboxControl

CHATEXPORT = Path(sys.executable).with_name("chatexport")
RESULT = Path(__file__).resolve().parents[1] / ".cache" / "bench" / "waiting.json"
SIZES = (100, 1_000, 10_000)
SETTLE_S, MEASURE_S = 30.0, 90.0
MAX_DESCRIPTORS = 1_024
SAMPLE_EVERY_S = 0.05


@contextlib.contextmanager
def sandbox(task_s: int) -> Iterator[str]:
    """Run a sandbox as a process and yield its address. Its replies have the headers of the documented limits."""
    command = [CHATEXPORT, "sandbox", "--port", "0", "--task-seconds", str(task_s), "--no-rate-limit"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip().removeprefix("listening on ")
        server.terminate()


def n_descriptors() -> int:
    """Return how many file descriptors of this process are open."""
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - called often; one of them reads the folder


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@dataclass
class Samples:
    """What is sampled while triggers run."""

    lags_ms: list[float] = field(default_factory=list)
    most_descriptors: int = 0

    async def take(self) -> None:
        """Sample until cancelled."""
        while True:
            due_s = time.monotonic() + SAMPLE_EVERY_S
            await asyncio.sleep(SAMPLE_EVERY_S)
            self.lags_ms.append(1000.0 * (time.monotonic() - due_s))
            self.most_descriptors = max(self.most_descriptors, n_descriptors())


class Waits:
    """Exports at the sandbox, which take ``n_waits`` seconds each, and the triggers that wait for them."""

    def __init__(self, n_waits: int, url: str) -> None:
        from airflow_provider_chatexport.api.client import ChatExportClient
        from airflow_provider_chatexport.hooks.chatexport import ChatExportHook

        self._n_waits = self._task_s = n_waits
        self._control = SandboxControl(url)
        self._client = ChatExportClient(ChatExportHook().settings())
        self._running: set[asyncio.Task[None]] = set()
        self._ahead_s = 0.0  # how far the sandbox's clock is ahead of ours
        self.done_at: dict[str, datetime] = {}
        """When each export is done, by the sandbox's clock. It may be wrong by a second until a trigger notices it."""
        self.latencies_s: dict[str, float] = {}

    def submit(self) -> str:
        """Start an export; return its id."""
        from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid
        from airflow_provider_chatexport.core.window import Window

        window = Window.parse("2025-01-01T00:00:00Z", "2025-01-01T02:00:00Z")
        request = ChannelsRequest(channels=(Cid("livestream:ubuntu"),), window=window)
        task_id: str = self._client.submit_channels(request)
        self.done_at[task_id] = self.now() + timedelta(seconds=self._task_s)
        return task_id

    def submit_of_all_ages(self) -> dict[str, float]:
        """Start exports while the clock moves, so that they end one a second; return the age of each, in seconds."""
        n_steps = min(self._n_waits, 500)
        for _ in range(n_steps):
            for _ in range(self._n_waits // n_steps):
                self.submit()
            self._control.advance_clock(timedelta(seconds=self._n_waits / n_steps))
        now = self.now()
        self._ahead_s = now.timestamp() - time.time()
        return {task_id: self._task_s - (at - now).total_seconds() for task_id, at in self.done_at.items()}

    def now(self) -> datetime:
        """Return the time by the sandbox's clock."""
        return self._control.now()

    def start(self, task_id: str, age_s: float) -> None:
        """Start the trigger that waits for an export."""
        from airflow_provider_chatexport.triggers.export import ExportTaskTrigger

        now_epoch_s = time.time()
        trigger = ExportTaskTrigger(
            chatexport_conn_id="chatexport_default",
            task_ids=[task_id],
            started_epoch_s=now_epoch_s - age_s,
            deadline_epoch_s=now_epoch_s + 86_400,
        )
        task = asyncio.ensure_future(self._wait(task_id, trigger))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _wait(self, task_id: str, trigger: Any) -> None:
        (event,) = [event async for event in trigger.run()]
        if event.payload["status"] != "completed":
            raise SystemExit(f"a wait failed: {event}")
        (created_at,) = event.payload["created_at"].values()
        self.done_at[task_id] = done_at = datetime.fromisoformat(created_at) + timedelta(seconds=self._task_s)
        self.latencies_s[task_id] = time.time() + self._ahead_s - done_at.timestamp()

    def noticed_between(self, since: datetime, until: datetime) -> list[float] | None:
        """Return the latencies of the exports that were done then, in order; None if one was not noticed yet."""
        done = [task_id for task_id, at in self.done_at.items() if since <= at < until]
        noticed = [self.latencies_s[task_id] for task_id in done if task_id in self.latencies_s]
        return sorted(noticed) if len(noticed) == len(done) else None

    async def replace(self) -> None:
        """Start an export and a wait each second, until cancelled."""
        while True:
            started_s = time.monotonic()
            self.start(await asyncio.to_thread(self.submit), 0.0)
            await asyncio.sleep(max(0.0, started_s + 1.0 - time.monotonic()))

    async def stop(self) -> None:
        """Cancel all triggers."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


async def measure(n_waits: int, url: str) -> dict[str, float]:
    """Run triggers and measure them."""
    waits, samples = Waits(n_waits, url), Samples()
    ages_s = await asyncio.to_thread(waits.submit_of_all_ages)
    before_bytes = resident_bytes()
    for task_id, age_s in ages_s.items():
        waits.start(task_id, age_s)
        await asyncio.sleep(0)  # as Airflow does
    background = [asyncio.ensure_future(samples.take()), asyncio.ensure_future(waits.replace())]
    await asyncio.sleep(SETTLE_S)
    memory_bytes = resident_bytes() - before_bytes
    since, cpu_s, started_s = waits.now(), time.process_time(), time.monotonic()
    await asyncio.sleep(MEASURE_S)
    cpu_s, passed_s = time.process_time() - cpu_s, time.monotonic() - started_s
    until = waits.now()

    while (late_s := waits.noticed_between(since, until)) is None:  # noqa: ASYNC110 - it takes minutes
        await asyncio.sleep(1.0)
    for task in background:
        task.cancel()
    await waits.stop()
    samples.lags_ms.sort()
    return {
        "waits": n_waits,
        "n_done": len(late_s),
        "latency_p50_s": statistics.median(late_s),
        "latency_p90_s": late_s[int(len(late_s) * 0.9)],
        "latency_max_s": late_s[-1],
        "cpu_s_per_minute": 60.0 * cpu_s / passed_s,
        "most_descriptors": samples.most_descriptors,
        "kb_per_wait": memory_bytes / n_waits / 1000,
        "lag_p50_ms": statistics.median(samples.lags_ms),
        "lag_p99_ms": samples.lags_ms[int(len(samples.lags_ms) * 0.99)],
        "lag_max_ms": samples.lags_ms[-1],
    }


class RequestCounter(threading.Thread):
    """A thread that counts the status requests of each second, apart from the process that is measured."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._stopped = threading.Event()
        self.per_second: list[float] = []

    def run(self) -> None:
        """Count until ``stop``."""
        with SandboxControl(self._url) as control:
            control.clear_requests()
            since_s = time.monotonic()
            while not self._stopped.wait(1.0):
                requests = control.requests("/api/v2/tasks/")
                control.clear_requests()
                now_s = time.monotonic()
                self.per_second.append(len(requests) / (now_s - since_s))
                since_s = now_s

    def stop(self) -> None:
        """Stop counting."""
        self._stopped.set()
        self.join()


def run(n_waits: int) -> dict[str, float]:
    """Measure one number of waits, in a process of its own."""
    with sandbox(n_waits) as url, tempfile.TemporaryDirectory() as home:
        connection = {"conn_type": "chatexport", "login": Sandbox.api_key, "password": Sandbox.api_secret, "host": url}
        environment = {
            **os.environ,
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW_CONN_CHATEXPORT_DEFAULT": json.dumps(connection),
        }
        counter = RequestCounter(url)
        counter.start()
        command = [sys.executable, __file__, "--measure", str(n_waits), url]
        output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
        counter.stop()
    # While exports are submitted there are no status requests, and the last second is not a whole one.
    rates = [each for each in counter.per_second[:-1] if each]
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures | {
        "requests_per_minute": 60 * statistics.median(rates),
        "requests_in_the_busiest_second": max(rates),
    }


def main() -> None:
    """Run the benchmark."""
    if sys.argv[1:2] == ["--measure"]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_DESCRIPTORS, MAX_DESCRIPTORS))
        print(json.dumps(asyncio.run(measure(int(sys.argv[2]), sys.argv[3]))))
        return
    results = []
    print(
        "| waits | done | noticed after s: median | 90 % | longest | requests a minute | in the busiest second | ",
        end="",
    )
    print("CPU s a minute | descriptors | kB a wait | lag of the loop ms: median | 99 % | longest |")
    print("|---" * 13 + "|")
    for n_waits in [int(size) for size in sys.argv[1:]] or SIZES:
        each = run(n_waits)
        results.append(each)
        print(
            f"| {n_waits:,} | {each['n_done']} | {each['latency_p50_s']:.1f} | {each['latency_p90_s']:.1f} | "
            f"{each['latency_max_s']:.1f} | {each['requests_per_minute']:,.0f} | "
            f"{each['requests_in_the_busiest_second']:.0f} | {each['cpu_s_per_minute']:.1f} | "
            f"{each['most_descriptors']} | {each['kb_per_wait']:.0f} | {each['lag_p50_ms']:.1f} | "
            f"{each['lag_p99_ms']:.1f} | {each['lag_max_ms']:.0f} |",
            flush=True,
        )
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
