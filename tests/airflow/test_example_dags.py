"""The other example DAGs, run by Airflow."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import pytest
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.operators.links import ExportTaskLink

DAGS = Path(__file__).parents[2] / "dags"
CHANNEL = "livestream:ubuntu"
EXPORTS = "/api/v2/chat/export_channels"

pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATEXPORT_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("CHATEXPORT_CHANNELS", CHANNEL)
    return tmp_path / "lake"


def run(name: str, **arguments: Any) -> str:
    dag = runpy.run_path(str(DAGS / f"{name}.py"))["dag"]
    return str(dag.test(**arguments).state.value)


def rows_of(lake: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(lake / "catalog.duckdb"), read_only=True) as catalog:
        return catalog.sql(query).fetchall()


def test_the_quick_dag_is_the_daily_one_in_three_lines(connection, lake) -> None:
    """A task group exports the day and, again, the day before it, and loads both."""
    assert run("chatexport_quick", logical_date=datetime(2025, 1, 3, tzinfo=UTC)) == "success"
    messages = connection.world.messages(
        CHANNEL, since=datetime(2025, 1, 1, tzinfo=UTC), until=datetime(2025, 1, 3, tzinfo=UTC)
    )
    assert [(sum(1 for _ in messages),)] == rows_of(lake, "SELECT count(*) FROM messages")


def test_a_manual_run_may_have_the_window_of_its_form(connection, lake) -> None:
    """The form asks for two hours of another day; the lookback of the DAG applies to them too."""
    conf = {"since": "2025-01-08T05:00:00Z", "until": "2025-01-08T07:00:00Z"}
    assert run("chatexport_quick", logical_date=datetime(2025, 1, 3, tzinfo=UTC), run_conf=conf) == "success"
    loaded = "since = TIMESTAMPTZ '2025-01-07 05:00:00Z' AND until = TIMESTAMPTZ '2025-01-08 07:00:00Z'"
    assert [(True,)] == rows_of(lake, f"SELECT {loaded} FROM loads")


def test_a_manual_run_may_ask_for_the_whole_history(connection, lake, monkeypatch) -> None:
    """It needs no logical date, so it has no data interval; the lookback of the DAG does not matter."""
    monkeypatch.setenv("CHATEXPORT_CHANNELS", "messaging:rust")
    assert run("chatexport_quick", run_conf={"window": "all"}) == "success"
    expected = sum(1 for _ in connection.world.messages("messaging:rust"))
    assert [(None, expected)] == rows_of(lake, "SELECT any_value(since), count(*) FROM loads, messages")


def test_the_button_of_an_export_leads_to_a_page_for_people(connection, lake) -> None:
    """Regression: it led to the service's API, which answers a browser with 401.

    Airflow drops a link that it cannot serialize or push: the log says so, and the page has no button.
    """
    assert run("chatexport_quick", logical_date=datetime(2025, 1, 4, tzinfo=UTC)) == "success"
    with create_session() as session:
        by_key = {
            xcom.key: xcom for xcom in session.scalars(select(XComModel).where(XComModel.task_id.endswith(".export")))
        }
    link, exports = by_key[ExportTaskLink().xcom_key], by_key["exports"].value
    page = f"/dags/chatexport_quick/runs/{link.run_id}/tasks/{link.task_id}/xcom"
    assert urlsplit(link.value).path == page
    assert ("completed", 1) == (exports["status"], exports["n_exports"])
    assert [[CHANNEL]] == [each["channels"] for each in exports["exports"]]


def test_the_discovery_dag_maps_batches_of_what_it_finds(connection, lake, monkeypatch) -> None:
    """It finds every channel with a message since the start of the window; each batch of two is a load."""
    monkeypatch.setenv("CHATEXPORT_CHANNELS_PER_TASK", "2")
    assert run("chatexport_discovery", logical_date=datetime(2025, 1, 8, tzinfo=UTC)) == "success"
    window = Window.parse("2025-01-07", "2025-01-08")
    active = {
        cid
        for cid in connection.world.cids
        if any(connection.world.messages(cid, since=window.since, until=window.until))
    }
    assert active == {cid for (cid,) in rows_of(lake, "SELECT DISTINCT cid FROM messages")}
    # Six channels have a message since then, though not all of them on that day.
    assert [(3,)] == rows_of(lake, "SELECT count(*) FROM loads")


def test_the_backfill_dag_loads_weeks_that_tile_its_window(connection, lake) -> None:
    """Weeks are mapped tasks: three loads, every message of the window once, coverage without a gap."""
    conf = {"since": "2024-12-25T00:00:00Z", "until": "2025-01-10T12:00:00Z"}
    assert run("chatexport_backfill", run_conf=conf) == "success"
    window = Window.parse(**conf)
    messages = connection.world.messages(CHANNEL, since=window.since, until=window.until)
    assert [(sum(1 for _ in messages),)] == rows_of(lake, "SELECT count(*) FROM messages")
    assert [(3,)] == rows_of(lake, "SELECT count(*) FROM loads")
    assert verify(open_store(lake), now=datetime.now(UTC)).ok


def test_the_hourly_dag_loads_late_edits(connection, lake) -> None:
    """If a message of yesterday was edited since, the lake has its new text, and late_changes counts it."""
    early, later = datetime(2025, 1, 7, 12, tzinfo=UTC), datetime(2025, 1, 8, 12, tzinfo=UTC)
    assert run("chatexport_hourly", logical_date=early) == "success"
    last_day = "deleted_at IS NULL AND type = 'regular' AND created_at >= TIMESTAMPTZ '2025-01-07 00:00:00Z'"
    ((edited,),) = rows_of(lake, f"SELECT min(id) FROM messages WHERE {last_day}")
    connection.control.edit_message(edited, text="another text")
    assert run("chatexport_hourly", logical_date=later) == "success"
    assert [("another text",)] == rows_of(lake, f"SELECT text FROM messages WHERE id = '{edited}'")
    assert [(1,)] == rows_of(lake, "SELECT sum(edited)::INT FROM late_changes")


def test_the_users_dag_answers_a_data_subject_request(connection, lake) -> None:
    """The ids come from the conf; the rows are in tables of their own, and none in messages."""
    user_id = connection.world.user_ids()[0]
    assert run("chatexport_user", run_conf={"user_ids": [user_id]}) == "success"
    assert [(user_id,)] == rows_of(lake, "SELECT DISTINCT export_user_id FROM user_export_users")
    assert [(0,)] == rows_of(lake, "SELECT count(*) FROM messages")


def test_the_taskflow_dag_reports_on_the_channels_that_it_chooses(connection, lake) -> None:
    """A function chooses with the hook, operators export and load, a function reads the lake."""
    assert run("chatexport_taskflow", logical_date=datetime(2025, 1, 9, tzinfo=UTC)) == "success"
    ((n_messages, n_people),) = rows_of(lake, "SELECT count(*), count(DISTINCT user_id) FROM messages")
    assert {"messaging"} == {kind for (kind,) in rows_of(lake, "SELECT DISTINCT channel_type FROM messages")}
    with create_session() as session:
        (report,) = session.scalars(select(XComModel.value).where(XComModel.task_id == "report")).all()
    assert f"{n_messages} messages of {n_people} people" == report


def test_the_dag_of_gaps_repairs_the_lake(connection, lake, monkeypatch) -> None:
    """After an outage and with a longer list of channels, runs export what is missing, and nothing else."""
    begin, end = datetime(2025, 1, 3, tzinfo=UTC), datetime(2025, 1, 20, tzinfo=UTC)
    late, rust = datetime(2025, 1, 4, tzinfo=UTC), "messaging:rust"
    first = {"logical_date": datetime(2025, 1, 5, tzinfo=UTC), "run_conf": {"since": begin.isoformat()}}
    assert run("chatexport_gaps", **first) == "success"
    edited = next(
        message["id"] for message in connection.world.messages(CHANNEL, since=late, until=end) if message["text"]
    )
    connection.control.edit_message(edited, text="another text")
    monkeypatch.setenv("CHATEXPORT_CHANNELS", f"{CHANNEL},{rust}")
    assert run("chatexport_gaps", logical_date=end) == "success"
    connection.control.clear_requests()
    assert run("chatexport_gaps", logical_date=end) == "success"
    assert connection.control.requests(EXPORTS) == []
    expected = sum(1 for _ in connection.world.messages(CHANNEL, since=begin, until=end))
    counted = dict(rows_of(lake, "SELECT cid, count(*) FROM messages GROUP BY cid"))
    assert counted == {CHANNEL: expected, rust: sum(1 for _ in connection.world.messages(rust))}
    assert rows_of(lake, f"SELECT text FROM messages WHERE id = '{edited}'") == [("another text",)]
    # The first window, a lookback with what was missing, the whole history of the new channel.
    assert rows_of(lake, "SELECT count(*) FROM loads") == [(3,)]
    assert verify(open_store(lake), now=datetime.now(UTC)).ok
