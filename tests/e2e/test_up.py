"""`make up`: what a newcomer finds, and that no process of it is left at its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from airflow_stack import ROOT, connection_fields, free_port

UP = [sys.executable, str(ROOT / "scripts" / "up.py")]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the program, on free ports: a developer may use the usual ones."""
    ports = ["--port", str(free_port()), "--sandbox-port", str(free_port())]
    running = subprocess.Popen(
        [*UP, "--home", str(tmp_path / "home"), *ports], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with running:
        yield running
        running.kill()


def end(up: subprocess.Popen[str], with_signal: signal.Signals) -> list[psutil.Process]:
    """Send a signal, wait for the end of the program, and return those of its processes that are left."""
    family = psutil.Process(up.pid).children(recursive=True)
    assert family
    up.send_signal(with_signal)
    assert up.wait(timeout=60) == (-signal.SIGKILL if with_signal == signal.SIGKILL else 0)
    if with_signal == signal.SIGKILL:
        # The watcher ends them a moment later. It gives up on none, so they are gone or this times out.
        psutil.wait_procs(family, timeout=60)
    return [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def lines_until(up: subprocess.Popen[str], word: str) -> str:
    """Return what the program has printed, as soon as a line has this word."""
    assert up.stdout
    text = ""
    for line in up.stdout:
        text += line
        if word in line:
            return text
    raise AssertionError(f"the program ended: {text}")


def test_a_signal_during_the_start_leaves_no_process(up: subprocess.Popen[str]) -> None:
    """Airflow takes half a minute to start, and people change their mind."""
    lines_until(up, "starting Airflow")
    while not psutil.Process(up.pid).children():
        assert up.poll() is None
    assert [] == end(up, signal.SIGTERM)


FAMILY = """
import subprocess, sys, time
from pathlib import Path
from watcher import Watcher

with Watcher() as watcher:
    # Its child has a session of its own, like the process of a task.
    shell = subprocess.Popen(["sh", "-c", "setsid sleep 600 & exec sleep 600"], start_new_session=True)
    watcher.watch(shell.pid)
    watcher.remove(Path(sys.argv[1]))
    print("started", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_program_started_ends_with_it(tmp_path: Path) -> None:
    """Regression: SIGKILL of `make up`, as by the OOM killer, left all of Airflow running."""
    (folder := tmp_path / "temporary").mkdir()
    command = [sys.executable, "-c", FAMILY, str(folder)]
    with subprocess.Popen(command, cwd=ROOT / "scripts", stdout=subprocess.PIPE, text=True) as program:
        lines_until(program, "started")
        while len(psutil.Process(program.pid).children(recursive=True)) < 3:
            assert program.poll() is None
        assert [] == end(program, signal.SIGKILL)
    while folder.exists():
        pass


@pytest.mark.long
@pytest.mark.parametrize(
    "ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda each: each.name
)
def test_a_newcomer_finds_airflow_ready_and_leaves_no_process(
    up: subprocess.Popen[str], ending: signal.Signals
) -> None:
    """Regression: SIGTERM and a closed terminal left four components of Airflow running."""
    text = lines_until(up, "date pickers")
    (url,) = (line.split()[1] for line in text.splitlines() if line.startswith("Airflow "))
    with httpx.Client(base_url=url, timeout=30) as http:
        http.headers["Authorization"] = f"Bearer {http.get('/auth/token').json()['access_token']}"
        dags = http.get("/api/v2/dags").json()["dags"]
        assert ["chatexport_quick"] == [dag["dag_id"] for dag in dags if not dag["is_paused"]]
        assert all(dag["description"] for dag in dags)
        (connection,) = http.get("/api/v2/connections").json()["connections"]
        tested = {"connection_id": "chatexport_default", **connection_fields(connection["host"])}
        assert http.post("/api/v2/connections/test", json=tested).json()["status"] is True
    assert [] == end(up, ending)
