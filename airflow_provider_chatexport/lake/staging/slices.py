"""Long values of a stage table, a bounded part at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from airflow_provider_chatexport.lake.duckdb_session import Database

# How much of the lists inside objects is read at a time.
SLICE_BYTES: Final = 16_000_000


def slices(database: Database, relation: str, column: str, condition: str = "true") -> Iterator[str]:
    """Yield conditions that select the rows with a value in a column, about ``SLICE_BYTES`` of values each time.

    :param condition: which rows there are to select from.
    """
    some = f"{column} IS NOT NULL AND ({condition})"
    n_bytes, first, last = database.one(
        f"SELECT sum(strlen({column}::VARCHAR)), min(rowid), max(rowid) FROM {relation} WHERE {some}"
    )
    if n_bytes is not None:
        n_rows = (last - first) // (1 + n_bytes // SLICE_BYTES) + 1
        for begin in range(first, last + 1, n_rows):
            yield f"{some} AND rowid >= {begin} AND rowid < {begin + n_rows}"
