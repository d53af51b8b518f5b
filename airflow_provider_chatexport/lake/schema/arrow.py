"""Arrow schemas of the tables, and rows from Python as Arrow tables.

``pyarrow.array`` is not used. Where pandas is installed, it imports pandas to see whether a value comes from there,
which would make every load half a second longer. Nor is ``cast`` used: it imports ``pyarrow.compute``, which takes
longer than a small load needs to write its rows.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
import pyarrow as pa
from pyarrow import json as arrow_json

from airflow_provider_chatexport.lake.schema.types import Kind, Placement, Table

ARROW_TYPES: Final[dict[Kind, pa.DataType]] = {
    Kind.TEXT: pa.string(),
    Kind.TIME: pa.timestamp("us", tz="UTC"),
    Kind.BOOL: pa.bool_(),
    Kind.INT: pa.int64(),
    # Arrow has a type for JSON, and pyiceberg and polars refuse a table that has it. The views cast the text.
    Kind.JSON: pa.string(),
    Kind.TEXTS: pa.list_(pa.string()),
    Kind.FLOAT: pa.float64(),
    Kind.DATE: pa.date32(),
}


def arrow_schema(table: Table) -> pa.Schema:
    """Return the schema of a table's files. Those of event tables have the day of each row as well."""
    columns = [pa.field(column.name, ARROW_TYPES[column.kind]) for column in table]
    day = [pa.field(table.date_column, pa.date32())] if table.placement is Placement.EVENT else []
    return pa.schema([*columns, *day])


UTC_TIME: Final = pa.timestamp("us", tz="UTC")


def arrow_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as an Arrow table.

    :param rows: values by column name; times aware, JSON as text.
    :param schema: may have text, JSON, whole numbers, floats, times in UTC and lists of text.
    """
    lines = io.BytesIO()
    # One line at a time: each takes some kilobytes of memory for as long as it is an object of its own.
    for row in rows:
        lines.write(orjson.dumps(dict(row), option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE))
    size = lines.tell()
    if not size:
        return pa.Table.from_batches([], schema=schema)  # ``empty_table`` would import pandas
    lines.seek(0)
    # JSON text is read as text: read as JSON, it would be an object.
    read_as = pa.schema([(field.name, pa.string() if field.type == pa.json_() else field.type) for field in schema])
    read = arrow_json.read_json(
        lines,
        # A row must not lie across two blocks.
        read_options=arrow_json.ReadOptions(block_size=size + 1, use_threads=False),
        parse_options=arrow_json.ParseOptions(explicit_schema=read_as, unexpected_field_behavior="error"),
    )
    columns = [as_type(read.column(field.name), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def as_type(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column in a type that has the same bytes: text as JSON, a time with another name of its zone."""
    if column.type == kind:
        return column
    if isinstance(kind, pa.JsonType):
        chunks = [pa.ExtensionArray.from_storage(kind, chunk) for chunk in column.chunks]
    else:
        chunks = [chunk.view(kind) for chunk in column.chunks]
    return pa.chunked_array(chunks, type=kind)
