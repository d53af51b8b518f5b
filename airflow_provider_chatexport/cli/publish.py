"""``chatexport publish``, and what ``--sink`` of the commands that load does after the load."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from airflow_provider_chatexport.cli.command import command
from airflow_provider_chatexport.cli.options import json_option, lake_option
from airflow_provider_chatexport.cli.terminal import TerminalProgress, print_table
from airflow_provider_chatexport.core.sinks import Sink
from airflow_provider_chatexport.errors import CallError

if TYPE_CHECKING:
    from airflow_provider_chatexport.lake.publish.driver import PublishReport


@command(
    name="publish",
    short_help="Make the lake's files Delta or Iceberg tables.",
    epilog="Example: chatexport publish --delta --lake ./lake",
)
@click.option("--delta", is_flag=True, help="As Delta tables: LAKE/_files/<table>.")
@click.option("--iceberg", is_flag=True, help="As Iceberg tables: chatexport.<table> in a catalog.")
@click.option(
    "--catalog",
    metavar="NAME",
    help="With --iceberg, a catalog in the configuration of pyiceberg; by default a SQLite file in the lake.",
)
@lake_option
@json_option
def publish_lake(*, delta: bool, iceberg: bool, catalog: str | None, lake: str, as_json: bool) -> None:
    """Make the lake's data files Delta or Iceberg tables that show what the lake's views show.

    No data is copied. Files with hidden rows and the tables of users, channels and the like are rewritten first. A
    second run does nothing. Run it after loads, and before vacuum.
    """
    sinks = [sink for sink, is_chosen in ((Sink.DELTA, delta), (Sink.ICEBERG, iceberg)) if is_chosen]
    if not sinks:
        raise CallError("there is no format to publish in; give --delta or --iceberg")
    if catalog is not None and not iceberg:
        raise CallError("--catalog is for --iceberg; give that, too, or leave --catalog out")
    require_installed(*sinks)
    reports = [publish(lake, sink, catalog=catalog if sink is Sink.ICEBERG else None) for sink in sinks]
    if as_json:
        click.echo(json.dumps({"published": [report.to_json() for report in reports]}))
        return
    for report in reports:
        print_publication(report)


def require_installed(*sinks: Sink) -> None:
    """Raise unless the libraries of formats are installed: before an export or a load is spent on it.

    :raises CallError: one is not.
    """
    if any(sink is not Sink.PARQUET for sink in sinks):
        from airflow_provider_chatexport.lake.publish import publisher  # noqa: PLC0415

        for sink in sinks:
            publisher.require_installed(sink)


def publish(lake: str, sink: Sink, *, catalog: str | None = None) -> PublishReport:
    """Publish a lake, with its progress on a terminal."""
    from airflow_provider_chatexport.lake import Lake  # noqa: PLC0415

    with TerminalProgress() as progress:
        return Lake(lake).publish(sink, catalog=catalog, progress=progress.stage)


def print_publication(report: PublishReport) -> None:
    """Print what a publication did, as text."""
    rows = [
        [each.table, each.files, each.rows, each.added, each.removed, each.place]
        for each in report.tables
        if each.files or each.added or each.removed
    ]
    print_table(["table", "files", "rows", "added", "removed", "place"], rows)
    done = "published as" if report.changed else "nothing to do: the lake is already published as"
    rewritten = f"; {report.rewritten} files were rewritten first" * bool(report.rewritten)
    click.echo(f"{done} {report.format}, version {report.version}{rewritten}; {report.seconds:.1f} s")
