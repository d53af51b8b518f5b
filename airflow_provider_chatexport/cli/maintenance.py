"""``chatexport catalog``, ``compact``, ``vacuum`` and ``forget-user``: maintenance of a lake."""

from __future__ import annotations

import json
import os
from datetime import timedelta

import click

from airflow_provider_chatexport.cli.command import command
from airflow_provider_chatexport.cli.options import PSEUDONYM_KEY, json_option, lake_option, yes_option
from airflow_provider_chatexport.cli.terminal import TerminalProgress, can_ask, print_table
from airflow_provider_chatexport.cli.values import Duration
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.maintenance.removal import OTHER_ENGINES, ForgetReport


@command(name="catalog", short_help="Rebuild catalog.duckdb.", epilog="Example: chatexport catalog --lake ./lake")
@lake_option
@json_option
def write_catalog(*, lake: str, as_json: bool) -> None:
    """Rebuild catalog.duckdb from the load records, and repair the table folders."""
    opened = Lake(lake)
    opened.require()
    opened.rebuild_catalog()
    click.echo(json.dumps({"catalog": opened.catalog}) if as_json else f"wrote {opened.catalog}")


@command(
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
            f"merged {report.files_before} files into {report.files_after}: {report.rows} rows, "
            f"{report.rows_hidden} hidden ones left out, {report.seconds:.1f} s"
        )


@command(
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


@command(
    name="forget-user",
    short_help="Remove a person from every file.",
    epilog="Example: chatexport forget-user ann-17 --lake ./lake --dry-run",
)
@click.argument("user_id", metavar="ID")
@lake_option
@click.option("--dry-run", is_flag=True, help="Change nothing, and show what would change: counts, files and columns.")
@yes_option
@click.option(
    "--names",
    is_flag=True,
    help="In texts of others, replace names of one word, too, and the ID even if it is an ordinary word.",
)
@click.option(
    "--keep-messages", is_flag=True, help="Keep the rows of the messages that they sent, without author and text."
)
@click.option(
    "--even-if-unknown",
    is_flag=True,
    help="If the lake does not know the ID, keep the person out of later loads, and change nothing else.",
)
@json_option
def forget(*, user_id: str, lake: str, dry_run: bool, yes: bool, as_json: bool, **options: bool) -> None:
    """Remove a person from every file of the lake, keep them out of every later load, and print a receipt.

    An ID that the lake does not know is refused. On a terminal, the command first shows what it would change, and asks.
    Where it is not started from a terminal, as in a script, it does not ask.
    """
    opened = Lake(lake)

    def run(*, is_dry: bool) -> ForgetReport:
        with TerminalProgress() as progress:
            return opened.forget_user(
                user_id,
                dry_run=is_dry,
                pseudonym_key=os.environ.get(PSEUDONYM_KEY),
                progress=progress.stage,
                **options,
            )

    if not (dry_run or yes) and can_ask():
        _show_removal(run(is_dry=True), err=True)
        click.confirm("Remove the person? This cannot be undone", abort=True, err=True)
    report = run(is_dry=dry_run)
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        _show_removal(report)


def _show_removal(report: ForgetReport, *, err: bool = False) -> None:
    """Print what a removal did, or would do."""
    would = "would be " if report.dry_run else ""
    tables = sorted(report.removed.keys() | report.blanked.keys())
    rows = [[name, report.removed[name], report.blanked[name]] for name in tables]
    if not report.is_known:
        click.echo("the lake does not know this id, and nothing in it changes", err=err)
    elif rows:
        print_table(["table", f"rows {would}removed", f"rows {would}blanked"], rows, err=err)
        if report.places:
            places = [[each["table"], each["day"], each["column"] or "the row", each["rows"]] for each in report.places]
            print_table(["table", "day", "column", "rows"], places, err=err)
        click.echo(f"{len(report.files)} files {would or 'were '}rewritten; {report.seconds:.1f} s", err=err)
    else:
        click.echo("the lake has nothing of this person", err=err)
    if report.unsearched:
        click.echo(
            f"{len(report.unsearched)} files are missing or damaged and could not be searched, such as "
            f"{report.unsearched[0]}; run chatexport repair, which takes them out of the lake, then chatexport vacuum",
            err=err,
        )
    if report.texts:
        click.echo(f"in texts of others, {_texts(report)}", err=err)
    if report.published:
        click.echo(f"published again as {' and '.join(report.published)}; {OTHER_ENGINES}", err=err)
    on_list = "would be on" if report.dry_run else "is on"
    click.echo(f"the id {on_list} the lake's suppression list: later loads leave the person out", err=err)


def _texts(report: ForgetReport) -> str:
    """Return what texts of others lose, as a part of a sentence."""
    texts = report.texts
    n_names, n_staying = texts["full_names"] + texts["names_of_one_word"], texts["names_of_one_word_that_stay"]
    parts = [f"the id is replaced {texts['id']}, and so are {n_names} names"]
    if n_staying:
        parts.append(f"{n_staying} names of one word stay (--names replaces them as well)")
    return "; ".join(parts)
