"""The cost of a lake's age: of one more load, of a day loaded again, of questions, of a removal, and of compaction.

    python benchmarks/costs.py [--loads 10,1000,5000]

A lake with many daily loads is made from one real load, by moving its record and its messages to other days. Each load
has one day of one of ten channels, and no two overlap. Then the command line loads one more day and loads one day
again, and a reader opens the catalog and counts the messages of one day, each as a process of its own. The last lake is
merged after each load, as loads do; the others are not merged at all. `make bench` runs this benchmark.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
from rich.console import Console
from rich.table import Table as PrintedTable

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import UnknownUserError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.auto_compact import compact_behind
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.maintenance.forget import forget_user
from airflow_provider_chatexport.lake.parquet import write_table
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.schema.types import Kind, Table
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.store import LakeStore

FIRST_DAY = datetime(2010, 1, 1, tzinfo=UTC)
EXPORTED_AT = datetime(2025, 1, 1, tzinfo=UTC)
N_CHANNELS = 10
N_MESSAGES = 200  # of each load
N_MERGED = 1100  # loads, of which the compactions after them have merged most
UNMERGED = LoadOptions(auto_compact=False)
CHATEXPORT = Path(sys.executable).with_name("chatexport")
OPENING = """
import sys, time
import duckdb
before_s = time.perf_counter()
with duckdb.connect(sys.argv[1], read_only=True) as con:
    opened_s = time.perf_counter()
    ((n_messages,),) = con.execute("SELECT count(*) FROM messages WHERE event_date = ?::DATE", sys.argv[2:]).fetchall()
    answered_s = time.perf_counter()
