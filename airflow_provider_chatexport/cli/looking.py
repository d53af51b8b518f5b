"""``chatexport coverage``, ``verify`` and ``sql``: what the lake holds. They change nothing."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import click

from airflow_provider_chatexport.cli.options import json_option, lake_option
from airflow_provider_chatexport.cli.terminal import print_table
from airflow_provider_chatexport.lake import query
from airflow_provider_chatexport.lake.store import LakeStore
from airflow_provider_chatexport.lake.verify import verify


@click.command(name="coverage", epilog="Example: chatexport coverage --lake ./lake")
@lake_option
@json_option
def show_coverage(*, lake: str, as_json: bool) -> None:
    """Which channel is covered when."""
    spans = query.coverage(LakeStore(lake))
    if as_json:
        click.echo(json.dumps({"coverage": spans}))
        return
    print_table(["channel", "since", "until", "loads", "messages"], [list(span.values()) for span in spans])


@click.command(name="verify", epilog="Example: chatexport verify --lake ./lake")
@lake_option
@json_option
def verify_lake(*, lake: str, as_json: bool) -> None:
    """Is anything missing, altered or unaccounted for? Ends with 1 if so."""
    verdict = verify(LakeStore(lake), now=datetime.now(UTC))
    if as_json:
        click.echo(json.dumps(verdict.to_json()))
    else:
        if verdict.findings:
            print_table(["", "kind", "what"], [["!" if f.is_fault else "", f.kind, f.what] for f in verdict.findings])
        click.echo(
            f"{verdict.n_loads} loads, {verdict.n_files} files: "
            + ("all is as recorded, without a gap" if verdict.ok else "not all is well")
        )
    if not verdict.ok:
        sys.exit(1)


@click.command(
    name="sql", epilog='Example: chatexport sql "SELECT cid, count(*) FROM messages GROUP BY 1" --lake ./lake'
)
@click.argument("statement", metavar="QUERY")
@lake_option
@json_option
def run_sql(*, statement: str, lake: str, as_json: bool) -> None:
    """A query over the catalog's views."""
    columns, rows = query.run(LakeStore(lake), statement)
    if as_json:
        click.echo(json.dumps({"columns": columns, "rows": rows}, default=str))
    else:
        print_table(columns, rows)
