"""The export operators: what they request, how they wait, what they return."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.exceptions import ParamValidationError
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred
from airflow.sdk import DAG
from support import EXPORTS, SINCE, UNTIL, WINDOW, TaskInstance, events_of, exporting, run

from airflow_provider_chatexport.core.plan import ChannelsRequest
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.operators.export import ExportChannelsOperator, ExportUsersOperator
from airflow_provider_chatexport.operators.links import EXPORTS_KEY
from airflow_provider_chatexport.operators.params import window_params

DAY = {"data_interval_start": datetime(2025, 1, 1, tzinfo=UTC), "data_interval_end": datetime(2025, 1, 2, tzinfo=UTC)}


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_export_operator_waits_and_returns_receipts(connection, deferrable) -> None:
    """On the worker and in the triggerer: the same receipts, with the service's own time of the export."""
    (returned,) = run(exporting(deferrable=deferrable))
    receipt = Receipt.from_json(json.loads(json.dumps(returned)))
    assert isinstance(receipt.request, ChannelsRequest)
    assert (receipt.request.channels, receipt.request.window) == (("livestream:ubuntu",), WINDOW)
    assert receipt.created_at is not None
    assert "http" not in json.dumps(returned)


def test_an_export_has_at_most_25_channels() -> None:
    """The service refuses more."""
    operator = exporting(channels=[f"messaging:c{n}" for n in range(60)])
    sizes = [len(request.channels) for request in operator.plan({})]
    assert sizes == [25, 25, 10]


def test_a_run_waits_out_the_rate_limit(start_sandbox, set_connection) -> None:
    """The service takes two exports in a second: a run with more of them takes longer and does not fail."""
    sandbox = start_sandbox(rate_limit=True)
    set_connection(login=sandbox.api_key, password=sandbox.api_secret, host=sandbox.url)
    operator = ExportUsersOperator(
        task_id="users", user_ids=sandbox.world.user_ids()[:100], poll_interval=0.02, deferrable=False
    )
    assert len(run(operator)) == 4
    assert 429 in {request.status for request in sandbox.control.requests("/api/v2/export/users")}


def test_exports_of_users_work_alike(connection) -> None:
    """A data-subject request is the same wait on another endpoint."""
    user_id = next(iter(connection.world.user_ids()))
    operator = ExportUsersOperator(task_id="users", user_ids=user_id, poll_interval=0.02)
    (returned,) = run(operator)
    assert returned["kind"] == "users"
    assert returned["request"]["user_ids"] == [user_id]


@pytest.mark.parametrize(
    ("user_ids", "sentence"),
    [
        (None, r'^there is no user to export; .* such as ann-17, .* conf {"user_ids": \["ann-17"\]}$'),
        ("None", "^there is no user to export"),
        ([" "], r"^there is no user to export, or a user id is empty; .* such as ann-17$"),
        ([17], r"^user_ids contains a value of type int .* such as ann-17$"),
        ("[ann", r"^user_ids is text that cannot be read as a list of names; .* render_template_as_native_obj=True"),
    ],
)
def test_errors_about_users_are_about_users(user_ids, sentence) -> None:
    """A channel as the example would send a person to the wrong argument."""
    with pytest.raises(AirflowFailException, match=sentence) as caught:
        ExportUsersOperator(task_id="users", user_ids=user_ids).execute({})
    assert "messaging:" not in str(caught.value)
    assert "channel" not in str(caught.value)


def test_each_task_id_is_logged_when_it_is_known(connection, fault, caplog) -> None:
    """The service cannot list its tasks: if a later request fails, the id is in the log only."""
    fault("stall-task", EXPORTS, method="POST")
    with caplog.at_level(logging.INFO), pytest.raises(TaskDeferred) as deferral:
        exporting(deferrable=True).execute({})
    assert f"export started task_id={deferral.value.trigger.task_ids[0]}" in caplog.text


