"""Publishing by the name of a format: what ``Lake``, the command line and the operators call.

A format's library is imported when a lake is published to it, and not before.
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.core.progress import Progress, silent
from airflow_provider_chatexport.core.sinks import Sink
from airflow_provider_chatexport.errors import CallError, LakeError
from airflow_provider_chatexport.lake.commits import published
from airflow_provider_chatexport.lake.publish import driver
from airflow_provider_chatexport.lake.publish.driver import PublishReport
from airflow_provider_chatexport.lake.publish.formats import PublishConflictError, TableFormat
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.storage.store import LakeStore

log = logging.getLogger(__name__)

# Each failed attempt means that another publisher has created the catalog, or its namespace.
_ATTEMPTS: Final = 5
_ROOM: Final = "airflow_provider_chatexport.lake.publish"


def require_installed(sink: Sink) -> None:
    """Raise unless the library of a format is installed.

    :raises CallError: it is not; the sentence has the command that installs it.
    """
    if sink is not Sink.PARQUET:
        importlib.import_module(f"{_ROOM}.{sink.value}")


def open_format(store: LakeStore, sink: Sink, catalog: str | None = None) -> TableFormat:
    """Return a format for a lake.

    :param catalog: of Iceberg: the name of a catalog in pyiceberg's configuration; None for the one in the lake.
    :raises CallError: the format's library is not installed, or a catalog does not fit.
    :raises LakeError: the lake's place cannot be reached, or others change the catalog again and again.
    """
    require_installed(sink)
    for _ in range(_ATTEMPTS):
        try:
            return _opened(store, sink, catalog)
        except PublishConflictError as conflict:  # another publisher has just created the catalog
            log.info("another publisher was first: %s", conflict.message)
    raise LakeError(
        f"the {sink.value} catalog for the lake at {store.uri} could not be opened in {_ATTEMPTS} attempts, because "
        "others changed it each time; run this again later"
    )


def _opened(store: LakeStore, sink: Sink, catalog: str | None) -> TableFormat:
    match sink:
        case Sink.DELTA:
            if catalog is not None:
                raise CallError("Delta tables have no catalog; leave catalog out", argument="catalog")
            from airflow_provider_chatexport.lake.publish.delta import DeltaFormat  # noqa: PLC0415

            return DeltaFormat(store)
        case Sink.ICEBERG:
            from airflow_provider_chatexport.lake.publish.iceberg import IcebergFormat  # noqa: PLC0415

            return IcebergFormat(store, catalog)
        case Sink.PARQUET:
            raise CallError("the lake itself is Parquet; publish it as delta or iceberg")


def publish(
    store: LakeStore,
    sink: Sink,
    *,
    catalog: str | None = None,
    work_dir: Path | None = None,
    progress: Progress = silent,
) -> PublishReport:
    """Make the tables of a format show what the lake's views show.

    :param catalog: of Iceberg: the name of a catalog in pyiceberg's configuration; None for the one in the lake.
    :param work_dir: where to work until a rewrite is committed; by default on the lake's own disk.
    :raises CallError: the format's library is not installed, or a catalog does not fit.
    :raises LakeError: the lake or a table cannot be read or written.
    """
    return driver.publish(
        store, open_format(store, sink, catalog), catalog=catalog, work_dir=work_dir, progress=progress
    )


def publish_again(store: LakeStore, *, work_dir: Path | None = None) -> list[PublishReport]:
    """Publish a lake in every format and catalog that it was published in; nothing if it never was.

    A removal of a person calls this before it deletes files, so that no published table names a file that is gone. What
    the formats keep of earlier publications goes as well.

    :raises LakeError: a table cannot be brought up to date; the sentence says what then is to be done.
    """
    reports = []
    for each in published.read(store):
        try:
            reports.append(publish(store, Sink(each.format), catalog=each.catalog, work_dir=work_dir))
            driver.drop_history(open_format(store, Sink(each.format), each.catalog), TABLES)
        except (CallError, LakeError) as error:
            raise LakeError(
                f"the tables that were published as {each.format} still name files that have to be deleted, and cannot "
                f"be brought up to date: {error.message}. Nothing is deleted yet: run chatexport publish "
                f"--{each.format}, then chatexport vacuum, which deletes the files; or delete "
                f"{store.url(each.path)} if the tables are not used any more",
                retryable=error.retryable,
            ) from None
    return reports
