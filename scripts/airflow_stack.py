"""All of Airflow on this machine: API server, scheduler, triggerer and DAG processor, with SQLite and LocalExecutor.

`make up` and the end-to-end tests use it. Every component is a process of its own, as in a deployment. All of them end
with the program that started them, even if SIGKILL ends that. `celery_stack` adds what several workers need.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
from watcher import Watcher

from airflow_provider_chatexport.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[1]
# Components by name, and how Airflow's command line starts each.
COMPONENTS: Mapping[str, Sequence[str]] = {
    name: (name,) for name in ("api-server", "scheduler", "triggerer", "dag-processor")
}
# By default Airflow notices after minutes that a process was killed, and waits for minutes before it tries again.
FOR_KILLED_PROCESSES: Mapping[str, str] = {
    "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "3",
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "2",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
}


class StackError(Exception):
    """A component did not start; the message names its log."""


class AirflowStack:
    """A context manager: Airflow is up and healthy inside it, and stopped after it.

    :param home: Airflow's home. The log of each component is ``home/<component>.log``.
    :param environment: more environment variables for every component, such as connections.
    :param dags: folder of the DAG files.
    :param port: of the API server; by default a free one.
    :param programs: folder with the program ``airflow``; by default that of this interpreter.
    :param components: components by name, with the arguments of ``airflow`` that start each.
    :param patience_s: how long the start may take before it counts as failed.
    """

    def __init__(
        self,
        home: Path,
        environment: Mapping[str, str],
        *,
        dags: Path = ROOT / "dags",
        port: int | None = None,
        programs: Path = Path(sys.executable).parent,
        components: Mapping[str, Sequence[str]] = COMPONENTS,
        patience_s: float = 120.0,
    ) -> None:
        self.home = home
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._program = programs / "airflow"
        self._components = components
        self._patience_s = patience_s
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            # Seconds to wait for a lock: all components write to the database.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            **environment,
        }

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        migrated = self.airflow("db", "migrate", timeout_s=None)
        if migrated.returncode:
            raise StackError(f"airflow db migrate failed: {migrated.stderr[-2000:]}")
        with contextlib.ExitStack() as starting:
            self._watcher = starting.enter_context(Watcher())
            starting.callback(self._stop_all)
            for component in self._components:
                self.start(component)
            self._wait_until_healthy()
            self._running = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def start(self, component: str, name: str | None = None) -> None:
        """Start a component.

        :param name: name of a second one of its kind, such as a second triggerer.
        """
        name = name or component
        with (self.home / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [self._program, *self._components[component]],
                env=self._environment,
                cwd=self.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watcher.watch(self._processes[name].pid)

    def kill(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a component and the processes that it started; kill it if it is still there after 20 s."""
        process = self._processes.pop(name)
        os.killpg(process.pid, with_signal)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the public REST API; return the JSON of the reply.

        :param path: without ``/api/v2``.
        """
        response = httpx.request(
            method,
            f"{self.url}/api/v2{path}",
            json=body,
            headers={"Authorization": f"Bearer {self._token()}"},
            timeout=30.0,
        )
        response.raise_for_status()
        return response.json() if response.content else None

    def airflow(self, *arguments: str, timeout_s: float | None = 120.0) -> subprocess.CompletedProcess[str]:
        """Run Airflow's command line in this home."""
        return subprocess.run(
            [self._program, *arguments],
            env=self._environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def unpause(self, dag_id: str) -> None:
        """Unpause a DAG, as soon as Airflow has read its file.

        :raises StackError: no file has such a DAG.
        """
        deadline = time.monotonic() + self._patience_s
        while not self.api("GET", f"/dags?dag_id_pattern={dag_id}")["total_entries"]:
            if time.monotonic() > deadline:
                raise StackError(f"Airflow has found no DAG {dag_id}; see {self.home / 'dag-processor.log'}")
            time.sleep(0.5)
        self.api("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def roots(self) -> dict[str, int]:
        """Return the process id of each component that runs, by its name."""
        return {name: process.pid for name, process in self._processes.items()}

    def state_of(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        return str(self.api("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def children(self, name: str) -> list[psutil.Process]:
        """Return all descendants of a component's process. The leaves of a scheduler's tree run tasks."""
        return psutil.Process(self._processes[name].pid).children(recursive=True)

    def run(self, dag_id: str, *, timeout_s: float = 120.0, **body: Any) -> dict[str, Any]:
        """Trigger a run over REST and wait for its end; return the run as the API has it."""
        run = self.api("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, **body})
        return self.wait(dag_id, run["dag_run_id"], timeout_s=timeout_s)

    def wait(self, dag_id: str, run_id: str, *, timeout_s: float) -> dict[str, Any]:
        """Wait for the end of a run; return the run as the API has it.

        :raises StackError: it has not ended in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            run: dict[str, Any] = self.api("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
            if run["state"] in ("success", "failed"):
                return run
            if time.monotonic() > deadline:
                raise StackError(f"run {run_id} of {dag_id} is still {run['state']} after {timeout_s:.0f} s")
            time.sleep(0.5)

    def _token(self) -> str:
        return str(httpx.get(f"{self.url}/auth/token", timeout=30.0).json()["access_token"])

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + self._patience_s
        missing = list(self._components)
        while time.monotonic() < deadline:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise StackError(f"{name} ended with {process.returncode}; see {self.home / f'{name}.log'}")
            missing = self._unhealthy()
            if not missing and self.api("GET", "/dags")["total_entries"]:
                return
            time.sleep(0.5)
        problem = f"not healthy: {', '.join(missing)}" if missing else "no DAG was found"
        raise StackError(f"Airflow is not up after {self._patience_s:.0f} s: {problem}; see the logs in {self.home}")

    def _unhealthy(self) -> list[str]:
        try:
            health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5.0).json()
        except (httpx.HTTPError, json.JSONDecodeError):
            return ["api-server"]
        names = ("scheduler", "triggerer", "dag_processor")
        return [name for name in names if (health.get(name) or {}).get("status") != "healthy"]

    def _stop_all(self) -> None:
        # The process of a task has a group of its own, so it survives the group of the scheduler that started it.
        descendants = self._descendants()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        # A scheduler with LocalExecutor may hang in its own shutdown, so SIGKILL follows soon.
        deadline = time.monotonic() + 8.0
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
        descendants |= self._descendants()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for descendant in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                descendant.kill()
        psutil.wait_procs(descendants, timeout=10.0)
        self._processes.clear()

    def _descendants(self) -> set[psutil.Process]:
        found: set[psutil.Process] = set()
        for name in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.update(self.children(name))
        return found


def sandbox_connection(url: str, **extra: Any) -> str:
    """Return the default connection to a sandbox, in the form of Airflow's environment variable.

    :param extra: fields of the connection's extra.
    """
    return json.dumps({**connection_fields(url), "extra": extra})


def connection_fields(url: str) -> dict[str, str]:
    """Return the fields of a connection to a sandbox, as Airflow's REST API and its environment variables take them."""
    return {
        "conn_type": "chatexport",
        "login": Sandbox.api_key,
        "password": Sandbox.api_secret,
        "host": url,
        "description": "the sandbox, which stands in for the chat service",
    }


def free_port(preferred: int = 0) -> int:
    """Return a port of the loopback address that no process listens on: the preferred one, if it is free."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            # Connections that ended a moment ago do not count: they would refuse the port for a minute.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise StackError("no port of 127.0.0.1 is free")
