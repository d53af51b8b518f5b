"""The cost of publishing a lake as Delta and Iceberg tables: the first time, with nothing to do, and after a change.

    python benchmarks/publishing.py [--files 1000,5000]

The lakes are those of ``costs.py``: as many loads as files of messages, one day each. Each step is a process of its
own. Its seconds are without the start of Python and the import of the format's library. The last step takes the file
of a day out of a table, and measures the commit that brings it back. `make bench` runs this benchmark.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from costs import make_lake
from rich.console import Console
from rich.table import Table as PrintedTable

SINKS = ("delta", "iceberg")
PUBLISH = """
import json, sys, time
from airflow_provider_chatexport.core.sinks import Sink
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.publish import publisher
publisher.require_installed(Sink(sys.argv[2]))
wall_s, cpu_s = time.perf_counter(), time.process_time()
Lake(sys.argv[1]).publish(sys.argv[2])
print(json.dumps({"wall_s": time.perf_counter() - wall_s, "cpu_s": time.process_time() - cpu_s}))
"""
EXCHANGE = """
import functools, json, sys, time
from airflow_provider_chatexport.core.sinks import Sink
from airflow_provider_chatexport.lake.commits import log
from airflow_provider_chatexport.lake.commits.visibility import path_in
from airflow_provider_chatexport.lake.publish import publisher
from airflow_provider_chatexport.lake.publish.plan import change_of, live_files
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.storage.address import open_store
store = open_store(sys.argv[1])
snapshot = log.read_snapshot(store)
live = live_files(snapshot, MESSAGES, functools.partial(path_in, store))
table_format = publisher.open_format(store, Sink(sys.argv[2]))
for files in (live[:-1], live):
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    opened = table_format.open(MESSAGES)
    opened.commit(change_of(MESSAGES, files, opened.state(), len(snapshot.records) + len(files)))
print(json.dumps({"wall_s": time.perf_counter() - wall_s, "cpu_s": time.process_time() - cpu_s}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds of one publication."""

    sink: str
    files: int
    step: str
    wall_s: float
    cpu_s: float


STEPS = (("first", PUBLISH), ("nothing to do", PUBLISH), ("one file more", EXCHANGE))


def cost(uri: str, sink: str, n_files: int, step: str, script: str) -> Cost:
    """Run a step in a process of its own."""
    command = [sys.executable, "-c", script, uri, sink]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Cost(sink=sink, files=n_files, step=step, **json.loads(done.stdout.splitlines()[-1]))


def costs_of(folder: Path, n_files: int) -> list[Cost]:
    """Make a lake with so many files of messages, and measure."""
    uri = make_lake(folder, n_files).uri
    return [cost(uri, sink, n_files, step, script) for sink in SINKS for step, script in STEPS]


def measure(sizes: Sequence[int]) -> dict[str, object]:
    """Print the table and return the figures."""
    costs = []
    for n_files in sizes:
        with tempfile.TemporaryDirectory() as folder:
            costs += costs_of(Path(folder), n_files)
    table = PrintedTable(title="publishing, seconds", title_justify="left", box=None)
    for heading in ("format", "files", "publication", "CPU", "wall"):
        table.add_column(heading, justify="right")
    for each in costs:
        table.add_row(each.sink, str(each.files), each.step, f"{each.cpu_s:.2f}", f"{each.wall_s:.2f}")
    Console().print(table)
    return {"publishing": [asdict(each) for each in costs]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", default="1000,5000")
    measure([int(each) for each in parser.parse_args().files.split(",")])
