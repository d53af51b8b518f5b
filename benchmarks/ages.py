"""The cost of a lake's age: of one more load, of other commands, and of opening the catalog.

    python benchmarks/ages.py [--ages young|old|all]

The lakes are made as years of loads leave them (``aged.py``). Then commands run on each, as processes of their own, and
a reader opens the catalog and counts the messages of one day of one channel. `make bench` runs the young ones, and
`make bench AGES=all` the old ones as well, which takes an hour and needs 10 GB of disk.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import aged
from aged import Age
from processes import Run, run, succeeded
from rich.console import Console
from rich.table import Table as PrintedTable

from airflow_provider_chatexport.lake.storage.store import LakeStore

DAY = timedelta(days=1)
EMPTY = Age(name="none", n_loads=0)
YOUNG = (
    EMPTY,
    Age(name="10 of a channel", n_loads=10),
    Age(name="1,000 of a channel", n_loads=1_000),
    Age(name="1,000 of 250 channels", n_loads=1_000, n_channels=250),
)
OLD = (
    Age(name="20,000 of a channel", n_loads=20_000),
    Age(name="20,000 of a channel, not merged", n_loads=20_000, is_merged=False),
    Age(name="a year of 1,000 channels, hourly", n_loads=8_760, n_channels=1_000),
    Age(name="a year of 50,000 channels, daily", n_loads=18_250, n_channels=1_000, n_groups=50, step=DAY),
)
N_RUNS = 3
CHATEXPORT = Path(sys.executable).with_name("chatexport")
OPENING = """
import sys, time
import duckdb
before_s = time.perf_counter()
with duckdb.connect(sys.argv[1], read_only=True) as con:
    opened_s = time.perf_counter()
    query = "SELECT count(*) FROM messages WHERE event_date = ?::DATE AND cid = ?"
    ((n_messages,),) = con.execute(query, sys.argv[2:]).fetchall()
    answered_s = time.perf_counter()
print(opened_s - before_s, answered_s - opened_s, n_messages)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU seconds and largest memory of whole processes, the best of some runs; and the size of the records.

    :param open_ms: of opening the catalog in a process that has imported DuckDB; ``one_day_ms`` is that of one query.
    """

    loads: str
    n_records: int
    records_mb: float
    load_cpu_s: float
    load_mb: float
    again_cpu_s: float
    coverage_cpu_s: float
    vacuum_cpu_s: float
    verify_cpu_s: float
    forget_cpu_s: float
    open_ms: float
    one_day_ms: float


def chosen(ages: str) -> Sequence[Age]:
    """Return the lakes of an argument: ``young``, ``old`` or ``all``."""
    return {"young": YOUNG, "old": (EMPTY, *OLD), "all": (*YOUNG, *OLD)}[ages]


def cost(folder: Path, age: Age, n_runs: int = N_RUNS) -> Cost:
    """Make a lake of some age, and measure."""
    store = aged.make_lake(folder, age)
    sizes = [path.stat().st_size for path in Path(store.url("_loads")).glob("*.json")]
    loads = [_load(folder, store, age, number) for number in range(age.n_loads, age.n_loads + n_runs)]
    again = _load(folder, store, age, age.n_loads, again=True)
    opened = [_opened(store, age) for _ in range(n_runs)]
    # It refuses to remove a person whom the lake does not know, after it has looked for that person.
    refused = run([CHATEXPORT, "forget-user", "somebody-else", "--lake", store.uri, "--yes"])
    return Cost(
        loads=age.name,
        n_records=len(sizes),
        records_mb=sum(sizes) / 1e6,
        load_cpu_s=min(run.cpu_s for run in loads),
        load_mb=max(run.peak_mb for run in loads),
        again_cpu_s=again.cpu_s,
        coverage_cpu_s=_run("coverage", "--lake", store.uri, "--json").cpu_s,
        vacuum_cpu_s=_run("vacuum", "--lake", store.uri).cpu_s,
        verify_cpu_s=_run("verify", "--lake", store.uri).cpu_s,
        forget_cpu_s=refused.cpu_s,
        open_ms=min(open_ms for open_ms, _ in opened),
        one_day_ms=min(one_day_ms for _, one_day_ms in opened),
    )


def _run(*arguments: str | Path) -> Run:
    return succeeded([CHATEXPORT, *arguments])


def _load(folder: Path, store: LakeStore, age: Age, number: int, *, again: bool = False) -> Run:
    """Load the next window, or export it again a minute later and load that."""
    window = age.window(number)
    path = aged.export_file(folder / "more.ndjson", window, age.channels(number))
    exported_at = age.exported_at(number) + timedelta(minutes=again)
    since, until = (str(moment and moment.isoformat()) for moment in (window.since, window.until))
    span = ("--since", since, "--until", until, "--exported-at", exported_at.isoformat())
    return _run("load", path, "--lake", store.uri, *span)


def _opened(store: LakeStore, age: Age) -> tuple[float, float]:
    """Return how long a reader opens the catalog and asks for a day of a channel, in milliseconds."""
    number = age.n_loads // 2
    day = f"{age.window(number).since:%Y-%m-%d}"
    reader = [sys.executable, "-c", OPENING, store.url("catalog.duckdb"), day, age.channels(number)[0]]
    open_s, day_s, n_messages = subprocess.run(reader, check=True, capture_output=True, text=True).stdout.split()
    assert int(n_messages)
    return 1000 * float(open_s), 1000 * float(day_s)


def measure(ages: Sequence[Age]) -> dict[str, object]:
    """Print the table and return the figures."""
    costs = []
    for age in ages:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            costs.append(cost(Path(folder), age))
            print(f"{age.name}: {time.monotonic() - began:.0f} s", flush=True)
    table = PrintedTable(title="the cost of a lake's age, CPU seconds of a process", title_justify="left", box=None)
    headings = ("loads", "records", "MB", "one more load", "peak MB", "a window again", "coverage", "vacuum", "verify")
    for heading in (*headings, "forget-user", "open, ms", "a day of a channel, ms"):
        table.add_column(heading, justify="left" if heading == "loads" else "right")
    for each in costs:
        name, n_records, *figures = asdict(each).values()
        table.add_row(name, f"{n_records:,}", *(f"{figure:.{0 if figure >= 10 else 2}f}" for figure in figures))
    Console(width=200).print(table)
    return {"ages": [asdict(each) for each in costs]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ages", choices=("young", "old", "all"), default="young")
    measure(chosen(parser.parse_args().ages))
