"""The daily example DAG, run by Airflow: its windows become rows, and a second run changes none of them."""

from __future__ import annotations

import runpy
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.sandbox import Sandbox

DAG_FILE = Path(__file__).parents[2] / "dags" / "chatexport_daily.py"
CHANNELS = ("livestream:ubuntu", "messaging:ubuntu-support")
DAYS = (datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC))

pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lake = tmp_path / "lake"
    monkeypatch.setenv("CHATEXPORT_LAKE", str(lake))
    monkeypatch.setenv("CHATEXPORT_CHANNELS", ",".join(CHANNELS))
    return lake


def run_window_of(day: datetime, **arguments: Any) -> str:
    """Run the DAG for one day: the window of a manual run is the last whole interval before its logical date."""
    dag = runpy.run_path(str(DAG_FILE))["dag"]
    return str(dag.test(logical_date=day + timedelta(days=1), **arguments).state.value)


def rows_by_day_and_channel(lake: Path) -> Counter[tuple[str, str]]:
    with duckdb.connect(str(lake / "catalog.duckdb"), read_only=True) as catalog:
        counted = catalog.sql(
            "SELECT strftime(created_at AT TIME ZONE 'UTC', '%Y-%m-%d'), cid FROM messages"
        ).fetchall()
    return Counter((day, cid) for day, cid in counted)


def messages_in_the_sandbox(sandbox: Sandbox) -> Counter[tuple[str, str]]:
    counted: Counter[tuple[str, str]] = Counter()
    for day in DAYS:
        for cid in CHANNELS:
            messages = sandbox.world.messages(cid, since=day, until=day + timedelta(days=1))
            counted[day.strftime("%Y-%m-%d"), cid] = sum(1 for _ in messages)
    return +counted


def test_two_windows_and_then_the_first_again(connection, lake) -> None:
    """The rows of each day and channel equal an independent count, and a second run changes none of them."""
    expected = messages_in_the_sandbox(connection)
    assert len(expected) > 2
    for day in (*DAYS, DAYS[0]):
        assert run_window_of(day) == "success"
    assert rows_by_day_and_channel(lake) == expected


def test_the_logs_of_a_run_contain_no_secret(connection, lake, capfd, caplog) -> None:
    """Many people read task logs: they contain no key, no link, no token and no text of a message."""
    with caplog.at_level("DEBUG"):
        assert run_window_of(DAYS[0]) == "success"
    text = caplog.text + "".join(capfd.readouterr())
    assert "export started task_id=" in text
    for secret in (connection.api_key, connection.api_secret, "/download/", "signature=", "eyJ"):
        assert secret not in text
    messages = connection.world.messages(CHANNELS[0], since=DAYS[0], until=DAYS[1])
    assert not [message["id"] for message in messages if len(message["text"]) > 30 and message["text"] in text]


def test_a_run_for_a_channel_that_does_not_exist_fails_and_leaves_nothing(connection, lake, monkeypatch) -> None:
    """It leaves no load, and no lake if there was none."""
    monkeypatch.setenv("CHATEXPORT_CHANNELS", "messaging:no-such-channel")
    assert run_window_of(DAYS[0]) == "failed"
    assert not lake.exists()


def test_a_manual_run_may_have_its_own_window(connection, lake) -> None:
    """Conf comes before the data interval: the lake has one hour of another day, and nothing else."""
    conf = {"since": "2025-01-02T05:00:00Z", "until": "2025-01-02T06:00:00Z"}
    window = Window.parse(**conf)
    messages = connection.world.messages(CHANNELS[0], since=window.since, until=window.until)
    assert run_window_of(DAYS[0], run_conf=conf) == "success"
    assert rows_by_day_and_channel(lake) == {("2025-01-02", CHANNELS[0]): sum(1 for _ in messages)}
