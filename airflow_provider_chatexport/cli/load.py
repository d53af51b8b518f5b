"""``chatexport load``: files that are here already, into the lake."""

from __future__ import annotations

import json
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airflow_provider_chatexport.cli.options import Moment, json_option, lake_option, load_options, options_from
from airflow_provider_chatexport.cli.terminal import TerminalProgress, print_table
from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.storage.fingerprint import Fingerprint

if TYPE_CHECKING:
    from airflow_provider_chatexport.lake.load.report import LoadReport


@click.command(
    short_help="Export files that are here already, into the lake.",
    epilog="Example: chatexport load export.ndjson.gz --lake ./lake",
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@lake_option
@click.option("--since", type=Moment(), help="What the files cover, if you know: begin, inside.")
@click.option("--until", type=Moment(), help="End, outside.")
@click.option("--exported-at", type=Moment(), help="When the service made them; default: each file's own time.")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in ExportKind]),
    help="What they are exports of; default: told by what each file holds.",
)
@load_options
@json_option
def load(**given: Any) -> None:
    """Export files that are already here, into the lake: of channels (v1 or v2) or of users, plain or gzip."""
    options = options_from(given)
    if (given["since"] is None) != (given["until"] is None):
        raise CallError("only one end of the window is given; give both --since and --until, or neither")
    window = Window(since=given["since"], until=given["until"]) if given["since"] else None
    with ThreadPoolExecutor(1) as beside:
        # Importing takes half a second, and hashing leaves Python's lock alone: they go side by side.
        fingerprints = beside.map(Fingerprint.of, given["files"])
        from airflow_provider_chatexport.lake.load.job import load_files  # noqa: PLC0415
    with TerminalProgress() as progress:
        report = load_files(
            given["files"],
            fingerprints=list(fingerprints),
            lake_uri=given["lake"],
            window=window,
            exported_at=given["exported_at"],
            kind=ExportKind(given["kind"]) if given["kind"] else None,
            options=options,
            progress=progress.stage,
        )
    print_report(report, given["lake"], as_json=given["as_json"])


def print_report(report: LoadReport, lake: str, *, as_json: bool) -> None:
    """What a load did, as text or as one JSON object."""
    value = report.to_json()
    if as_json:
        click.echo(json.dumps(value))
        return
    if report.already_loaded:
        click.echo(f"load {value['load_id']} is in the lake already; nothing was written")
    print_table(["table", "rows"], [[name, count] for name, count in value["rows"].items() if count])
    n_forgotten = sum(report.record.counts["forgotten"].values())
    forgotten = f", {n_forgotten} rows of people who stay out" if n_forgotten else ""
    click.echo(
        f"load {value['load_id']}: {value['lines']} lines, {value['rejected']} rejected, "
        f"{value['out_of_window']} out of window, {value['duplicates']} duplicates, "
        f"{value['other_entities']} other entities{forgotten}; {len(value['files'])} files, {value['seconds']:.1f} s"
    )
    if cast_failures := value.get("cast_failures"):
        told = ", ".join(f"{key} ({count})" for key, count in cast_failures.items())
        click.echo(f"values of another kind than their column's, kept in custom: {told}")
    asked = f'chatexport sql "FROM messages LIMIT 10" --lake {shlex.quote(lake)}'
    click.echo(f"query it: {asked}, or duckdb {shlex.quote(report.catalog)}")
