"""Fetch exports from the service, then load them: what the load operator and the command line both call.

If the process dies
- before the record is written, nothing is visible. The next run starts over. The work folder is left behind, until a
  load works in the same place a day later, or ``vacuum`` runs;
- after it, the load is committed, and the next refresh of the lake shows it (``lake.catalog.refresh``).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.plan import UsersRequest
from airflow_provider_chatexport.core.progress import DOWNLOAD, Progress, silent
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.retention import SERVICE, Retention, stated_retention
from airflow_provider_chatexport.core.sinks import parse_published
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.load.job import DEFAULT_OPTIONS, LoadJob
from airflow_provider_chatexport.lake.load.report import LoadReport, WrittenTable
from airflow_provider_chatexport.lake.normalize.input_file import InputFile
from airflow_provider_chatexport.lake.publish import publisher
from airflow_provider_chatexport.lake.publish.driver import PublishReport
from airflow_provider_chatexport.lake.storage.address import Storage, open_store

if TYPE_CHECKING:
    from airflow_provider_chatexport.api.client import ChatExportClient

# For operators, which know nothing of a lake.
__all__ = ["LoadReport", "PublishReport", "WrittenTable", "check_lake", "load_exports", "publish_lake"]


def load_exports(
    client: ChatExportClient,
    receipts: Sequence[Receipt],
    *,
    lake_uri: str,
    storage: Storage = None,
    work_dir: Path | None = None,
    options: LoadOptions = DEFAULT_OPTIONS,
    progress: Progress = silent,
) -> LoadReport:
    """Fetch finished exports and commit them to the lake as one load. The same exports again change nothing.

    :param storage: how to reach the lake, if the environment does not say.
    :param work_dir: where files are fetched to and converted; by default next to a local lake, else a temporary folder.
    :raises CallError: there is no receipt, or ``retention`` is ``service`` and an export did not ask the service.
    :raises ServiceError: the service refused, or did not answer.
    :raises DownloadError: a file could not be fetched whole.
    :raises InputError: a file is not an export, or has more rejects than allowed.
    :raises LakeError: the lake cannot be read or written.
    """
    if not receipts:
        raise CallError("there is no export to load; give the receipt of at least one")
    # Two branches of a DAG may hand on the same export: it is fetched once, and is the same load.
    receipts = list({receipt.task_id: receipt for receipt in receipts}.values())
    load_id = commit_log.load_id_of(f"task {receipt.task_id}" for receipt in receipts)
    retentions = [_retention(receipt, options) for receipt in receipts]

    def fetch(folder: Path) -> list[InputFile]:
        return [
            replace(_fetch(client, receipt, folder / f"export-{number}", progress), retention=retention)
            for number, (receipt, retention) in enumerate(zip(receipts, retentions, strict=True))
        ]

    return LoadJob(lake_uri, storage, load_id=load_id, options=options, progress=progress).run(fetch, work_dir=work_dir)


def ask_retention(client: ChatExportClient, options: LoadOptions) -> LoadOptions:
    """Return the options with what the service says of its retention policies in place of ``service``.

    :raises ServiceError: the service was asked, and does not say.
    """
    return replace(options, retention=client.retention()) if options.retention == SERVICE else options


def _retention(receipt: Receipt, options: LoadOptions) -> Retention | None:
    """Return how long the service keeps messages, for what an export claims. An export of users claims no window.

    :raises CallError: the service should say it, and the export did not ask.
    """
    if receipt.kind is ExportKind.USERS:
        return None
    if options.retention != SERVICE:
        return stated_retention(options.retention)
    if receipt.retention is None:
        raise CallError(
            f'retention is "{SERVICE}", and export {receipt.task_id} did not ask the service for its retention '
            f'policies; set retention="{SERVICE}" on the task that exports, too, and clear it, or write a duration, '
            'such as retention="30d"'
        )
    return receipt.retention


def check_lake(lake_uri: str, storage: Storage = None) -> None:
    """Raise unless a load could write the lake: before an export is spent on it.

    :param storage: how to reach the lake, if the environment does not say.
    :raises LakeError: it cannot be written, or the store does not keep what a lake needs.
    """
    open_store(lake_uri, storage).check_writable()


def publish_lake(
    lake_uri: str,
    table_format: str,
    *,
    catalog: str | None = None,
    storage: Storage = None,
    work_dir: Path | None = None,
    progress: Progress = silent,
) -> PublishReport:
    """Make the lake's data files the tables of another format. A second call changes nothing.

    :param table_format: ``delta`` or ``iceberg``.
    :param catalog: of Iceberg: the name of a catalog in pyiceberg's configuration.
    :param storage: how to reach the lake, if the environment does not say.
    :raises CallError: there is no such format, its library is not installed, or the catalog does not fit.
    :raises LakeError: the lake or a table cannot be read or written.
    """
    sink = parse_published(table_format)
    return publisher.publish(open_store(lake_uri, storage), sink, catalog=catalog, work_dir=work_dir, progress=progress)


def _fetch(client: ChatExportClient, receipt: Receipt, target: Path, progress: Progress) -> InputFile:
    fetched = client.download(receipt.task_id, target, progress=functools.partial(progress, DOWNLOAD))
    file = InputFile(
        path=fetched.path,
        exported_at=fetched.task.created_at,
        finished_at=fetched.task.finished_at,
        sha256=fetched.sha256,
        size_bytes=fetched.size_bytes,
        kind=receipt.kind,
        task_id=receipt.task_id,
    )
    request = receipt.request
    if isinstance(request, UsersRequest):
        return replace(file, user_ids=request.user_ids, cids=())
    return replace(file, window=request.window, cids=request.channels, flags=asdict(request.flags))