def test_people_see_the_exports_while_the_task_is_deferred_and_after(connection) -> None:
    """The ids are for a question to the service's support; there is no key and no link."""
    shown = TaskInstance()
    context: Any = {"ti": shown}
    with pytest.raises(TaskDeferred) as deferral:
        exporting(deferrable=True).execute(context)
    (task_id,) = deferral.value.trigger.task_ids
    described = {"task_id": task_id, "channels": ["livestream:ubuntu"], **WINDOW.to_json()}
    assert {"status": "submitted", "n_exports": 1, "exports": [described]} == shown.xcoms[EXPORTS_KEY]
    (event,) = asyncio.run(events_of(deferral.value.trigger))
    exporting(deferrable=True).execute_complete(context, event=event.payload)
    assert {"status": "completed", "n_exports": 1, "exports": [described]} == shown.xcoms[EXPORTS_KEY]


def test_an_export_does_not_fail_because_it_cannot_be_shown(connection, caplog) -> None:
    """It has been submitted, and a retry on an older Airflow would submit it again."""

    def refuse(**_: Any) -> None:
        raise ConnectionError("the API server is away")

    receipts = exporting(deferrable=False).execute({"ti": SimpleNamespace(max_tries=3, xcom_push=refuse)})
    assert 1 == len(receipts)
    assert "cannot be shown" in caplog.text


def test_the_button_leads_to_the_page_of_the_task_and_of_its_map_index() -> None:
    """A mapped task has a page for each of its indexes."""
    key = {"dag_id": "chat", "run_id": "manual__2026-01-01T00:00:00+00:00", "task_id": "group.export"}
    page = "/dags/chat/runs/manual__2026-01-01T00:00:00+00:00/tasks/group.export"
    (link,) = exporting().operator_extra_links
    for map_index, path in ((-1, f"{page}/xcom"), (3, f"{page}/mapped/3/xcom")):
        assert path == urlsplit(link.get_link(exporting(), ti_key=SimpleNamespace(**key, map_index=map_index))).path


@pytest.mark.parametrize("option", ["wait_timeout_s", "grace_period_s", "poll_interval_s"])
def test_defaults_of_the_deployment_reach_the_task(connection, fault, monkeypatch, option) -> None:
    """Airflow's configuration has the defaults of what a task does not set."""
    monkeypatch.setenv(f"AIRFLOW__CHATEXPORT__{option.upper()}", "0.25")
    now = datetime.now(UTC)
    operator = exporting(
        since=now - timedelta(hours=1), until=now - timedelta(seconds=1), deferrable=True, poll_interval=None
    )
    fault("stall-task", EXPORTS, method="POST")
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute({})
    is_old_enough = option == "grace_period_s"
    assert ("execute_complete" if is_old_enough else "execute_after_grace_period") == deferral.value.method_name
    monkeypatch.setenv("AIRFLOW__CHATEXPORT__GRACE_PERIOD_S", "0")
    with pytest.raises(TaskDeferred) as waiting:
        operator.execute_after_grace_period({})
    trigger = waiting.value.trigger
    patience_s = trigger.deadline_epoch_s - trigger.started_epoch_s
    assert (0.25 if option == "wait_timeout_s" else 6 * 3600) == pytest.approx(patience_s)
    assert (0.25 if option == "poll_interval_s" else None) == trigger.poll_interval_s


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (DAY, Window.parse("2025-01-01", "2025-01-02")),
        ({"dag_run": SimpleNamespace(conf={"since": SINCE, "until": UNTIL})}, WINDOW),
        ({"params": {"since": SINCE, "until": UNTIL}, "dag_run": SimpleNamespace(conf=None)}, WINDOW),
        ({**DAY, "dag_run": SimpleNamespace(conf={"since": SINCE, "until": UNTIL})}, WINDOW),
    ],
)
def test_the_window_comes_from_the_run(context, expected) -> None:
    """Conf and params come before the data interval: who triggers a run with a window wants that window."""
    assert exporting(since=None, until=None).run_window(context) == expected


