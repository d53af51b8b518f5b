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
from sandbox_calls import token

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.sandbox.server import Sandbox, SandboxSettings

SERVE = (
    "from airflow_provider_chatexport.sandbox.server import SandboxSettings, serve\n"
    "serve(SandboxSettings(), lambda url: print(url, flush=True))\n"
    "print('ended', flush=True)\n"
)


def test_a_port_in_use_is_one_sentence(sandbox, start_sandbox):
    """Two sandboxes on one port is the commonest mistake; it must name the port and the way out."""
    port = int(sandbox.url.rpartition(":")[2])
    with pytest.raises(CallError, match=rf"cannot listen on 127\.0\.0\.1:{port}.*--port"):
        start_sandbox(port=port)


def test_a_host_that_is_none_of_ours_is_one_sentence(start_sandbox):
    """As for a port in use."""
    with pytest.raises(CallError, match="cannot listen on no\\.such\\.host\\.invalid:0"):
        start_sandbox(host="no.such.host.invalid")


@pytest.mark.parametrize("settings", [{"port": 70000}, {"task_s": -1.0}, {"task_s": float("nan")}, {"messages": 0}])
def test_settings_out_of_range_are_refused(settings):
    """Before anything is started."""
    with pytest.raises(CallError):
        SandboxSettings(**settings)


def test_its_port_is_free_again_at_once(sandbox_world):
    """A script that restarts it on the same port must not have to wait."""
    with Sandbox(world=sandbox_world) as running:
        port = int(running.url.rpartition(":")[2])
    with Sandbox(SandboxSettings(port=port), world=sandbox_world) as again:
        assert httpx.get(f"{again.url}/_sandbox/health").status_code == 200


def test_a_sandbox_that_is_not_running_has_no_world():
    """Rather than a world that nobody serves."""
    with pytest.raises(RuntimeError, match="not running"):
        _ = Sandbox().world


def test_its_end_cuts_off_who_still_waits(sandbox_world):
    """A request held up by a fault must neither hold up the end nor get an answer that nobody gave."""
    with Sandbox(world=sandbox_world) as running, ThreadPoolExecutor() as threads:
        fault = {"path": "/tasks", "do": "slow:600"}
        assert httpx.post(f"{running.url}/_sandbox/faults", json=fault).status_code == 200
        answer = threads.submit(httpx.get, f"{running.url}/tasks/x", timeout=600)
        while not httpx.get(f"{running.url}/_sandbox/requests").json():
            assert not answer.done()
        running.__exit__(None, None, None)
        assert isinstance(answer.exception(), httpx.RemoteProtocolError)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_a_signal_ends_it_cleanly(number, tmp_path):
    """Scripts look at the exit code; what follows serve() still runs; and nobody's chat stays behind on the disk."""
    command, environment = [sys.executable, "-c", SERVE], {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/_sandbox/health").status_code == 200
        assert list(tmp_path.iterdir())
        process.send_signal(number)
        assert process.stdout.read().strip() == "ended"
        assert process.wait() == 0
    assert list(tmp_path.iterdir()) == []


async def test_pollers_are_answered_while_files_are_written(start_sandbox):
    """50 pollers over a big export: each gets all of its answers, none an error."""
    sandbox = start_sandbox(task_s=0.0)
    headers = {"Authorization": token(sandbox, {})}
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(
        base_url=sandbox.url, params={"api_key": sandbox.api_key}, headers=headers, limits=limits, timeout=60
    ) as client:
        body = {"channels": [{"cid": "messaging:ubuntu-support"}], "version": "v2"}
        task_ids = [(await client.post("/export_channels", json=body)).json()["task_id"] for _ in range(2)]

        async def polled(task_id: str) -> list[str]:
            seen = ["none"]
            while seen[-1] not in ("completed", "failed"):
                seen.append((await client.get(f"/tasks/{task_id}")).json()["status"])
            return seen

        stories = await asyncio.gather(*(polled(task_ids[number % 2]) for number in range(50)))
    assert all(set(story[1:-1]) <= {"running"} for story in stories)
    assert {story[-1] for story in stories} == {"completed"}
