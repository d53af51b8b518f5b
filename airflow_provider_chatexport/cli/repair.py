"""``chatexport repair``: go on without files that are lost."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Final

import click

from airflow_provider_chatexport.cli.command import command
from airflow_provider_chatexport.cli.options import json_option, lake_option, yes_option
from airflow_provider_chatexport.cli.terminal import can_ask, print_table
from airflow_provider_chatexport.cli.words import some
from airflow_provider_chatexport.core.plan import MAX_CHANNELS_PER_EXPORT
from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.maintenance.repair import RepairReport

# How many lines of a list are printed. With --json, all are.
_SHOWN: Final = 20


@command(
    name="repair",
    short_help="Record which files are lost, and go on without them.",
    epilog="Example: chatexport repair --lake ./lake --dry-run",
)
@lake_option
@click.option("--full", is_flag=True, help="Read every file and compare its sha256; by default only sizes.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and show what is lost.")
@yes_option
@json_option
def repair_lake(*, lake: str, full: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Record which files are missing or damaged, so that everything else goes on, and rebuild what can be rebuilt.

    Prints which windows to export again. Before that, restore from a backup what you can: a file that is recorded as
    lost does not come back. On a terminal, the command first shows what is lost, and asks. Where it is not started from
    a terminal, as in a script, it does not ask.
    """
    opened = Lake(lake)
    if not (dry_run or yes) and can_ask():
        found = opened.repair(full=full, dry_run=True)
        if found.lost or found.records:
            _show(found, opened.uri, err=True)
            click.confirm("Record these files as lost? They will not come back", abort=True, err=True)
    report = opened.repair(full=full, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        _show(report, opened.uri)


def _show(report: RepairReport, lake: str, *, err: bool = False) -> None:
    """Print what is lost, and how to get it back."""
    for path, is_known in report.records:
        would = "would be " if report.dry_run else "is "
        what = "restored from the checkpoint" if is_known else "put aside, and its rows are not in the lake"
        click.echo(f"the damaged record {path} {would}{what}", err=err)
    if not (report.lost or report.records):
        click.echo("no file is lost", err=err)
        return
    files = [[each.path, each.state.file.rows, each.why] for each in report.lost[:_SHOWN]]
    if files:
        print_table(["lost file", "rows", "why"], files, err=err)
    _more(len(report.lost), "files", err=err)
    if report.windows:
        windows = [
            [format_rfc3339(each.span.since), format_rfc3339(each.span.until), len(each.cids), each.cids[0]]
            for each in report.windows[:_SHOWN]
        ]
        print_table(["not covered since", "until", "channels", "such as"], windows, err=err)
        _more(len(report.windows), "windows", err=err)
    for line in _advice(report, lake):
        click.echo(line, err=err)


def _more(n_all: int, what: str, *, err: bool) -> None:
    if n_all > _SHOWN:
        click.echo(f"... and {n_all - _SHOWN} more {what} (--json lists all)", err=err)


def _advice(report: RepairReport, lake: str) -> Iterator[str]:
    """Yield the commands that bring the rows back."""
    typed = shlex.quote(lake)
    if report.windows:
        yield "export again what is not covered:"
        yield f"  chatexport sync --lake {typed}"
    if len(report.windows) == 1 and len(report.windows[0].cids) <= MAX_CHANNELS_PER_EXPORT:
        window = report.windows[0]
        since, until = format_rfc3339(window.span.since), format_rfc3339(window.span.until)
        channels = shlex.quote(",".join(window.cids))
        yield f"or  chatexport export --channel {channels} --since {since} --until {until} --lake {typed}"
    if report.exports:
        names = some(report.exports, at_most=3)
        yield f"or load these exports again, if you have their files or the service has them: {names}"
    if report.lost and not report.windows:
        yield "the newest rows that are left stand, until their channels or users are exported again"
