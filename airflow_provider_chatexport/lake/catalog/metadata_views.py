"""What the lake knows of itself, as views of the catalog: loads, what they cover, what they found changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from airflow_provider_chatexport.lake.commits.coverage import BEGINNING, CoverageEntry
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.schema.arrow import UTC_TIME, arrow_rows

Columns = tuple[tuple[str, pa.DataType, str], ...]

# The schema of the catalog that holds what a load changes.
INTERNAL_SCHEMA: Final = "_made"


def internal_name(name: str) -> str:
    """What a view of this name reads. No name is in both schemas: tools list them without."""
    return f"{INTERNAL_SCHEMA}._{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataView:
    """A view over rows that the catalog holds itself, in a table ``beneath`` it.

    :param columns: name, type and description of each.
    :param asked: what the view asks of its table, if not all of it.
    """

    name: str
    doc: str
    columns: Columns
    rows: Callable[[Snapshot], pa.Table]
    asked: str = "FROM {rows}"

    @property
    def query(self) -> str:
        return self.asked.format(rows=internal_name(self.name))


def _table(columns: Columns, rows: Iterable[dict[str, Any]]) -> pa.Table:
    return arrow_rows(rows, pa.schema([(name, kind) for name, kind, _ in columns]))


_LOAD_COLUMNS: Final[Columns] = (
    ("load_id", pa.string(), "Derived from the exports' task ids: the same exports are the same load."),
    ("exported_at", UTC_TIME, "When the service made the newest export of the load."),
    ("committed_at", UTC_TIME, "When the load became visible."),
    ("retired_at", UTC_TIME, "When newer loads had superseded all of it; null while it lives."),
    ("rewritten_into", pa.string(), "The compaction, or removal of a person, that took over its files; null for none."),
    ("since", UTC_TIME, "Begin of its window, inside; null for the beginning of time."),
    ("until", UTC_TIME, "End of its window, outside; null where no window was given."),
    ("task_ids", pa.list_(pa.string()), "Export tasks at the service."),
    ("lines", pa.int64(), "Lines of the export files that are not blank."),
    ("rows", pa.json_(), "Rows written, by table."),
    ("entities", pa.json_(), "Entities found, by name."),
    ("rejected", pa.int64(), "Lines or entities that could not become a row; see `rejects`."),
    ("out_of_window", pa.int64(), "Entities outside of the window: requests ask a little wider than the window."),
    ("duplicates", pa.int64(), "Entities with the key of a newer one in the same load."),
    ("other_entities", pa.int64(), "Entities without a table of their own; see `other_entities`."),
    ("n_files", pa.int64(), "Files that it wrote."),
    ("bytes_in", pa.int64(), "Size of the export files as downloaded, bytes."),
    ("seconds", pa.float64(), "How long converting and writing took."),
)


def _loads(snapshot: Snapshot) -> pa.Table:
    return _table(_LOAD_COLUMNS, (_load_row(record, snapshot) for record in snapshot.records if record.is_load))


def _load_row(record: LoadRecord, snapshot: Snapshot) -> dict[str, Any]:
    counts = record.counts
    return {
        "load_id": record.load_id,
        "exported_at": record.exported_at,
        "committed_at": record.committed_at,
        "retired_at": snapshot.retired_at(record),
        "rewritten_into": snapshot.rewritten_into(record),
        "since": record.since,
        "until": record.until,
        "task_ids": [source.task_id for source in record.sources if source.task_id],
        "lines": counts["lines"],
        "rows": json.dumps(counts["rows"]),
        "entities": json.dumps(counts["entities"]),
        "rejected": counts["rejected"],
        "out_of_window": counts["out_of_window"],
        "duplicates": counts["duplicates"],
        "other_entities": counts["other_entities"],
        "n_files": len(record.files),
        "bytes_in": record.bytes_in,
        "seconds": record.seconds,
    }


_COVERAGE_COLUMNS: Final[Columns] = (
    ("cid", pa.string(), "Channel, as `type:id`."),
    ("since", UTC_TIME, "Covered from here on, inside; null for the beginning of time."),
    ("until", UTC_TIME, "Covered up to here, outside."),
    ("exported_at", UTC_TIME, "When the service made the export."),
    ("load_id", pa.string(), "The load that claims it."),
)


def _coverage(snapshot: Snapshot) -> pa.Table:
    return _table(_COVERAGE_COLUMNS, map(_coverage_row, snapshot.coverage))


def _coverage_row(entry: CoverageEntry) -> dict[str, Any]:
    return {
        "cid": entry.cid,
        "since": None if entry.since == BEGINNING else entry.since,
        "until": entry.until,
        "exported_at": entry.exported_at,
        "load_id": entry.load_id,
    }


_LATE_COLUMNS: Final[Columns] = (
    ("age_days", pa.int64(), "Whole days between the message and the change; for `vanished` and `appeared`, at most."),
    ("edited", pa.int64(), "Messages whose newer version a later export brought."),
    ("deleted", pa.int64(), "Messages that were soft-deleted by then."),
    ("vanished", pa.int64(), "Messages that a later export did not have any more: hard-deleted or truncated."),
    ("appeared", pa.int64(), "Messages that a later export had, and an earlier one of the same moment did not."),
)


def _late_changes(snapshot: Snapshot) -> pa.Table:
    return _table(_LATE_COLUMNS, (change for record in snapshot.records for change in record.late_changes))


VIEWS: Final = (
    MetadataView(name="loads", doc="One row per load, superseded ones too.", columns=_LOAD_COLUMNS, rows=_loads),
    MetadataView(
        name="coverage",
        doc="What is loaded: for each channel, the spans of time that an export covers.",
        columns=_COVERAGE_COLUMNS,
        rows=_coverage,
    ),
    MetadataView(
        name="late_changes",
        doc="What loads of windows that were loaded before found changed, by age: how far a lookback has to reach. "
        "Only what a later load looked at again can be found.",
        columns=_LATE_COLUMNS,
        rows=_late_changes,
        asked="SELECT age_days, sum(edited)::BIGINT AS edited, sum(deleted)::BIGINT AS deleted, "
        "sum(vanished)::BIGINT AS vanished, sum(appeared)::BIGINT AS appeared "
        "FROM {rows} GROUP BY age_days ORDER BY age_days",
    ),
)
