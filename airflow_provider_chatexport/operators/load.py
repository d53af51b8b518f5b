"""The operator that loads finished exports into the lake."""

from __future__ import annotations

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
from airflow_provider_chatexport.core.options import MAX_LINE_BYTES, MAX_REJECTED, LoadOptions
from airflow_provider_chatexport.core.progress import LoggedProgress
from airflow_provider_chatexport.core.receipt import Receipt, receipts_from
from airflow_provider_chatexport.core.retention import RetentionArgument
from airflow_provider_chatexport.errors import CallError, FileGoneError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.config import configured_s
from airflow_provider_chatexport.hooks.exceptions import as_airflow_errors, checked_arguments, explain_timeout
from airflow_provider_chatexport.hooks.lake_storage import lake_filesystem, parse_work_dir, path_text
from airflow_provider_chatexport.operators.submission import SubmittedExports, export_again

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_chatexport.pipeline import LoadReport

log = logging.getLogger(__name__)

# An export without a row of these is empty.
_CONTENT_TABLES: Final = ("messages", "reactions", "user_export_users")


class LoadExportOperator(BaseOperator):
    """Download finished exports, convert them, and commit them to the lake as one load.

    Returns the counts, id and window of the load: small enough for XCom or a notification, without any text of a
    message. A second run with the same exports changes nothing. Assets in ``outlets`` get the same summary as the extra
    of their event, and the partition of a partitioned run. An ``AssetAlias`` in ``outlets`` becomes the asset of the
    lake's address.

    :param exports: what an export task returned, or a list of what mapped ones returned. Exports of channels and of
        users may be mixed. (templated)
    :param lake: address of the lake: a local path, or an fsspec address such as ``s3://chat/lake``. (templated)
    :param lake_conn_id: a connection through which the lake is reached, such as ``aws_default``, as for Airflow's
        ``ObjectStoragePath``. Default: the environment of the worker. (templated)
    :param on_missing_file: what to do if the service no longer has a file, which it keeps for 60 days: ``fail``, or
        ``export`` all of them again and wait for the new exports on the worker.
    :param on_empty: what to do if the exports contain no message, no reaction, no user and no reject: ``load`` them as
        a success with 0 rows, or ``skip`` the tasks that follow. The load is committed in both cases, because an empty
        window is information too.
    :param strict: refuse the load if any line was rejected; the same as ``max_rejected=0``.
    :param accept_shrink: load even if the exports have no message of a channel of which the lake shows some. Those
        messages then disappear. By default such a load is refused, because an incomplete export is the likelier cause.
    :param retention: how long the service keeps messages, by the app's retention policies: a duration such as ``30d``
        or a timedelta, or ``service`` for what the service said when the exports were submitted
        (``ExportChannelsOperator(retention="service")`` asks it). The load then claims nothing about older messages,
        and the lake keeps those that it has.
    :param max_vanished: refuse the load if more messages would vanish because it covers them and does not contain them:
        a count (int), or a share of the messages that the lake shows there (float).
    :param hash_users: replace user ids by pseudonyms, and leave out what describes a person. The pseudonyms are made
        with ``pseudonym_key`` of the connection's extra.
    :param drop_text: leave out what people wrote.
    :param keep_superseded: keep the messages of this load for ``messages_history`` when newer exports supersede it.
    :param max_rejected: refuse the load if it has more rejects: a count (int), or a share of the lines (float, 0 to 1).
        None allows any number. Default: half of the lines.
    :param promote: custom fields that get a typed column in addition to ``custom``:
        ``{"messages": {"priority": "BIGINT"}}``.
    :param auto_compact: after the commit, merge some of the small files that earlier loads have left behind. Merging
        costs about as much as the load.
    :param max_line_bytes: reject longer lines.
    :param max_unpacked_bytes: refuse compressed files that unpack to more. Default: 200 times their size.
    :param work_dir: folder for the download and the conversion. Default: inside a local lake, else a temporary
        folder. (templated)
    :param chatexport_conn_id: a connection of type ``chatexport``. (templated)
    """

    template_fields: Sequence[str] = ("exports", "lake", "lake_conn_id", "work_dir", "chatexport_conn_id")
    ui_color = "#e3ffe8"

    def __init__(
        self,
        *,
        exports: Any,
        lake: str | Path,
        lake_conn_id: str | None = None,
        on_missing_file: Literal["fail", "export"] = "fail",
        on_empty: Literal["load", "skip"] = "load",
        strict: bool = False,
        max_rejected: int | float | None = MAX_REJECTED,
        accept_shrink: bool = False,
        retention: RetentionArgument = None,
        max_vanished: int | float | None = None,
        keep_superseded: bool = False,
        promote: Mapping[str, Mapping[str, str]] | None = None,
        auto_compact: bool = True,
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
                retention=retention,
                max_vanished=max_vanished,
                keep_superseded=keep_superseded,
                promote={} if promote is None else promote,
                auto_compact=auto_compact,
                max_line_bytes=max_line_bytes,
                max_unpacked_bytes=max_unpacked_bytes,
                drop_text=drop_text,
            )
        self.exports = exports
        self.on_missing_file = on_missing_file
        self.on_empty = on_empty
        self.lake = path_text(lake)
        self.lake_conn_id = lake_conn_id
        self.hash_users = hash_users
        self.work_dir = path_text(work_dir)
        self._loaded: tuple[list[Receipt], LoadReport] | None = None
        self.chatexport_conn_id = chatexport_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Load the exports; return the summary of the load."""
        # This imports duckdb and pyarrow. A DAG file that only names the operator must not load them.
        from airflow_provider_chatexport import pipeline  # noqa: PLC0415

        timeout_sentence = (
            f"the load did not finish within its execution_timeout of {self.execution_timeout}; a retry starts from "
            "the beginning, so give it more time, or fewer exports at once"
        )
        with as_airflow_errors(), explain_timeout(timeout_sentence):
            lake = require_text(self.lake, "lake", GIVE_LAKE)
            receipts = receipts_from(self.exports)
            hook = ChatExportHook(self.chatexport_conn_id)
            # The pseudonym key is a secret, so it comes from the connection and never from the DAG.
            key = hook.pseudonym_key() if self.hash_users else None
            options = replace(self.options, hash_users=self.hash_users, pseudonym_key=key)
            with hook.client() as client, LoggedProgress(log.info, time.monotonic) as progress:
                load = partial(
                    pipeline.load_exports,
                    client,
                    lake_uri=lake,
                    storage=lake_filesystem(lake, self.lake_conn_id),
                    work_dir=parse_work_dir(self.work_dir),
                    options=options,
                    progress=progress.stage,
                )
                try:
                    report = load(receipts)
                except FileGoneError as error:
                    if self.on_missing_file == "fail":
                        raise
                    log.warning("%s; exporting again", error)
                    submitted = SubmittedExports.of(context)
                    wait_timeout_s = configured_s("wait_timeout_s")
                    receipts = export_again(client, submitted, receipts, wait_timeout_s=wait_timeout_s)
                    report = load(receipts)
                    submitted.done()
            _report_hook_lineage(hook, receipts, report.lake)
        self._loaded = (receipts, report)
        summary = dict(report.to_json())
        summary["n_files"] = len(summary.pop("files", ()))
        self._skip_if_empty(summary)
        self._update_outlets(context, summary, report.lake)
        return summary

    def _skip_if_empty(self, summary: dict[str, Any]) -> None:
        """Skip the tasks that follow if the exports are empty and ``on_empty`` says so.

        :raises AirflowSkipException: they are, and it does.
        """
        # A rejected line may have been a message, so a load with rejects is not empty.
        is_empty = not summary["rejected"] and not any(summary["rows"].get(table) for table in _CONTENT_TABLES)
        if self.on_empty == "skip" and is_empty:
            raise AirflowSkipException(
                f"the exports contain no message; load {summary['load_id']} records an empty window, and the tasks "
                "that follow are skipped"
            )

    def _update_outlets(self, context: Context, summary: dict[str, Any], lake: str) -> None:
        """Add the summary to the events of the outlets.

        :param lake: the lake's address.
        """
        for outlet in self.outlets:
            event = context["outlet_events"][outlet]
            if isinstance(outlet, AssetAlias):  # the lake's address is known only now
                event.add(Asset(uri=_uri_of(lake)), extra=summary)
                continue
            event.extra.update(summary)
            # DAGs that wait for a partition of the asset start for this one.
            if (partition := context.get("partition_key")) and isinstance(outlet, Asset):
                event.add_partitions(partition)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:  # noqa: ARG002
        """Return the lineage of the load for the OpenLineage provider; None if nothing was loaded."""
        from airflow_provider_chatexport.operators import lineage  # noqa: PLC0415 - needs the OpenLineage provider

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


def _report_hook_lineage(hook: ChatExportHook, receipts: Iterable[Receipt], lake: str) -> None:
    """Report the lineage to Airflow's own collector, for readers that do not use OpenLineage."""
    collector = get_hook_lineage_collector()  # type: ignore[no-untyped-call]
    for kind in sorted({receipt.kind.value for receipt in receipts}):
        collector.add_input_asset(context=hook, uri=f"chatexport://{hook.settings().host}/{kind}")
    collector.add_output_asset(context=hook, uri=_uri_of(lake))


def _uri_of(lake: str) -> str:
    return lake if "://" in lake else Path(lake).as_uri()
