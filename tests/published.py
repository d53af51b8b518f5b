"""Published tables as other programs read them: one class per format, with a read for each library."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import deltalake
import polars as pl
import pyarrow as pa
import pytest
from lakes import LakeProbe
from pyiceberg.catalog import load_catalog
from pyiceberg.utils.config import Config

from airflow_provider_chatexport.core.sinks import Sink
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.publish.driver import PublishReport
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.schema.types import Kind, Placement, Table

# Its own planner is a package of its own, and it warns that this one is slower.
os.environ.setdefault("POLARS_ICEBERG_PLANNER", "pyiceberg")
READER: Final = Path(__file__).parents[1] / ".venv-readers" / "bin" / "python"
# Reads tables as a person with a DuckDB shell does, by the extension of the format.
_DUCKDB: Final = """
import json, sys, duckdb, importlib
from pathlib import Path
con = duckdb.connect()
for name in json.loads(sys.argv[1]):
    module = importlib.import_module(f"duckdb_extension_{name}")
    (extension,) = Path(module.__file__).parent.rglob(f"{name}.duckdb_extension")
    con.execute(f"LOAD '{extension}'")
con.execute("SET TimeZone = 'UTC'")
print(json.dumps([con.execute(query).fetchall() for query in json.loads(sys.argv[2])]))
"""
# The rows of messages as one number and one hash, the same in every version of DuckDB.
DIGEST: Final = (
    "SELECT count(*), md5(string_agg(concat_ws('|', id, cid, user_id, text, epoch_us(created_at), custom, "
    "array_to_string(mentioned_user_ids, ','), event_date), '#' ORDER BY id)) FROM {}"
)

Rows = list[dict[str, Any]]


class Delta:
    """Delta tables."""

    sink = Sink.DELTA
    catalog = None
    extensions = ("delta",)

    @staticmethod
    def root(lake: LakeProbe, table: str) -> str:
        return f"{lake.uri}/_files/{table}"

    def _table(self, lake: LakeProbe, table: str) -> deltalake.DeltaTable:
        return deltalake.DeltaTable(self.root(lake, table), storage_options=_plain_http(lake))

    def state(self, lake: LakeProbe, table: str) -> Any:
        """Return something that changes with every commit to the table."""
        return self._table(lake, table).version()

    def readers(self, lake: LakeProbe, table: str) -> Mapping[str, Callable[[], pa.Table]]:
        """Return the libraries that read a table, by name."""
        root = self.root(lake, table)
        return {
            "deltalake": lambda: pa.table(self._table(lake, table).to_pyarrow_table()),
            "polars": lambda: pl.read_delta(root, storage_options=_plain_http(lake)).to_arrow(),
        }

    def scanned(self, lake: LakeProbe, table: str) -> str:
        """Return the relation by which DuckDB reads a table."""
        return f"delta_scan('{self.root(lake, table)}')"


class Iceberg:
    """Iceberg tables.

    :param catalog: its name in pyiceberg's configuration; None for the one in the lake.
    """

    sink = Sink.ICEBERG
    extensions = ("avro", "iceberg")

    def __init__(self, catalog: str | None = None) -> None:
        self.catalog = catalog

    def _table(self, lake: LakeProbe, table: str) -> Any:
        if self.catalog is None:
            catalog = load_catalog("chatexport", type="sql", uri=f"sqlite:///{lake.uri}/_iceberg/catalog.sqlite")
        else:
            # pyiceberg itself reads its configuration only once, when it is imported.
            catalog = load_catalog(self.catalog, **(_s3_options() | (Config().get_catalog_config(self.catalog) or {})))
        return catalog.load_table(f"chatexport.{table}")

    def state(self, lake: LakeProbe, table: str) -> Any:
        """Return something that changes with every commit to the table."""
        return self._table(lake, table).metadata_location

    def readers(self, lake: LakeProbe, table: str) -> Mapping[str, Callable[[], pa.Table]]:
        """Return the libraries that read a table, by name."""
        return {
            "pyiceberg": lambda: self._table(lake, table).scan().to_arrow(),
            "polars": lambda: pl.scan_iceberg(self._table(lake, table)).collect().to_arrow(),
        }

    def scanned(self, lake: LakeProbe, table: str) -> str:
        """Return the relation by which DuckDB reads a table."""
        return f"iceberg_scan('{lake.uri}/_iceberg/{table}')"


Format = Delta | Iceberg


def _s3_options() -> dict[str, str]:
    """Return how pyiceberg reaches the S3 server of the environment."""
    names = {
        "s3.endpoint": "AWS_ENDPOINT_URL",
        "s3.access-key-id": "AWS_ACCESS_KEY_ID",
        "s3.secret-access-key": "AWS_SECRET_ACCESS_KEY",
    }
    return {name: os.environ[variable] for name, variable in names.items() if variable in os.environ}


def _plain_http(lake: LakeProbe) -> dict[str, str] | None:
    """Return what the libraries need beyond the environment: the S3 server of the tests has no TLS."""
    return {"aws_allow_http": "true"} if lake.is_remote else None


def configure(monkeypatch: pytest.MonkeyPatch, name: str, **properties: str) -> str:
    """Describe a catalog to pyiceberg by variables of the environment, as docs/publishing.md does."""
    for key, value in properties.items():
        variable = key.replace(".", "__").replace("-", "_").upper()
        monkeypatch.setenv(f"PYICEBERG_CATALOG__{name.upper()}__{variable}", value)
    return name


def publish(lake: LakeProbe, form: Format) -> PublishReport:
    """Publish a lake as a person does."""
    with Lake(lake.uri) as opened:
        return opened.publish(form.sink, catalog=form.catalog)


def columns(table: Table) -> list[str]:
    """Return the columns of a table's files, without those that a lake has promoted."""
    day = [table.date_column] if table.placement is Placement.EVENT else []
    return [*(column.name for column in table), *day]


