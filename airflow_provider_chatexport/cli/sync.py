"""``chatexport sync``: export and load what the lake does not cover up to now, and nothing else."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from airflow_provider_chatexport import pipeline, sync
from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.cli.command import command
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
from airflow_provider_chatexport.cli.publish import print_publication, publish, require_installed
from airflow_provider_chatexport.cli.terminal import TerminalProgress, print_table
from airflow_provider_chatexport.cli.values import Duration, Moment
from airflow_provider_chatexport.cli.words import count, some
from airflow_provider_chatexport.core.discovery import ChannelPage
from airflow_provider_chatexport.core.retention import stated_retention
from airflow_provider_chatexport.core.sinks import Sink
from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.errors import ChatExportError
from airflow_provider_chatexport.lake import Lake

if TYPE_CHECKING:
    from airflow_provider_chatexport.core.plan import Cid
    from airflow_provider_chatexport.lake.load.report import LoadReport


@command(
    name="sync",
    short_help="Export and load what the lake does not cover yet.",
    epilog="Example: chatexport sync --channel messaging:rust --lookback 2d --max-window 30d --lake ./lake",
)
@channel_options
@click.option(
    "--since",
    type=Moment(),
    help="Start of what the lake should cover, ISO 8601. By default the first covered moment of each channel, and the "
    "whole history of a channel that the lake does not know.",
)
@lookback_option("Export this much before each gap once more, for late edits and deletes: 36h, 7d.")
@click.option("--max-window", type=Duration(), help="Split longer windows; each is a load of its own.")
@click.option(
    "--grace-period",
    type=Duration(),
    default="1m",
    show_default=True,
    help="Leave out what is newer than this: its messages may still be on their way.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be exported, and export nothing.")
@export_and_load_options
def sync_lake(**arguments: Any) -> None:
    """Export and load what the lake does not cover up to now, and nothing else.

    Without --channel and --query, it takes the channels that the lake covers somewhere. Each window of up to 25
    channels is a load of its own. So the run after one that was killed goes on where that stopped. If a window cannot
    be loaded, it goes on with the others and exits with 1.
    """
    options, flags, sink = options_from(arguments), flags_from(arguments), Sink(arguments["sink"])
    require_installed(sink)
    named = named_channels(arguments)
    settings = settings_from(arguments)
    began = time.monotonic()
    with ChatExportClient(settings) as client:
        # One request shows that address and key are right, and what time it is at the service.
        client.query_channels(ChannelPage(limit=1))
        channels = chosen_channels(arguments, client)
        options = pipeline.ask_retention(client, options)
        now = client.now()
    sync_plan = sync.plan(
        arguments["lake"],
        channels or None,
        until=now - arguments["grace_period"],
        since=arguments["since"],
        lookback=arguments["lookback"],
        max_window=arguments["max_window"],
        grace_period=arguments["grace_period"],
        retention=stated_retention(options.retention),
        now=now,
    )
    if arguments["dry_run"]:
        _print_plan(sync_plan, as_json=arguments["as_json"])
        return
    if sync_plan.windows:
        # Exports are limited to 60 a minute. So find out first whether the lake can be written.
        Lake(arguments["lake"]).check_writable()
    with TerminalProgress() as progress:
        runs = sync.run(
            settings,
            sync_plan,
            lake_uri=arguments["lake"],
            flags=flags,
            options=options,
            wait_timeout=arguments["wait_timeout"],
            progress=progress.stage,
        )
        show = None if arguments["as_json"] else progress.print_line
        outcomes, stopped = _all_outcomes(runs, show)
    # A lake of which the last publication broke off is published again, even if nothing was loaded.
    published = (
        publish(arguments["lake"], sink) if sink is not Sink.PARQUET and Lake(arguments["lake"]).exists() else None
    )
    value = _report(sync_plan, outcomes, stopped, seconds=time.monotonic() - began)
    if published is not None:
        value["published"] = published.to_json()
    if arguments["as_json"]:
        click.echo(json.dumps(value))
    else:
        _print_end(sync_plan, value)
        if published is not None:
            print_publication(published)
    if sentence := _failure(sync_plan, value, named):
        click.echo(f"chatexport: {sentence}", err=True)
        sys.exit(1)


def _all_outcomes(
    runs: Iterable[sync.Outcome], show: Callable[[str], None] | None
) -> tuple[list[sync.Outcome], ChatExportError | None]:
    """Return what became of each window, and the error that stopped the run, if any.

    :param show: prints a line for each window as soon as it is known.
    """
    outcomes = []
    try:
        for outcome in runs:
            outcomes.append(outcome)
            if show is not None:
                show(_line(outcome))
    except ChatExportError as error:
        return outcomes, error
    return outcomes, None


def _print_plan(sync_plan: sync.SyncPlan, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(sync_plan.to_json()))
        return
    if sync_plan.windows:
        columns = ["channels", "since", "until"]
        print_table(columns, [[missing.label, *_ends(missing)] for missing in sync_plan.windows])
    click.echo(f"{count(len(sync_plan.windows), 'window')} would be exported; {_whereof(sync_plan)}")


def _ends(missing: sync.MissingWindow) -> list[str | None]:
    return list(missing.window.to_json().values()) if missing.window else [None, None]


def _line(outcome: sync.Outcome) -> str:
    """Return the line of a window: what was loaded, or why nothing was."""
    if outcome.report is None:
        return f"{outcome.missing}: {outcome.problem or 'the service knows none of the channels'}"
    counts = outcome.report.record.counts
    rejected = f", {counts['rejected']} rejected" if counts["rejected"] else ""
    vanished = f", {outcome.report.vanished.n_messages} vanished" if outcome.report.vanished else ""
    n_messages = counts["rows"]["messages"]
    return (
        f"{outcome.missing}: {count(n_messages, 'message')}{rejected}{vanished}, load {outcome.report.record.load_id}"
    )


def _report(
    sync_plan: sync.SyncPlan, outcomes: Sequence[sync.Outcome], stopped: ChatExportError | None, *, seconds: float
) -> dict[str, Any]:
    """Return what the run did, as JSON types."""
    return {
        **sync_plan.to_json(),
        "loads": [
            {**outcome.missing.to_json(), **_counts(outcome.report)}
            for outcome in outcomes
            if outcome.report is not None
        ],
        "failed": [
            {**outcome.missing.to_json(), "problem": outcome.problem} for outcome in outcomes if outcome.problem
        ],
        "unknown_channels": sorted({cid for outcome in outcomes for cid in outcome.unknown_channels}),
        "stopped": stopped.message if stopped else None,
        "seconds": round(seconds, 3),
    }


def _counts(report: LoadReport) -> dict[str, Any]:
    value = report.to_json()
    return {
        name: value[name]
        for name in ("load_id", "exported_at", "lines", "rows", "rejected", "vanished", "retention", "bytes_in")
    }


def _print_end(sync_plan: sync.SyncPlan, value: dict[str, Any]) -> None:
    if unknown := value["unknown_channels"]:
        click.echo(f"left out {count(len(unknown), 'channel')} that the service does not know: {some(unknown)}")
    if not sync_plan.windows:
        click.echo(f"nothing to do: no window is missing; {_whereof(sync_plan)}")
    elif not (value["failed"] or value["stopped"]):
        click.echo(f"{count(len(value['loads']), 'window')} loaded; {_whereof(sync_plan)}")


def _failure(sync_plan: sync.SyncPlan, value: dict[str, Any], named: Sequence[Cid]) -> str | None:
    """Return the sentence of a run that did not load all; None if it did."""
    failed, unknown = value["failed"], sorted(set(value["unknown_channels"]) & set(named))
    n_windows = count(len(sync_plan.windows), "window")
    if value["stopped"]:
        return (
            f"{value['stopped']}; {len(value['loads'])} of {n_windows} are loaded, and the next sync goes on with the "
            "others"
        )
    if failed:
        return (
            f"{len(failed)} of {n_windows} could not be loaded, and the next sync tries them again; the first is "
            f"{failed[0]['channels'][0]}: {failed[0]['problem']}"
        )
    if unknown:
        return f"the service does not know {some(unknown)}; remove what is wrong from --channel"
    return None


def _whereof(sync_plan: sync.SyncPlan) -> str:
    return f"{count(len(sync_plan.channels), 'channel')}, up to {format_rfc3339(sync_plan.until)}"
