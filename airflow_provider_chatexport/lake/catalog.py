"""``catalog.duckdb``: the views that people query, made from the registry and the records of loads.

Where nothing overlaps, a view is a plain list of files. Files of which a newer export hides some rows are read with
the truth rule as a filter, and only those. The catalog is replaced at once: whoever has it open goes on reading the
lake as it was when they opened it.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake import loads, schema, sql
from airflow_provider_chatexport.lake.coverage import Coverage, hiding, superseded
from airflow_provider_chatexport.lake.loads import LoadRecord
from airflow_provider_chatexport.lake.store import LakeStore
from airflow_provider_chatexport.lake.table import Placement, Table
from airflow_provider_chatexport.lake.write import DataFile, write_empty

NAME: Final = "catalog.duckdb"
# The oldest storage that DuckDB 2.0 writes and that DuckDB 1.2 reads.
STORAGE_VERSION: Final = "v1.2.0"
ANCHOR_DAY: Final = "1970-01-01"

LOAD_COLUMNS: Final = (
    ("load_id", pa.string(), "Derived from the exports' task ids: the same exports are the same load."),
    ("exported_at", pa.timestamp("us", tz="UTC"), "When the service made the newest export of the load."),
    ("committed_at", pa.timestamp("us", tz="UTC"), "When the load became visible."),
    ("retired_at", pa.timestamp("us", tz="UTC"), "When newer loads had superseded all of it; null while it lives."),
    ("since", pa.timestamp("us", tz="UTC"), "Begin of its window, inside; null for the beginning of time."),
    ("until", pa.timestamp("us", tz="UTC"), "End of its window, outside; null where no window was given."),
    ("task_ids", pa.list_(pa.string()), "Export tasks at the service."),
    ("lines", pa.int64(), "Lines of the export files that are not blank."),
    ("rows", pa.json_(), "Rows written, by table."),
    ("entities", pa.json_(), "Entities found, by name."),
    ("rejected", pa.int64(), "Lines or entities that could not become a row; see `rejects`."),
    ("out_of_window", pa.int64(), "Entities outside of the window: requests ask a little wider than the window."),
    ("duplicates", pa.int64(), "Entities with the key of a newer one in the same load."),
    ("other_entities", pa.int64(), "Entities without a table of their own; see `other_entities`."),
    ("n_files", pa.int64(), "Files of the load in the lake."),
    ("bytes_in", pa.int64(), "Size of the export files as downloaded, bytes."),
    ("seconds", pa.float64(), "How long converting and writing took."),
)
COVERAGE_COLUMNS: Final = (
    ("cid", pa.string(), "Channel, as `type:id`."),
    ("since", pa.timestamp("us", tz="UTC"), "Covered from here on, inside; null for the beginning of time."),
    ("until", pa.timestamp("us", tz="UTC"), "Covered up to here, outside."),
    ("exported_at", pa.timestamp("us", tz="UTC"), "When the service made the export."),
    ("load_id", pa.string(), "The load that claims it."),
)


def publish(store: LakeStore) -> None:
    """Writes the catalog anew from the records of loads.

    Two loads may finish at once. Whoever replaces the catalog looks at the records again afterwards, so the last one
    to replace it has seen them all.

    :raises LakeError: the lake cannot be read or written.
    """
    while True:
        before = loads.names(store)
        records = loads.all_loads(store)
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / NAME
                _publish_anchors(store, Path(folder))
                _build(path, store, records)
                store.replace(NAME, path.read_bytes())
        except (OSError, duckdb.Error) as error:
            raise LakeError(
                f"the catalog of {store.uri} cannot be made ({type(error).__name__}); make sure that the temporary "
                "folder has room, then run chatexport catalog"
            ) from None
        if loads.names(store) == before:
            return


def anchor(table: Table) -> str:
    """The path of the table's file without rows, which lets an empty lake be queried."""
    return f"{table.name}/{table.partition}={ANCHOR_DAY}/empty-v{schema.SCHEMA_VERSION}.parquet"


def _publish_anchors(store: LakeStore, folder: Path) -> None:
    for table in schema.TABLES:
        if not store.exists(anchor(table)):
            local = folder / f"{table.name}.parquet"
            write_empty(table, local)
            store.publish(local, anchor(table))


def _build(path: Path, store: LakeStore, records: Sequence[LoadRecord]) -> None:
    entries = loads.live_coverage(records)
    pairs = list(hiding(entries))
    with duckdb.connect() as con:
        store.let_read(con)
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"ATTACH {sql.quoted(str(path))} AS catalog (STORAGE_VERSION {sql.quoted(STORAGE_VERSION)})")
        con.execute("USE catalog")
        _tables(con, records, entries, {newer for _, newer in pairs})
        files = _Files(records, pairs, superseded(entries))
        for table in schema.TABLES:
            con.execute(f"CREATE VIEW {table.name} AS {_view(store, table, files)}")
            _comment(con, table.name, table.doc, [(column.name, column.doc) for column in table])
        con.execute("USE memory")
        con.execute("DETACH catalog")


