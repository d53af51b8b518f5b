"""Channels that a query finds, over a real socket."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred
from support import EXPORTS, SINCE, UNTIL, exporting, run

from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.operators.channels import ListChannelsOperator

DELETED = "messaging:retired"
N_CHANNELS = 1_500


@pytest.fixture
def many_channels(start_sandbox, set_connection, tmp_path: Path) -> list[str]:
    """The channels of a sandbox that has more of them than offsets reach, one message each."""
    cids = [f"messaging:c{number:05}" for number in range(N_CHANNELS)]
    at = "2025-01-01T00:30:00Z"
    messages = [{"cid": cid, "id": cid, "at": at, "author": "ann", "kind": "regular", "text": "hi"} for cid in cids]
    corpus = tmp_path / "many.ndjson"
    corpus.write_text("\n".join(json.dumps(message) for message in messages))
    sandbox = start_sandbox(data=corpus)
    set_connection(login=sandbox.api_key, password=sandbox.api_secret, host=sandbox.url)
    return cids


def listing(**arguments: Any) -> ListChannelsOperator:
    return ListChannelsOperator(task_id="channels", **arguments)


def test_channels_past_the_offset_limit_are_planned_once_each(many_channels) -> None:
    """Offsets end at 1000 without an error: paging by them returns the same page for ever."""
    requests = exporting(channels=ChannelQuery()).plan({})
    assert sorted(many_channels) == sorted(cid for request in requests for cid in request.channels)
    assert len(requests) == N_CHANNELS / 25


def test_batches_contain_each_channel_once(many_channels) -> None:
    """Mapped tasks get lists of channels, small enough for XCom, without repeats."""
    batches = json.loads(json.dumps(listing(channels=ChannelQuery(), channels_per_task=400).execute({})))
    assert [400, 400, 400, 300] == [len(batch) for batch in batches]
    assert sorted(many_channels) == sorted(cid for batch in batches for cid in batch)


def test_a_query_finds_the_channels_of_its_filter(connection) -> None:
    """Soft-deleted channels, which no query finds, can be added by name."""
    query = ChannelQuery(filter_conditions={"type": "team"})
    deleted = {"extra_channels": [DELETED], "include_soft_deleted_channels": True}
    (request,) = exporting(channels=query, **deleted).plan({})
    assert {"team:mediawiki", "team:ubuntu-meeting", DELETED} == set(request.channels)
    assert 1 == len(run(exporting(channels=query, **deleted, deferrable=True)))


def test_a_filter_may_contain_templates(connection) -> None:
    """Which channels are active depends on the run."""
    query = ChannelQuery(filter_conditions={"type": {"$in": ["{{ params.kind }}"]}})
    ((cid,),) = listing(channels=query).execute({"params": {"kind": "commerce"}})
    assert cid == "commerce:stripe"


def test_a_filter_knows_the_ends_of_the_window(connection) -> None:
    """Whatever the window comes from, and with the lookback: a manual run has no data interval."""
    query = ChannelQuery(filter_conditions={"created_at": {"$gt": "{{ since }}", "$lt": "{{ until }}"}})
    conf = {"dag_run": SimpleNamespace(conf={"since": "2024-12-23T00:00:00Z", "until": "2024-12-24T00:00:00Z"})}
    interval = {"data_interval_start": datetime(2030, 1, 1, tzinfo=UTC), "data_interval_end": datetime.now(UTC)}
    requests = exporting(channels=query, since=None, until=None).plan({**interval, **conf})
    assert {"messaging:ubuntu-support", "team:mediawiki"} == {cid for request in requests for cid in request.channels}
    assert [["messaging:ubuntu-support", "team:mediawiki"]] == listing(channels=query).execute({**interval, **conf})
    later = {"dag_run": SimpleNamespace(conf={"since": "2024-12-24T00:00:00Z", "until": "2024-12-25T00:00:00Z"})}
    assert [] == listing(channels=query).execute(later)
    assert 2 == len(listing(channels=query, lookback=timedelta(days=1)).execute(later)[0])


def test_a_template_that_cannot_be_rendered_is_one_sentence(connection) -> None:
    """It names the variables that are always there."""
    query = ChannelQuery(filter_conditions={"last_message_at": {"$gte": "{{ data_interval_start.isoformat() }}"}})
    with pytest.raises(AirflowFailException, match=r"'data_interval_start' is undefined; .*\{\{ since \}\}"):
        exporting(channels=query).execute({})


def test_named_channels_and_those_of_the_run_can_be_batched_too(connection) -> None:
    """Mapping is not for queries only; repeats are dropped."""
    assert [["a:b", "a:c"], ["a:d"]] == listing(
        channels="a:b,a:c", extra_channels=["a:d", "a:b"], channels_per_task=2
    ).execute({})
    assert [["a:b"]] == listing().execute({"params": {"channels": ["a:b"]}})


@pytest.mark.parametrize("nothing", [None, "", "None", []])
def test_nothing_to_list_is_refused(nothing) -> None:
    """Mapped over no batch, all later tasks would be skipped and the run would succeed."""
    with pytest.raises(AirflowFailException, match="no channel to list"):
        listing(channels=nothing).execute({})


def test_an_empty_list_is_not_replaced_by_the_runs_channels() -> None:
    """An earlier task selected no channel: the channels of the conf are not its selection."""
    context = {"params": {"channels": ["a:b"]}}
    with pytest.raises(AirflowFailException, match="no channel to list"):
        listing(channels=[]).execute(context)
    with pytest.raises(AirflowFailException, match="no channel to export"):
        exporting(channels=[]).execute(context)


def test_an_export_fails_if_its_query_finds_nothing(connection) -> None:
    """Otherwise the task would succeed in an empty app, or with a mistyped filter."""
    with pytest.raises(AirflowFailException, match="the channel query finds no channel"):
        exporting(channels=ChannelQuery(filter_conditions={"type": "nonesuch"})).execute({})
    assert [] == connection.control.requests(EXPORTS)
    assert [] == listing(channels=ChannelQuery(filter_conditions={"type": "nonesuch"})).execute({})


def test_an_export_may_skip_if_its_query_finds_nothing(connection) -> None:
    """A query for active channels may find none at night, which is not a failure."""
    operator = exporting(channels=ChannelQuery(filter_conditions={"type": "nonesuch"}), on_no_channels="skip")
    with pytest.raises(AirflowSkipException, match="finds no channel"):
        operator.execute({})


def test_a_filter_with_text_that_a_template_made_of_a_list_names_the_cause(connection) -> None:
    """The service would find no channel, or refuse the filter in its own words."""
    query = ChannelQuery(filter_conditions={"type": {"$in": "{{ params.kinds }}"}})
    with pytest.raises(AirflowFailException, match=r"type.\$in .* set render_template_as_native_obj=True on the DAG"):
        listing(channels=query).execute({"params": {"kinds": ["commerce"]}})
    assert [] == connection.control.requests("/api")
    number = ChannelQuery(filter_conditions={"created_at": {"$gt": "{{ params.day }}"}})
    with pytest.raises(AirflowFailException, match=r"was refused: .* \(templates in its conditions make text"):
        listing(channels=number).execute({"params": {"day": 17}})


def test_a_filter_that_the_service_refuses_is_one_sentence(connection) -> None:
    """A retry would send the same filter."""
    with pytest.raises(AirflowFailException, match="listing channels was refused"):
        listing(channels=ChannelQuery(filter_conditions={"type": {"$near": 1}})).execute({})


def test_a_wrong_window_is_refused_before_the_search(connection) -> None:
    """A search may take thousands of requests."""
    with pytest.raises(AirflowFailException, match="reversed"):
        exporting(channels=ChannelQuery(), since=UNTIL, until=SINCE).execute({})
    assert [] == connection.control.requests("/api")


def test_more_batches_than_airflow_maps_are_refused_with_the_size_that_fits(monkeypatch) -> None:
    """Airflow's own error does not say what to set."""
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    channels = [f"a:{number}" for number in range(5)]
    with pytest.raises(AirflowFailException, match="set channels_per_task to 3 or more"):
        listing(channels=channels, channels_per_task=2).execute({})
    with pytest.raises(CallError, match="channels_per_task is 0"):
        listing(channels_per_task=0)


def test_the_search_comes_after_the_grace_period(connection) -> None:
    """A channel that is created during the grace period may have messages in the window."""
    until = datetime.now(UTC)
    operator = exporting(channels=ChannelQuery(), since="2025-01-01T00:00:00Z", until=until, deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute({})
    assert deferral.value.method_name == "execute_after_grace_period"
    context = {"data_interval_start": until - timedelta(hours=1), "data_interval_end": until}
    with pytest.raises(TaskDeferred) as deferral:
        listing(channels=ChannelQuery(), deferrable=True).execute(context)
    assert deferral.value.method_name == "execute_after_grace_period"
    assert [] == connection.control.requests("/api")
    assert listing(channels=ChannelQuery(), grace_period=0, deferrable=True).execute_after_grace_period(context)
