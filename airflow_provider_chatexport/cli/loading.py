"""``chatexport export`` and ``chatexport load``: what brings rows into the lake."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.api.watch import Watch, watch_exports
from airflow_provider_chatexport.cli.options import (
    Duration,
    Moment,
    json_option,
    lake_option,
    load_options,
    options_from,
    service_options,
)
from airflow_provider_chatexport.cli.terminal import TerminalProgress, print_table
from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.plan import ExportFlags, plan_channels
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake import catalog
from airflow_provider_chatexport.lake.store import LakeStore
from airflow_provider_chatexport.pipeline import LoadReport


@click.command(
    epilog="Example: chatexport export --channel livestream:ubuntu --since 2025-01-06 --until 2025-01-07 --lake ./lake"
)
@click.option(
    "--channel", "channels", multiple=True, required=True, metavar="TYPE:ID", help="A channel; may be given many times."
)
@click.option("--since", type=Moment(), required=True, help="Begin of the window, inside; ISO 8601.")
@click.option("--until", type=Moment(), required=True, help="End of the window, outside.")
@lake_option
@service_options
@click.option("--include-truncated-messages", is_flag=True, help="Messages that a truncation hides, too.")
@click.option("--include-soft-deleted-channels", is_flag=True, help="Soft-deleted channels, too.")
@click.option("--clear-deleted-message-text", is_flag=True, help="Without the text of deleted messages.")
@click.option("--export-users", is_flag=True, help="The channels' users, too.")
@click.option(
    "--export-version", type=click.Choice(["v1", "v2"]), default="v2", show_default=True, help="Format of the file."
)
@click.option("--lookback", type=Duration(), default="0s", help="Export that much before the window again: 7d, 36h.")
@click.option("--wait-timeout", type=Duration(), default="2h", show_default=True, help="How long an export may take.")
@load_options
@json_option
def export(**given: Any) -> None:
    """One window without Airflow: submit, wait, download, load."""
    options = options_from(given)
    window = Window(since=given["since"], until=given["until"]).looking_back(given["lookback"])
    flags = ExportFlags(
        version=given["export_version"],
        include_truncated_messages=given["include_truncated_messages"],
        include_soft_deleted_channels=given["include_soft_deleted_channels"],
        clear_deleted_message_text=given["clear_deleted_message_text"],
        export_users=given["export_users"],
    )
    requests = plan_channels(given["channels"], window, flags)
    settings = ServiceSettings.from_env(
        api_key=given["api_key"], api_secret=given["api_secret"], base_url=given["base_url"]
    )
    # A lake that cannot be written is better found before an export is spent on it.
    LakeStore(given["lake"]).prepare()
    began = time.monotonic()
    with ChatExportClient(settings) as client, TerminalProgress() as progress:
        started_epoch_s = time.time()
        receipts = [Receipt(task_id=client.submit_channels(request), request=request) for request in requests]
        progress.say(f"waiting for {len(receipts)} export(s)")
        watch = Watch(
            [receipt.task_id for receipt in receipts],
            started_epoch_s=started_epoch_s,
            deadline_epoch_s=started_epoch_s + given["wait_timeout"].total_seconds(),
        )
        watch_exports(client, watch)
        report = pipeline.load_exports(
            client, receipts, lake_uri=given["lake"], options=options, progress=progress.stage
        )
    _print_report(replace(report, seconds=time.monotonic() - began), given["lake"], as_json=given["as_json"])


@click.command(
    short_help="Export files that are here already, into the lake.",
    epilog="Example: chatexport load export.ndjson.gz --lake ./lake",
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@lake_option
@click.option("--since", type=Moment(), help="What the files cover, if you know: begin, inside.")
@click.option("--until", type=Moment(), help="End, outside.")
@click.option("--exported-at", type=Moment(), help="When the service made them; default: each file's own time.")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in ExportKind]),
    help="What they are exports of; default: told by what each file holds.",
)
@load_options
@json_option
def load(**given: Any) -> None:
    """Export files that are already here, into the lake: of channels (v1 or v2) or of users, plain or gzip."""
    options = options_from(given)
    if (given["since"] is None) != (given["until"] is None):
        raise CallError("only one end of the window is given; give both --since and --until, or neither")
    window = Window(since=given["since"], until=given["until"]) if given["since"] else None
    with TerminalProgress() as progress:
        report = pipeline.load_files(
            given["files"],
            lake_uri=given["lake"],
            window=window,
            exported_at=given["exported_at"],
            kind=ExportKind(given["kind"]) if given["kind"] else None,
            options=options,
            progress=progress.stage,
        )
    _print_report(report, given["lake"], as_json=given["as_json"])


def _print_report(report: LoadReport, lake: str, *, as_json: bool) -> None:
    value = report.to_json()
    if as_json:
        click.echo(json.dumps(value))
        return
    if report.already_loaded:
        click.echo(f"load {value['load_id']} is in the lake already; nothing was written")
    print_table(["table", "rows"], [[name, count] for name, count in value["rows"].items() if count])
    click.echo(
        f"load {value['load_id']}: {value['lines']} lines, {value['rejected']} rejected, "
        f"{value['out_of_window']} out of window, {value['duplicates']} duplicates, "
        f"{value['other_entities']} other entities; {len(value['files'])} files, {value['seconds']:.1f} s"
    )
    if not_cast := value.get("not_cast"):
        told = ", ".join(f"{key} ({count})" for key, count in not_cast.items())
        click.echo(f"values of another kind than their column's, kept in custom: {told}")
    click.echo(f"query it: duckdb {LakeStore(lake).url(catalog.NAME)}")
