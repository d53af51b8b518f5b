"""The lineage of a load: its source, the tables that it wrote, their rows."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from support import exported, loading

from airflow_provider_chatexport.operators.lineage import lineage_of
from airflow_provider_chatexport.operators.load import LoadExportOperator


def test_openlineage_gets_tables_columns_and_rows(connection, tmp_path) -> None:
    """The OpenLineage provider finds the operator's method. No channel and no user is named."""
    lake = tmp_path / "lake"
    operator = loading(exported(), lake)
    summary = operator.execute({})
    assert ExtractorManager().get_extractor_class(operator) is not None
    lineage: Any = operator.get_openlineage_facets_on_complete(None)
    host = connection.url.removeprefix("http://")
    assert [(f"chatexport://{host}", "channels")] == [(each.namespace, each.name) for each in lineage.inputs]
    (messages,) = (each for each in lineage.outputs if each.name == f"{lake}/messages")
    assert "file" == messages.namespace
    assert summary["rows"]["messages"] == messages.outputFacets["outputStatistics"].rowCount
    columns = {field.name: field.type for field in messages.facets["schema"].fields}
    assert columns["created_at"].startswith("TIMESTAMP")
    assert "livestream:ubuntu" not in repr(lineage)


def test_only_the_run_that_wrote_the_rows_counts_them(connection, tmp_path) -> None:
    """A cleared task has the same inputs and outputs, and has written nothing."""
    exports = exported()
    operators = [loading(exports, tmp_path / "lake") for _ in range(2)]
    for operator in operators:
        operator.execute({})
    first, again = (operator.get_openlineage_facets_on_complete(None) for operator in operators)
    assert [each.name for each in first.outputs] == [each.name for each in again.outputs]
    assert {True} == {"outputStatistics" in each.outputFacets for each in first.outputs}
    assert {False} == {"outputStatistics" in each.outputFacets for each in again.outputs}


def test_a_load_that_did_not_happen_has_no_lineage(tmp_path) -> None:
    """A failed task has written no table."""
    assert (
        LoadExportOperator(task_id="load", exports=[], lake=tmp_path).get_openlineage_facets_on_complete(None) is None
    )


@pytest.mark.parametrize(
    ("lake", "named"),
    [
        ("s3://chat/lake/", ("s3://chat", "lake")),
        ("gs://chat", ("gs://chat", "/")),
        ("/data/lake", ("file", "/data/lake")),
        ("file:///data/lake", ("file", "/data/lake")),
    ],
)
def test_lakes_have_the_names_of_openlineage(lake, named) -> None:
    """Other tools that read the same folder must use the same name for it."""
    from airflow_provider_chatexport.pipeline import WrittenTable  # noqa: PLC0415 - as the operator does

    table = WrittenTable(name="messages", columns=(), n_rows=1, n_files=1, size_bytes=1)
    (output,) = lineage_of(service_host="h", kinds=["users"], lake_uri=lake, tables=[table]).outputs
    namespace, folder = named
    assert (namespace, f"{folder}/messages") == (output.namespace, output.name)


def test_airflows_own_collector_gets_the_lineage(connection, tmp_path) -> None:
    """Some readers of lineage do not use OpenLineage."""
    pytest.importorskip("airflow.sdk.lineage", reason="this Airflow collects lineage elsewhere")
    loading(exported(), tmp_path / "lake").execute({})
    collected = get_hook_lineage_collector().collected_assets
    host = connection.url.removeprefix("http://")
    assert f"chatexport://{host}/channels" in {each.asset.uri for each in collected.inputs}
    assert (tmp_path / "lake").as_uri() in {each.asset.uri for each in collected.outputs}
