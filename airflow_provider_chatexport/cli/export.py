"""``chatexport export``: export one window from the service, and load it into the lake."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import click

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, wait_for_exports
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.cli.load import print_report
from airflow_provider_chatexport.cli.options import (
    Duration,
    Moment,
    json_option,
    lake_option,
    load_options,
    options_from,
    service_options,
)
from airflow_provider_chatexport.cli.terminal import TerminalProgress
from airflow_provider_chatexport.core.plan import ExportFlags, plan_channels
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake import Lake


@click.command(
    short_help="Export one window from the service into the lake.",
    epilog="Example: chatexport export --channel livestream:ubuntu --since 2025-01-06 --until 2025-01-07 --lake ./lake",
)
@click.option(
    "--channel",
    "channels",
    multiple=True,
    required=True,
    metavar="TYPE:ID",
    help="A channel to export. Repeat the option for several.",
)
@click.option("--since", type=Moment(), required=True, help="Start of the window (inclusive), ISO 8601.")
@click.option("--until", type=Moment(), required=True, help="End of the window (exclusive).")
@lake_option
@service_options
@click.option("--include-truncated-messages", is_flag=True, help="Export also messages that a truncation hides.")
@click.option("--include-soft-deleted-channels", is_flag=True, help="Export also soft-deleted channels.")
@click.option("--clear-deleted-message-text", is_flag=True, help="Leave out the text of deleted messages.")
@click.option("--export-users", is_flag=True, help="Export also the channels' users.")
@click.option(
    "--export-version",
    type=click.Choice(["v1", "v2"]),
    default="v2",
    show_default=True,
    help="Format of the export.",
)
@click.option(
    "--lookback",
    type=Duration(),
    default="0s",
    show_default=True,
    help="Start the window earlier by this much, to export late edits and reactions again: 36h, 7d.",
)
@click.option(
    "--wait-timeout",
    type=Duration(),
    default="2h",
    show_default=True,
    help="Fail if the export is not done after this time.",
)
@load_options
@json_option
def export(**arguments: Any) -> None:
    """Export one window from the service into the lake, without Airflow: submit, wait, download, load."""
    options = options_from(arguments)
    if not arguments["wait_timeout"]:
        raise CallError("--wait-timeout is zero; give an export some time, such as 2h")
    window = Window(since=arguments["since"], until=arguments["until"]).looking_back(arguments["lookback"])
    flags = ExportFlags(
        version=arguments["export_version"],
        include_truncated_messages=arguments["include_truncated_messages"],
        include_soft_deleted_channels=arguments["include_soft_deleted_channels"],
        clear_deleted_message_text=arguments["clear_deleted_message_text"],
        export_users=arguments["export_users"],
    )
    requests = plan_channels(arguments["channels"], window, flags)
    settings = ServiceSettings.from_env(
        api_key=arguments["api_key"], api_secret=arguments["api_secret"], base_url=arguments["base_url"]
    )
    # Exports are limited to 60 a minute and may take hours. So find out first whether the lake can be written.
    Lake(arguments["lake"]).create()
    began, started_epoch_s = time.monotonic(), time.time()
    wait_s = arguments["wait_timeout"].total_seconds()
    deadline_epoch_s, hurried = started_epoch_s + wait_s, settings.within(wait_s)
    with TerminalProgress() as progress:
        with ChatExportClient(hurried, deadline_epoch_s=deadline_epoch_s) as client:
            receipts = [Receipt(task_id=client.submit_channels(request), request=request) for request in requests]
        progress.say(f"waiting for {len(receipts)} export{'s' * (len(receipts) != 1)}")
        watch = ExportPoller(
            [receipt.task_id for receipt in receipts],
            started_epoch_s=started_epoch_s,
            deadline_epoch_s=deadline_epoch_s,
        )
        with ChatExportClient(hurried.without_retries()) as client:
            wait_for_exports(client, watch)
        with ChatExportClient(settings) as client:
            report = pipeline.load_exports(
                client, receipts, lake_uri=arguments["lake"], options=options, progress=progress.stage
            )
    print_report(replace(report, seconds=time.monotonic() - began), arguments["lake"], as_json=arguments["as_json"])
