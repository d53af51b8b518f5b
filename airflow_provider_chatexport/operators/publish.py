"""The operator that publishes a lake as the tables of another format."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_chatexport.core.arguments import GIVE_LAKE, require_text
from airflow_provider_chatexport.core.progress import LoggedProgress
from airflow_provider_chatexport.core.sinks import parse_published
from airflow_provider_chatexport.hooks.exceptions import as_airflow_errors, checked_arguments, explain_timeout
from airflow_provider_chatexport.hooks.lake_storage import lake_filesystem, parse_work_dir, path_text

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class PublishLakeOperator(BaseOperator):
    """Make the lake's data files Delta or Iceberg tables that show what the lake's views show, and copy nothing.

    Run it once per DAG run, after all loads::

        load = LoadExportOperator.partial(task_id="load", lake=LAKE).expand(exports=export.output)
        load >> PublishLakeOperator(task_id="publish", lake=LAKE, format="delta")

    Returns what it did, table by table. A retry goes on where the last try stopped, and a second run changes nothing.
    Assets in ``outlets`` get the same summary as the extra of their event.

    :param lake: address of the lake: a local path, or an fsspec address such as ``s3://chat/lake``. (templated)
    :param format: ``delta``, which takes the extra ``[delta]``, or ``iceberg``, which takes ``[iceberg]``.
    :param catalog: of Iceberg: the name of a catalog in pyiceberg's configuration on the worker. Default: a SQLite file
        in the lake. (templated)
    :param lake_conn_id: a connection through which the lake is reached, such as ``aws_default``, as for Airflow's
        ``ObjectStoragePath``. Default: the environment of the worker. (templated)
    :param work_dir: folder for files that have to be rewritten first. Default: inside a local lake, else a temporary
        folder. (templated)
    """

    template_fields: Sequence[str] = ("lake", "catalog", "lake_conn_id", "work_dir")
    ui_color = "#fff3d6"

    def __init__(
        self,
        *,
        lake: str | Path,
        format: str,  # noqa: A002 - as the word is in Spark and in every table format
        catalog: str | None = None,
        lake_conn_id: str | None = None,
        work_dir: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with checked_arguments():
            parse_published(format)
        self.lake = path_text(lake)
        self.format = format
        self.catalog = catalog
        self.lake_conn_id = lake_conn_id
        self.work_dir = path_text(work_dir)

    def execute(self, context: Context) -> dict[str, Any]:
        """Publish the lake; return what was done."""
        # This imports duckdb, pyarrow and the format's library. A DAG file must not load them.
        from airflow_provider_chatexport import pipeline  # noqa: PLC0415

        timeout_sentence = (
            f"the publication did not finish within its execution_timeout of {self.execution_timeout}; a retry goes on "
            "with the tables that are left"
        )
        with as_airflow_errors(), explain_timeout(timeout_sentence):
            lake = require_text(self.lake, "lake", GIVE_LAKE)
            with LoggedProgress(log.info, time.monotonic) as progress:
                report = pipeline.publish_lake(
                    lake,
                    self.format,
                    catalog=self.catalog or None,
                    storage=lake_filesystem(lake, self.lake_conn_id),
                    work_dir=parse_work_dir(self.work_dir),
                    progress=progress.stage,
                )
        summary = report.to_json()
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra.update(summary)
        return summary
