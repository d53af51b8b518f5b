"""Retention in operators: what asks the service for its policies, what carries the answer, and who obeys it."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.sdk import DAG
from support import EXPORTS, TaskInstance, TaskStateStore, exporting, loading, n_exports, run

from airflow_provider_chatexport.core.retention import CLOCK_STEP, MARGIN
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.operators.gaps import ListGapsOperator
from airflow_provider_chatexport.operators.windowed import SplitWindowOperator
from airflow_provider_chatexport.sandbox import Sandbox
from airflow_provider_chatexport.task_groups import chat_export_to_lake

RUST, POLICIES = "messaging:rust", "/api/v2/chat/retention_policy"
DAGS = Path(__file__).parents[2] / "dags"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def retentions(receipts: list[dict[str, Any]]) -> list[Any]:
    return [receipt["retention"] for receipt in receipts]


def ago(hours: float) -> str:
    return (NOW - hours * HOUR).isoformat()


def since_of(windows: list[dict[str, Any]]) -> datetime:
    return datetime.fromisoformat(windows[0]["since"])


def assert_is_horizon(moment: datetime, hours: int) -> None:
    """Check that a moment is the horizon of an export that is made about now, and not before the service's seconds."""
    assert -CLOCK_STEP <= datetime.now(UTC) - hours * HOUR + MARGIN - moment < timedelta(minutes=5)


# Asking


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_policies_are_asked_for_once_and_every_receipt_carries_them(connection, deferrable) -> None:
    """Four exports of one task, and one question."""
    connection.control.set_retention(old_messages=30 * DAY, inactive_channels=365 * DAY)
    receipts = run(exporting(retention="service", max_window=timedelta(minutes=30), deferrable=deferrable))
    assert [{"max_age_hours": 720}] * 4 == retentions(receipts)
    assert 1 == len(connection.control.requests(POLICIES))


@pytest.mark.parametrize("retention", [None, "30d"])
def test_the_service_is_asked_only_on_demand(connection, retention) -> None:
    """A duration concerns the load alone; the same argument may go to both tasks."""
    assert [None] == retentions(run(exporting(retention=retention)))
    assert [] == connection.control.requests(POLICIES)
    assert [{"max_age_hours": None}] == retentions(run(exporting(retention="service")))


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_halves_of_an_export_carry_what_was_asked_before(connection, fault, deferrable) -> None:
    """A split is no new question: an export of an hour ago was under the policies of an hour ago."""
    connection.control.set_retention(old_messages=30 * DAY)
    fault("fail-task", EXPORTS, method="POST")
    receipts = run(exporting(retention="service", max_splits=1, deferrable=deferrable))
    assert [{"max_age_hours": 720}] * 2 == retentions(receipts)
    assert 1 == len(connection.control.requests(POLICIES))


def test_a_retry_finds_the_answer_of_the_first_try(connection) -> None:
    """The export was made under a policy of 30 days, whatever the policy is by the time of the retry."""
    context = {"task_state_store": TaskStateStore(), "ti": TaskInstance()}
    connection.control.set_retention(old_messages=30 * DAY)
    with pytest.raises(TaskDeferred):
        exporting(retention="service", deferrable=True).execute(context)
    connection.control.set_retention(old_messages=365 * DAY)
    assert [{"max_age_hours": 720}] == retentions(run(exporting(retention="service", deferrable=False), context))
    assert 1 == n_exports(connection)


@pytest.mark.parametrize("status", [403, 404, 400])
def test_a_service_that_does_not_say_is_an_error_with_the_cure(connection, fault, status) -> None:
    """Without an answer a load could take messages for deleted; so nothing is exported."""
    fault(f"status:{status}", POLICIES)
    with pytest.raises(AirflowFailException, match=r"does not say how long .* write the shortest age .*30d"):
        run(exporting(retention="service"))
    assert 0 == n_exports(connection)


def test_a_wrong_secret_is_not_taken_for_a_service_that_does_not_say(connection, set_connection) -> None:
    """The cure is another one."""
    set_connection(login=connection.api_key, password="wrong", host=connection.url)
    with pytest.raises(AirflowFailException, match="check the API key") as refused:
        run(exporting(retention="service"))
    assert "shortest age" not in str(refused.value)


# Loading


def test_a_load_needs_an_export_that_asked(connection, tmp_path) -> None:
    """The sentence names the cure, and nothing is loaded; a duration needs no answer."""
    receipts = run(exporting())
    sentence = r"did not ask the service .*; set retention=\"service\" on the task that exports, too, and clear it, or"
    with pytest.raises(AirflowFailException, match=sentence):
        loading(receipts, tmp_path / "lake", retention="service").execute({})
    assert not (tmp_path / "lake" / "messages").exists()
    summary = loading(receipts, tmp_path / "lake", retention="30d").execute({})
    assert (720, 1) == (summary["retention"]["max_age_hours"], summary["retention"]["clipped"])
    assert 0 == summary["vanished"]["messages"]


