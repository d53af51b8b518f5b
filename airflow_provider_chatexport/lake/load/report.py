"""The report of a load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.load.vanished import Vanished
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.schema.tables import TABLES


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport(Report):
    """What a load did.

    :param record: what was committed, with all counts.
    :param lake: the lake's address; of a local lake, the absolute path.
    :param catalog: the address of the catalog.
    :param files: the paths of the files that it wrote, relative to the lake.
    :param seconds: how long the load took.
    :param already_loaded: these exports were in the lake before, and nothing was written.
    """

    record: LoadRecord
    lake: str
    catalog: str
    files: tuple[str, ...]
    seconds: float
    already_loaded: bool = False

    @property
    def vanished(self) -> Vanished:
        """The messages that the lake showed, and that the load covers and does not contain."""
        return Vanished.among(self.record.late_changes)

    @property
    def retention(self) -> dict[str, Any] | None:
        """How much the load claims: ``max_age_hours``, ``horizon``, ``clipped``; None if it was loaded without."""
        retention: dict[str, Any] | None = self.record.facts.get("retention")
        return retention

    def to_json(self) -> dict[str, Any]:
        """Return JSON types; the shape is part of the outer contract."""
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
            "vanished": self.vanished.to_json(),
            "retention": self.retention,
            "inputs": record.facts.get("inputs", []),
            "files": list(self.files),
            "bytes_in": record.bytes_in,
            "seconds": round(self.seconds, 3),
        }

    def tables(self) -> list[WrittenTable]:
        """Return what the load wrote, by table, for lineage."""
        files = {table: [file for file in self.record.files if file.table == table.name] for table in TABLES}
        return [
            WrittenTable(
                name=table.name,
                columns=tuple((column.name, column.kind.value, column.doc) for column in table),
                n_rows=sum(file.rows for file in written),
                n_files=len(written),
                size_bytes=sum(file.size_bytes for file in written),
            )
            for table, written in files.items()
            if written
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenTable:
    """What one load wrote of a table. ``columns``: name, type and meaning of each."""

    name: str
    columns: tuple[tuple[str, str, str], ...]
    n_rows: int
    n_files: int
    size_bytes: int
