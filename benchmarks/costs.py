"""The cost of a lake's age: of one more load, of loading a day again, of opening the catalog, and of compaction.

    python benchmarks/costs.py [--loads 10,1000,5000]

A lake with many daily loads is made from one real load, by copying its record and its files. Each load has one day of
one of ten channels, and no two overlap. Then the command line loads one more day and loads one day again, and a reader
opens the catalog, each as a process of its own. `make bench` runs this benchmark.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.store import LakeStore

FIRST_DAY = datetime(2010, 1, 1, tzinfo=UTC)
EXPORTED_AT = datetime(2025, 1, 1, tzinfo=UTC)
N_CHANNELS = 10
CHATEXPORT = Path(sys.executable).with_name("chatexport")
OPENING = """
import sys, time
import duckdb
before_s = time.perf_counter()
with duckdb.connect(sys.argv[1], read_only=True) as con:
    opened_s = time.perf_counter()
    con.execute("SELECT count(*) FROM messages WHERE event_date = DATE '2010-01-05'").fetchall()
    answered_s = time.perf_counter()
print(opened_s - before_s, answered_s - opened_s)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds of whole processes; the last two are seconds of the call alone."""

    loads: int
    one_more_load_s: float
    load_again_s: float
    open_s: float
    one_day_s: float


def export_file(folder: Path, day: datetime, cid: str, n_messages: int) -> Path:
    """Write an export of a channel with one message per second, and return its path."""
    path = folder / f"{day:%Y-%m-%d}.ndjson"
    kind, _, name = cid.partition(":")
    lines = [f'{{"type":"channel","data":{{"cid":"{cid}","type":"{kind}","id":"{name}","config":{{}}}}}}']
    for number in range(n_messages):
        at = (day + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines.append(
            f'{{"type":"message","data":{{"id":"{day:%y%m%d}-{number}","cid":"{cid}","text":"words of {number}",'
            f'"user":{{"id":"u{number % 7}"}},"created_at":"{at}","updated_at":"{at}"}}}}'
        )
    path.write_text("\n".join(lines))
    return path


def make_lake(folder: Path, n_loads: int) -> LakeStore:
    """Make a lake of one real load and its copies for the following days."""
    store = open_store(folder / "lake")
    first = export_file(folder, FIRST_DAY, "messaging:c0", 200)
    window = Window(since=FIRST_DAY, until=FIRST_DAY + timedelta(days=1))
    record = load_files(
        [first], lake_uri=store.uri, window=window, exported_at=EXPORTED_AT - timedelta(days=n_loads)
    ).record
    for number in range(1, n_loads):
        day, load_id = FIRST_DAY + timedelta(days=number), f"{number:024x}"
        exported_at = EXPORTED_AT - timedelta(days=n_loads - number)
        files = []
        for file in record.files:
            # Messages only: no user keeps thousands of snapshots of channels and users.
            if file.table == "messages":
                path = f"messages/event_month={day:%Y-%m}/{load_id}-{day:%d}-0.parquet"
                target = store.local_path(store.data_path(path))
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(store.local_path(store.data_path(file.path)), target)
                files.append(replace(file, path=path, first_day=f"{day:%Y-%m-%d}", last_day=f"{day:%Y-%m-%d}"))
        entry = CoverageEntry(
            channels=ChannelSet.of([f"messaging:c{number % N_CHANNELS}"]),
            since=day,
            until=day + timedelta(days=1),
            exported_at=exported_at,
            load_id=load_id,
        )
        another = replace(
            record,
            load_id=load_id,
            exported_at=exported_at,
            since=day,
            until=day,
            coverage=(entry,),
            files=tuple(files),
        )
        store.put_new(another.path, another.to_bytes())
    refresh(store, full=True)
    return store


def seconds_of(*command: str | Path) -> float:
    """Run a command and return how long it took."""
    before_s = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return time.perf_counter() - before_s


def cost(folder: Path, n_loads: int) -> Cost:
    """Make a lake of some loads, and measure."""
    store = make_lake(folder, n_loads)
    next_day = FIRST_DAY + timedelta(days=n_loads)
    more = export_file(folder, next_day, "messaging:c0", 200)
    span = ("--since", next_day.isoformat(), "--until", (next_day + timedelta(days=1)).isoformat())
    load = (CHATEXPORT, "load", more, "--lake", store.uri, *span, "--exported-at")
    one_more_s = seconds_of(*load, EXPORTED_AT.isoformat())
    again_s = seconds_of(*load, (EXPORTED_AT + timedelta(hours=1)).isoformat())
    opened = [
        subprocess.run(
            [sys.executable, "-c", OPENING, store.url("catalog.duckdb")], check=True, capture_output=True, text=True
        ).stdout.split()
        for _ in range(3)
    ]
    open_s, day_s = (min(float(each[at]) for each in opened) for at in (0, 1))
    return Cost(loads=n_loads, one_more_load_s=one_more_s, load_again_s=again_s, open_s=open_s, one_day_s=day_s)


def compaction(folder: Path, n_days: int = 20, loads_a_day: int = 24, n_messages: int = 2_000) -> tuple[float, float]:
    """Compact days of several loads each; return MB of Parquet per second, and rows per second."""
    store = open_store(folder / "lake")
    for day in range(n_days):
        for hour in range(0, 24, 24 // loads_a_day * 6):
            since = FIRST_DAY + timedelta(days=day, hours=hour)
            path = export_file(folder, since, "messaging:c0", n_messages)
            window = Window(since=since, until=since + timedelta(hours=6))
            load_files([path], lake_uri=store.uri, window=window, exported_at=EXPORTED_AT)
    report = compact(store)
    return report.bytes_before / 1e6 / report.seconds, report.rows / report.seconds


def measure(sizes: Sequence[int]) -> dict[str, object]:
    """Print the table and return the figures."""
    costs = []
    for n_loads in sizes:
        with tempfile.TemporaryDirectory() as folder:
            costs.append(cost(Path(folder), n_loads))
    with tempfile.TemporaryDirectory() as folder:
        mb_per_s, rows_per_s = compaction(Path(folder))
    table = Table(title="the cost of a lake's age, seconds", title_justify="left", box=None)
    for heading in ("loads", "one more load", "a day again", "open the catalog", "ask for one day"):
        table.add_column(heading, justify="right")
    for each in costs:
        figures = (each.one_more_load_s, each.load_again_s, each.open_s, each.one_day_s)
        table.add_row(str(each.loads), *(f"{figure:.2f}" for figure in figures))
    Console().print(table)
    print(f"compaction: {mb_per_s:.1f} MB/s of small Parquet files, {rows_per_s:,.0f} rows/s", flush=True)
    return {
        "costs": [asdict(each) for each in costs],
        "compaction": {"mb_per_s": mb_per_s, "rows_per_s": rows_per_s},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", default="10,1000,5000")
    measure([int(each) for each in parser.parse_args().loads.split(",")])