def test_a_wrong_retention_fails_the_dag_and_not_the_night(tmp_path) -> None:
    """As every argument that makes no sense."""
    for operator in (exporting, lambda **each: loading([], tmp_path, **each), splitting):
        with pytest.raises(AirflowFailException, match="retention is '30m'; the service counts whole hours"):
            operator(retention="30m")
    with pytest.raises(AirflowFailException, match="max_vanished is 1"):
        loading([], tmp_path, max_vanished=1.5)


def test_the_task_group_gives_retention_to_both_tasks() -> None:
    """One argument, so that they cannot differ."""
    for batches in (None, 10):
        with DAG(dag_id="group", schedule=None, start_date=NOW) as dag:
            chat_export_to_lake(lake="/lake", channels=["a:b"], retention="service", channels_per_task=batches)
        tasks: dict[str, Any] = {name.rpartition(".")[2]: task for name, task in dag.task_dict.items()}
        assert ["service"] * 2 == [tasks["export"].retention, tasks["load"].options.retention]


# Listing


def splitting(**arguments: Any) -> SplitWindowOperator:
    return SplitWindowOperator(task_id="windows", max_window=DAY, **{"since": ago(240), "until": ago(0), **arguments})


def test_windows_that_a_policy_has_emptied_are_not_split_off(connection) -> None:
    """Ten days, of which the service has three: no export could cover the others."""
    connection.control.set_retention(old_messages=3 * DAY)
    assert 10 == len(splitting().execute({}))
    for retention in ("service", "72h"):
        windows = splitting(retention=retention).execute({})
        assert [ago(72), ago(48), ago(24)] == [datetime.fromisoformat(each["since"]).isoformat() for each in windows]
    assert [] == splitting(retention="72h", until=ago(100)).execute({})
    assert 10 == len(splitting(retention="365d").execute({}))


def test_gaps_that_a_policy_has_emptied_are_not_listed(connection, tmp_path) -> None:
    """They would be exported by every run, and stay gaps. A channel that is new has its whole history."""
    connection.control.set_retention(old_messages=3 * DAY)
    lake = tmp_path / "lake"

    def listed(**arguments: Any) -> list[dict[str, Any]]:
        return ListGapsOperator(task_id="gaps", lake=lake, channels=[RUST], until=ago(0), **arguments).execute({})

    def load(**window: Any) -> None:
        receipts = run(exporting(channels=[RUST], deferrable=False, retention="service", **window))
        loading(receipts, lake, retention="service").execute({})

    load(since=ago(10), until=ago(9))
    assert [ago(2400), ago(9)] == [
        datetime.fromisoformat(each["since"]).isoformat() for each in listed(since=ago(2400))
    ]
    for retention in ("service", "3d"):
        assert_is_horizon(since_of(listed(since=ago(2400), retention=retention)), 72)
    (whole,) = ListGapsOperator(task_id="gaps", lake=lake, channels=["livestream:ubuntu"], retention="service").execute(
        {}
    )
    assert "all" == whole["window"]
    for window in listed(since=ago(2400), retention="service"):
        load(since=window["since"], until=window["until"])
    assert [] == listed(since=ago(2400), retention="service")


# A run


def run_of(dag_file: str) -> str:
    """Run an example DAG over twelve hours, before which it has a lookback; return how the run ended."""
    dag = runpy.run_path(str(DAGS / dag_file))["dag"]
    return str(dag.test(run_conf={"since": ago(12), "until": ago(1)}).state.value)


def texts(lake: Path) -> dict[str, str]:
    with Lake(lake) as opened:
        return dict(opened.sql("SELECT id, text FROM messages").fetchall())


@pytest.mark.usefixtures("airflow_database")
def test_a_dag_with_a_lookback_keeps_what_a_policy_deletes(
    connection: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same window before and after a policy ran, by Airflow: the lake has all that it ever had."""
    hours_ago = {"old": 10, "older": 11, "young": 2, "gone": 3}
    for message_id, hours in hours_ago.items():
        connection.control.add_message(RUST, id=message_id, text="first", user_id="ann", created_at=NOW - hours * HOUR)
    connection.control.set_retention(old_messages=30 * HOUR)
    lake = tmp_path / "lake"
    monkeypatch.setenv("CHATEXPORT_LAKE", str(lake))
    monkeypatch.setenv("CHATEXPORT_CHANNELS", RUST)
    monkeypatch.setenv("CHATEXPORT_RETENTION", "service")
    assert ("success", dict.fromkeys(hours_ago, "first")) == (run_of("chatexport_quick.py"), texts(lake))
    connection.control.edit_message("young", text="edited")
    connection.control.delete_message("gone", hard=True)
    connection.control.advance_clock(DAY)
    kept = {"old": "first", "older": "first", "young": "edited"}
    assert ("success", kept) == (run_of("chatexport_quick.py"), texts(lake))
    # Without retention, the same export would empty the archive, and max_vanished stops that.
    receipts = run(exporting(channels=[RUST], since=ago(12), until=ago(1)))
    with pytest.raises(AirflowFailException, match=r"2 of the 3 messages .* vanish \(1 day old\)"):
        loading(receipts, lake, max_vanished=1).execute({})
    assert kept == texts(lake)
    monkeypatch.delenv("CHATEXPORT_RETENTION")
    assert ("success", {"young": "edited"}) == (run_of("chatexport_quick.py"), texts(lake))
