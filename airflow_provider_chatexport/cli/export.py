"""``chatexport export``: export channels or users from the service, and load them into the lake."""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, wait_for_exports
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.cli.command import command
from airflow_provider_chatexport.cli.load import print_report
from airflow_provider_chatexport.cli.options import (
    channel_options,
    chosen_channels,
    export_and_load_options,
    flags_from,
    lookback_option,
    named_channels,
    options_from,
    settings_from,
)
from airflow_provider_chatexport.cli.publish import publish, require_installed
from airflow_provider_chatexport.cli.terminal import TerminalProgress
from airflow_provider_chatexport.cli.values import Moment
from airflow_provider_chatexport.cli.words import count
from airflow_provider_chatexport.core.arguments import SEPARATE_BY_COMMAS, parse_names
from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.plan import A_USER, UserId, plan_channels, plan_users
from airflow_provider_chatexport.core.progress import DOWNLOAD
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.sinks import Sink
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError, RequestRefusedError, TaskFailedError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.load.report import LoadReport

_OF_CHANNELS: Final = ("channels", "query", "since", "until", "whole_history", "lookback", "retention")


@command(
    short_help="Export a window, the whole history or users from the service into the lake.",
    epilog="Example: chatexport export --channel livestream:ubuntu --since 2025-01-06 --until 2025-01-07 --lake ./lake",
)
@channel_options
@click.option(
    "--user",
    "users",
    multiple=True,
    metavar="ID",
    help="A user whose messages and reactions to export, or several separated by commas. May be repeated.",
)
@click.option("--since", type=Moment(), help="Start of the window (inclusive), ISO 8601.")
@click.option("--until", type=Moment(), help="End of the window (exclusive).")
@click.option("--all", "whole_history", is_flag=True, help="Export the whole history of the channels, and no window.")
@lookback_option("Start the window earlier by this much, to export late edits and reactions again: 36h, 7d.")
@export_and_load_options
def export(**arguments: Any) -> None:
    """Export a window, the whole history or users from the service into the lake, without Airflow.

    It submits the exports, waits for them, downloads the files and loads them. If the service does not export some
    users in one task, each of them is exported alone.
    """
    options, flags, sink = options_from(arguments), flags_from(arguments), Sink(arguments["sink"])
    require_installed(sink)
    user_ids = [
        UserId(user_id)
        for value in arguments["users"]
        for user_id in parse_names(value, "--user", A_USER, remedy=SEPARATE_BY_COMMAS)
    ]
    window = _checked_window(arguments, user_ids)
    settings = settings_from(arguments)
    # Exports are limited to 60 a minute and may take hours. So find out first whether the lake can be written.
    Lake(arguments["lake"]).check_writable()
    began = time.monotonic()
    refused: list[RequestRefusedError] = []
    with TerminalProgress() as progress:
        wait = _Wait(settings, started_epoch_s=time.time(), seconds=arguments["wait_timeout"].total_seconds())
        try:
            if user_ids:
                receipts = _export_users(user_ids, wait, progress)
            else:
                with wait.client() as client:
                    options = pipeline.ask_retention(client, options)
                    requests = plan_channels(chosen_channels(arguments, client), window, flags)
                    receipts = [Receipt(task_id=client.submit_channels(each), request=each) for each in requests]
                wait.until_completed(receipts, progress)
        except (RequestRefusedError, TaskFailedError):
            if not user_ids:
                raise
            report, refused = _load_each_user(user_ids, settings, arguments["lake"], options, progress)
        else:
            with ChatExportClient(settings) as client:
                report = pipeline.load_exports(
                    client, receipts, lake_uri=arguments["lake"], options=options, progress=progress.stage
                )
    report = replace(report, seconds=time.monotonic() - began)
    published = None if sink is Sink.PARQUET else publish(arguments["lake"], sink)
    print_report(report, arguments["lake"], published, as_json=arguments["as_json"])
    if refused:
        others = f" ({len(refused)} of {len(user_ids)} users are not exported; this is the first)"
        click.echo(f"chatexport: {refused[0].message}{others}", err=True)
        sys.exit(1)


