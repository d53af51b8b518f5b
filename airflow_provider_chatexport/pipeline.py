"""Fetch -> convert -> commit, for one load: what the load operator and the command line both call.

What if the process dies
- before the record is written: nothing is visible, the next run begins anew, and the work folder is left over until a
  day later a load works in the same place, or ``vacuum`` comes by;
- after it: the load is committed, and whoever settles the lake next shows it (``lake.settle``).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.plan import UsersRequest
from airflow_provider_chatexport.core.progress import DOWNLOAD, Progress, silent
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.record import SourceFile
from airflow_provider_chatexport.lake.load.job import DEFAULT_OPTIONS, LoadJob, Source
from airflow_provider_chatexport.lake.load.report import LoadReport, WrittenTable
from airflow_provider_chatexport.lake.staging.stage import Input

if TYPE_CHECKING:
    from airflow_provider_chatexport.api.client import ChatExportClient

# For operators, which know nothing of a lake.
__all__ = ["LoadReport", "WrittenTable", "load_exports"]


def load_exports(
    client: ChatExportClient,
    receipts: Sequence[Receipt],
    *,
    lake_uri: str,
    work_dir: Path | None = None,
    options: LoadOptions = DEFAULT_OPTIONS,
    progress: Progress = silent,
) -> LoadReport:
    """Fetches finished exports and commits them to the lake as one load. The same exports again change nothing.

    :param work_dir: where files are fetched to and converted; by default beside a local lake, else a temporary folder.
    :raises ServiceError: the service could not be asked.
    :raises DownloadError: a file could not be fetched whole.
    :raises InputError: a file is not an export, or has more rejects than allowed.
    :raises LakeError: the lake cannot be read or written.
    """
    if not receipts:
        raise CallError("there is no export to load")
    # Two branches of a DAG may hand on the same export: it is fetched once, and the same load.
    receipts = list({receipt.task_id: receipt for receipt in receipts}.values())
    load = LoadJob(
        lake_uri, load_id=commit_log.load_id_of(f"task {receipt.task_id}" for receipt in receipts), options=options
    )
    if done := load.done_before():
        return done
    with load.work_folder(work_dir) as folder:
        sources = [
            _fetch(client, receipt, folder / f"export-{number}", progress) for number, receipt in enumerate(receipts)
        ]
        return load.run(sources, folder, progress)


def _fetch(client: ChatExportClient, receipt: Receipt, target: Path, progress: Progress) -> Source:
    fetched = client.download(receipt.task_id, target, progress=functools.partial(progress, DOWNLOAD))
    file = SourceFile(
        name=f"export {receipt.task_id}",
        task_id=receipt.task_id,
        sha256=fetched.sha256,
        size_bytes=fetched.size_bytes,
    )
    exported_at, request = fetched.task.created_at, receipt.request
    if isinstance(request, UsersRequest):
        given = Input(path=fetched.path, exported_at=exported_at, window=None, kind=receipt.kind)
        return Source(file=file, given=replace(given, user_ids=request.user_ids), cids=())
    given = Input(path=fetched.path, exported_at=exported_at, window=request.window, kind=receipt.kind)
    return Source(file=file, given=given, cids=request.channels, flags=asdict(request.flags))