print(opened_s - before_s, answered_s - opened_s, n_messages)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds of whole processes for loads; all others are seconds of the call alone.

    ``one_channel_s``: one day of one channel through a ``Lake`` that is open. ``unknown_cpu_s``: CPU seconds until
    ``forget-user`` refuses a person whom the lake does not know.
    """

    loads: int
    is_merged: bool
    one_more_load_s: float
    load_again_s: float
    open_s: float
    one_day_s: float
    one_channel_s: float
    unknown_cpu_s: float


def export_file(folder: Path, day: datetime, cid: str, n_messages: int) -> Path:
    """Write an export of a channel with one message per second, and return its path."""
    path = folder / f"{day:%Y-%m-%d-%H}.ndjson"
    kind, _, name = cid.partition(":")
    lines = [f'{{"type":"channel","data":{{"cid":"{cid}","type":"{kind}","id":"{name}","config":{{}}}}}}']
    for number in range(n_messages):
        at = (day + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines.append(
            f'{{"type":"message","data":{{"id":"{day:%y%m%d%H}-{number}","cid":"{cid}","text":"words of {number}",'
            f'"user":{{"id":"u{number % 7}"}},"created_at":"{at}","updated_at":"{at}"}}}}'
        )
    path.write_text("\n".join(lines))
    return path


class CopiedDays:
    """The messages of one day, moved to each of the days after it, as the package's writer reads them."""

    def __init__(self, con: duckdb.DuckDBPyConnection, source: Path, n_days: int) -> None:
        self._con = con
        self._source = source
        self._numbers = range(1, n_days + 1)

    def days(self, table: Table) -> dict[str, int]:  # noqa: ARG002 - there is one
        """Return the number of rows of each day."""
        return {f"{FIRST_DAY + timedelta(days=number):%Y-%m-%d}": N_MESSAGES for number in self._numbers}

    def rows(self, table: Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield all rows, sorted by time: a day has one channel."""
        own = {
            "id": "number || '-' || id",
            "cid": f"'messaging:c' || number % {N_CHANNELS}",
            "channel_id": f"'c' || number % {N_CHANNELS}",
            "created_at": "created_at + to_days(number)",
            "updated_at": "updated_at + to_days(number)",
            "_load_id": "printf('%024x', number)",
        }
        columns = ", ".join(
            f"({own.get(column.name, sql.name(column.name))})"
            f"{'::VARCHAR' if column.kind is Kind.JSON else ''} AS {sql.name(column.name)}"
            for column in table
        )
        yield from self._con.sql(
            f"""
            SELECT event_date + number AS _day, {columns}
            FROM read_parquet('{self._source}', hive_partitioning = false)
            CROSS JOIN (SELECT unnest({list(self._numbers)})::INTEGER AS number)
            ORDER BY _day, created_at
            """
        ).to_arrow_reader(batch_rows)


def make_lake(folder: Path, n_loads: int, *, auto_compact: bool = False) -> LakeStore:
    """Make a lake of one real load and its copies for the following days.

    :param auto_compact: after each copy, merge a portion of those before, as a load does.
    """
    store = open_store(folder / "lake")
    first = export_file(folder, FIRST_DAY, "messaging:c0", N_MESSAGES)
    window = Window(since=FIRST_DAY, until=FIRST_DAY + timedelta(days=1))
    record = load_files(
        [first], lake_uri=store.uri, window=window, exported_at=EXPORTED_AT - timedelta(days=n_loads)
    ).record
    # Messages only: no user keeps thousands of snapshots of channels and users.
    (path,) = (file.path for file in record.files if file.table == MESSAGES.name)
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        copies = CopiedDays(con, store.local_path(store.data_path(path)), n_loads - 1)
        written = write_table(copies, MESSAGES, folder / "files", stem="copy", metadata={}, by_month=False)
        for number, (file, local) in enumerate(written, 1):
            exported_at = EXPORTED_AT - timedelta(days=n_loads - number)
            copy = copy_of(record, file, number, exported_at)
            commit_log.commit(store, copy, {file.path: local})
            if auto_compact:
                compact_behind(store, copy)
    refresh(store, full=True)
    return store


def copy_of(record: LoadRecord, file: DataFile, number: int, exported_at: datetime) -> LoadRecord:
    """Return the record of a load whose messages were moved by so many days."""
    day, load_id = FIRST_DAY + timedelta(days=number), f"{number:024x}"
    entry = CoverageEntry(
        channels=ChannelSet.of([f"messaging:c{number % N_CHANNELS}"]),
        since=day,
        until=day + timedelta(days=1),
        exported_at=exported_at,
        load_id=load_id,
    )
    return replace(
        record,
        load_id=load_id,
        exported_at=exported_at,
        since=entry.since,
        until=entry.until,
        coverage=(entry,),
        files=(file,),
    )


def seconds_of(*command: str | Path) -> float:
    """Run a command and return how long it took."""
    before_s = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return time.perf_counter() - before_s


def cost(folder: Path, n_loads: int, *, auto_compact: bool = False) -> Cost:
    """Make a lake of some loads, and measure."""
    store = make_lake(folder, n_loads, auto_compact=auto_compact)
    next_day = FIRST_DAY + timedelta(days=n_loads)
    more = export_file(folder, next_day, "messaging:c0", N_MESSAGES)
    span = ("--since", next_day.isoformat(), "--until", (next_day + timedelta(days=1)).isoformat())
    load = (CHATEXPORT, "load", more, "--lake", store.uri, *span, "--exported-at")
    one_more_s = seconds_of(*load, EXPORTED_AT.isoformat())
    again_s = seconds_of(*load, (EXPORTED_AT + timedelta(hours=1)).isoformat())
    one_day = f"{FIRST_DAY + timedelta(days=n_loads // 2):%Y-%m-%d}"
    reader = [sys.executable, "-c", OPENING, store.url("catalog.duckdb"), one_day]
    opened = [subprocess.run(reader, check=True, capture_output=True, text=True).stdout.split() for _ in range(3)]
    assert {str(N_MESSAGES)} == {n_messages for _, _, n_messages in opened}
    open_s, day_s = (min(float(each[at]) for each in opened) for at in (0, 1))
    return Cost(
        loads=n_loads,
        is_merged=auto_compact,
        one_more_load_s=one_more_s,
        load_again_s=again_s,
        open_s=open_s,
        one_day_s=day_s,
        one_channel_s=_one_channel_s(store.uri, n_loads // 2),
        unknown_cpu_s=_unknown_cpu_s(store),
    )


def _one_channel_s(uri: str, number: int) -> float:
    """Return how long a day of its channel takes in a process that has the lake open."""
    day = FIRST_DAY + timedelta(days=number)
    took_s = []
    with Lake(uri) as lake:
        for _ in range(5):
            before_s = time.perf_counter()
            found = lake.table(
                "messages", channels=f"messaging:c{number % N_CHANNELS}", since=day, until=day + timedelta(days=1)
            ).to_arrow_table()
            took_s.append(time.perf_counter() - before_s)
            assert found.num_rows == N_MESSAGES
    return min(took_s)


def _unknown_cpu_s(store: LakeStore) -> float:
    before_s = time.process_time()
    with contextlib.suppress(UnknownUserError):
        forget_user(store, "a-person-of-another-lake", now=datetime.now(UTC))
    return time.process_time() - before_s


def compaction(folder: Path, n_days: int = 20, n_messages: int = 2_000) -> tuple[float, float]:
    """Compact days of four loads each; return MB of small Parquet files, and rows, per CPU second."""
    store = open_store(folder / "lake")
    for day in range(n_days):
        for hour in range(0, 24, 6):
            since = FIRST_DAY + timedelta(days=day, hours=hour)
            path = export_file(folder, since, "messaging:c0", n_messages)
            window = Window(since=since, until=since + timedelta(hours=6))
            load_files([path], lake_uri=store.uri, window=window, exported_at=EXPORTED_AT, options=UNMERGED)
    before_s = time.process_time()
    report = compact(store)
    cpu_s = time.process_time() - before_s
    return report.bytes_before / 1e6 / cpu_s, report.rows / cpu_s


def measure(sizes: Sequence[int]) -> dict[str, object]:
    """Print the table and return the figures."""
    costs = []
    for n_loads, auto_compact in (*((n_loads, False) for n_loads in sizes), (N_MERGED, True)):
        with tempfile.TemporaryDirectory() as folder:
            costs.append(cost(Path(folder), n_loads, auto_compact=auto_compact))
    with tempfile.TemporaryDirectory() as folder:
        mb_per_s, rows_per_s = compaction(Path(folder))
    table = PrintedTable(title="the cost of a lake's age, seconds", title_justify="left", box=None)
    headings = ("one more load", "a day again", "open the catalog", "ask for one day", "one channel of it, lake open")
    for heading in ("loads", *headings, "forget a person who is unknown, CPU"):
        table.add_column(heading, justify="right")
    for each in costs:
        figures = (each.one_more_load_s, each.load_again_s, each.open_s, each.one_day_s, each.one_channel_s)
        name = f"{each.loads}{', merged' * each.is_merged}"
        table.add_row(name, *(f"{figure:.2f}" for figure in (*figures, each.unknown_cpu_s)))
    Console().print(table)
    print(f"compaction: {mb_per_s:.1f} MB of small Parquet files, {rows_per_s:,.0f} rows per CPU second", flush=True)
    return {
        "costs": [asdict(each) for each in costs],
        "compaction": {"mb_per_s": mb_per_s, "rows_per_s": rows_per_s},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", default="10,1000,5000")
    measure([int(each) for each in parser.parse_args().loads.split(",")])
