"""The lineage of a load in OpenLineage's terms. Imported only if the OpenLineage provider is installed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.openlineage.facet import (
    Dataset,
    OutputDataset,
    OutputStatisticsOutputDatasetFacet,
    SchemaDatasetFacet,
    SchemaDatasetFacetFields,
)
from airflow.providers.openlineage.extractors import OperatorLineage

if TYPE_CHECKING:
    from airflow_provider_chatexport.pipeline import WrittenTable


def lineage_of(
    *, service_host: str, kinds: Iterable[str], lake_uri: str, tables: Iterable[WrittenTable], is_new: bool = True
) -> OperatorLineage[Any, Any]:
    """Return the lineage from the service's channels or users to the tables of the lake.

    Single channels and users are not named: their ids are personal data, and there may be thousands. Dataset names
    follow OpenLineage's naming: the folder of the table, in the namespace of its bucket or in ``file``.

    :param kinds: kinds of the exports, such as ``channels``.
    :param is_new: False if an earlier run loaded these exports. Its rows are not counted again.
    """
    namespace, folder = _namespace_and_folder(lake_uri)
    return OperatorLineage(
        inputs=[Dataset(namespace=f"chatexport://{service_host}", name=kind) for kind in sorted(set(kinds))],
        outputs=[
            OutputDataset(
                namespace=namespace,
                name=f"{folder}/{table.name}",
                facets={
                    "schema": SchemaDatasetFacet(
                        fields=[
                            SchemaDatasetFacetFields(name=name, type=kind, description=doc)
                            for name, kind, doc in table.columns
                        ]
                    )
                },
                outputFacets={
                    "outputStatistics": OutputStatisticsOutputDatasetFacet(
                        rowCount=table.n_rows, size=table.size_bytes, fileCount=table.n_files
                    )
                }
                if is_new
                else {},
            )
            for table in tables
        ],
    )


def _namespace_and_folder(lake_uri: str) -> tuple[str, str]:
    parts = urlsplit(lake_uri)
    if parts.scheme in ("", "file"):
        return "file", str(Path(parts.path if parts.scheme else lake_uri).absolute())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", parts.path.strip("/") or "/"