@pytest.mark.parametrize(
    ("arguments", "context", "sentence"),
    [
        ({}, {}, "no data interval"),
        (
            {},
            {
                "data_interval_start": datetime(2025, 1, 1, tzinfo=UTC),
                "data_interval_end": datetime(2025, 1, 1, tzinfo=UTC),
            },
            "CronDataIntervalTimetable",
        ),
        ({"since": SINCE}, {}, "give until too"),
        ({"since": UNTIL, "until": SINCE}, {}, "reversed"),
        ({"since": 5, "until": 6}, {}, "of type int"),
        ({"since": SINCE, "until": UNTIL, "channels": "ubuntu"}, {}, "TYPE:ID"),
        ({"since": SINCE, "until": UNTIL, "channels": None}, {}, "no channel"),
        ({"since": SINCE, "until": UNTIL, "wait_timeout": 0}, {}, "more than zero"),
    ],
)
def test_a_wrong_argument_fails_without_retries_and_without_a_request(connection, arguments, context, sentence) -> None:
    """The next try would fail alike; the error says what to change."""
    with pytest.raises(AirflowFailException, match=sentence):
        exporting(**{"since": None, "until": None, **arguments}).execute(context)
    assert connection.control.requests("/api") == []


def test_channels_may_come_from_the_run() -> None:
    """A manual run may name its channels."""
    context: Any = {"dag_run": SimpleNamespace(conf={"channels": "a:b,c:d"})}
    (request,) = exporting(channels=None).plan(context)
    assert request.channels == ("a:b", "c:d")


def test_the_form_of_a_manual_run_has_window_and_channels() -> None:
    """An empty form changes nothing; a filled one is used; an unreadable value is refused."""
    with DAG(dag_id="by_hand", schedule=None, params=window_params()) as dag:
        operator = ExportChannelsOperator(task_id="export")
    empty_form: Any = {**DAY, "params": dag.params.dump()}
    assert Window.parse("2025-01-01", "2025-01-02") == operator.run_window(empty_form)
    filled_form: Any = {**DAY, "params": {**dag.params.dump(), "since": SINCE, "until": UNTIL, "channels": ["a:b"]}}
    (request,) = operator.plan(filled_form)
    assert (WINDOW, ("a:b",)) == (request.window, request.channels)
    with pytest.raises(ParamValidationError):
        window_params()["channels"].resolve(value=7)
    with pytest.raises(AirflowFailException, match="since is not a time: 'yesterday'"):
        operator.execute({**DAY, "params": {"since": "yesterday", "until": UNTIL}})
    assert {"since", "until"} == window_params(channels=False).keys()


def test_a_wrong_key_fails_without_retries(sandbox, set_connection) -> None:
    """A retry would use the same key."""
    set_connection(login="another-key", password=sandbox.api_secret, host=sandbox.url)
    with pytest.raises(AirflowFailException, match="check the API key") as caught:
        exporting().execute({})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_no_connection_is_one_sentence() -> None:
    """It is the most frequent first mistake."""
    with pytest.raises(AirflowFailException, match="there is no connection 'nowhere'; create one of type chatexport"):
        exporting(chatexport_conn_id="nowhere").execute({})


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_failed_export_fails_the_task_with_the_services_reason(connection, fault, deferrable) -> None:
    """A retry can help, because it starts another export."""
    fault("fail-task", EXPORTS, method="POST")
    with pytest.raises(AirflowException, match="ended as failed") as caught:
        run(exporting(deferrable=deferrable))
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_export_that_never_ends_is_given_up_at_the_deadline(connection, fault, deferrable) -> None:
    """The error names the open export: the service cannot list them."""
    fault("stall-task", EXPORTS, method="POST")
    with pytest.raises(AirflowException, match=r"1 of 1 exports are not done .*allow more time"):
        run(exporting(deferrable=deferrable, wait_timeout=timedelta(seconds=0.3)))


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_wait_survives_an_unavailable_service(connection, fault, deferrable) -> None:
    """A short outage must not cost an export that took hours."""
    fault("status:503", "/api/v2/tasks", times=3)
    assert run(exporting(deferrable=deferrable))


def test_a_task_resumed_by_another_version_says_so() -> None:
    """Worker and triggerer are upgraded one after the other."""
    with pytest.raises(AirflowFailException, match=r"version 2.*install the same on both"):
        exporting().execute_complete({}, event={"v": 2, "status": "completed"})


def test_a_task_resumed_without_an_event_says_so() -> None:
    """The row of a trigger may be lost; a KeyError would not help."""
    with pytest.raises(AirflowFailException, match="without an event"):
        exporting().execute_complete({}, event=None)