class _Files:
    """Which files of a table are read as they are, and which with the truth rule as a filter."""

    def __init__(
        self, records: Sequence[LoadRecord], pairs: Iterable[tuple[Coverage, Coverage]], dead: set[str]
    ) -> None:
        self._records = records
        self._dead = dead
        self._newer: dict[str, list[Coverage]] = defaultdict(list)
        for older, newer in pairs:
            self._newer[older.load_id].append(newer)

    def of(self, table: Table) -> tuple[list[DataFile], list[DataFile]]:
        plain: list[DataFile] = []
        filtered: list[DataFile] = []
        for record in self._records:
            for file in record.files:
                if file.table != table.name:
                    continue
                if table.placement is not Placement.EVENT:
                    plain.append(file)
                elif record.load_id in self._dead and not record.n_uncovered:
                    continue
                elif self._is_touched(record, file):
                    filtered.append(file)
                else:
                    plain.append(file)
        return plain, filtered

    def _is_touched(self, record: LoadRecord, file: DataFile) -> bool:
        if record.n_uncovered:  # rows outside of the load's claims may be hidden by anything
            return True
        begin = datetime.fromisoformat(file.day).replace(tzinfo=UTC)
        return any(newer.overlaps(begin, begin + timedelta(days=1)) for newer in self._newer[record.load_id])


def _view(store: LakeStore, table: Table, files: _Files) -> str:
    plain, filtered = files.of(table)
    parts = []
    if plain or not filtered:
        parts.append(f"SELECT {_columns(table)} FROM {_scan(store, table, plain)} rows")
    if filtered:
        parts.append(
            f"SELECT {_columns(table)} FROM {_scan(store, table, filtered)} rows WHERE NOT EXISTS ("
            f"SELECT 1 FROM _hiding newer WHERE newer.cid = rows.cid AND rows.{table.placed_by} >= newer.since "
            f"AND rows.{table.placed_by} < newer.until AND (newer.exported_at > rows._exported_at "
            "OR (newer.exported_at = rows._exported_at AND newer.load_id > rows._load_id)))"
        )
    query = " UNION ALL ".join(parts)
    if table.placement is Placement.SNAPSHOT:
        key = ", ".join(sql.name(column) for column in table.key)
        query += f" QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY _exported_at DESC, _load_id DESC) = 1"
    return query


def _columns(table: Table) -> str:
    return ", ".join(f"rows.{sql.name(name)}" for name in (*(column.name for column in table), table.partition))


def _scan(store: LakeStore, table: Table, files: Sequence[DataFile]) -> str:
    paths = [file.path for file in files] or [anchor(table)]
    urls = ", ".join(sql.quoted(store.url(path)) for path in paths)
    return f"read_parquet([{urls}], hive_partitioning = true, hive_types = {{'{table.partition}': DATE}})"


def _tables(
    con: duckdb.DuckDBPyConnection, records: Sequence[LoadRecord], entries: Sequence[Coverage], hiders: set[Coverage]
) -> None:
    _create(con, "_loads", "loads", LOAD_COLUMNS, [_load_row(record) for record in records])
    _create(con, "_coverage", "coverage", COVERAGE_COLUMNS, [_coverage_row(entry) for entry in entries])
    con.execute("CREATE TABLE _hiding AS FROM _coverage LIMIT 0")
    hiding_rows = pa.Table.from_pylist(
        [_coverage_row(entry) | {"since": entry.since} for entry in hiders], schema=_schema(COVERAGE_COLUMNS)
    )
    con.register("hiding_rows", hiding_rows)
    con.execute("INSERT INTO _hiding FROM hiding_rows")
    _comment(con, "loads", "One row per load, retired ones too.", [(name, doc) for name, _, doc in LOAD_COLUMNS])
    _comment(
        con,
        "coverage",
        "What is loaded: for each channel, the spans of time that an export covers.",
        [(name, doc) for name, _, doc in COVERAGE_COLUMNS],
    )


def _create(
    con: duckdb.DuckDBPyConnection, table: str, view: str, columns: Sequence[Any], rows: list[dict[str, Any]]
) -> None:
    con.register("rows_of_it", pa.Table.from_pylist(rows, schema=_schema(columns)))
    con.execute(f"CREATE TABLE {table} AS FROM rows_of_it")
    con.unregister("rows_of_it")
    con.execute(f"CREATE VIEW {view} AS FROM {table}")


def _schema(columns: Sequence[Any]) -> pa.Schema:
    return pa.schema([(name, kind) for name, kind, _ in columns])


def _load_row(record: LoadRecord) -> dict[str, Any]:
    counts = record.counts
    return {
        "load_id": record.load_id,
        "exported_at": record.exported_at,
        "committed_at": record.committed_at,
        "retired_at": record.retired_at,
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


def _coverage_row(entry: Coverage) -> dict[str, Any]:
    since = entry.to_json()["since"]
    return {
        "cid": entry.cid,
        "since": entry.since if since else None,
        "until": entry.until,
        "exported_at": entry.exported_at,
        "load_id": entry.load_id,
    }


def _comment(con: duckdb.DuckDBPyConnection, view: str, doc: str, columns: Iterable[tuple[str, str]]) -> None:
    con.execute(f"COMMENT ON VIEW {view} IS {sql.quoted(doc)}")
    for name, column_doc in columns:
        con.execute(f"COMMENT ON COLUMN {view}.{sql.name(name)} IS {sql.quoted(column_doc)}")
