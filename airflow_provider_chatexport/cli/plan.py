"""``chatexport plan``: estimate what a backfill takes, before it starts."""

from __future__ import annotations

import json
from datetime import timedelta

import click
from rich.filesize import decimal

from airflow_provider_chatexport.cli.command import command
from airflow_provider_chatexport.cli.options import json_option
from airflow_provider_chatexport.cli.terminal import print_table
from airflow_provider_chatexport.cli.values import Duration
from airflow_provider_chatexport.core.estimate import EXPORTS_PER_MINUTE, Backfill, Estimate, estimate


@command(
    short_help="Estimate what a backfill takes.",
    epilog="Example: chatexport plan --channels 400 --messages 3000000 --windows 365",
)
@click.option("--channels", type=int, required=True, help="How many channels there are.")
@click.option("--messages", type=int, required=True, help="How many messages they have, all together.")
@click.option("--windows", type=int, required=True, help="How many windows to export.")
@click.option("--window-length", type=Duration(), default="1d", show_default=True, help="How long each window is.")
@click.option(
    "--channels-per-task", type=int, default=250, show_default=True, help="How many channels a pair of tasks has."
)
@click.option(
    "--export-time", type=Duration(), default="1m", show_default=True, help="How long the service takes for an export."
)
@json_option
def plan(
    *,
    channels: int,
    messages: int,
    windows: int,
    window_length: timedelta,
    channels_per_task: int,
    export_time: timedelta,
    as_json: bool,
) -> None:
    """Estimate what a backfill takes: exports, hours under the rate limit, disk, memory, files.

    Warnings say which choices do not scale. docs/scaling.md has the model, and what of it was measured.
    """
    needs = estimate(
        Backfill(
            channels=channels,
            messages=messages,
            windows=windows,
            window_length=window_length,
            channels_per_task=channels_per_task,
            export_time=export_time,
        )
    )
    if as_json:
        click.echo(json.dumps(needs.to_json()))
        return
    print_table(["what", "how much", "why"], [list(row) for row in _rows(needs)])
    for warning in needs.warnings:
        click.echo(f"Warning: {warning}", err=True)


def _rows(needs: Estimate) -> list[tuple[str, str, str]]:
    return [
        ("exports", f"{needs.exports:,}", "25 channels and one window each"),
        (
            "hours",
            f"{needs.hours:,.1f}",
            f"{EXPORTS_PER_MINUTE} exports a minute; the service's own time is not counted",
        ),
        ("requests", f"{needs.requests:,}", "to the service: searches, submits, status, links, files"),
        ("waits", f"{needs.waits:,}", "exports at the same time, under the rate limit"),
        ("download", decimal(needs.download_bytes), "about 2 kB a message, unpacked"),
        ("loads", f"{needs.loads:,}", "one for each window of a task's channels"),
        ("CPU hours", f"{needs.cpu_hours:,.1f}", "of one core: tasks of Airflow, and loads"),
        ("lake", decimal(needs.lake_bytes), "Parquet"),
        ("files", f"{needs.files:,}", f"after merging; the loads write up to {needs.files_written:,}"),
        ("store requests", f"{needs.store_requests:,}", "if the lake is on an object store; merges come on top"),
        ("disk while loading", decimal(needs.work_bytes), "three times what one load reads"),
        ("memory", decimal(needs.memory_bytes), "of one load"),
    ]
