"""The task group for the usual case: where its arguments go."""

from __future__ import annotations

import inspect
import re
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DAG, Asset

from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator
from airflow_provider_chatexport.task_groups import ExportArguments, LoadArguments, chat_export_to_lake


def dag_of(**arguments):
    with DAG(dag_id="group", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
        chat_export_to_lake(**{"lake": "/lake", **arguments})
    return dag


def test_arguments_reach_their_task() -> None:
    """The group adds ids and a dependency; all that the operators can do, it can do."""
    asset = Asset("lake", uri="file:///lake")
    dag = dag_of(
        channels=["a:b"],
        group_id="chat",
        chatexport_conn_id="mine",
        lookback=timedelta(days=1),
        grace_period=timedelta(0),
        outlets=[asset],
        export={"pool": "exports"},
        max_window=timedelta(hours=1),
        keep_superseded=True,
        default_args={"retries": 7},
    )
    export, load = dag.task_dict["chat.export"], dag.task_dict["chat.load"]
    assert export.downstream_task_ids == {"chat.load"}
    assert (["a:b"], timedelta(days=1), timedelta(0)) == (export.channels, export.lookback, export.grace_period)
    assert (timedelta(hours=1), "exports", True) == (export.max_window, export.pool, export.deferrable)
    assert ("/lake", [asset], True) == (load.lake, load.outlets, load.options.keep_superseded)
    assert ["mine"] * 2 == [task.chatexport_conn_id for task in (export, load)]
    assert [7] * 2 == [task.retries for task in (export, load)]


def test_each_batch_is_exported_and_loaded_on_its_own() -> None:
    """A finished batch does not wait for the others: export and load are mapped together."""
    dag = dag_of(channels=ChannelQuery(), extra_channels=["a:b"], channels_per_task=7, export={"pool": "exports"})
    listing, export = (dag.task_dict[f"chat_export_to_lake.{name}"] for name in ("channels", "batch.export"))
    assert (7, ["a:b"]) == (listing.channels_per_task, listing.extra_channels)
    assert {"chat_export_to_lake.batch.export"} == listing.downstream_task_ids
    assert {"chat_export_to_lake.batch.load"} == export.downstream_task_ids
    assert ("exports", True) == (export.pool, export.get_closest_mapped_task_group() is not None)


def test_the_whole_history_reaches_every_task_that_has_a_window() -> None:
    """The search for channels must not wait for a window that the export does not have."""
    dag = dag_of(channels=ChannelQuery(), channels_per_task=7, window="all")
    names = ("channels", "batch.export")
    listing, export = (dag.task_dict[f"chat_export_to_lake.{name}"] for name in names)
    assert ["all"] * 2 == [listing.window, export.window]
    assert "all" == dag_of(channels=["a:b"], window="all").task_dict["chat_export_to_lake.export"].window


def test_two_groups_fit_into_one_dag() -> None:
    """There may be two apps with two lakes and one schedule."""
    with DAG(dag_id="group", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
        first = chat_export_to_lake(lake="/a", group_id="a", chatexport_conn_id="app_a")
        first >> chat_export_to_lake(lake="/b", group_id="b", chatexport_conn_id="app_b")
    assert {"b.export"} == dag.task_dict["a.load"].downstream_task_ids


@pytest.mark.parametrize(
    "arguments",
    [{"export": {"channels": "a:b"}}, {"load": {"lake": "/b"}}, {"load": {"exports": []}}, {"export": {"wait": False}}],
)
def test_an_argument_in_two_places_is_refused(arguments) -> None:
    """The DAG would not show which of the two counts."""
    with pytest.raises(CallError, match="which chat_export_to_lake sets itself; remove it there"):
        dag_of(**arguments)


def test_the_group_takes_every_argument_of_its_operators() -> None:
    """A user should not have to look up what goes into a dictionary. Types are the same, so editors help alike."""
    group = inspect.signature(chat_export_to_lake).parameters
    left_out = {"self", "kwargs", "exports", "wait", "lake", "deferrable"}
    for operator, handed_on in ((ExportChannelsOperator, ExportArguments), (LoadExportOperator, LoadArguments)):
        ours = [each for each in operator.__mro__ if each.__module__.startswith("airflow_provider_chatexport")]
        theirs: dict[str, str] = {}
        for each in reversed(ours):
            theirs |= {name: p.annotation for name, p in inspect.signature(each.__init__).parameters.items()}
        mine = {name: group[name].annotation for name in group if name in theirs} | {
            name: annotation.__forward_arg__ for name, annotation in handed_on.__annotations__.items()
        }
        assert "lake" in mine
        assert {name: theirs[name] for name in theirs.keys() - left_out} == {
            name: mine[name] for name in mine.keys() - left_out
        }


def test_an_argument_goes_to_the_task_that_has_it() -> None:
    """A window of the group is also that of the search for channels."""
    window = {"since": "2025-01-01T00:00:00Z", "until": "{{ ds }}"}
    dag = dag_of(
        channels=ChannelQuery(), channels_per_task=7, max_splits=2, promote={"messages": {"a": "BIGINT"}}, **window
    )
    names = ("channels", "batch.export", "batch.load")
    listing, export, load = (dag.task_dict[f"chat_export_to_lake.{name}"] for name in names)
    assert [("2025-01-01T00:00:00Z", "{{ ds }}")] * 2 == [(task.since, task.until) for task in (listing, export)]
    assert (2, {"messages": {"a": "BIGINT"}}) == (export.max_splits, load.options.promote)


@pytest.mark.parametrize(
    ("argument", "hint"),
    [("sinse", "did you mean since?"), ("pool", "in export, load or default_args"), ("wait", "has no argument wait")],
)
def test_an_unknown_argument_is_refused_with_a_hint(argument, hint) -> None:
    """A misspelled argument must not reach Airflow, whose error names neither the group nor a remedy."""
    with pytest.raises(CallError, match=re.escape(hint)):
        dag_of(**{argument: "x"})
