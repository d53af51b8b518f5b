"""The operator that lists what a lake does not cover, and the tasks that are mapped over its list."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.sdk import DAG
from airflow.serialization import serialized_objects
from support import exporting, loading

from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.operators.channels import ChannelsArgument
from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.gaps import ListGapsOperator

UBUNTU, RUST = "livestream:ubuntu", "messaging:rust"


def at(hour: int, minute: int = 0) -> str:
    return f"2025-01-01T{hour:02}:{minute:02}:00.000000Z"


def listing(lake: Any, **arguments: Any) -> ListGapsOperator:
    return ListGapsOperator(task_id="gaps", lake=lake, **arguments)


def export_and_load(lake: Path, **arguments: Any) -> None:
    exports = exporting(deferrable=False, **arguments).execute({})
    loading(exports, lake).execute({})


@pytest.fixture
def lake(tmp_path: Path, connection: Any) -> Path:
    """A lake that covers two hours of a channel, with an hour between them."""
    for hour in (1, 3):
        export_and_load(tmp_path / "lake", since=at(hour), until=at(hour + 1))
    return tmp_path / "lake"


def window(since: int, until: int, *channels: str) -> dict[str, Any]:
    return {"channels": list(channels or [UBUNTU]), "window": None, "since": at(since), "until": at(until)}


def test_gaps_are_the_arguments_of_export_tasks(lake: Path) -> None:
    """The failed hour, and the time since the newest export; a channel that is new, with its whole history."""
    gaps = listing(lake, channels=[UBUNTU, RUST], until=at(6)).execute({})
    whole = {"channels": [RUST], "window": "all", "since": None, "until": None}
    assert [window(2, 3), window(4, 6), whole] == json.loads(json.dumps(gaps))
    for arguments in gaps:
        export_and_load(lake, **arguments)
    assert [] == listing(lake, channels=[UBUNTU, RUST], until=at(6)).execute({})


def test_the_channels_may_be_those_of_the_lake_of_the_run_or_of_a_query(lake: Path) -> None:
    """Without any, the lake itself says what should be kept up to date."""
    in_conf: Any = {"dag_run": SimpleNamespace(conf={"channels": [RUST], "since": at(5)})}
    assert [window(2, 3), window(4, 6)] == listing(lake, until=at(6)).execute({})
    assert [window(5, 6, RUST)] == listing(lake, until=at(6)).execute(in_conf)
    extra = listing(lake, extra_channels=RUST, until=at(6), since=at(5)).execute({})
    assert [window(5, 6, UBUNTU, RUST)] == extra
    query = ChannelQuery(filter_conditions={"cid": {"$in": [UBUNTU]}})
    assert [window(5, 6)] == listing(lake, channels=query, until=at(6), since=at(5)).execute({})
    none = ChannelQuery(filter_conditions={"type": "no-such-type"})
    assert [[], []] == [listing(lake, channels=empty, until=at(6)).execute({}) for empty in (none, [])]


def test_the_end_is_that_of_the_run(lake: Path) -> None:
    """An hourly run covers its hour; one by hand covers everything up to the grace period."""
    interval: Any = {"data_interval_start": datetime(2025, 1, 1, 8, tzinfo=UTC)}
    interval["data_interval_end"] = datetime(2025, 1, 1, 9, tzinfo=UTC)
    assert [window(2, 3), window(4, 9)] == listing(lake).execute(interval)
    in_conf: Any = {**interval, "dag_run": SimpleNamespace(conf={"until": at(5)})}
    assert [window(2, 3), window(4, 5)] == listing(lake).execute(in_conf)
    assert [window(2, 3)] == listing(lake, until=at(3)).execute(in_conf)
    now = datetime.now(UTC)
    by_hand = listing(lake, grace_period=600).execute({})[-1]
    ends_ago = now - datetime.fromisoformat(by_hand["until"])
    assert timedelta(minutes=9) < ends_ago <= timedelta(minutes=10)
    ahead = listing(lake, until=now + timedelta(days=1)).execute({})[-1]
    assert timedelta(0) >= now - datetime.fromisoformat(ahead["until"]) > timedelta(minutes=-5)


def test_gaps_are_split_batched_and_preceded_by_a_lookback(lake: Path) -> None:
    """Each entry becomes a mapped task, with as many channels and as long a window as one task should have."""
    looking_back = listing(lake, until=at(6), lookback=timedelta(minutes=30), max_window=3600)
    before = [{**window(2, 3), "since": at(1, 30)}, {**window(4, 5), "since": at(3, 30)}]
    assert [*before, window(5, 6)] == looking_back.execute({})
    each_alone = listing(lake, channels=[UBUNTU, RUST], since=at(5), until=at(6), channels_per_task=1).execute({})
    assert [window(5, 6, UBUNTU), window(5, 6, RUST)] == each_alone


def test_more_windows_than_airflow_maps_are_refused(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own error does not say what to set."""
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    with pytest.raises(AirflowFailException, match=r"3 windows are missing, and Airflow maps 2 .* a longer max_window"):
        listing(lake, until=at(6), max_window=3600).execute({})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"lake": ""}, "lake is empty"),
        ({}, "covers no channel yet; name channels, or give a query"),
        ({"channels": ["ubuntu"]}, "TYPE:ID"),
        ({"channels": [UBUNTU], "since": "yesterday"}, "since is not a time"),
        ({"channels": [UBUNTU], "since": "2025-01-01T00:00:00"}, "since .* has no time zone"),
        ({"channels": [UBUNTU], "since": "2100-01-01"}, "since is 2100-01-01"),
        ({"max_window": "7d"}, "max_window is '7d'; give a timedelta"),
        ({"channels": [UBUNTU], "max_window": 0}, "max_window is 0:00:00; give a duration"),
        ({"channels_per_task": 0}, "channels_per_task is 0"),
        ({"channels_per_task": "250"}, "channels_per_task is '250'; give a whole number"),
    ],
)
def test_a_wrong_argument_fails_without_retries(tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    """The next try would fail alike; the error says what to change."""
    with pytest.raises(AirflowFailException, match=sentence):
        listing(**{"lake": tmp_path / "lake", **arguments}).execute({})


def test_a_lake_that_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    """An object store may be back in a minute."""
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(AirflowException) as caught:
        listing(file / "lake", channels=[UBUNTU]).execute({})
    assert not isinstance(caught.value, AirflowFailException)


def test_the_arguments_are_in_the_signature_and_survive_serialization() -> None:
    """The scheduler knows a DAG only in this form; it must have the fields that templates fill."""
    shared = inspect.signature(ChannelsArgument.__init__).parameters.keys() - {"self", "kwargs"}
    assert shared <= inspect.signature(ListGapsOperator.__init__).parameters.keys()
    with DAG(dag_id="gaps", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
        gaps = listing(Path("/lake"), since="{{ ds }}")
        ExportChannelsOperator.partial(task_id="export").expand_kwargs(gaps.output)
    serializer = getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG
    tasks = json.loads(json.dumps(serializer.to_dict(dag)))["dag"]["tasks"]
    (task,) = (each["__var"] for each in tasks if each["__var"]["task_id"] == "gaps")
    assert ("/lake", "{{ ds }}") == (task["lake"], task["since"])
    fields = {"lake", "lake_conn_id", "channels", "extra_channels", "since", "until", "chatexport_conn_id"}
    assert fields == {*task["template_fields"]}


def test_a_failed_window_is_in_the_next_list_with_its_lookback(lake: Path, connection: Any, fault: Any) -> None:
    """Nothing remembers it but the lake, which still misses it.

    Regression: newer windows were loaded, so the next lookback began later, and this one was never exported again.
    """
    gaps = partial(listing, lake, until=at(6), lookback=timedelta(minutes=30), max_window=3600)
    (_, failed, newer) = gaps().execute({})
    fault("fail-task", "/api/v2/chat/export_channels")
    with pytest.raises(AirflowException, match="ended as failed"):
        export_and_load(lake, **failed)
    export_and_load(lake, **newer)
    assert failed in gaps().execute({})
    assert {UBUNTU} == Lake(lake).coverage_runs().keys()
