"""Starting, stopping, and staying responsive."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sandbox_calls import PATIENCE_S, token

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.sandbox import Sandbox, SandboxControl, SandboxSettings

SERVE = (
    "from airflow_provider_chatexport.sandbox.server import SandboxSettings, serve\n"
    "serve(SandboxSettings(), lambda url: print(url, flush=True))\n"
    "print('ended', flush=True)\n"
)


def test_a_port_in_use_is_one_sentence(sandbox, start_sandbox):
    """Two sandboxes on one port are the most frequent mistake; the error must name the port and what to do."""
    port = int(sandbox.url.rpartition(":")[2])
    with pytest.raises(CallError, match=rf"cannot listen on 127\.0\.0\.1:{port}.*--port"):
        start_sandbox(port=port)


def test_a_host_of_another_machine_is_one_sentence(start_sandbox):
    """As for a port in use."""
    with pytest.raises(CallError, match="cannot listen on no\\.such\\.host\\.invalid:0"):
        start_sandbox(host="no.such.host.invalid")


@pytest.mark.parametrize("settings", [{"port": 70000}, {"task_s": -1.0}, {"task_s": float("nan")}, {"messages": 0}])
def test_settings_out_of_range_are_refused(settings):
    """The sandbox must not start first."""
    with pytest.raises(CallError):
        SandboxSettings(**settings)


def test_the_port_is_free_again_at_once():
    """A script that restarts a sandbox on the same port must not have to wait."""
    with Sandbox() as running:
        port = int(running.url.rpartition(":")[2])
    with Sandbox(SandboxSettings(port=port)) as again:
        assert again.control.is_ready()


def test_a_sandbox_that_is_not_running_has_no_world_and_no_control():
    """An error is better than a world without a server."""
    with pytest.raises(RuntimeError, match="not running"):
        _ = Sandbox().world
    with pytest.raises(RuntimeError, match="not running"):
        _ = Sandbox().control


def test_the_end_cuts_running_requests_off():
    """A request that a fault delays must not delay the end, and must not get an answer that the app never gave."""
    with Sandbox() as running, ThreadPoolExecutor() as threads:
        running.control.fault("slow:600", "/tasks")
        answer = threads.submit(httpx.get, f"{running.url}/tasks/x", timeout=600)
        while not running.control.requests():
            assert not answer.done()
        running.__exit__(None, None, None)
        assert isinstance(answer.exception(), httpx.RemoteProtocolError)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_a_signal_ends_it_cleanly(number, tmp_path):
    """Scripts look at the exit code, code after serve() still runs, and no export file stays on the disk."""
    command, environment = [sys.executable, "-c", SERVE], {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with SandboxControl(url) as control:
            control.wait_until_ready()
        assert list(tmp_path.iterdir())
        process.send_signal(number)
        assert process.stdout.read().strip() == "ended"
        assert process.wait() == 0
    assert list(tmp_path.iterdir()) == []


async def test_pollers_are_answered_while_files_are_written(start_sandbox):
    """50 pollers of a big export: each gets all of its answers, and none is an error."""
    sandbox = start_sandbox(task_s=0.0)
    headers = {"Authorization": token(sandbox, {})}
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(
        base_url=sandbox.url, params={"api_key": sandbox.api_key}, headers=headers, limits=limits, timeout=PATIENCE_S
    ) as client:
        body = {"channels": [{"cid": "messaging:ubuntu-support"}], "version": "v2"}
        task_ids = [(await client.post("/export_channels", json=body)).json()["task_id"] for _ in range(2)]

        async def statuses(task_id: str) -> list[str]:
            seen = ["none"]
            while seen[-1] not in ("completed", "failed"):
                seen.append((await client.get(f"/tasks/{task_id}")).json()["status"])
            return seen

        all_statuses = await asyncio.gather(*(statuses(task_ids[number % 2]) for number in range(50)))
    assert all(set(seen[1:-1]) <= {"running"} for seen in all_statuses)
    assert {seen[-1] for seen in all_statuses} == {"completed"}
