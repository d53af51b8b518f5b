"""``chatexport catalog``, ``compact``, ``vacuum`` and ``forget-user``: maintenance of a lake."""

from __future__ import annotations

import json
import os
from datetime import timedelta

import click

from airflow_provider_chatexport.cli.options import PSEUDONYM_KEY, Duration, json_option, lake_option
from airflow_provider_chatexport.cli.terminal import TerminalProgress, print_table
from airflow_provider_chatexport.lake import Lake


@click.command(name="catalog", short_help="Rebuild catalog.duckdb.", epilog="Example: chatexport catalog --lake ./lake")
@lake_option
@json_option
def write_catalog(*, lake: str, as_json: bool) -> None:
    """Rebuild catalog.duckdb from the load records, and repair the table folders.

    Creates an empty lake if there is none.
    """
    opened = Lake(lake)
    opened.rebuild_catalog()
    click.echo(json.dumps({"catalog": opened.catalog}) if as_json else f"wrote {opened.catalog}")


@click.command(
    name="compact",
    short_help="Merge small files, without the rows that newer exports hide.",
    epilog="Example: chatexport compact --lake ./lake",
)
@lake_option
@json_option
def compact_lake(*, lake: str, as_json: bool) -> None:
    """Merge small files into larger ones, and leave out the rows that newer exports hide.

    Queries show the same as before.
    """
    with TerminalProgress() as progress:
        report = Lake(lake).compact(progress=progress.stage)
    if as_json:
        click.echo(json.dumps(report.to_json()))
    elif report.record_id is None:
        click.echo("nothing to do: every day of every table is one file, and none of its rows is hidden")
    else:
        click.echo(
            f"merged {report.files_before} files of {report.days} days into {report.files_after}: {report.rows} rows, "
            f"{report.rows_hidden} hidden ones left out, {report.seconds:.1f} s"
        )


@click.command(
    name="vacuum",
    short_help="Delete the files that no query needs.",
    epilog="Example: chatexport vacuum --lake ./lake --keep 7d",
)
@lake_option
@click.option(
    "--keep",
    type=Duration(),
    default="1d",
    show_default=True,
    help="Keep files that were superseded within this time, for readers with an older catalog open: 0s, 36h, 7d.",
)
@click.option("--history", is_flag=True, help="Also delete what --keep-superseded kept for messages_history.")
@json_option
def vacuum_lake(*, lake: str, keep: timedelta, history: bool, as_json: bool) -> None:
    """Delete the files that no query needs, and what broken-off work left behind."""
    report = Lake(lake).vacuum(keep=keep, history=history)
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        click.echo(
            f"deleted {len(report.superseded)} superseded files, {len(report.unknown)} files that are in no record, "
            f"{report.n_leftovers} leftovers of broken-off work"
        )


@click.command(
    name="forget-user",
    short_help="Remove a person from every file.",
    epilog="Example: chatexport forget-user ann-17 --lake ./lake",
)
@click.argument("user_id", metavar="ID")
@lake_option
@click.option(
    "--keep-messages", is_flag=True, help="Keep the rows of the messages that they sent, without author and text."
)
@json_option
def forget(*, user_id: str, lake: str, keep_messages: bool, as_json: bool) -> None:
    """Remove a person from every file of the lake, keep them out of every later load, and print a receipt."""
    with TerminalProgress() as progress:
        report = Lake(lake).forget_user(
            user_id,
            keep_messages=keep_messages,
            pseudonym_key=os.environ.get(PSEUDONYM_KEY),
            progress=progress.stage,
        )
    if as_json:
        click.echo(json.dumps(report.to_json()))
        return
    tables = sorted(report.removed.keys() | report.blanked.keys())
    if tables:
        print_table(
            ["table", "rows removed", "rows blanked"],
            [[name, report.removed[name], report.blanked[name]] for name in tables],
        )
        click.echo(f"rewrote {len(report.files)} files; {report.seconds:.1f} s")
    else:
        click.echo("the lake has nothing of this person")
    click.echo("the id is on the lake's suppression list: later loads leave the person out")
