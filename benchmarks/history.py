"""A lake of several years, and the same rows written by plain DuckDB: `python history.py EXPORT DAYS MESSAGES FOLDER`.

The rows are the messages of EXPORT, loaded and read back. They are spread over DAYS days and 100 channels, with new ids
and times. The busiest channel has a tenth of all rows.

FOLDER/ours: one load per day, made with the package's own writer, records and catalog; the messages table only.
FOLDER/plain: `COPY ... PARTITION_BY (event_date)` of the same table, in the same order.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.commits.record import WRITER, DataFile, LoadRecord
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.parquet import write_table
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.schema.types import Kind, Table
from airflow_provider_chatexport.lake.storage.address import open_store

FIRST_DAY = datetime(2022, 1, 1, tzinfo=UTC)
N_CHANNELS = 100
DAYS_AT_A_TIME = 50


class Rows:
    """The rows of the history, as the package's writer reads them."""

    def __init__(self, con: duckdb.DuckDBPyConnection, n_days: int) -> None:
        self._con = con
        self._n_days = n_days

    def days(self, table: Table) -> dict[str, int]:  # noqa: ARG002 - there is one
        """Return the number of rows of each day."""
        return dict(self._con.execute("SELECT event_date::VARCHAR, count(*) FROM history GROUP BY ALL").fetchall())

    def rows(self, table: Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield all rows, sorted as the table is."""
        columns = ", ".join(
            f"{sql.name(column.name)}{'::VARCHAR' if column.kind is Kind.JSON else ''} AS {sql.name(column.name)}"
            for column in table
        )
        order = ", ".join(("_day", *(sql.name(column) for column in table.sort)))
        for first in range(0, self._n_days, DAYS_AT_A_TIME):
            since = f"DATE '{FIRST_DAY.date()}' + {first}"
            yield from self._con.sql(
                f"""
                SELECT event_date::DATE AS _day, {columns}
                FROM history
                WHERE event_date >= {since} AND event_date < {since} + {DAYS_AT_A_TIME}
                ORDER BY {order}
                """
            ).to_arrow_reader(batch_rows)


def main(export: Path, n_days: int, n_messages: int, folder: Path) -> None:
    """Write both lakes."""
    load_files([export], lake_uri=str(folder / "source"))
    with duckdb.connect(str(folder / "history.duckdb")) as con:
        con.execute("SET TimeZone = 'UTC'")
        _make_rows(con, folder / "source", n_days, n_messages)
        con.execute(f"COPY history TO '{folder}/plain' (FORMAT parquet, PARTITION_BY (event_date))")
        _write_ours(con, n_days, folder)


def _make_rows(con: duckdb.DuckDBPyConnection, source: Path, n_days: int, n_messages: int) -> None:
    own = {
        "id": "md5(i::VARCHAR)::UUID::VARCHAR",
        "cid": "'messaging:room-' || channel",
        "channel_type": "'messaging'",
        "channel_id": "'room-' || channel",
        "parent_id": "CASE WHEN base.parent_id IS NOT NULL THEN md5((i - 1)::VARCHAR)::UUID::VARCHAR END",
        "created_at": "moment",
        "updated_at": "moment + (base.updated_at - base.created_at)",
        "_exported_at": "day + INTERVAL 1 DAY",
        "_load_id": "load_id",
    }
    columns = ", ".join(
        f"{own.get(column.name, f'base.{sql.name(column.name)}')} AS {sql.name(column.name)}" for column in MESSAGES
    )
    con.execute(
        f"""
        CREATE TEMP TABLE base AS
        SELECT *, row_number() OVER (ORDER BY id) - 1 AS b
        FROM read_parquet('{source}/messages/*/*.parquet', hive_partitioning = false)
        """
    )
    con.register("load_ids", pa.table({"number": range(n_days), "load_id": [_load_id(day) for day in range(n_days)]}))
    con.execute(
        f"""
        CREATE TABLE history AS
        SELECT {columns}, day::DATE AS event_date
        FROM (
            SELECT
                i,
                i * {n_days} // {n_messages} AS day_number,
                {sql.instant(FIRST_DAY)} + to_days(day_number::INTEGER) AS day,
                day + to_microseconds((hash(i) % 86400000000)::BIGINT) AS moment,
                floor({N_CHANNELS} * pow(hash(i, 1) / 18446744073709551616.0, 2))::INTEGER AS channel,
                hash(i, 2) % (SELECT count(*) FROM base) AS b
            FROM range({n_messages}) numbers(i)
        ) AS positions
        JOIN base USING (b)
        JOIN load_ids ON number = day_number
        ORDER BY event_date, cid, created_at
        """
    )


def _load_id(day_number: int) -> str:
    return commit_log.load_id_of([f"benchmark day {day_number}"])


def _write_ours(con: duckdb.DuckDBPyConnection, n_days: int, folder: Path) -> None:
    store = open_store(folder / "ours")
    store.prepare()
    metadata = {"chatexport.writer": WRITER}
    written = write_table(
        Rows(con, n_days), MESSAGES, folder / "files", stem="history", metadata=metadata, by_month=False
    )
    for file, local in written:
        commit_log.commit(store, _record(file), {file.path: local})
    refresh(store)


def _record(file: DataFile) -> LoadRecord:
    since = datetime.fromisoformat(file.first_day).replace(tzinfo=UTC)
    until = since + timedelta(days=1)
    load_id = _load_id((since - FIRST_DAY).days)
    counts = dict.fromkeys(("rejected", "out_of_window", "duplicates", "other_entities", "rejected_lines"), 0)
    return LoadRecord(
        load_id=load_id,
        exported_at=until,
        committed_at=until,
        since=since,
        until=until,
        flags={},
        sources=(),
        coverage=(
            CoverageEntry(
                channels=ChannelSet.of(f"messaging:room-{n}" for n in range(N_CHANNELS)),
                since=since,
                until=until,
                exported_at=until,
                load_id=load_id,
            ),
        ),
        files=(file,),
        counts={"lines": file.rows, "rows": {"messages": file.rows}, "entities": {"message": file.rows}, **counts},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
