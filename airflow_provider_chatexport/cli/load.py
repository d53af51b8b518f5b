"""``chatexport load``: load files that are already here into the lake."""

from __future__ import annotations

import json
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airflow_provider_chatexport.cli.command import command
from airflow_provider_chatexport.cli.light_imports import quick_imports
from airflow_provider_chatexport.cli.options import (
    json_option,
    lake_option,
    load_options,
    named_channels,
    options_from,
)
from airflow_provider_chatexport.cli.publish import print_publication, publish, require_installed
from airflow_provider_chatexport.cli.terminal import TerminalProgress, print_table
from airflow_provider_chatexport.cli.values import Moment
from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.retention import Retention, stated_retention
from airflow_provider_chatexport.core.sinks import Sink
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.storage.fingerprint import Fingerprint

if TYPE_CHECKING:
    from airflow_provider_chatexport.lake.load.report import LoadReport
    from airflow_provider_chatexport.lake.publish.driver import PublishReport

_QUERY = 'chatexport sql "SELECT event_date, cid, user_id, text FROM messages LIMIT 10"'
_NAMED = {"id": "named by id", "object": "as whole objects"}


@command(
    short_help="Load export files that are already here.",
    epilog="Example: chatexport load export.ndjson.gz --lake ./lake",
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@lake_option
@click.option(
    "--since", type=Moment(), help="Start of the window that the files cover (inclusive), if you know it; ISO 8601."
)
@click.option("--until", type=Moment(), help="End of that window (exclusive).")
@click.option(
    "--exported-at",
    type=Moment(),
    help="When the service made the files; by default the modification time of each file.",
)
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in ExportKind]),
    help="What the files are exports of; by default the content of each file says so.",
)
@click.option(
    "--channel",
    "channels",
    multiple=True,
    metavar="TYPE:ID",
    help="A channel that the files are an export of, or several separated by commas. Its window then counts as covered "
    "even if nothing was written in it: the export of a quiet window may be an empty file. Needs --since and --until.",
)
@load_options
@json_option
def load(**arguments: Any) -> None:
    """Load export files that are already here into the lake.

    Files may be exports of channels (v1 or v2) or of users, plain or gzip.
    """
    options, sink = options_from(arguments), Sink(arguments["sink"])
    require_installed(sink)
    stated_retention(options.retention)  # before gigabytes are hashed, as the window below
    if (arguments["since"] is None) != (arguments["until"] is None):
        raise CallError("only one end of the window is given; give both --since and --until, or neither")
    if arguments["since"]:
        Window(since=arguments["since"], until=arguments["until"])  # refuses a wrong window before gigabytes are hashed
    if (channels := named_channels(arguments)) and not arguments["since"]:
        raise CallError("--channel needs the window that the files cover; give --since and --until too")
    with ThreadPoolExecutor(1) as hashing:
        # The import takes half a second. Hashing releases Python's lock, so both run at the same time.
        fingerprints = hashing.map(Fingerprint.of, arguments["files"])
        with quick_imports():
            from airflow_provider_chatexport.lake import Lake  # noqa: PLC0415
    with TerminalProgress() as progress:
        report = Lake(arguments["lake"]).load(
            arguments["files"],
            fingerprints=list(fingerprints),
            since=arguments["since"],
            until=arguments["until"],
            exported_at=arguments["exported_at"],
            kind=arguments["kind"],
            channels=channels,
            options=options,
            progress=progress.stage,
        )
    published = None if sink is Sink.PARQUET else publish(arguments["lake"], sink)
    print_report(report, arguments["lake"], published, as_json=arguments["as_json"])


def print_report(report: LoadReport, lake: str, published: PublishReport | None = None, *, as_json: bool) -> None:
    """Print what a load did, and the publication after it, as text or as one JSON object."""
    value = report.to_json()
    if as_json:
        click.echo(json.dumps(value | ({"published": published.to_json()} if published else {})))
        return
    if report.already_loaded:
        click.echo(f"load {value['load_id']} is already in the lake; nothing was written")
    for what, names in _inputs(value["inputs"]).items():
        click.echo(f"{names[0] if len(names) == 1 else f'{len(names)} files'}: {what}")
    print_table(["table", "rows"], [[name, count] for name, count in value["rows"].items() if count])
    n_suppressed = sum(report.record.counts["forgotten"].values())
    suppressed = f", {n_suppressed} rows of people on the suppression list" if n_suppressed else ""
    click.echo(
        f"load {value['load_id']}: {value['lines']} lines, {value['rejected']} rejected, "
        f"{value['out_of_window']} out of window, {value['duplicates']} duplicates, "
        f"{value['other_entities']} other entities{suppressed}; {len(value['files'])} files, {value['seconds']:.1f} s"
    )
    if cast_failures := value.get("cast_failures"):
        by_column = ", ".join(f"{key} ({count})" for key, count in cast_failures.items())
        click.echo(f"values of another type than their column's, kept in custom: {by_column}")
    if report.vanished:
        click.echo(f"{report.vanished}: the load covers them and does not contain them")
    if report.retention is not None:
        click.echo(_kept(report.retention))
    if published is not None:
        print_publication(published)
    click.echo(f"query it: {_QUERY} --lake {shlex.quote(lake)}{_shell(report.catalog)}")


def _shell(catalog: str) -> str:
    """Return how to open the catalog in DuckDB's shell; nothing for an object store, which takes an extension."""
    # A shell that opens the catalog to write it, as by default, keeps every other reader out.
    return "" if "://" in catalog else f", or duckdb -readonly {shlex.quote(catalog)}"


def _kept(retention: dict[str, Any]) -> str:
    """Return what a load with retention does not claim, in words."""
    kept = Retention.from_json(retention)
    if retention["horizon"] is None:
        return f"retention: the service keeps messages {kept}, so nothing was clipped"
    n_clipped = retention["clipped"]
    return (
        f"retention of {kept}: {n_clipped} coverage entr{'y' if n_clipped == 1 else 'ies'} clipped at "
        f"{retention['horizon']}; older messages stay as they are"
    )


def _inputs(inputs: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return what the files were taken for, in words, each with the names of those files."""
    by_words: dict[str, list[str]] = {}
    for each in inputs:
        why = ""
        if each["evidence"]:
            why = f" ({each['evidence']}; if it is one of channels, load it with --kind channels)"
        words = [f"an export of {each['kind']}{why}"]
        if each["array"]:
            words.append("one JSON array, as v1 is")
        elif each["shapes"]:
            words.append(f"lines of the shape {' and '.join(each['shapes'])}")
        if each["references"]:
            words.append(f"users {' and '.join(_NAMED[reference] for reference in each['references'])}")
        by_words.setdefault(", ".join(words), []).append(each["name"])
    return by_words
