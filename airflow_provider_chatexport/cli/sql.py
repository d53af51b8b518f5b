"""``chatexport sql`` and ``tables``: query a lake, and look up what there is to query."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from airflow_provider_chatexport.cli.command import Command, command
from airflow_provider_chatexport.cli.options import json_option, lake_option
from airflow_provider_chatexport.cli.output_file import whole_file
from airflow_provider_chatexport.cli.result import print_drawn, print_records, print_text, write_csv, write_ndjson
from airflow_provider_chatexport.cli.terminal import print_table
from airflow_provider_chatexport.cli.words import count, did_you_mean
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake import Lake

_STDIN: Final = "-"
# A query may start with a comment. It contains a space or a line break, and the name of an option does not.
_COMMENT: Final = re.compile(r"--[^\s=]*\s")
_FORMATS: Final = ("csv", "ndjson", "parquet", "records", "as_json")


class _QueryCommand(Command):
    """A command whose argument may start with a comment of SQL, ``-- ...``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"\n{each}" if _COMMENT.match(each) else each for each in args])


@command(
    name="sql",
    cls=_QueryCommand,
    short_help="Run a query over the lake's tables.",
    epilog='Example: chatexport sql "SELECT event_date, count(*) FROM messages GROUP BY 1 ORDER BY 1" --lake ./lake',
)
@click.argument("query", required=False)
@click.option(
    "-f", "--file", type=click.Path(path_type=Path, allow_dash=True), help="Read the query from this file; - for stdin."
)
@lake_option
@click.option("--csv", is_flag=True, help="Print CSV with a header, in UTF-8. Lists and objects are JSON.")
@click.option("--ndjson", is_flag=True, help="Print one JSON object per row and line.")
@click.option(
    "--parquet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a Parquet file, with the types of the columns.",
)
@click.option("--records", is_flag=True, help="Print each row as a block with one line per column.")
@json_option
def run_sql(**arguments: Any) -> None:
    """Run a query over the views of the lake, with times in UTC. chatexport tables lists them.

    QUERY may be - for stdin. A terminal shows a table as DuckDB draws it, which leaves out columns and rows that have
    no room; a single row is then shown as with --records. Into a pipe or a file, all columns and rows are printed. CSV
    and NDJSON stream: if a query fails halfway, the command may have printed rows by then, and it exits with 1. A
    query cannot change anything.
    """
    if len(chosen := [name for name in _FORMATS if arguments[name]]) > 1:
        names = " and ".join(f"--{name.removeprefix('as_')}" for name in chosen)
        raise CallError(f"{names} are given; give one of them")
    query = _query(arguments["query"], arguments["file"])
    with Lake(arguments["lake"]) as lake:
        output = lake.output(query)
        if arguments["csv"]:
            write_csv(output)
        elif arguments["ndjson"]:
            write_ndjson(output)
        elif arguments["parquet"]:
            with whole_file(arguments["parquet"]) as part:
                output.write_parquet(part)
        elif arguments["records"]:
            print_records(output)
        elif arguments["as_json"]:
            columns, rows = output.fetch()
            click.echo(json.dumps({"columns": columns, "rows": rows}, default=str, allow_nan=False))
        elif sys.stdout.isatty():
            print_drawn(output)
        else:
            print_text(output)


def _query(argument: str | None, file: Path | None) -> str:
    """Return the query that was typed, or the content of the file or of stdin."""
    if (argument is None) == (file is None):
        raise CallError("give one query: as an argument, as a file with -f FILE, or on stdin with -")
    try:
        if _STDIN in (argument, str(file)):
            return sys.stdin.buffer.read().decode()
        return argument if file is None else file.read_text(encoding="utf-8")  # type: ignore[return-value]
    except OSError as error:
        raise CallError(f"the query cannot be read from {file}: {error.strerror}; name a file with a query") from None
    except UnicodeDecodeError:
        raise CallError("the query is not UTF-8 text; save it as UTF-8") from None


@command(
    name="tables",
    short_help="Show the views and their columns.",
    epilog="Example: chatexport tables messages --lake ./lake",
)
@click.argument("view", required=False)
@lake_option
@json_option
def show_tables(*, view: str | None, lake: str, as_json: bool) -> None:
    """Show what there is to query: the views and macros of the lake, or the columns of one VIEW."""
    with Lake(lake) as opened:
        views = _views(opened)
        macros = opened.fetch(_MACROS).rows
    if view is not None and view not in views:
        raise CallError(
            f"there is no view {view!r}.{did_you_mean(view, views)} chatexport tables shows all views of the lake"
        )
    if as_json:
        shown = views if view is None else {view: views[view]}
        value = {
            "views": [{"name": name, **each} for name, each in shown.items()],
            "macros": [dict(zip(("name", "parameters", "doc"), macro, strict=True)) for macro in macros],
        }
        click.echo(json.dumps(value))
    elif view is not None:
        click.echo(f"{view}: {views[view]['doc']}\n")
        print_table(["column", "type", "what it is"], [list(each.values()) for each in views[view]["columns"]])
    else:
        rows = [[name, len(each["columns"]), each["doc"]] for name, each in views.items()]
        print_table(["view", "columns", "what it shows"], rows)
        click.echo()
        print_table(["macro", "what it returns"], [[f"{name}({', '.join(of)})", doc] for name, of, doc in macros])
        click.echo(f"\n{count(len(views), 'view')}. The columns of one: chatexport tables messages")


_VIEWS: Final = """
    SELECT view_name, views.comment, column_name, data_type, columns.comment
    FROM duckdb_views() views JOIN duckdb_columns() columns USING (database_oid, schema_oid)
    WHERE views.database_name = 'lake' AND views.schema_name = 'main' AND view_name = table_name
    ORDER BY view_name, column_index"""
_MACROS: Final = """
    SELECT function_name, parameters, comment FROM duckdb_functions()
    WHERE database_name = 'lake' AND schema_name = 'main' ORDER BY function_name"""


def _views(lake: Lake) -> dict[str, dict[str, Any]]:
    """Return the views by name, each with what its comments say of it and of its columns."""
    views: dict[str, dict[str, Any]] = {}
    for name, doc, *column in lake.fetch(_VIEWS).rows:
        views.setdefault(name, {"doc": doc, "columns": []})["columns"].append(_column(column))
    return views


def _column(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(("name", "type", "doc"), values, strict=True))