def _checked_window(arguments: dict[str, Any], user_ids: Sequence[UserId]) -> Window | None:
    """Return the window to export; None for the whole history, and for users.

    :raises CallError: it is not clear what to export.
    """
    if user_ids and any(arguments[name] for name in _OF_CHANNELS):
        raise CallError(
            "--user exports all that the service has of a user; leave out channels, window, lookback and retention"
        )
    if not user_ids and not named_channels(arguments) and arguments["query"] is None:
        raise CallError("there is nothing to export; give --channel, --query or --user")
    since, until, lookback = arguments["since"], arguments["until"], arguments["lookback"]
    if arguments["whole_history"] and (since or until or lookback):
        raise CallError("--all exports the whole history; leave out --since, --until and --lookback")
    if user_ids or arguments["whole_history"]:
        return None
    if since is None or until is None:
        raise CallError("the window is not complete; give --since and --until, or --all for the whole history")
    return Window(since=since, until=until).looking_back(lookback)


@dataclass(frozen=True, slots=True)
class _Wait:
    """The time that exports have, from the first request on."""

    settings: ServiceSettings
    started_epoch_s: float
    seconds: float

    @property
    def deadline_epoch_s(self) -> float:
        return self.started_epoch_s + self.seconds

    def client(self) -> ChatExportClient:
        """Return a client whose requests end at the deadline."""
        return ChatExportClient(self.settings.within(self.seconds), deadline_epoch_s=self.deadline_epoch_s)

    def until_completed(self, receipts: Sequence[Receipt], progress: TerminalProgress) -> None:
        """Wait until all exports are completed.

        :raises TaskFailedError: the service ended an export as failed.
        :raises TaskOverdueError: the deadline passed.
        """
        wait = functools.partial(progress.say, f"waiting for {count(len(receipts), 'export')}")
        wait()
        poller = ExportPoller(
            [receipt.task_id for receipt in receipts],
            started_epoch_s=self.started_epoch_s,
            deadline_epoch_s=self.deadline_epoch_s,
        )
        with ChatExportClient(self.settings.within(self.seconds).without_retries()) as client:
            wait_for_exports(client, poller, on_round=wait)


def _export_users(user_ids: Sequence[UserId], wait: _Wait, progress: TerminalProgress) -> list[Receipt]:
    with wait.client() as client:
        receipts = [Receipt(task_id=client.submit_users(each), request=each) for each in plan_users(user_ids)]
    wait.until_completed(receipts, progress)
    return receipts


def _load_each_user(
    user_ids: Sequence[UserId],
    settings: ServiceSettings,
    lake: str,
    options: LoadOptions,
    progress: TerminalProgress,
) -> tuple[LoadReport, list[RequestRefusedError]]:
    """Export each user alone, without a task, and load those whom the service exports. Return the refusals, too.

    :raises RequestRefusedError: the service exports none of them.
    """
    exports, refused = [], []
    with tempfile.TemporaryDirectory(prefix="chatexport-") as folder, ChatExportClient(settings) as client:
        for number, user_id in enumerate(dict.fromkeys(user_ids)):
            target = Path(folder) / f"user-{number}.json"
            try:
                exports.append(
                    client.export_user(user_id, target, progress=functools.partial(progress.stage, DOWNLOAD))
                )
            except RequestRefusedError as error:
                refused.append(error)
        if not exports:
            raise refused[0]
        report = Lake(lake).load(
            [each.path for each in exports],
            # They are one load, so its time is that of the first: it claims nothing that a later export should decide.
            exported_at=min(each.exported_at for each in exports),
            kind=ExportKind.USERS,
            options=options,
            progress=progress.stage,
        )
    return report, refused
