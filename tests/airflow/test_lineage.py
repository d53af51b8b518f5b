"""What a load tells of its lineage: where it came from, which tables it wrote, how many rows."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from test_load_operator import exported, loading

from airflow_provider_chatexport.operators.lineage import lineage_of
from airflow_provider_chatexport.operators.load import LoadExportOperator


def test_openlineage_is_told_tables_columns_and_rows(connection, tmp_path) -> None:
    """By the operator's own method, which the OpenLineage provider looks for; nobody is named."""
    lake = tmp_path / "lake"
    operator = loading(exported(), lake)
    told = operator.execute({})
    assert ExtractorManager().get_extractor_class(operator) is not None
    lineage: Any = operator.get_openlineage_facets_on_complete(None)
    host = connection.url.removeprefix("http://")
    assert [(f"chatexport://{host}", "channels")] == [(each.namespace, each.name) for each in lineage.inputs]
    (messages,) = (each for each in lineage.outputs if each.name == f"{lake}/messages")
    assert "file" == messages.namespace
    assert told["rows"]["messages"] == messages.outputFacets["outputStatistics"].rowCount
    columns = {field.name: field.type for field in messages.facets["schema"].fields}
    assert columns["created_at"].startswith("TIMESTAMP")
    assert "livestream:ubuntu" not in repr(lineage)


def test_rows_are_counted_by_the_run_that_wrote_them(connection, tmp_path) -> None:
    """A cleared task reads and leads where it did, and has written nothing."""
    exports = exported()
    operators = [loading(exports, tmp_path / "lake") for _ in range(2)]
    for operator in operators:
        operator.execute({})
    first, again = (operator.get_openlineage_facets_on_complete(None) for operator in operators)
    assert [each.name for each in first.outputs] == [each.name for each in again.outputs]
    assert {True} == {"outputStatistics" in each.outputFacets for each in first.outputs}
    assert {False} == {"outputStatistics" in each.outputFacets for each in again.outputs}


def test_a_load_that_did_not_happen_tells_nothing(tmp_path) -> None:
    """A failed task must not claim tables."""
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
def test_lakes_are_named_as_openlineage_names_them(lake, named) -> None:
    """Other tools that read the same folder must meet under the same name."""
    from airflow_provider_chatexport.pipeline import WrittenTable  # noqa: PLC0415 - as the operator does

    table = WrittenTable(name="messages", columns=(), n_rows=1, n_files=1, size_bytes=1)
    (output,) = lineage_of(service_host="h", kinds=["users"], lake_uri=lake, tables=[table]).outputs
    namespace, folder = named
    assert (namespace, f"{folder}/messages") == (output.namespace, output.name)


def test_airflows_own_collector_is_told_too(connection, tmp_path) -> None:
    """For readers of lineage that do not speak OpenLineage."""
    pytest.importorskip("airflow.sdk.lineage", reason="this Airflow collects lineage elsewhere")
    loading(exported(), tmp_path / "lake").execute({})
    collected = get_hook_lineage_collector().collected_assets
    host = connection.url.removeprefix("http://")
    assert f"chatexport://{host}/channels" in {each.asset.uri for each in collected.inputs}
    assert (tmp_path / "lake").as_uri() in {each.asset.uri for each in collected.outputs}
