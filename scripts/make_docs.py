"""Writes what is generated in docs/: today the table reference, from the registry. A test compares."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from airflow_provider_chatexport.lake import history, ledger, macros, schema
from airflow_provider_chatexport.lake.ledger import LedgerView
from airflow_provider_chatexport.lake.table import Placement, Table

DOCS = Path(__file__).resolve().parents[1] / "docs"

_PLACEMENT = {
    Placement.EVENT: "One folder per UTC day of `{placed_by}`, `event_date`. Which export is right: the truth rule.",
    Placement.SNAPSHOT: "One folder per UTC day of the export, `export_date`. The newest row of a key wins the view.",
    Placement.LOG: "One folder per UTC day of the export, `export_date`.",
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
    """The table reference as Markdown."""
    parts = [
        "# Tables",
        "Query them through the views of `catalog.duckdb`; the files of a table lie in the folder of its name. "
        "Times are UTC, in microseconds. This page is made from the registry, `lake/schema.py`, by "
        "`python scripts/make_docs.py`.",
        *(_table(table) for table in schema.TABLES),
        *(_view(view) for view in ledger.VIEWS),
        _history(),
        _macros(),
    ]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    placed = _PLACEMENT[table.placement].format(placed_by=table.placed_by)
    if table.owned_by is not None:
        placed = (
            f"One folder per UTC day of the export, `export_date`. The newest export of a `{table.owned_by}` is shown."
        )
    key = f" Key: {', '.join(f'`{name}`' for name in table.key)}." if table.key else ""
    rows = [f"| `{column.name}` | {column.kind.value} | {column.doc} |" for column in table]
    rows.append(f"| `{table.partition}` | DATE | The day folder. |")
    return "\n".join([f"## {table.name}", "", f"{table.doc}{key} {placed}", "", *_header(), *rows])


def type_of(kind: pa.DataType) -> str:
    """The DuckDB type of a ledger's column."""
    return _TYPES[str(kind)]


def _view(view: LedgerView) -> str:
    rows = [f"| `{column}` | {type_of(kind)} | {doc} |" for column, kind, doc in view.columns]
    return "\n".join([f"## {view.name}", "", view.doc, "", *_header(), *rows])


def _history() -> str:
    rows = [f"| `{column}` | TIMESTAMP WITH TIME ZONE | {doc} |" for column, doc in history.COLUMNS]
    rows.append("| ... | | All columns of `messages`. |")
    return "\n".join([f"## {history.NAME}", "", history.DOC, "", *_header(), *rows])


def _macros() -> str:
    rows = [
        f"| `{each.name}({', '.join(each.parameters)})` | {each.doc} | `{each.example}` |" for each in macros.MACROS
    ]
    told = "Of the catalog, where it is the database in use: opened by itself, or after `USE`."
    return "\n".join(["## Macros", "", told, "", "| macro | what it gives | example |", "|---|---|---|", *rows])


def _header() -> list[str]:
    return ["| column | type | what it is |", "|---|---|---|"]


if __name__ == "__main__":
    (DOCS / "tables.md").write_text(tables_page())
