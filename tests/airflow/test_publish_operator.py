"""The operator that publishes a lake."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import deltalake
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, Asset
from airflow.sdk import DAG
from lakes import LakeProbe, load_file, write_export

from airflow_provider_chatexport.operators.publish import PublishLakeOperator


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    lake = LakeProbe(str(tmp_path / "lake"))
    load_file(lake, write_export(tmp_path / "one", {"a": (8, "a1")}), 8, 10, "2026-01-02T01:00:00Z")
    return lake


def test_a_run_publishes_once_and_says_what_it_did(lake: LakeProbe) -> None:
    """What it returns is small, for XCom; a retry, or a second run without loads, changes nothing."""
    asset, event = Asset(uri="x-lake://chat", name="chat"), SimpleNamespace(extra={})
    operator = PublishLakeOperator(task_id="publish", lake=Path(lake.uri), format="delta", outlets=[asset])
    context: Any = {"outlet_events": {asset: event}}
    summary = json.loads(json.dumps(operator.execute(context)))
    assert ("delta", True) == (summary["format"], summary["changed"])
    assert summary == event.extra
    (messages,) = (each for each in summary["tables"] if each["table"] == "messages")
    assert (1, 1) == (messages["rows"], deltalake.DeltaTable(messages["place"]).count())
    assert not operator.execute(context)["changed"]


def test_lake_and_catalog_are_templates(lake: LakeProbe) -> None:
    with DAG("publishing", schedule=None):
        operator = PublishLakeOperator(
            task_id="publish", lake="{{ params.lake }}", format="delta", catalog="{{ '' }}", work_dir="{{ '' }}"
        )
    operator.render_template_fields({"params": {"lake": lake.uri}})
    assert lake.uri == operator.lake
    assert operator.execute({})["changed"]


def test_what_is_wrong_is_said_when_the_dag_is_parsed_or_without_a_retry(lake: LakeProbe) -> None:
    """Another format fails the import of the DAG; no retry helps a connection for a local lake."""
    with pytest.raises(AirflowException, match="a lake is published as delta or iceberg, and the format is 'parquet'"):
        PublishLakeOperator(task_id="publish", lake=lake.uri, format="parquet")
    operator = PublishLakeOperator(task_id="publish", lake=lake.uri, format="delta", lake_conn_id="aws_default")
    with pytest.raises(AirflowFailException, match=r"lake_conn_id is .aws_default., and the lake .* is a local folder"):
        operator.execute({})
    operator = PublishLakeOperator(task_id="publish", lake=lake.uri, format="delta", work_dir="None")
    with pytest.raises(AirflowFailException, match="work_dir is empty; give a folder, or leave it out"):
        operator.execute({})