def viewed(lake: LakeProbe, table: Table, names: list[str]) -> Rows:
    """Return the rows of a view, with JSON as text, as in the files."""
    is_json = {column.name for column in table if column.kind is Kind.JSON}
    selected = ", ".join(f'"{name}"{"::VARCHAR" * (name in is_json)} AS "{name}"' for name in names)
    with Lake(lake.uri) as opened:
        return _sorted(opened.sql(f"SELECT {selected} FROM {table.name}").to_arrow_table())


def assert_same(lake: LakeProbe, form: Format, *, by_duckdb: bool = False) -> None:
    """Check that every reader finds in every published table exactly the rows of the view.

    :param by_duckdb: let DuckDB 1.5.5 read the messages, too. That is a process of its own.
    """
    for table in TABLES:
        names = columns(table)
        expected = viewed(lake, table, names)
        for reader, read in form.readers(lake, table.name).items():
            found = read()
            assert set(names) <= set(found.column_names), (reader, table.name)
            assert expected == _sorted(found.select(names)), (reader, table.name)
    if by_duckdb:
        with Lake(lake.uri) as opened:
            view = [list(opened.sql(DIGEST.format("messages")).fetchall()[0])]
        assert view == duckdb_rows(form, DIGEST.format(form.scanned(lake, "messages")))


def texts(lake: LakeProbe, form: Format) -> dict[str, str]:
    """Return the texts of messages by id, as the format's own library reads them."""
    read = next(iter(form.readers(lake, "messages").values()))
    return {row["id"]: row["text"] for row in _sorted(read().select(["id", "text"]))}


def duckdb_rows(form: Format, query: str) -> list[list[Any]]:
    """Return what DuckDB 1.5.5 finds with the format's extension."""
    assert READER.exists(), "the readers' environment is missing; run `make .venv-readers/.ready`"
    command = [str(READER), "-c", _DUCKDB, json.dumps(form.extensions), json.dumps([query])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)[0]


def _sorted(rows: pa.Table) -> Rows:
    return sorted(map(_plain, rows.to_pylist()), key=str)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    # A time in UTC is the same moment, whatever a library calls the zone.
    return {name: value.timestamp() if hasattr(value, "timestamp") else value for name, value in sorted(row.items())}
