"""Rows that Python has, as an Arrow table.

Not through ``pyarrow.array``: where pandas is installed that imports it, to see whether it was given something of
pandas, and a load of an hour would take half a second longer for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import duckdb
import orjson
import pyarrow as pa

from airflow_provider_chatexport.lake import sql

UTC_TIME: Final = pa.timestamp("us", tz="UTC")
# JSON text is handed over as text: read as JSON it would be a quoted string.
_READ_AS: Final = {
    pa.string(): "VARCHAR",
    pa.json_(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    UTC_TIME: "TIMESTAMPTZ",
    pa.list_(pa.string()): "VARCHAR[]",
}


def arrow_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """:param rows: values by column name; times aware, JSON as text.
    :param schema: of text, JSON, whole numbers, floats, times in UTC and lists of text.
    """
    names = ", ".join(map(sql.name, schema.names))
    members = orjson.dumps([{field.name: _READ_AS[field.type] for field in schema}]).decode()
    given = orjson.dumps([dict(row) for row in rows]).decode()
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        query = f"SELECT {names} FROM (SELECT unnest(from_json($rows, {sql.quoted(members)}), recursive := true))"
        return con.sql(query, params={"rows": given}).to_arrow_table().cast(schema)
