"""Write what is generated in docs/: the tables, the command line, and the calculated table of scaling.md.

A test compares the pages with what this writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import click
import pyarrow as pa
from rich.filesize import decimal

from airflow_provider_chatexport.cli import cli
from airflow_provider_chatexport.core.estimate import Backfill, estimate
from airflow_provider_chatexport.core.times import EARLIEST, LATEST
from airflow_provider_chatexport.lake.catalog import history_view, macros, metadata_views
from airflow_provider_chatexport.lake.catalog.metadata_views import MetadataView
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.schema.types import Placement, Table

# Channels and messages of the backfills in scaling.md, and how many windows of how many days a year is cut into.
_BACKFILLS = ((400, 3_000_000), (5_000, 50_000_000), (20_000, 500_000_000), (100_000, 5_000_000_000))
_YEARS = ((365, 1), (52, 7), (12, 30))

DOCS = Path(__file__).resolve().parents[1] / "docs"

_PLACEMENT = {
    Placement.EVENT: "One folder per UTC month of `{day_column}`. By the truth rule, the view shows the rows of the "
    "export that is right.",
    Placement.SNAPSHOT: "One folder per UTC day of the export. The view shows the newest row of a key.",
    Placement.LOG: "One folder per UTC day of the export.",
}
_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "extension<arrow.json>": "JSON",
    "list<item: string>": "VARCHAR[]",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}


def tables_page() -> str:
    """Return the table reference as Markdown."""
    parts = [
        "# Tables",
        "Query them through the views of `catalog.duckdb`: with `chatexport sql`, in Python with `Lake.sql` and "
        "`Lake.table`, or in DuckDB. The files of a table are in the folder with its name. `python "
        "scripts/make_docs.py` writes this page from the registry, `lake/schema/tables.py`.",
        _times(),
        _files(),
        *(_table(table) for table in TABLES),
        *(_view(view) for view in metadata_views.VIEWS),
        _history(),
        _macros(),
    ]
    return "\n\n".join(parts) + "\n"


def _times() -> str:
    years = f"{EARLIEST.year} to {LATEST.year - 1}"
    return f"""\
## In DuckDB's shell

```sh
duckdb -readonly -cmd "SET TimeZone = 'UTC'" lake/catalog.duckdb
```

- **Without `-readonly`**, a shell opens the catalog to write it, and DuckDB then locks every other process out: other \
shells, dbt, a BI tool. So the file is read-only on disk, and only root can open it in another way. Queries of \
`chatexport` and `Lake` read a locked catalog all the same, and loads replace it; the shell goes on with the old one.
- **The time zone** of a session decides how DuckDB shows a time and where a day begins in `created_at::DATE` and \
`date_trunc('day', created_at)`: a shell in New York counts other days. `SET TimeZone = 'UTC'` makes all of it UTC, \
also as a line of `~/.duckdbrc`. `chatexport sql` and `Lake` set it. `event_date` and the macros are in UTC in \
every session: `GROUP BY event_date` counts the same days everywhere.

## Times

Times are in UTC, in microseconds, and of the years {years}: pandas with nanoseconds, Spark, Arrow and DuckDB can hold
them in every time zone. Digits after the microsecond are cut. One rule holds for every time column, and for columns
that are promoted to a time:

| what the export has | the column |
|---|---|
| RFC3339 text with an offset, or unix nanoseconds as a number or in quotes | the time |
| null, empty text, 0, or Go's zero time (`0001-01-01T00:00:00Z`, with any offset and any digits, or as a number) | \
null: there is no time |
| anything else: other text, a number of seconds, milliseconds or microseconds, a time of another year | \
null; the value stays in `custom`, and counts in `cast_failures` |

The `created_at` of a message or reaction decides its day and its window. If it is not a time, the object is a reject,
and the reason says what it is instead."""


def _files() -> str:
    return """\
## Files

| files | hold | a file ends |
|---|---|---|
| `messages`, `reactions`, `attachments`: `event_month=2026-01/*.parquet` | rows of that UTC month, and their day as \
`event_date` | after a load of up to 14 days: with its day; else at 256 MB, with the day in which it exceeds them |
| all other tables: `export_date=2026-01-02/*.parquet` | rows of exports up to that UTC day; of a load, of that day | \
with the load, or with what a compaction merged |

