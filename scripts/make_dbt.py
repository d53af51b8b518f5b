"""Write the generated files of dbt/: sources and staging models, from the registry.

A test compares the files with what this writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from make_docs import type_of

from airflow_provider_chatexport.lake.catalog import history_view, metadata_views
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import CHANNELS, MESSAGES, TABLES
from airflow_provider_chatexport.lake.schema.types import Kind, Table

DBT = Path(__file__).resolve().parents[1] / "dbt"
GENERATED = "written by `python scripts/make_dbt.py` from the registry of tables; do not edit"
STAGED = tuple(table for table in TABLES if table.key and not table.owned_by)
# Every export fills these tables, so they show how fresh the lake is.
FRESH = {MESSAGES.name, CHANNELS.name}
# Column -> the staging model and column that it refers to. A missing row is a warning, because an export need not
# contain the row that is referred to.
REFERS = {
    ("messages", "cid"): "channels.cid",
    ("messages", "user_id"): "users.id",
    ("members", "user_id"): "users.id",
    ("reactions", "message_id"): "messages.id",
    ("attachments", "message_id"): "messages.id",
}
ACCEPTED = {("messages", "type"): ("regular", "reply", "system", "ephemeral", "error", "deleted")}

Column = tuple[str, str, str]  # name, DuckDB type, description


def files() -> dict[str, str]:
    """Return the generated files of the dbt package: path below ``dbt/`` -> content."""
    generated = {
        "models/sources.yml": _yaml(_sources(), "sources"),
        "models/staging/staging.yml": _yaml(list(map(_staging_model, STAGED)), "models"),
    }
    return generated | {f"models/staging/{_staged(table)}.sql": _staging_sql(table) for table in STAGED}


def _sources() -> list[dict[str, Any]]:
    """Return the views of the catalog as a source."""
    tables = [_source_table(table.name, table.doc, _columns(table)) for table in TABLES]
    known = [_source_table(view.name, view.doc, _metadata_columns(view)) for view in metadata_views.VIEWS]
    known.append(_source_table(history_view.NAME, history_view.DOC, _history_columns()))
    in_catalog = {
        "name": "chatexport",
        "description": "Tables of the lake, through the views of its catalog.",
        "database": "{{ var('chatexport_catalog', 'lake') }}",
        "schema": "main",
        "tables": [*tables, *known],
    }
    return [in_catalog]


def _source_table(name: str, doc: str, columns: Iterable[Column]) -> dict[str, Any]:
    table: dict[str, Any] = {"name": name, "description": doc}
    if name in FRESH:
        table["config"] = {
            "loaded_at_field": "_exported_at",
            "freshness": {"warn_after": {"count": 26, "period": "hour"}},
        }
    return table | {"columns": [_column(*column) for column in columns]}


def _columns(table: Table) -> list[Column]:
    columns = [(column.name, column.kind.value, column.doc) for column in table]
    return [*columns, (table.date_column, Kind.DATE.value, table.date_doc)]


def _metadata_columns(view: metadata_views.MetadataView) -> list[Column]:
    return [(name, type_of(kind), doc) for name, kind, doc in view.columns]


def _history_columns() -> list[Column]:
    return [*((name, Kind.TIME.value, doc) for name, doc in history_view.COLUMNS), *_columns(MESSAGES)]


def _column(name: str, kind: str, doc: str) -> dict[str, Any]:
    return {"name": name, "data_type": kind.lower(), "description": doc}


def _staged(table: Table) -> str:
    return f"stg_chatexport__{table.name}"


def _staging_model(table: Table) -> dict[str, Any]:
    columns = []
    for name, kind, doc in _columns(table):
        column = _column(name, kind, doc)
        if tests := _tests(table, name):
            column["data_tests"] = tests
        columns.append(column)
    model: dict[str, Any] = {
        "name": _staged(table),
        "description": table.doc,
        "config": {"contract": {"enforced": True}},
        "columns": columns,
    }
    if len(table.key) > 1:
        model["data_tests"] = [{"unique_together": {"arguments": {"columns": list(table.key)}}}]
    return model


def _tests(table: Table, column: str) -> Sequence[Any]:
    warn = {"config": {"severity": "warn"}}
    tests: list[Any] = ["unique"] if table.key == (column,) else []
    if column in table.key or column in (table.day_column, table.date_column, "_exported_at", "_load_id"):
        tests.append("not_null")
    if target := REFERS.get((table.name, column)):
        to, field = target.split(".")
        arguments = {"to": f"ref('stg_chatexport__{to}')", "field": field}
        tests.append({"relationships": {"arguments": arguments, **warn}})
    if values := ACCEPTED.get((table.name, column)):
        tests.append({"accepted_values": {"arguments": {"values": list(values)}, **warn}})
    return tests


def _staging_sql(table: Table) -> str:
    columns = ",\n    ".join(sql.name(name) for name, _, _ in _columns(table))
    return f"-- {GENERATED}\nselect\n    {columns}\nfrom {{{{ source('chatexport', '{table.name}') }}}}\n"


def _yaml(entries: list[dict[str, Any]], kind: str) -> str:
    body = yaml.safe_dump({"version": 2, kind: entries}, sort_keys=False, allow_unicode=True, width=110)
    return f"# {GENERATED}\n{body}"


if __name__ == "__main__":
    for path, content in files().items():
        target = DBT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
