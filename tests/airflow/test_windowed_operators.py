"""What operators with a window or with channels share, and the operator that splits a window."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG
from airflow.serialization import serialized_objects
from support import SINCE, UNTIL, WINDOW

from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.operators.channels import ChannelsArgument, ListChannelsOperator
from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.windowed import SplitWindowOperator, WindowedOperator

WINDOW_ARGUMENTS = {
    "window": None,
    "since": SINCE,
    "until": UNTIL,
    "lookback": 60,
    "partition_span": timedelta(days=1),
    "grace_period": timedelta(0),
    "allow_open_window": True,
}
CHANNELS_ARGUMENTS = {"channels": ["a:b"], "extra_channels": ["a:c"]}
ALL_ARGUMENTS = {**WINDOW_ARGUMENTS, **CHANNELS_ARGUMENTS, "deferrable": True, "chatexport_conn_id": "mine"}

both_operators = pytest.mark.parametrize("operator_class", [ExportChannelsOperator, ListChannelsOperator])


def parameters_of(operator_class: type) -> set[str]:
    return inspect.signature(operator_class.__init__).parameters.keys() - {"self", "kwargs"}


def splitting(**arguments: Any) -> SplitWindowOperator:
    return SplitWindowOperator(task_id="windows", **arguments)


@both_operators
def test_shared_arguments_are_in_the_signature_of_each_operator(operator_class) -> None:
    """Editors complete them and type checkers see them; ``**kwargs`` would hide them."""
    assert WINDOW_ARGUMENTS.keys() == parameters_of(WindowedOperator)
    assert CHANNELS_ARGUMENTS.keys() == parameters_of(ChannelsArgument)
    assert {*WINDOW_ARGUMENTS, *CHANNELS_ARGUMENTS} <= parameters_of(operator_class)


@both_operators
def test_shared_arguments_reach_a_mapped_task(operator_class) -> None:
    """Airflow checks them when it parses the DAG, and creates the operator from them when the task runs."""
    mapped_over = {"since": SINCE, "channels": ["a:b"]}
    partial = {name: value for name, value in ALL_ARGUMENTS.items() if name not in mapped_over}
    with DAG(dag_id="mapped", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)):
        mapped = operator_class.partial(task_id="task", **partial).expand_kwargs([mapped_over])
    operator = mapped.unmap(mapped_over)
    expected = {**ALL_ARGUMENTS, "lookback": timedelta(minutes=1)}
    assert expected == {name: getattr(operator, name) for name in expected}
    assert WINDOW.looking_back(timedelta(minutes=1)) == operator.run_window({})


@both_operators
def test_shared_arguments_may_be_default_arguments(operator_class) -> None:
    """A DAG may set them once for all of its tasks."""
    with DAG(dag_id="defaults", schedule=None, default_args=ALL_ARGUMENTS):
        operator = operator_class(task_id="task", until=None)
    expected = {**ALL_ARGUMENTS, "lookback": timedelta(minutes=1), "until": None}
    assert expected == {name: getattr(operator, name) for name in expected}


def test_a_dag_with_all_of_them_is_serialized() -> None:
    """The scheduler knows a DAG only in this form; it must have the fields that templates fill."""
    with DAG(dag_id="serialized", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
        windows = splitting(max_window=3600, since="{{ ds }}", until=UNTIL)
        ExportChannelsOperator.partial(task_id="export", channels=["a:b"]).expand_kwargs(windows.output)
        ListChannelsOperator(task_id="channels", **ALL_ARGUMENTS)
    # Before Airflow 3.3 the class had another name.
    serializer = getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG
    serialized = json.loads(json.dumps(serializer.to_dict(dag)))
    tasks = {task["__var"]["task_id"]: task["__var"] for task in serialized["dag"]["tasks"]}
    assert {"windows", "export", "channels"} == tasks.keys()
    assert {"since", "until", "chatexport_conn_id"} == {*tasks["windows"]["template_fields"]}
    shared = {"channels", "extra_channels", "window", "since", "until", "chatexport_conn_id"}
    checked = {"lake", "lake_conn_id"}
    assert [shared | checked, shared] == [{*tasks[name]["template_fields"]} for name in ("export", "channels")]
    assert "{{ ds }}" == tasks["windows"]["since"]


def test_the_short_windows_tile_the_window_of_the_run() -> None:
    """Consecutive windows leave no gap and no overlap; the last may be shorter."""
    windows = splitting(max_window=timedelta(minutes=50), since=SINCE, until=UNTIL).execute({})
    parsed = [Window.from_json(window) for window in json.loads(json.dumps(windows))]
    assert [50, 50, 20] == [window.span // timedelta(minutes=1) for window in parsed]
    assert [WINDOW.since, *(window.until for window in parsed)] == [*(window.since for window in parsed), WINDOW.until]


def test_the_window_to_split_may_come_from_the_run() -> None:
    """A backfill is triggered with a window; the operator finds it as all operators do."""
    context = {"dag_run": SimpleNamespace(conf={"since": SINCE, "until": UNTIL})}
    hours = splitting(max_window=3600).execute(context)
    assert [window.to_json() for window in WINDOW.split(timedelta(hours=1))] == hours
    assert 3 == len(splitting(max_window=3600, lookback=3600).execute(context))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"max_window": 3600}, "this run has no window"),
        ({"max_window": 3600, "since": UNTIL, "until": SINCE}, "reversed"),
        ({"max_window": 3600, "since": SINCE, "until": "2100-01-01"}, "ends in the future"),
        ({"max_window": 0}, r"^max_window is 0; give a duration above 0"),
        ({"max_window": None}, r"^max_window is None; give a duration above 0"),
        ({"max_window": "7d"}, r"^max_window is '7d'; give a timedelta"),
    ],
)
def test_a_window_that_cannot_be_split_fails_without_retries(arguments, sentence) -> None:
    """The next try would have the same window."""
    with pytest.raises(AirflowFailException, match=sentence):
        splitting(**arguments).execute({})


def test_more_windows_than_airflow_maps_are_refused_with_the_length_that_fits(monkeypatch) -> None:
    """Airflow's own error does not say what to set."""
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "7")
    ends = {"since": SINCE, "until": UNTIL}
    with pytest.raises(AirflowFailException, match=r"more than 7 windows of 0:01:00, .* set max_window to 0:17:09 or"):
        splitting(max_window=60, **ends).execute({})
    assert 7 == len(splitting(max_window=timedelta(minutes=17, seconds=9), **ends).execute({}))