Loads and compactions write several files into a folder, and each file into one folder. The views read exactly the live
files, whichever layout these have. Everywhere, the data lie below `LAKE/_files/<table>/`. On a disk, the table's folder
holds links to the live files; an object store has no links, and no such folder. A column of the type JSON is text in
the files, because pyiceberg and polars refuse Arrow's type for JSON; the views cast it, and a query over files does so
with `custom::JSON`. What a glob over the files sees:

| lake | query | rows |
|---|---|---|
| any | `FROM messages` over `catalog.duckdb` | right, always |
| on an object store | `FROM read_parquet('LAKE/messages/*/*.parquet')` | an error: there is no such file. In a lake \
that a version before this layout wrote, the files of that version |
| on an object store | `FROM read_parquet('LAKE/_files/messages/*/*.pq')` | those of the view, and those of files \
that are superseded and not yet deleted, for a day at least; of loads that broke off; and of `messages_history` |
| on a disk, event tables | `FROM read_parquet('LAKE/messages/*/*.parquet')` | those of the view, except while a load \
that partly overlaps older ones has not been compacted. `event_date` is a column of files; `event_month` comes from \
the folder |
| on a disk, other tables | `FROM read_parquet('LAKE/users/*/*.parquet')` | the rows of every export, until a \
compaction keeps the newest of each key. `export_date` comes from the folder: the day of the newest export in the \
file |
| on a disk, with promoted columns, or files of older versions | the same with `union_by_name = true` | a column that \
a file does not have is null |
| on a disk, with folders of days, `event_date=2026-01-31`, of versions before the months | the same with \
`hive_partitioning = false, union_by_name = true` | all rows; `event_date` is null where it is only the folder's \
name. With `hive_partitioning = true`, DuckDB refuses folders of two kinds. `chatexport compact` rewrites all of them \
as months |"""


def _table(table: Table) -> str:
    placed = _PLACEMENT[table.placement].format(day_column=table.day_column)
    if table.owned_by is not None:
        placed = f"One folder per UTC day of the export. The view shows the newest export of each `{table.owned_by}`."
    key = f" Key: {', '.join(f'`{name}`' for name in table.key)}." if table.key else ""
    rows = [f"| `{column.name}` | {column.kind.value} | {column.doc} |" for column in table]
    rows.append(f"| `{table.date_column}` | DATE | {table.date_doc} |")
    return "\n".join([f"## {table.name}", "", f"{table.doc}{key} {placed}", "", *_header(), *rows])


def type_of(kind: pa.DataType) -> str:
    """Return the DuckDB type of a metadata view's column."""
    return _TYPES[str(kind)]


def _view(view: MetadataView) -> str:
    rows = [f"| `{column}` | {type_of(kind)} | {doc} |" for column, kind, doc in view.columns]
    return "\n".join([f"## {view.name}", "", view.doc, "", *_header(), *rows])


def _history() -> str:
    rows = [f"| `{column}` | TIMESTAMP WITH TIME ZONE | {doc} |" for column, doc in history_view.COLUMNS]
    rows.append("| ... | | All columns of `messages`. |")
    return "\n".join([f"## {history_view.NAME}", "", history_view.DOC, "", *_header(), *rows])


def _macros() -> str:
    rows = [
        f"| `{each.name}({', '.join(each.parameters)})` | {each.doc} | `{each.example}` |" for each in macros.MACROS
    ]
    where = "The catalog has these macros. They work if it is the database in use: opened by itself, or after `USE`."
    return "\n".join(["## Macros", "", where, "", "| macro | what it returns | example |", "|---|---|---|", *rows])


def _header() -> list[str]:
    return ["| column | type | what it is |", "|---|---|---|"]


_OPTIONS = ("| option | what it is |", "|---|---|")


