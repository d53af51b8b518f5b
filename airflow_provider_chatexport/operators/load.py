"""The task that turns finished exports into rows of the lake."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
from airflow.providers.common.compat.sdk import AirflowSkipException, Asset, AssetAlias, BaseOperator

from airflow_provider_chatexport.core.arguments import GIVE_LAKE, require_text
from airflow_provider_chatexport.core.options import MAX_LINE_BYTES, LoadOptions
from airflow_provider_chatexport.core.progress import LoggedProgress
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.errors import CallError, FileGoneError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.config import configured_s
from airflow_provider_chatexport.hooks.exceptions import as_airflow_errors, checked_arguments, explain_timeout
from airflow_provider_chatexport.operators.params import parse_rendered
from airflow_provider_chatexport.operators.submission import SubmittedExports, exported_again

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_chatexport.pipeline import LoadReport


log = logging.getLogger(__name__)

_WHAT_PEOPLE_DID: Final = ("messages", "reactions", "user_export_users")


class LoadExportOperator(BaseOperator):
    """Download finished exports, convert them, and commit them to the lake as one load.

    Returns the load's counts, its id and its window: small enough for XCom or a notification, and nothing of what
    people wrote. Running it again with the same exports changes nothing. Assets given as ``outlets`` get the same
    summary as their event's extra, and the partition of a partitioned run; an alias stands for the lake's address.

    :param exports: what an export task returned, or a list of that from mapped ones; exports of channels and of users
        may be mixed. (templated)
    :param lake: the lake's address: a local path or an fsspec address such as ``s3://chat/lake``. (templated)
    :param on_missing_file: what to do where the service no longer has a file, which it keeps for 60 days: ``fail``, or
        ``export`` all of them again and wait for that on the worker.
    :param on_empty: what to do where the exports hold no message, reaction or user, and nothing that was rejected:
        ``load`` them, a success with 0 rows, or ``skip`` the tasks that follow. They are committed in any case: that a
        window was silent is knowledge.
    :param strict: refuse the load if any line of a file had to be rejected; as ``max_rejected=0``.
    :param accept_shrink: load even if the export has no message of a channel where the lake shows some, which then
        disappear; otherwise that is refused, because it is more often a hiccup than a truth.
    :param hash_users: pseudonyms instead of user ids, made with the ``pseudonym_key`` of the connection's extra; what
        describes a person does not land.
    :param drop_text: what people wrote does not land.
    :param keep_superseded: keep the messages of this load for ``messages_history`` when newer exports supersede it.
    :param max_rejected: refuse it if more were: a count (int), or a share of the lines (float).
    :param promote: custom fields that get a typed column beside ``custom``: ``{"messages": {"priority": "BIGINT"}}``.
    :param max_line_bytes: longer lines are rejects.
    :param max_unpacked_bytes: packed files that unpack to more are refused; by default 200 times their size.
    :param work_dir: where files are downloaded to and converted; by default beside a local lake, else a temporary
        directory. (templated)
    :param chatexport_conn_id: a connection of type ``chatexport``. (templated)
    """

    template_fields: Sequence[str] = ("exports", "lake", "work_dir", "chatexport_conn_id")
    ui_color = "#e3ffe8"

    def __init__(
        self,
        *,
        exports: Any,
        lake: str | Path,
        on_missing_file: Literal["fail", "export"] = "fail",
        on_empty: Literal["load", "skip"] = "load",
        strict: bool = False,
        max_rejected: int | float | None = None,
        accept_shrink: bool = False,
        keep_superseded: bool = False,
        promote: Mapping[str, Mapping[str, str]] | None = None,
        max_line_bytes: int = MAX_LINE_BYTES,
        max_unpacked_bytes: int | None = None,
        hash_users: bool = False,
        drop_text: bool = False,
        work_dir: str | Path | None = None,
        chatexport_conn_id: str = ChatExportHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with checked_arguments():
            if on_empty not in ("load", "skip"):
                raise CallError(f'on_empty is {on_empty!r}; write "load" or "skip"')
            if on_missing_file not in ("fail", "export"):
                raise CallError(f'on_missing_file is {on_missing_file!r}; write "fail" or "export"')
            self.options = LoadOptions(
                max_rejected=0 if strict else max_rejected,
                accept_shrink=accept_shrink,
                keep_superseded=keep_superseded,
                promote={} if promote is None else promote,
                max_line_bytes=max_line_bytes,
                max_unpacked_bytes=max_unpacked_bytes,
                drop_text=drop_text,
            )
        self.exports = exports
        self.on_missing_file = on_missing_file
        self.on_empty = on_empty
        # As text: of what has a method ``resolve``, as a path has, Airflow 3.1 calls that in place of rendering.
        self.lake = str(lake) if isinstance(lake, Path) else lake
        self.hash_users = hash_users
        self.work_dir = str(work_dir) if isinstance(work_dir, Path) else work_dir
        self._loaded: tuple[list[Receipt], LoadReport] | None = None
        self.chatexport_conn_id = chatexport_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        # duckdb and pyarrow come with it, and a DAG file that only names this operator must not load them.
        from airflow_provider_chatexport import pipeline  # noqa: PLC0415

        too_late = (
            f"the load was not done within its execution_timeout of {self.execution_timeout}; a retry begins anew, so "
            "give it more time, or fewer exports at once"
        )
        with as_airflow_errors(), explain_timeout(too_late):
            lake = require_text(self.lake, "lake", GIVE_LAKE)
            receipts = receipts_from(self.exports)
            hook = ChatExportHook(self.chatexport_conn_id)
            # The key that pseudonyms are made with is a secret: it comes from the connection, never from the DAG.
            key = hook.pseudonym_key() if self.hash_users else None
            options = replace(self.options, hash_users=self.hash_users, pseudonym_key=key)
            with hook.client() as client, LoggedProgress(log.info, time.monotonic) as progress:
                load = partial(
                    pipeline.load_exports,
                    client,
                    lake_uri=lake,
                    work_dir=_folder(self.work_dir),
                    options=options,
                    progress=progress.stage,
                )
                try:
                    report = load(receipts)
                except FileGoneError as error:
                    if self.on_missing_file == "fail":
                        raise
                    log.warning("%s; exporting again", error)
                    known = SubmittedExports.of(context)
                    receipts = exported_again(client, known, receipts, patience_s=configured_s("wait_timeout_s"))
                    report = load(receipts)
                    known.done()
            _tell_lineage(hook, receipts, report.lake)
        self._loaded = (receipts, report)
        summary = dict(report.to_json())
        summary["n_files"] = len(summary.pop("files", ()))
        # A line that could not become a row may have been a message: that is no silence.
        is_silent = not summary["rejected"] and not any(summary["rows"].get(table) for table in _WHAT_PEOPLE_DID)
        if self.on_empty == "skip" and is_silent:
            raise AirflowSkipException(
                f"the exports hold no message; load {summary['load_id']} says that it was silent"
            )
        for outlet in self.outlets:
            event = context["outlet_events"][outlet]
            if isinstance(outlet, AssetAlias):  # stands for what is only known now: the lake
                event.add(Asset(uri=_uri_of(report.lake)), extra=summary)
                continue
            event.extra.update(summary)
            # Of a partitioned run: who waits for the partition is told which one it is.
            if (partition := context.get("partition_key")) and isinstance(outlet, Asset):
                event.add_partitions(partition)
        return summary

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:  # noqa: ARG002
        """What the OpenLineage provider asks for when the task has succeeded; None where nothing was loaded."""
        from airflow_provider_chatexport.operators import lineage  # noqa: PLC0415 - its imports may not be installed

        if self._loaded is None:
            return None
        receipts, report = self._loaded
        return lineage.lineage_of(
            service_host=ChatExportHook(self.chatexport_conn_id).settings().host,
            kinds=[receipt.kind.value for receipt in receipts],
            lake_uri=report.lake,
            tables=report.tables(),
            is_new=not report.already_loaded,
        )


def _folder(work_dir: str | None) -> Path | None:
    if work_dir is None or work_dir == "":
        return None
    return Path(require_text(work_dir, "work_dir", "give a folder, or leave it out")).expanduser()


def _tell_lineage(hook: ChatExportHook, receipts: Iterable[Receipt], lake: str) -> None:
    """To Airflow's own collector, for whoever reads lineage without OpenLineage."""
    collector = get_hook_lineage_collector()  # type: ignore[no-untyped-call]
    for kind in sorted({receipt.kind.value for receipt in receipts}):
        collector.add_input_asset(context=hook, uri=f"chatexport://{hook.settings().host}/{kind}")
    collector.add_output_asset(context=hook, uri=_uri_of(lake))


def _uri_of(lake: str) -> str:
    return lake if "://" in lake else Path(lake).as_uri()


def receipts_from(exports: Any) -> list[Receipt]:
    """Receipts from what export tasks returned: one, a list, lists within a list as mapped tasks give them, or the text
    that a template made of it.

    :raises CallError: there are none, or something is no receipt.
    """
    receipts = [Receipt.from_json(dict(each)) for each in _flattened(exports)]
    if not receipts:
        raise CallError("there is no export to load; give what ExportChannelsOperator or ExportUsersOperator returned")
    return receipts


def _flattened(exports: Any) -> Iterable[Mapping[str, Any]]:
    if isinstance(exports, str):
        with contextlib.suppress(ValueError):
            exports = parse_rendered(exports.strip())
    if isinstance(exports, Mapping):
        yield exports
    elif isinstance(exports, Iterable) and not isinstance(exports, (str, bytes)):
        for each in exports:
            yield from _flattened(each)
    elif exports is not None:
        raise CallError("exports is no list of receipts; give the output of an export task, such as export.output")
