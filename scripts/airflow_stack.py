"""All of Airflow on this machine: API server, scheduler, triggerer and DAG processor, over SQLite and LocalExecutor.

For `make up` and for the end-to-end tests. Every part is a process of its own, as in a deployment.
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
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("api-server", "scheduler", "triggerer", "dag-processor")


class StackError(Exception):
    """A part did not come up; the message names its log."""


class AirflowStack:
    """Used as a context manager: up and healthy inside, gone afterwards.

    :param home: Airflow's home; logs of each part are ``home/<part>.log``.
    :param environment: further variables for every part, such as connections.
    """

    def __init__(self, home: Path, environment: Mapping[str, str], *, dags: Path = ROOT / "dags") -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
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
            # Seconds to wait for a lock: all parts write.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            **environment,
        }

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        migrated = subprocess.run(
            ["airflow", "db", "migrate"], env=self._environment, capture_output=True, text=True, check=False
        )
        if migrated.returncode:
            raise StackError(f"airflow db migrate failed: {migrated.stderr[-2000:]}")
        try:
            for part in PARTS:
                self.start(part)
            self._wait_until_healthy()
        except BaseException:
            self._stop_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_all()

    def start(self, part: str, name: str | None = None) -> None:
        """:param name: for a second one of a kind, such as of triggerers."""
        name = name or part
        with (self.home / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ["airflow", part], env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, part: str, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """Ends a part and all that it started; one that does not heed a gentler signal is killed after a while."""
        process = self._processes.pop(part)
        os.killpg(process.pid, with_signal)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """A call of the public REST API, ``/api/v2`` left out; the answer's JSON."""
        answer = httpx.request(
            method,
            f"{self.url}/api/v2{path}",
            json=body,
            headers={"Authorization": f"Bearer {self._token()}"},
            timeout=30.0,
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def airflow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A call of Airflow's own command line, in this home."""
        return subprocess.run(
            ["airflow", *arguments], env=self._environment, capture_output=True, text=True, check=False, timeout=120
        )

    def unpause(self, dag_id: str) -> None:
        self.api("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def children(self, part: str) -> list[psutil.Process]:
        """The processes that a part has started, and theirs: the last ones of a scheduler run tasks."""
        return psutil.Process(self._processes[part].pid).children(recursive=True)

    def run(self, dag_id: str, *, timeout_s: float = 120.0, **body: Any) -> dict[str, Any]:
        """Triggers a run over REST and waits for its end; the run as the API tells it."""
        run = self.api("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, **body})
        return self.wait(dag_id, run["dag_run_id"], timeout_s=timeout_s)

    def wait(self, dag_id: str, run_id: str, *, timeout_s: float) -> dict[str, Any]:
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

    def _wait_until_healthy(self, timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        missing = list(PARTS)
        while time.monotonic() < deadline:
            for part, process in self._processes.items():
                if process.poll() is not None:
                    raise StackError(f"{part} ended with {process.returncode}; see {self.home / f'{part}.log'}")
            missing = self._unhealthy()
            if not missing and self.api("GET", "/dags")["total_entries"]:
                return
            time.sleep(0.5)
        raise StackError(f"not healthy after {timeout_s:.0f} s: {', '.join(missing) or 'no DAG was found'}")

    def _unhealthy(self) -> list[str]:
        try:
            health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5.0).json()
        except (httpx.HTTPError, json.JSONDecodeError):
            return ["api-server"]
        parts = ("scheduler", "triggerer", "dag_processor")
        return [part for part in parts if (health.get(part) or {}).get("status") != "healthy"]

    def _stop_all(self) -> None:
        # A LocalExecutor scheduler may hang in its own shutdown, so nobody is asked twice.
        for process in self._processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 8.0
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()


def sandbox_connection(url: str, **extra: Any) -> str:
    """The default connection, leading to a sandbox, as Airflow takes it from the environment."""
    return json.dumps(
        {
            "conn_type": "chatexport",
            "login": "sandbox-key",
            "password": "sandbox-secret-not-for-production-use",
            "host": url,
            "extra": extra,
        }
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
