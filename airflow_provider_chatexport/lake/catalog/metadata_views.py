"""Metadata views of the catalog: the loads, what they cover, and what later loads found changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import BEGINNING
from airflow_provider_chatexport.lake.commits.coverage_tables import entry_rows, per_channel
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.arrow import UTC_TIME, arrow_rows

Columns = tuple[tuple[str, pa.DataType, str], ...]

# The schema of the catalog that holds what a load changes. Its tables and macros are no interface: a query over the
# lake reads the views.
INTERNAL_SCHEMA: Final = "_internal"


def internal_name(name: str) -> str:
    """Return the name, in the internal schema, of what a view reads.

    Its underscore keeps it apart from the view: some tools list tables without their schema.
    """
    return f"{INTERNAL_SCHEMA}._{name}"


# The table with the channels of each set of channels, for all tables of coverage entries.
CHANNEL_SETS: Final = internal_name("channel_sets")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataView:
    """A view over rows that the catalog itself holds, in an internal table.

    :param columns: name, type and description of each.
    :param rows: returns the rows of the internal table.
    :param template: the view's query, with ``{rows}`` for the internal table.
    """

    name: str
    doc: str
    columns: Columns
    rows: Callable[[Snapshot, Sets], pa.Table]
    template: str = "FROM {rows}"

    @property
    def query(self) -> str:
        """The view's query."""
        return self.template.format(rows=internal_name(self.name))


# The number of each set of channels in the catalog. What needs the number of another set adds it.
Sets = dict[ChannelSet, int]


def _table(columns: Columns, rows: Iterable[dict[str, Any]]) -> pa.Table:
    return arrow_rows(rows, pa.schema([(name, kind) for name, kind, _ in columns]))


LOADS: Final = internal_name("loads")
# The columns of a load that later records change.
FATES: Final = ("retired_at", "rewritten_into")
_LOAD_COLUMNS: Final[Columns] = (
    ("load_id", pa.string(), "Derived from the exports' task ids: the same exports are the same load."),
    ("exported_at", UTC_TIME, "When the service made the newest export of the load."),
    ("committed_at", UTC_TIME, "When the load became visible."),
    ("retired_at", UTC_TIME, "When newer loads had superseded all of it; null while any row of it can be visible."),
    ("rewritten_into", pa.string(), "The compaction, or removal of a person, that took over its files; null for none."),
    ("since", UTC_TIME, "Start of its window (inclusive); null for the beginning of time."),
    ("until", UTC_TIME, "End of its window (exclusive); null if the load had no window."),
    ("task_ids", pa.list_(pa.string()), "Export tasks at the service."),
    ("lines", pa.int64(), "Lines of the export files, blank ones left out."),
    ("rows", pa.json_(), "Rows written, by table."),
    ("entities", pa.json_(), "Entities found, by name."),
    ("rejected", pa.int64(), "Lines or entities that could not become a row; see `rejects`."),
    ("out_of_window", pa.int64(), "Entities outside of the window: requests ask for a little more than the window."),
    ("duplicates", pa.int64(), "Entities whose key a newer entity of the same load has."),
    ("other_entities", pa.int64(), "Entities without a table of their own; see `other_entities`."),
    ("n_files", pa.int64(), "Files that the load wrote."),
    ("bytes_in", pa.int64(), "Size of the export files as downloaded, bytes."),
    ("seconds", pa.float64(), "How long converting and writing took."),
)


def _loads(snapshot: Snapshot, _: Sets) -> pa.Table:
    return load_rows(snapshot, ())


def load_rows(snapshot: Snapshot, known: Collection[str]) -> pa.Table:
    """Return the rows of the view ``loads``.

    :param known: ids of loads to leave out.
    """
    loads = (record for record in snapshot.records if record.is_load and record.load_id not in known)
    return _table(_LOAD_COLUMNS, (_load_row(record, snapshot) for record in loads))


def load_fates(snapshot: Snapshot, shown: Collection[str]) -> pa.Table:
    """Return the loads whose row in a catalog may be out of date, with what later records made of them.

    Nothing else in such a row changes.

    :param shown: ids of the records that the catalog shows.
    """
    columns = [column for column in _LOAD_COLUMNS if column[0] in ("load_id", *FATES)]
    unchanged = {None, *shown}
    fates = (_fate(record, snapshot) for record in snapshot.records if record.is_load and record.load_id in shown)
    changed = (each for each in fates if each["retired_at"] or each["rewritten_into"] not in unchanged)
    return _table(tuple(columns), changed)


def _fate(record: LoadRecord, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "load_id": record.load_id,
        "retired_at": snapshot.retired_at(record),
        "rewritten_into": snapshot.rewritten_into(record),
    }


def _load_row(record: LoadRecord, snapshot: Snapshot) -> dict[str, Any]:
    counts = record.counts
    return _fate(record, snapshot) | {
        "exported_at": record.exported_at,
        "committed_at": record.committed_at,
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
    ("since", UTC_TIME, "Start of what is covered (inclusive); null for the beginning of time."),
    ("until", UTC_TIME, "End of what is covered (exclusive)."),
    ("exported_at", UTC_TIME, "When the service made the export."),
    ("load_id", pa.string(), "The load that covers it."),
)


def _coverage(snapshot: Snapshot, sets: Sets) -> pa.Table:
    return entry_rows(snapshot.covered, sets)


_LATE_COLUMNS: Final[Columns] = (
    (
        "age_days",
        pa.int64(),
        "Whole days between the message and the change. Of `vanished` and `appeared`, the most that it can be.",
    ),
    ("edited", pa.int64(), "Messages that a later export contains in a newer version."),
    ("deleted", pa.int64(), "Messages that were soft-deleted in between."),
    ("vanished", pa.int64(), "Messages that a later export no longer contains: hard-deleted or truncated."),
    ("appeared", pa.int64(), "Messages in a later export that an earlier one of the same window does not contain."),
)


def _late_changes(snapshot: Snapshot, _: Sets) -> pa.Table:
    return _table(_LATE_COLUMNS, (change for record in snapshot.records for change in record.late_changes))


VIEWS: Final = (
    MetadataView(name="loads", doc="One row per load, superseded loads included.", columns=_LOAD_COLUMNS, rows=_loads),
    MetadataView(
        name="coverage",
        doc="What is loaded: the spans of time of each channel that an export covers.",
        columns=_COVERAGE_COLUMNS,
        rows=_coverage,
        template=f"""
            SELECT cid, nullif(since, TIMESTAMPTZ {sql.quoted(format_rfc3339(BEGINNING))}) AS since, until, exported_at,
                load_id
            FROM ({per_channel("{rows}", CHANNEL_SETS)})""",
    ),
    MetadataView(
        name="late_changes",
        doc="What had changed when a window was loaded again, by the age of the message: it says how long a lookback "
        "has to be. A change in a window that was loaded once is not in it.",
        columns=_LATE_COLUMNS,
        rows=_late_changes,
        template="""
            SELECT age_days, sum(edited)::BIGINT AS edited, sum(deleted)::BIGINT AS deleted,
                sum(vanished)::BIGINT AS vanished, sum(appeared)::BIGINT AS appeared
            FROM {rows} GROUP BY age_days ORDER BY age_days""",
    ),
)
