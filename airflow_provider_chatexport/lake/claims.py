"""Claims as rows, for queries that ask them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from airflow_provider_chatexport.lake.coverage import Coverage
from airflow_provider_chatexport.lake.rows import UTC_TIME, arrow_rows

SCHEMA: Final = pa.schema(
    [
        ("cid", pa.string()),
        ("since", UTC_TIME),
        ("until", UTC_TIME),
        ("exported_at", UTC_TIME),
        ("load_id", pa.string()),
    ]
)


def claim_rows(entries: Iterable[Coverage]) -> pa.Table:
    """``cid``, ``since`` (never null), ``until``, ``exported_at``, ``load_id``."""
    return arrow_rows(({name: getattr(entry, name) for name in SCHEMA.names} for entry in entries), SCHEMA)
