"""``chatexport coverage``, ``verify`` and ``sql``: what the lake holds. They change nothing."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from airflow_provider_chatexport.cli.options import json_option, lake_option
from airflow_provider_chatexport.cli.terminal import print_table
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.catalog import query
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.store import LakeStore


@click.command(
    name="coverage",
    short_help="Which channel is covered when.",
    epilog="Example: chatexport coverage --lake ./lake --png coverage.png",
)
@lake_option
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), help="Draw it: channels by time.")
@json_option
def show_coverage(*, lake: str, png: Path | None, as_json: bool) -> None:
    """Which channel is covered from when to when without a gap; --png draws gaps, and what was loaded again, too."""
    store = open_store(lake)
    if png is not None:
        _draw(store, png)
    spans = query.coverage(store)
    if as_json:
        click.echo(json.dumps({"coverage": spans} | ({"png": str(png)} if png else {})))
        return
    print_table(["channel", "since", "until", "loads", "messages"], [list(span.values()) for span in spans])
    if png is not None:
        click.echo(f"drawn in {png}")


def _draw(store: LakeStore, path: Path) -> None:
    try:
        # Drawing is optional, and its library takes longer to load than the rest of the command.
        from airflow_provider_chatexport.cli import charts  # noqa: PLC0415
    except ImportError:
        raise CallError(
            "a picture needs matplotlib, which is not installed; pip install 'airflow-provider-chatexport[plot]'"
        ) from None
    try:
        charts.draw_coverage(query.coverage_map(store), store.uri, path)
    except OSError as error:
        raise CallError(f"cannot write {path}: {error.strerror}; name a file in a folder that can be written") from None


@click.command(
    name="verify",
    short_help="Is anything missing, altered or unaccounted for?",
    epilog="Example: chatexport verify --lake ./lake",
)
@lake_option
@json_option
def verify_lake(*, lake: str, as_json: bool) -> None:
    """Is anything missing, altered or unaccounted for? Ends with 1 if so."""
    verdict = verify(open_store(lake), now=datetime.now(UTC))
    if as_json:
        click.echo(json.dumps(verdict.to_json()))
    else:
        if verdict.findings:
            print_table(["", "kind", "what"], [["!" if f.is_fault else "", f.kind, f.what] for f in verdict.findings])
        click.echo(
            f"{_count(verdict.n_loads, 'load')}, {_count(verdict.n_files, 'file')}: "
            + ("all is as recorded, without a gap" if verdict.ok else "not all is well")
        )
    if not verdict.ok:
        sys.exit(1)


@click.command(
    name="sql",
    context_settings={"ignore_unknown_options": True},  # a query may begin with a comment
    epilog='Example: chatexport sql "SELECT cid, count(*) FROM messages GROUP BY 1" --lake ./lake',
)
@click.argument("statement", metavar="QUERY")
@lake_option
@json_option
def run_sql(*, statement: str, lake: str, as_json: bool) -> None:
    """A query over the catalog's views."""
    columns, rows = query.run(open_store(lake), statement)
    if as_json:
        click.echo(json.dumps({"columns": columns, "rows": rows}, default=str, allow_nan=False))
    else:
        print_table(columns, rows)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
