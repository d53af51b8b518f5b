"""Loads of one day, and all that a lake contains: for tests of what is left of a person."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb
from lakes import LakeProbe

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.load.report import LoadReport

NOW = datetime(2026, 2, 1, tzinfo=UTC)
WINDOW = Window.parse("2026-01-01", "2026-01-02")


def load(lake: LakeProbe, path: Path, hour: int = 1, **options: object) -> LoadReport:
    return load_files(
        [path],
        lake_uri=lake.uri,
        window=WINDOW,
        exported_at=datetime(2026, 1, 3, hour, tzinfo=UTC),
        options=LoadOptions(**options),  # type: ignore[arg-type]
    )


def everything(lake: LakeProbe) -> str:
    """Return all values of all Parquet files, live or not, and the content of the lake's other files."""
    found = []
    for path in sorted(Path(lake.uri).rglob("*")):
        if path.suffix in (".parquet", ".pq"):
            rows = duckdb.sql(f"SELECT to_json(rows)::VARCHAR FROM read_parquet('{path}') rows").fetchall()
            found += [text for (text,) in rows]
            if "/rejects/" in str(path):
                bytes_of = f"SELECT from_base64(raw) FROM read_parquet('{path}') WHERE raw_encoding = 'base64'"
                found += [raw.decode("latin1") for (raw,) in duckdb.sql(bytes_of).fetchall()]
        elif path.is_file() and path.name != "catalog.duckdb":
            found.append(path.read_bytes().decode("latin1"))
    return "\n".join(found)
