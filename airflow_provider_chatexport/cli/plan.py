"""``chatexport plan``: estimate what a backfill will take, before it starts."""

from __future__ import annotations

import json

import click
from rich.filesize import decimal

from airflow_provider_chatexport.cli.command import command
from airflow_provider_chatexport.cli.options import json_option
from airflow_provider_chatexport.cli.terminal import print_table
from airflow_provider_chatexport.core.estimate import EXPORTS_PER_MINUTE, estimate


@command(
    short_help="Estimate what a backfill takes.",
    epilog="Example: chatexport plan --channels 400 --messages 3000000 --windows 365",
)
@click.option("--channels", type=int, required=True, help="How many channels there are.")
@click.option("--messages", type=int, required=True, help="How many messages they have, all together.")
@click.option("--windows", type=int, required=True, help="How many windows to export, each of at most a day.")
@json_option
def plan(*, channels: int, messages: int, windows: int, as_json: bool) -> None:
    """Estimate what a backfill takes: exports, hours under the rate limit, disk, memory, files."""
    needs = estimate(channels=channels, messages=messages, windows=windows)
    if as_json:
        click.echo(json.dumps(needs.to_json()))
        return
    print_table(
        ["what", "how much", "why"],
        [
            ["exports", f"{needs.exports:,}", "25 channels and one window each"],
            [
                "hours",
                f"{needs.hours:.1f}",
                f"{EXPORTS_PER_MINUTE} exports a minute; the service's own time is not counted",
            ],
            ["download", decimal(needs.download_bytes), "about 2 kB a message, unpacked"],
            ["lake", decimal(needs.lake_bytes), "Parquet"],
            ["files", f"{needs.files:,}", "one per table and month, and per load for the newest 15 loads"],
            ["disk while loading", decimal(needs.work_bytes), "three times a window's export"],
            ["memory", decimal(needs.memory_bytes), "of one load, whatever its size"],
        ],
    )
