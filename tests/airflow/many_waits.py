"""Run the triggers of many waits on one event loop, as a triggerer does, with few file descriptors.

    N_WAITS MAX_DESCRIPTORS URL...    the sandboxes at the URLs share the waits; each is an app of its own

When every export was found to be running, the clocks of the sandboxes move, and all exports are completed. Print, as
JSON, how the waits ended and how many descriptors were open at most, before and after.
"""

from __future__ import annotations

import asyncio
import collections
import json
import logging
import os
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

import support

from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.sandbox import Sandbox, SandboxControl
from airflow_provider_chatexport.triggers.export import ExportTaskTrigger


def n_descriptors() -> int:
    """Return how many file descriptors of this process are open."""
    return len(list(Path("/proc/self/fd").iterdir())) - 1  # one of them reads the folder


class FirstStatuses(logging.Handler):
    """Counts the waits that have had a reply: each logs the first status of its export."""

    n = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count a line."""
        self.n += record.getMessage().startswith("export status")


async def finish_exports(urls: list[str], n_waits: int, statuses: FirstStatuses) -> int:
    """Move the clocks when every wait has asked; return how many descriptors were open at most until then."""
    most = 0
    while statuses.n < n_waits:
        most = max(most, n_descriptors())
        await asyncio.sleep(0.02)
    for url in urls:
        with SandboxControl(url) as control:
            control.advance_clock(timedelta(hours=1))
    return most


async def wait_for_all(urls: list[str], n_waits: int, statuses: FirstStatuses) -> tuple[list[str], int]:
    """Return how each wait ended, and how many descriptors were open at most."""
    now_epoch_s = time.time()
    triggers = []
    for number, url in enumerate(urls):
        conn_id = f"app_{number}"
        fields = {"conn_type": "chatexport", "login": Sandbox.api_key, "password": Sandbox.api_secret, "host": url}
        os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(fields)
        with ChatExportHook(conn_id).client() as client:
            task_id = client.submit_channels(support.REQUEST)
        triggers += [
            ExportTaskTrigger(
                chatexport_conn_id=conn_id,
                task_ids=[task_id],
                started_epoch_s=now_epoch_s,
                deadline_epoch_s=now_epoch_s + 3600,
                poll_interval_s=2.0,
                max_poll_failures=0,
            )
            for _ in range(n_waits // len(urls))
        ]
    most, *events = await asyncio.gather(
        finish_exports(urls, len(triggers), statuses), *(support.events_of(trigger) for trigger in triggers)
    )
    return [event.payload["status"] for (event,) in events], most


def main() -> None:
    """Run the waits."""
    n_waits, max_descriptors, *urls = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(max_descriptors), int(max_descriptors)))
    statuses = FirstStatuses()
    polling = logging.getLogger("airflow_provider_chatexport.api.polling")
    polling.setLevel(logging.INFO)
    polling.addHandler(statuses)
    polling.propagate = False
    before = n_descriptors()
    ends, most = asyncio.run(wait_for_all(urls, int(n_waits), statuses))
    print(json.dumps({"ends": collections.Counter(ends), "before": before, "most": most, "after": n_descriptors()}))


if __name__ == "__main__":
    main()
