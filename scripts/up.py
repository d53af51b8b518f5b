"""`make up`: run Airflow's UI on localhost over the sandbox, with the example DAGs, until Ctrl-C.

SIGTERM and SIGHUP (a terminal that closes) end it as well, at any moment, with every process that it started. So does
SIGKILL, a moment later.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
import psutil
from airflow_stack import ROOT, AirflowStack, StackError, connection_fields, free_port

from airflow_provider_chatexport.sandbox import Sandbox, SandboxSettings

HOME = ROOT / ".demo" / "up"
# The one DAG that is not paused: its form asks for the window.
DAG = "chatexport_quick"
CONNECTION = "chatexport_default"
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Start the sandbox and Airflow, and wait for a signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=HOME, help="where Airflow and the lake are")
    parser.add_argument("--port", type=int, default=8080, help="of Airflow's UI; another one if it is taken")
    parser.add_argument("--sandbox-port", type=int, default=8900, help="of the sandbox; another one if it is taken")
    arguments = parser.parse_args()
    for ending in ENDINGS:
        signal.signal(ending, _end)
    home = arguments.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    with (home / "running.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"`make up` is already running over {home}; end it first, or give another --home")
        try:
            _run(home, arguments.port, arguments.sandbox_port)
        except StackError as error:
            sys.exit(str(error))
        finally:
            _end_children()


def _run(home: Path, port: int, sandbox_port: int) -> None:
    lake = home / "lake"
    environment = {
        "CHATEXPORT_LAKE": str(lake),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
    }
    with Sandbox(SandboxSettings(port=free_port(sandbox_port), task_s=5.0)) as sandbox:
        print("starting Airflow; this takes about half a minute", flush=True)
        with AirflowStack(home, environment, port=free_port(port)) as stack:
            _connect(stack, sandbox.url)
            stack.unpause(DAG)
            print(f"Airflow   {stack.url} (no login is needed)")
            print(f"sandbox   {sandbox.url}, as connection {CONNECTION}: see Admin, Connections")
            print(f"lake      {_relative(lake)}")
            print("Press Ctrl-C to stop everything.")
            print(
                f"Trigger {DAG}: its form has date pickers, and the sandbox has chat of 2025-01-01 to 2025-02-03",
                flush=True,
            )
            while True:
                signal.pause()


def _connect(stack: AirflowStack, url: str) -> None:
    """Store the connection in Airflow's database, where the UI lists it; an environment variable is not listed."""
    connection = {"connection_id": CONNECTION, **connection_fields(url)}
    try:
        stack.api("POST", "/connections", connection)
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.CONFLICT:
            raise
        stack.api("PATCH", f"/connections/{CONNECTION}", connection)


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    """End the program through its ``with`` blocks. A second signal must not interrupt them."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    sys.exit(0)


def _end_children() -> None:
    """Kill what is left: a signal may interrupt the start of a process before its id is known to the program."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, timeout=10.0)


if __name__ == "__main__":
    main()