# The whole history


def test_the_whole_history_needs_no_window_of_the_run() -> None:
    """A manual run without a logical date has none, and the first load of a channel needs none."""
    for operator_class in (ExportChannelsOperator, ListChannelsOperator):
        operator = operator_class(task_id="task", channels=["a:b"], window="all")
        assert operator.run_window({}) is None
        operator.wait_out_grace_period({})
    (request,) = ExportChannelsOperator(task_id="task", channels=["a:b"], window="all").plan({})
    assert request.window is None


def test_a_run_may_ask_for_the_whole_history() -> None:
    """A daily DAG is triggered once for what was before; its lookback and the length of its windows do not matter."""
    operator = ExportChannelsOperator(task_id="task", channels=["a:b"], lookback=3600, max_window=3600)
    context: Any = {
        "dag_run": SimpleNamespace(conf={"window": "all"}),
        "data_interval_start": datetime(2025, 1, 1, tzinfo=UTC),
        "data_interval_end": datetime(2025, 1, 2, tzinfo=UTC),
    }
    (request,) = operator.plan(context)
    assert request.window is None
    named = ExportChannelsOperator(task_id="task", channels=["a:b"], since=SINCE, until=UNTIL)
    assert WINDOW == named.run_window(context)
    with pytest.raises(AirflowFailException, match="has no start, and cannot be split"):
        splitting(max_window=3600).execute(context)


@pytest.mark.parametrize("value", [None, "", "None"])
def test_a_template_without_a_value_is_no_whole_history(value) -> None:
    """A mapped task has the argument for every window, and a value only for a whole history."""
    operator = ExportChannelsOperator(task_id="task", channels=["a:b"], window=value, since=SINCE, until=UNTIL)
    assert WINDOW == operator.run_window({})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"since": SINCE}, 'have window="all" and since or until; leave out one or the other'),
        ({"until": UNTIL}, 'have window="all" and since or until; leave out one or the other'),
        ({"lookback": timedelta(days=1)}, "exports the whole history; leave lookback out"),
        ({"max_window": timedelta(days=1)}, "which is not split; leave max_window out"),
    ],
)
def test_the_whole_history_goes_with_no_window(arguments, sentence) -> None:
    """One of both is a mistake, and Airflow says so when it parses the DAG."""
    with pytest.raises(AirflowFailException, match=sentence):
        ExportChannelsOperator(task_id="task", channels=["a:b"], window="all", **arguments)


@pytest.mark.parametrize(
    ("arguments", "conf", "sentence"),
    [
        ({"window": "everything"}, {}, "window in the operator's arguments is 'everything'; write \"all\""),
        ({}, {"window": "everything"}, "window in the run's conf or params is 'everything'; write \"all\""),
        ({}, {"window": "all", "since": SINCE}, 'the run\'s conf or params have window="all" and since or until'),
    ],
)
def test_another_word_than_all_fails_without_retries(arguments, conf, sentence) -> None:
    """A template, or a person, gave it when the DAG was parsed already."""
    operator = ExportChannelsOperator(task_id="task", channels=["a:b"], **arguments)
    with pytest.raises(AirflowFailException, match=sentence):
        operator.execute({"dag_run": SimpleNamespace(conf=conf)})
