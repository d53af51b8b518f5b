"""A triggerer that waits for a thousand exports: the lag of its loop, its memory, and its number of requests.

    python benchmarks/waiting.py [N_TRIGGERS] [SECONDS]

The triggers are real and use a real socket. The sandbox is a process of its own, and its exports never end. Print a
table and write ``.cache/bench/waiting.json``.
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
from pathlib import Path

from airflow_provider_chatexport.sandbox import SandboxControl

CHATEXPORT = Path(sys.executable).with_name("chatexport")
RESULT = Path(__file__).resolve().parents[1] / ".cache" / "bench" / "waiting.json"
# The service's limit for its other reads. The limit of status requests is not documented.
LIMIT_PER_MINUTE, LIMIT_PER_SECOND = 10_000, 333
LAG_EVERY_S = 0.01


@contextlib.contextmanager
def sandbox() -> Iterator[str]:
    """Run a sandbox as a process and yield its address."""
    command = [CHATEXPORT, "sandbox", "--port", "0", "--task-seconds", "86400", "--no-rate-limit"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip().removeprefix("listening on ")
        server.terminate()


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def measure(n_triggers: int, seconds: float) -> dict[str, float]:
    """Run triggers for some seconds and measure them."""
    from airflow_provider_chatexport.api.client import ChatExportClient
    from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid
    from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
    from airflow_provider_chatexport.triggers.export import ExportTaskTrigger

    request = ChannelsRequest(channels=(Cid("livestream:ubuntu"),), window=None)
    settings = await ChatExportHook().async_settings()
    with ChatExportClient(settings) as client:
        task_ids = [client.submit_channels(request) for _ in range(n_triggers)]
    before_bytes = resident_bytes()
    now_epoch_s = time.time()
    triggers = [
        ExportTaskTrigger(
            chatexport_conn_id="chatexport_default",
            task_ids=[task_id],
            started_epoch_s=now_epoch_s,
            deadline_epoch_s=now_epoch_s + 86400,
        )
        for task_id in task_ids
    ]

    async def wait_for(trigger: ExportTaskTrigger) -> None:
        async for event in trigger.run():
            raise SystemExit(f"a trigger ended: {event}")

    waiting = [asyncio.ensure_future(wait_for(trigger)) for trigger in triggers]
    lags_ms: list[float] = []
    deadline_s = time.monotonic() + seconds
    while (due_s := time.monotonic() + LAG_EVERY_S) < deadline_s:
        await asyncio.sleep(LAG_EVERY_S)
        lags_ms.append(1000.0 * (time.monotonic() - due_s))
    memory_bytes = resident_bytes() - before_bytes
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    lags_ms.sort()
    return {
        "triggers": n_triggers,
        "seconds": seconds,
        "lag_p50_ms": statistics.median(lags_ms),
        "lag_p99_ms": lags_ms[int(len(lags_ms) * 0.99)],
        "lag_max_ms": lags_ms[-1],
        "kb_per_trigger": memory_bytes / n_triggers / 1000,
    }


class RequestCounter(threading.Thread):
    """A thread that counts the status requests of each second, apart from the loop that is measured."""

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


def main() -> None:
    """Run the benchmark."""
    n_triggers = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    with sandbox() as url, tempfile.TemporaryDirectory() as home:
        os.environ.update(
            AIRFLOW_HOME=home,
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
            AIRFLOW_CONN_CHATEXPORT_DEFAULT=json.dumps(
                {
                    "conn_type": "chatexport",
                    "login": "sandbox-key",
                    "password": "sandbox-secret-not-for-production-use",
                    "host": url,
                }
            ),
        )
        counter = RequestCounter(url)
        counter.start()
        figures = asyncio.run(measure(n_triggers, seconds))
        counter.stop()
        # While exports are submitted there are no status requests, and the last second is not a whole one.
        rates = [each for each in counter.per_second[:-1] if each]
        figures |= {"requests_per_minute": 60 * statistics.mean(rates), "requests_in_the_busiest_second": max(rates)}
    lags = ", ".join(f"{name} {figures[f'lag_{name}_ms']:.1f} ms" for name in ("p50", "p99", "max"))
    print(f"{n_triggers} triggers for {seconds:.0f} s")
    print(f"  loop lag: {lags}")
    print(f"  memory: {figures['kb_per_trigger']:.0f} kB per trigger")
    print(
        f"  status requests: {figures['requests_per_minute']:.0f} a minute (assumed limit {LIMIT_PER_MINUTE}), at most "
        f"{figures['requests_in_the_busiest_second']:.0f} in one second (assumed limit {LIMIT_PER_SECOND})"
    )
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
