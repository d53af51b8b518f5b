"""``chatexport catalog``, ``compact``, ``vacuum`` and ``forget-user``: what rewrites the lake."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import click

from airflow_provider_chatexport.cli.options import PSEUDONYM_KEY, Duration, json_option, lake_option
from airflow_provider_chatexport.cli.terminal import TerminalProgress, print_table
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.maintenance.forget import forget_user
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.storage.address import open_store


@click.command(
    name="catalog", short_help="Writes catalog.duckdb anew.", epilog="Example: chatexport catalog --lake ./lake"
)
@lake_option
@json_option
def write_catalog(*, lake: str, as_json: bool) -> None:
    """Writes catalog.duckdb anew from the records of loads, and puts the tables' folders in order; of no lake, an
    empty one."""
    store = open_store(lake)
    store.prepare()
    refresh(store, full=True)
    path = store.url(catalog_file.NAME)
    click.echo(json.dumps({"catalog": path}) if as_json else f"wrote {path}")


@click.command(
    name="compact",
    short_help="Fewer, larger files, without hidden rows.",
    epilog="Example: chatexport compact --lake ./lake",
)
@lake_option
@json_option
def compact_lake(*, lake: str, as_json: bool) -> None:
    """Fewer, larger files, without the rows that newer exports hide."""
    with TerminalProgress() as progress:
        done = compact(open_store(lake), progress=progress.stage)
    if as_json:
        click.echo(json.dumps(done.to_json()))
    elif done.record_id is None:
        click.echo("nothing to do: every day of every table is one file, and no row of it is hidden")
    else:
        click.echo(
            f"{done.files_before} files of {done.days} days became {done.files_after}: {done.rows} rows, "
            f"{done.rows_hidden} hidden ones left out, {done.seconds:.1f} s"
        )


@click.command(
    name="vacuum",
    short_help="Deletes what no query needs any more.",
    epilog="Example: chatexport vacuum --lake ./lake --keep 7d",
)
@lake_option
@click.option("--keep", type=Duration(), default="1d", show_default=True, help="Keep what died since: 0s, 36h, 7d.")
@click.option("--history", is_flag=True, help="Also what --keep-superseded kept for messages_history.")
@json_option
def vacuum_lake(*, lake: str, keep: timedelta, history: bool, as_json: bool) -> None:
    """Deletes files that no query needs any more, and what broken-off work left behind."""
    swept = vacuum(open_store(lake), keep=keep, now=datetime.now(UTC), history=history)
    if as_json:
        click.echo(json.dumps(swept.to_json()))
    else:
        click.echo(
            f"deleted {len(swept.superseded)} superseded files, {len(swept.unknown)} files of no record, "
            f"{swept.n_leftovers} leftovers of broken-off work"
        )


@click.command(
    name="forget-user",
    short_help="Removes a person from every file.",
    epilog="Example: chatexport forget-user ann-17 --lake ./lake",
)
@click.argument("user_id", metavar="ID")
@lake_option
@click.option("--keep-messages", is_flag=True, help="Keep what they sent as rows, without author and text.")
@json_option
def forget(*, user_id: str, lake: str, keep_messages: bool, as_json: bool) -> None:
    """Removes a person from every file of the lake, keeps them out, and prints a receipt."""
    store = open_store(lake)
    with TerminalProgress() as progress:
        receipt = forget_user(
            store,
            user_id,
            now=datetime.now(UTC),
            keep_messages=keep_messages,
            pseudonym_key=os.environ.get(PSEUDONYM_KEY),
            progress=progress.stage,
        )
    if as_json:
        click.echo(json.dumps(receipt.to_json()))
        return
    tables = sorted(receipt.removed.keys() | receipt.blanked.keys())
    if tables:
        print_table(
            ["table", "rows removed", "rows blanked"],
            [[name, receipt.removed[name], receipt.blanked[name]] for name in tables],
        )
        click.echo(f"{len(receipt.files)} files were written anew; {receipt.seconds:.1f} s")
    else:
        click.echo("the lake has nothing of them")
    click.echo("they are on the lake's list, and stay out whatever is loaded")
