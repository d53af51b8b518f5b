"""``chatexport coverage`` and ``verify``: what the lake holds. They change nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from airflow_provider_chatexport.cli.command import command
from airflow_provider_chatexport.cli.options import json_option, lake_option
from airflow_provider_chatexport.cli.output_file import whole_file
from airflow_provider_chatexport.cli.terminal import print_table
from airflow_provider_chatexport.cli.words import count
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake import Lake


@command(
    name="coverage",
    short_help="Show which channels are covered, and when.",
    epilog="Example: chatexport coverage --lake ./lake --png coverage.png",
)
@lake_option
@click.option(
    "--png",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also draw a picture to this file: channels by time, with gaps and what was loaded more than once.",
)
@json_option
def show_coverage(*, lake: str, png: Path | None, as_json: bool) -> None:
    """Show which spans of time the lake covers without a gap, by channel."""
    with Lake(lake) as opened:
        if png is not None:
            _draw(opened, png)
        report = opened.coverage().to_json()
    if as_json:
        click.echo(json.dumps(report | ({"png": str(png)} if png else {})))
        return
    columns = ["channel", "since", "until", "loads", "messages"]
    print_table(columns, [list(span.values()) for span in report["coverage"]])
    if png is not None:
        click.echo(f"drawn in {png}")


def _draw(lake: Lake, path: Path) -> None:
    try:
        # Drawing is optional, and its library takes longer to load than the rest of the command.
        from airflow_provider_chatexport.cli import charts  # noqa: PLC0415
    except ImportError:
        raise CallError(
            "a picture needs matplotlib, which is not installed; pip install 'airflow-provider-chatexport[plot]'"
        ) from None
    with whole_file(path) as part:
        charts.draw_coverage(lake.coverage_runs(), lake.uri, part)


@command(
    name="verify",
    short_help="Check that nothing is missing, altered or unaccounted for.",
    epilog="Example: chatexport verify --lake ./lake",
)
@lake_option
@json_option
def verify_lake(*, lake: str, as_json: bool) -> None:
    """Check that nothing in the lake is missing, altered or unaccounted for.

    Exits with 1 if it finds a fault.
    """
    report = Lake(lake).verify()
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        if report.findings:
            print_table(["", "kind", "what"], [["!" if f.is_fault else "", f.kind, f.what] for f in report.findings])
        click.echo(
            f"{count(report.n_loads, 'load')}, {count(report.n_files, 'file')}: "
            + ("OK: every file matches its record, and there are no gaps" if report.ok else "problems found")
        )
    if not report.ok:
        sys.exit(1)
