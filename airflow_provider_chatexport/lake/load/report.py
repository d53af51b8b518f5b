"""What a load did, as its caller is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.schema.tables import TABLES


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What a load did, and the address of the catalog that shows it.

    :param lake: the lake's address; of a local one, the absolute path.
    :param already_loaded: these exports were in the lake before, and nothing was written.
    """

    record: LoadRecord
    lake: str
    catalog: str
    seconds: float
    already_loaded: bool = False

    def to_json(self) -> dict[str, Any]:
        """JSON types only; the shape is part of the outer contract."""
        record = self.record
        return {
            "load_id": record.load_id,
            "already_loaded": self.already_loaded,
            "window": {
                "since": format_rfc3339(record.since) if record.since else None,
                "until": format_rfc3339(record.until) if record.until else None,
            },
            "exported_at": format_rfc3339(record.exported_at),
            **record.counts,
            "files": [file.path for file in record.files],
            "bytes_in": record.bytes_in,
            "seconds": round(self.seconds, 3),
        }

    def tables(self) -> list[WrittenTable]:
        """What the load wrote, by table: for lineage."""
        files = {table: [file for file in self.record.files if file.table == table.name] for table in TABLES}
        return [
            WrittenTable(
                name=table.name,
                columns=tuple((column.name, column.kind.value, column.doc) for column in table),
                n_rows=sum(file.rows for file in found),
                n_files=len(found),
                size_bytes=sum(file.size_bytes for file in found),
            )
            for table, found in files.items()
            if found
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenTable:
    """A table in the files of one load. ``columns``: name, type and meaning of each."""

    name: str
    columns: tuple[tuple[str, str, str], ...]
    n_rows: int
    n_files: int
    size_bytes: int
