"""Stand-ins for data files: empty files with the same columns, for the connection that writes a catalog.

When DuckDB creates a view or a macro, it looks up every file of it, and reads the footer of the first one for its
columns. On an object store that is two requests for each file of the lake. But the records say which columns a file
has, so the connection gets a stand-in for each, and sends no request.
"""

from __future__ import annotations

import functools
import io

import pyarrow.parquet as pq

from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.schema import promoted
from airflow_provider_chatexport.lake.schema.arrow import arrow_schema
from airflow_provider_chatexport.lake.schema.tables import DAYS_SINCE_VERSION
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.storage.store import LakeStore


def stand_ins(store: LakeStore, snapshot: Snapshot) -> dict[str, bytes]:
    """Return a stand-in for each file that the views of a snapshot read, by where its bytes lie."""
    tables = {table.name: table for table in snapshot.tables}
    found = {}
    for each in snapshot.readable_states:
        if each.is_readable:
            table = tables[each.file.table]
            held = promoted.held_by(table, each.file.promoted)
            found[visibility.path_in(store, each)] = stand_in(table, each.file.schema_version, held)
    return found


@functools.cache
def stand_in(table: Table, schema_version: int, held: frozenset[str]) -> bytes:
    """Return a file without rows, with the columns that a file of a version of the schema has.

    :param held: the promoted columns that the file holds.
    """
    lacking = {column.name for column in table if column.added_in > schema_version}
    lacking |= {column.name for column in table if column.promoted and column.name not in held}
    if schema_version < DAYS_SINCE_VERSION:
        lacking.add(table.date_column)
    schema = arrow_schema(table)
    for name in lacking.intersection(schema.names):
        schema = schema.remove(schema.get_field_index(name))
    content = io.BytesIO()
    pq.ParquetWriter(content, schema).close()
    return content.getvalue()