def cli_page() -> str:
    """Return the page of the command line as Markdown."""
    parts = [
        "# Command line",
        "Without Airflow, `chatexport sync` keeps a lake up to date and `chatexport export` fetches one window. "
        "`chatexport load` loads files that are already here. The other commands query a lake or maintain it.",
        "A command exits with 0 when it is done, with 1 when the work failed, and with 2 when the call was wrong. An "
        "error is one sentence on stderr. With `--json`, a command prints one JSON object and nothing else to stdout. "
        "`chatexport -v COMMAND` logs every stage to stderr. `chatexport --version` prints the version.",
        "`export CHATEXPORT_LAKE=./lake` saves typing `--lake` again and again. For completion of commands and "
        'options, add a line to `~/.bashrc`: `eval "$(_CHATEXPORT_COMPLETE=bash_source chatexport)"`. In zsh it is '
        "`zsh_source`, in `~/.zshrc`. In fish, `_CHATEXPORT_COMPLETE=fish_source chatexport | source`.",
        "A bug report begins with `chatexport doctor --lake ./lake`: it checks versions, connection, clock and lake, "
        "and prints no key.",
        "`python scripts/make_docs.py` writes this page from the commands.",
        *(_command(name, command) for name, command in commands(cli)),
    ]
    return "\n\n".join(parts) + "\n"


def commands(group: click.Group, before: str = "chatexport") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with what people type for it: ``chatexport load``, ``chatexport dbt init``."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{before} {name}")
        elif command is not None:
            yield f"{before} {name}", command


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command)
    arguments = [each.make_metavar(context) for each in command.params if isinstance(each, click.Argument)]
    rows = [
        f"| `{', '.join([*option.opts, *option.secondary_opts])}` | {_prose(option.help or '')}{_more(option)} |"
        for option in command.params
        if isinstance(option, click.Option)
    ]
    example = (command.epilog or "").removeprefix("Example: ")
    usage = f"`{' '.join([name, *arguments])}`, and options:" if arguments else "Options:"
    return "\n".join(
        [
            f"## {name}",
            "",
            inspect.cleandoc(command.help or ""),
            "",
            "```sh",
            example,
            "```",
            "",
            usage,
            "",
            *_OPTIONS,
            *rows,
        ]
    )


def _prose(text: str) -> str:
    """Return text with brackets that Markdown does not take for links."""
    return text.replace("] [", "] \\[")


def _more(option: click.Option) -> str:
    """Return what the option's help text does not say: its choices, its variable and its default."""
    facts = []
    if isinstance(option.type, click.Choice):
        facts.append(f"One of {', '.join(f'`{choice}`' for choice in option.type.choices)}.")
    if option.envvar:
        facts.append(f"Also read from `{option.envvar}`.")
    if option.required:
        facts.append("Required.")
    elif option.secondary_opts:
        facts.append(f"Default: `{(option.opts if option.default else option.secondary_opts)[0]}`.")
    elif isinstance(option.default, (str, int, float)) and not option.is_flag and option.default != "":
        facts.append(f"Default: `{option.default}`.")
    return "".join(f" {each}" for each in facts)


def backfill_table() -> str:
    """Return the table of backfills of a year, as ``chatexport plan`` calculates them."""
    header = (
        "channels | messages | windows | exports | hours | loads | CPU hours | exported | memory of a load | "
        "disk of a load | lake | files"
    )
    rows = [
        _backfill_row(channels, messages, windows, days)
        for channels, messages in _BACKFILLS
        for windows, days in _YEARS
    ]
    return "\n".join([f"| {header} |", "|---" * header.count("|") + "|---|", *rows])


def _backfill_row(channels: int, messages: int, windows: int, days: int) -> str:
    needs = estimate(
        Backfill(channels=channels, messages=messages, windows=windows, window_length=timedelta(days=days))
    )
    cells = [
        f"{channels:,}",
        f"{messages / 1e6:,.0f} M",
        {1: "days", 7: "weeks", 30: "months"}[days],
        f"{needs.exports:,}",
        f"{needs.hours:,.1f}",
        f"{needs.loads:,}",
        f"{needs.cpu_hours:,.1f}",
        *map(decimal, (needs.download_bytes, needs.memory_bytes, needs.work_bytes, needs.lake_bytes)),
        f"{needs.files:,}",
    ]
    return f"| {' | '.join(cells)} |"


def with_backfill_table(page: str) -> str:
    """Return the page with the table in place of the one that it has."""
    return re.sub(r"^\| channels \| messages \|(.*\n\|)+.*$", backfill_table(), page, flags=re.MULTILINE)


if __name__ == "__main__":
    scaling = DOCS / "scaling.md"
    scaling.write_text(with_backfill_table(scaling.read_text()))
    (DOCS / "tables.md").write_text(tables_page())
    (DOCS / "cli.md").write_text(cli_page())
