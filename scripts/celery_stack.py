"""What Airflow needs for workers on several machines, all on this one: PostgreSQL, Redis, Celery workers.

PostgreSQL and Redis come from Debian's packages. They run in a temporary folder, on free ports. Servers
of the system are left alone.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_stack import COMPONENTS, ROOT, AirflowStack, StackError, free_port

ENVIRONMENT = ROOT / ".venv-celery"
SLOTS_PER_WORKER = 4
_RECEIVED, _DONE = re.compile(r"Task \S+ received"), re.compile(r"Task \S+ succeeded in")
START_S = 600.0  # a busy machine needs minutes to start nine processes of Airflow
# Debian's package for each program.
PACKAGES: Mapping[str, str] = {"postgres": "postgresql", "initdb": "postgresql", "redis-server": "redis-server"}


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its address, as its clients write it, and its process."""

    address: str
    process: subprocess.Popen[bytes]


class CeleryStack(AirflowStack):
    """Airflow with two Celery workers and two triggerers, between a PostgreSQL and a Redis that run already.

    :param database: address of the database, for SQLAlchemy.
    :param broker: address of Redis.
    """

    workers: Sequence[str] = ("worker-1", "worker-2")
    triggerers: Sequence[str] = ("triggerer-1", "triggerer-2")

    def __init__(self, home: Path, environment: Mapping[str, str], *, database: str, broker: str) -> None:
        components = {name: command for name, command in COMPONENTS.items() if name != "triggerer"}
        components |= dict.fromkeys(self.triggerers, ("triggerer",))
        components |= {name: _worker(name) for name in self.workers}
        settings = {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(SLOTS_PER_WORKER * len(self.workers)),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
            # As in a deployment: without it, every process of a task compiles all that it imports.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(home / "bytecode"),
        }
        super().__init__(
            home,
            {**settings, **environment},
            programs=ENVIRONMENT / "bin",
            components=components,
            patience_s=START_S,
        )

    def __enter__(self) -> CeleryStack:
        super().__enter__()
        try:
            _wait(lambda: all("ready." in self.log(name) for name in self.workers), "the workers", within_s=START_S)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def log(self, name: str) -> str:
        """Return what a component has logged."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def n_tasks_done(self, worker: str) -> int:
        """Return how many tasks, or halves of deferred tasks, a worker has finished."""
        return len(_DONE.findall(self.log(worker)))

    def is_busy(self, worker: str) -> bool:
        """Return whether a worker runs a task."""
        return len(_RECEIVED.findall(self.log(worker))) > self.n_tasks_done(worker)


def _worker(name: str) -> tuple[str, ...]:
    # Two workers on one machine cannot serve their logs on the same port.
    hostname = f"{name}@local"
    options = ("--celery-hostname", hostname, "--concurrency", str(SLOTS_PER_WORKER), "--skip-serve-logs")
    return ("celery", "worker", *options)


def install_programs() -> None:
    """Install PostgreSQL and Redis from Debian's packages, if they are missing and this process may.

    :raises StackError: they are missing and cannot be installed.
    """
    packages = sorted({package for program, package in PACKAGES.items() if not _find(program)})
    if not packages:
        return
    command = f"apt-get install {' '.join(packages)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise StackError(f"this machine lacks {' and '.join(packages)}; install them (on Debian: sudo {command})")
    print(f"{command}: this machine lacks them", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        done = subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not all(map(_find, PACKAGES)):
        raise StackError(f"{command} failed: {done.stderr[-1000:]}")


@contextlib.contextmanager
def running_postgres(home: Path) -> Iterator[Server]:
    """Run PostgreSQL in a folder while the context lasts; its address is that of an empty database."""
    user = _postgres_user()
    folder, port = home / "postgres", free_port()
    folder.mkdir()
    if user:
        shutil.chown(folder, user)
    log_path = home / "postgres.log"
    initialize = [_required("initdb"), "-D", "data", "-A", "trust", "-U", "airflow", "-E", "UTF8", "--no-sync"]
    with log_path.open("ab") as log:
        if subprocess.run(initialize, cwd=folder, user=user, stdout=log, stderr=log, check=False).returncode:
            raise StackError(f"initdb failed: {log_path.read_text()[-1000:]}")
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "300",
            "fsync": "off",
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        server = subprocess.Popen(
            [_required("postgres"), "-D", "data", *settings],
            cwd=folder,
            user=user,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait(lambda: "ready to accept connections" in log_path.read_text(errors="replace"), "PostgreSQL")
        yield Server(f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres", server)
    finally:
        _stop(server)


@contextlib.contextmanager
def running_redis(home: Path) -> Iterator[Server]:
    """Run Redis in a folder while the context lasts."""
    port = free_port()
    with (home / "redis.log").open("ab") as log:
        server = subprocess.Popen(
            [_required("redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", ""],
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait(lambda: _answers(port), "Redis")
        yield Server(f"redis://127.0.0.1:{port}/0", server)
    finally:
        _stop(server)


def _find(program: str) -> str | None:
    # Debian keeps PostgreSQL's programs in a folder for each version, which is not in PATH.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    return shutil.which(program, path=os.pathsep.join([*map(str, reversed(folders)), os.environ["PATH"]]))


def _required(program: str) -> str:
    if found := _find(program):
        return found
    raise StackError(f"this machine lacks {PACKAGES[program]}")


def _postgres_user() -> str | None:
    """Return the user as whom PostgreSQL runs: it refuses to run as root. None is the user of this process."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    raise StackError("PostgreSQL does not run as root, and this machine has no user postgres; create one")


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(7) == b"+PONG\r\n"
    return False


def _wait(condition: Callable[[], bool], name: str, *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise StackError(f"{name} did not start within {within_s:.0f} s")
        time.sleep(0.2)


def _stop(server: subprocess.Popen[bytes]) -> None:
    # PostgreSQL on SIGINT disconnects its clients and ends; on SIGTERM it waits for them.
    server.send_signal(signal.SIGINT)
    try:
        server.wait(timeout=20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
