"""A lake of years, and the same rows by plain DuckDB. ``history.py EXPORT DAYS MESSAGES FOLDER``.

The rows are the messages of EXPORT, loaded and read back, copied over DAYS days with ids, times, channels and threads
of their own: 100 channels, the busiest with a tenth of all. They come as exports bring them: a day at a time, channel by
channel, by time.

FOLDER/ours: one load a day through the package's own writer, records and catalog, the messages table only.
FOLDER/plain: ``COPY ... PARTITION_BY (event_date)`` of the same table, with nothing stated.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import duckdb
import pyarrow as pa

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.lake import catalog, loads, schema, sql
from airflow_provider_chatexport.lake.convert import Conversion
from airflow_provider_chatexport.lake.coverage import Coverage
from airflow_provider_chatexport.lake.schema import Kind, Table
from airflow_provider_chatexport.lake.store import LakeStore
from airflow_provider_chatexport.lake.write import DataFile, write_table

FIRST_DAY = datetime(2022, 1, 1, tzinfo=UTC)
N_CHANNELS = 100


class Rows:
    """The history as the writer asks for it: what ``Conversion`` is to a load."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con

    def days(self, table: Table) -> dict[str, int]:  # noqa: ARG002 - there is one
        return dict(self._con.execute("SELECT event_date::VARCHAR, count(*) FROM history GROUP BY ALL").fetchall())

    def rows(self, table: Table, batch_rows: int) -> pa.RecordBatchReader:
        columns = ", ".join(
            f"{sql.name(column.name)}{'::VARCHAR' if column.kind is Kind.JSON else ''} AS {sql.name(column.name)}"
            for column in table
        )
        order = ", ".join(sql.name(column) for column in table.sort)
        query = f"SELECT event_date::VARCHAR AS _day, {columns} FROM history ORDER BY _day, {order}"
        return self._con.sql(query).to_arrow_reader(batch_rows)


def main(export: Path, n_days: int, n_messages: int, folder: Path) -> None:
    pipeline.load_files([export], lake_uri=str(folder / "source"))
    with duckdb.connect(str(folder / "history.duckdb")) as con:
        con.execute("SET TimeZone = 'UTC'")
        _make_rows(con, folder / "source", n_days, n_messages)
        con.execute(f"COPY history TO '{folder}/plain' (FORMAT parquet, PARTITION_BY (event_date))")
        _write_ours(con, folder)


def _make_rows(con: duckdb.DuckDBPyConnection, source: Path, n_days: int, n_messages: int) -> None:
    def message_id(number: str) -> str:
        return f"md5(({number})::VARCHAR)::UUID::VARCHAR"

    con.execute(
        f"CREATE TEMP TABLE base AS SELECT *, row_number() OVER (ORDER BY id) - 1 AS b "
        f"FROM read_parquet('{source}/messages/*/*.parquet', hive_partitioning = false)"
    )
    own = {
        "id": message_id("i"),
        "cid": "channel_type || ':' || channel_id",
        "channel_type": "'messaging'",
        "channel_id": "'room-' || channel",
        "parent_id": f"CASE WHEN parent_id IS NOT NULL THEN {message_id('i - 1')} END",
        "quoted_message_id": f"CASE WHEN quoted_message_id IS NOT NULL THEN {message_id('i - 2')} END",
        "created_at": "at",
        "updated_at": "at + (updated_at - base.created_at)",
        "_exported_at": "day + INTERVAL 1 DAY",
        "_load_id": "load_id",
    }
    # Names on the right hand may mean the new or the old column: each is said once, in a struct of the new ones.
    own["cid"] = "'messaging:room-' || channel"
    columns = ", ".join(f"{own.get(column.name, 'base.' + sql.name(column.name))} AS {sql.name(column.name)}"
                        for column in schema.MESSAGES)  # fmt: skip
    load_ids = pa.table(
        {"number": range(n_days), "load_id": [_load_id(number) for number in range(n_days)]},
    )
    con.register("load_ids", load_ids)
    con.execute(
        f"CREATE TABLE history AS SELECT {columns}, day::DATE AS event_date FROM ("
        f"SELECT i, {sql.instant(FIRST_DAY)} + to_days((i * {n_days} // {n_messages})::INTEGER) AS day, "
        f"i * {n_days} // {n_messages} AS day_number, day + to_microseconds((hash(i) % 86400000000)::BIGINT) AS at, "
        f"floor({N_CHANNELS} * pow(hash(i, 1) / 18446744073709551616.0, 2))::INTEGER AS channel, "
        f"hash(i, 2) % (SELECT count(*) FROM base) AS b FROM range({n_messages}) numbers(i)) made "
        "JOIN base USING (b) JOIN load_ids ON number = day_number ORDER BY event_date, cid, created_at"
    )


def _load_id(day_number: int) -> str:
    return loads.load_id_of([f"benchmark day {day_number}"])


def _write_ours(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    store = LakeStore(folder / "ours")
    store.prepare()
    metadata = {"chatexport.writer": loads.WRITER}
    rows = cast("Conversion", Rows(con))
    for file, local in write_table(rows, schema.MESSAGES, folder / "files", stem="history", metadata=metadata):
        loads.commit(store, _record(file), [local])
    catalog.publish(store)


def _record(file: DataFile) -> loads.LoadRecord:
    since = datetime.fromisoformat(file.day).replace(tzinfo=UTC)
    until = since + timedelta(days=1)
    load_id = _load_id((since - FIRST_DAY).days)
    counts = dict.fromkeys(("rejected", "out_of_window", "duplicates", "other_entities", "rejected_lines"), 0)
    return loads.LoadRecord(
        load_id=load_id,
        exported_at=until,
        committed_at=until,
        since=since,
        until=until,
        flags={},
        sources=(),
        coverage=tuple(
            Coverage(cid=f"messaging:room-{n}", since=since, until=until, exported_at=until, load_id=load_id)
            for n in range(N_CHANNELS)
        ),
        files=(file,),
        counts={"lines": file.rows, "rows": {"messages": file.rows}, "entities": {"message": file.rows}, **counts},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
