"""The task group for the usual case: where its arguments go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DAG, Asset

from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.task_groups import chat_export_to_lake


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
        export={"max_window": timedelta(hours=1), "pool": "exports"},
        load={"keep_superseded": True},
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
    "arguments", [{"export": {"channels": "a:b"}}, {"load": {"lake": "/b"}}, {"load": {"exports": []}}]
)
def test_an_argument_in_two_places_is_refused(arguments) -> None:
    """The DAG would not show which of the two counts."""
    with pytest.raises(CallError, match="which chat_export_to_lake sets itself; remove it there"):
        dag_of(**arguments)
