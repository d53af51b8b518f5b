"""Claims as rows, for queries that ask them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from airflow_provider_chatexport.lake.coverage import Coverage

_UTC: Final = pa.timestamp("us", tz="UTC")
SCHEMA: Final = pa.schema(
    [("cid", pa.string()), ("since", _UTC), ("until", _UTC), ("exported_at", _UTC), ("load_id", pa.string())]
)


def claim_rows(entries: Iterable[Coverage]) -> pa.Table:
    """``cid``, ``since`` (never null), ``until``, ``exported_at``, ``load_id``."""
    return pa.Table.from_pylist([{name: getattr(entry, name) for name in SCHEMA.names} for entry in entries], SCHEMA)
