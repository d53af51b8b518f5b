"""`make demo`: real Airflow exports three days of real chat from the sandbox into a lake, and DuckDB queries it.

It needs no account, no server and no network: the sandbox is a copy of the service on localhost, and Airflow runs its
DAG in this process, on a SQLite database. Everything is in `.demo/`. Running it a second time changes no row.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".demo"
CHANNELS = ("livestream:ubuntu", "messaging:ubuntu-support", "messaging:rust", "team:ubuntu-meeting")
DAYS = tuple(datetime(2025, 1, day, tzinfo=UTC) for day in (6, 7, 8))
CHATEXPORT = Path(sys.executable).with_name("chatexport")

QUERIES = (
    (
        "messages per channel and day",
        """
        SELECT cid AS channel, event_date AS day, count(*) AS messages, count(DISTINCT user_id) AS people
        FROM messages GROUP BY ALL ORDER BY ALL
        """,
    ),
    (
        "most active people",
        """
        SELECT any_value(users.name) AS person, count(*) AS messages, count(DISTINCT cid) AS channels
        FROM messages JOIN users ON users.id = user_id
        WHERE type <> 'system'
        GROUP BY user_id ORDER BY messages DESC, person LIMIT 5
        """,
    ),
    (
        "longest threads",
        """
        SELECT parent.cid AS channel, left(parent.text, 48) AS starts_with, count(*) AS replies,
            max(reply.created_at) - min(parent.created_at) AS lasted
        FROM messages reply JOIN messages parent ON parent.id = reply.parent_id
        GROUP BY parent.id, parent.cid, parent.text ORDER BY replies DESC, starts_with LIMIT 5
        """,
    ),
)


def say(what: str) -> None:
    print(what, flush=True)


@contextlib.contextmanager
def sandbox() -> Iterator[str]:
    """Run the sandbox as a process of its own, and yield its address."""
    server = subprocess.Popen(
        [CHATEXPORT, "sandbox", "--port", "0", "--task-seconds", "1"], stdout=subprocess.PIPE, text=True
    )
    try:
        announced = server.stdout.readline().strip() if server.stdout else ""
        if not announced.startswith("listening on "):
            sys.exit("the sandbox did not start; run `.venv/bin/chatexport sandbox` to see why")
        yield announced.removeprefix("listening on ")
    finally:
        server.terminate()
        server.wait()


def configure_airflow(url: str, lake: Path, home: Path) -> None:
    """Set the variables that Airflow reads when it is imported, which happens later."""
    os.environ.update(
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/airflow.db",
        AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
        AIRFLOW_CONN_CHATEXPORT_DEFAULT=json.dumps(
            {
                "conn_type": "chatexport",
                "login": "sandbox-key",
                "password": "sandbox-secret-not-for-production-use",
                "host": url,
            }
        ),
        CHATEXPORT_LAKE=str(lake),
        CHATEXPORT_CHANNELS=",".join(CHANNELS),
    )
    home.mkdir(parents=True, exist_ok=True)


def prepare_database() -> None:
    from airflow.utils.db import initdb  # noqa: PLC0415 - Airflow is imported after it is configured

    initdb()


def run_window(day: datetime, log_file: Path) -> None:
    """Run the example DAG once. The window of a manual run is the last whole day before its logical date."""
    began = time.monotonic()
    dag = runpy.run_path(str(ROOT / "dags" / "chatexport_daily.py"))["dag"]
    with log_file.open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        run = dag.test(logical_date=day + timedelta(days=1))
    if run.state != "success":
        sys.exit(f"the run of {day:%Y-%m-%d} ended as {run.state}; its log is {log_file}")
    tasks = ", ".join(f"{task.task_id} {task.state}" for task in run.get_task_instances())
    say(f"      {day:%Y-%m-%d}: {tasks} ({time.monotonic() - began:.1f} s)")


def chatexport(lake: Path, *arguments: str) -> str:
    return subprocess.run(
        [CHATEXPORT, *arguments, "--lake", lake], check=True, capture_output=True, text=True
    ).stdout.rstrip()


def n_messages(lake: Path) -> int:
    if not (lake / "catalog.duckdb").exists():
        return 0
    return int(json.loads(chatexport(lake, "sql", "SELECT count(*) FROM messages", "--json"))["rows"][0][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=HOME, help="where Airflow and the lake are")
    home = parser.parse_args().home.resolve()
    lake, airflow, log_file = home / "lake", home / "airflow", home / "airflow.log"
    logging.disable(logging.WARNING)
    began = time.monotonic()
    home.mkdir(parents=True, exist_ok=True)
    before = n_messages(lake)
    with sandbox() as url:
        say(f"[1/4] the sandbox runs as the chat service on {url}")
        configure_airflow(url, lake, airflow)
        say(f"[2/4] Airflow creates a SQLite database in {short(airflow)}")
        with log_file.open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            prepare_database()
        say("[3/4] Airflow runs the DAG dags/chatexport_daily.py, one run per day: submit, defer, download, load")
        for day in DAYS:
            run_window(day, log_file)
    if before:
        after = n_messages(lake)
        say(f"      the lake had {before} messages and has {after} now: loading a window again changes no row")
    say("[4/4] what is in the lake\n\ncoverage")
    say(chatexport(lake, "coverage"))
    for title, query in QUERIES:
        say(f"\n{title}")
        say(chatexport(lake, "sql", query))
    say(
        f"\ndone in {time.monotonic() - began:.0f} s\n"
        f"  the lake          {short(lake)}\n"
        f"  its catalog       {short(lake)}/catalog.duckdb\n"
        f"  Airflow's home    {short(airflow)} (log: {short(log_file)})\n"
        f'  query it          .venv/bin/chatexport sql "SELECT count(*) FROM messages" --lake {short(lake)}'
    )


def short(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    main()
