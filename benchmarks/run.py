"""`make bench`: `chatexport load` and its peers on the same files, what small loads cost, and reading a lake of years.

    make bench                           200,000 messages, the peers, small loads, eight years, reading, a lake's age
    make bench MESSAGES=200000,2000000   the memory curve as well
    make bench AGES=all                  lakes of 20,000 loads and of a year of 50,000 channels as well

All commands run as whole processes, in turn. Peers run at their defaults; where these fail, at the settings that a user
would need; a peer that fails is listed with its error. Reading is compared with the same rows as plain DuckDB writes
them. The benchmark prints tables and writes .cache/bench/result.json. Other work on the machine changes seconds more
than CPU seconds; the ratios of one run hold.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import ages
import costs
import files
import peers
import publishing
import reading
import years
from files import CACHE, Export
from processes import Run, run, succeeded
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
CHATEXPORT = Path(sys.executable).with_name("chatexport")
PEER_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
# Of the plain file, its reactions, members and channels included.
BYTES_PER_MESSAGE = 1420
LOAD = "chatexport load"
QUICK_PEERS = ("bare line scan", "DuckDB COPY", "pyarrow.json")
# These are so slow that they get a tenth of the file. Their time grows with the size.
SLOW_PEERS = ("pandas", "dlt")
N_YEARS = 100_000  # messages
HISTORY_SOURCE, HISTORY_DAYS, HISTORY_MESSAGES = 14_000, 1100, 3_000_000
LAKE_SIZES = (10, 1000, 5000)  # loads
PUBLISHED_FILES = (1000, 5000)
EXPORTED_AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One command on one file: medians over the runs.

    ``cpu_s`` is user and system time of all cores. ``peak_mb`` is the largest resident memory of the process.
    ``error``: why it failed; then the figures say when.
    """

    name: str
    file_mb: float
    seconds: float
    cpu_s: float
    peak_mb: float
    runs: int
    error: str | None = None

    @classmethod
    def of(cls, name: str, file: Export, runs: Sequence[Run]) -> Measured:
        """Return the medians of some runs."""
        return cls(
            name=name,
            file_mb=file.mb,
            seconds=round(statistics.median(run.seconds for run in runs), 3),
            cpu_s=round(statistics.median(run.cpu_s for run in runs), 3),
            peak_mb=round(max(run.peak_mb for run in runs), 1),
            runs=len(runs),
            error=next((run.error for run in runs if run.error is not None), None),
        )

    @property
    def mb_per_s(self) -> float:
        """MB of the file per second."""
        return self.file_mb / self.seconds


def load(file: Export, lake: Path, exported_at: datetime = EXPORTED_AT) -> Run:
    """Load a file into a lake."""
    window: list[str] = []
    if file.since is not None and file.until is not None:
        window = ["--since", file.since.isoformat(), "--until", file.until.isoformat()]
    exported = ["--exported-at", exported_at.isoformat()]
    return succeeded([CHATEXPORT, "load", file.path, "--lake", lake, *window, *exported, "--json"])


def into_new_lakes(file: Export, names: Sequence[str], n_runs: int) -> list[Measured]:
    """Measure our load and the peers on a file, in turn, so that a change of the machine's speed affects all alike."""
    failed: list[Measured] = []
    figures: dict[str, list[Run]] = {name: [] for name in (LOAD, *names)}
    for _ in range(n_runs):
        for name in list(figures):
            ran = _once(name, file)
            if ran.error is not None:
                failed.append(Measured.of(name, file, [ran]))
                del figures[name]
                if (instead := peers.INSTEAD.get(name)) is None:
                    continue
                ran, name = _once(instead, file), instead  # noqa: PLW2901
                if ran.error is not None:
                    failed.append(Measured.of(name, file, [ran]))
                    continue
            figures.setdefault(name, []).append(ran)
    return [*(Measured.of(name, file, runs) for name, runs in figures.items()), *failed]


def _once(name: str, file: Export) -> Run:
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        if name == LOAD:
            return load(file, Path(folder) / "lake")
        return run([PEER_PYTHON, ROOT / "benchmarks" / "peers.py", name, file.path, folder])


def into_one_lake(name: str, exports: Sequence[Export]) -> Measured:
    """Measure loads of small windows, one after another, into a lake that the first of them made."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        runs = [
            load(export, Path(folder) / "lake", EXPORTED_AT + timedelta(hours=number))
            for number, export in enumerate(exports)
        ]
    return Measured.of(name, exports[-1], runs[1:])


def machine() -> dict[str, Any]:
    """Return what the figures depend on: date, hardware and versions."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    packages = ("airflow-provider-chatexport", "duckdb", "pyarrow")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": next(
            (line.split(":")[1].strip() for line in cpus if line.startswith("model name")), platform.processor()
        ),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def show(title: str, rows: Sequence[Measured], reference: Measured | None) -> None:
    """Print a table of loads, with speeds relative to the reference."""
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("", "file MB", "seconds", "CPU s", "MB/s", "peak MB", "chatexport is"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in rows:
        if row.error is not None:
            table.add_row(row.name, f"{row.file_mb:.0f}", "fails")
            continue
        ratio = "" if reference is None or row is reference else f"{reference.mb_per_s / row.mb_per_s:.2f} x as fast"
        table.add_row(
            row.name,
            f"{row.file_mb:.0f}" if row.file_mb >= 10 else f"{row.file_mb:.1g}",
            f"{row.seconds:.2f}",
            f"{row.cpu_s:.2f}",
            f"{row.mb_per_s:.0f}",
            f"{row.peak_mb:.0f}",
            ratio,
        )
    Console().print(table)
    for row in rows:
        if row.error is not None:
            print(f"{row.name} fails: {row.error[:200]}")


def read(n_times: int) -> tuple[dict[str, float], list[reading.Answered]]:
    """Measure reading. The lake of three years is made once and kept."""
    folder = CACHE / "history"
    if not (folder / "ours" / "catalog.duckdb").exists():
        print(f"making a lake of {HISTORY_DAYS} days and {HISTORY_MESSAGES} messages, twice", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        source = files.uneven(HISTORY_SOURCE).path
        history = [ROOT / "benchmarks" / "history.py", source, str(HISTORY_DAYS)]
        succeeded([sys.executable, *history, str(HISTORY_MESSAGES), folder])
    return reading.sizes_mb(folder), reading.ask(folder, n_times)


def show_reading(sizes_mb: dict[str, float], answers: Sequence[reading.Answered]) -> None:
    """Print a table of questions."""
    title = f"reading {HISTORY_DAYS} days, {HISTORY_MESSAGES} messages: ours {sizes_mb['ours']:.0f} MB, "
    table = Table(title=f"{title}plain COPY {sizes_mb['plain']:.0f} MB", title_justify="left", box=None)
    for heading in ("", "rows", "ours ms", "plain ms", "ours CPU ms", "plain CPU ms", "ours is"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in answers:
        figures = (row.ours_ms, row.plain_ms, row.ours_cpu_ms, row.plain_cpu_ms)
        as_fast = f"{row.plain_ms / row.ours_ms:.2f} x as fast"
        table.add_row(row.question, str(row.rows), *(f"{figure:.0f}" for figure in figures), as_fast)
    Console().print(table)


def against_peers(title: str, file: Export, tenth: Export, n_runs: int) -> list[Measured]:
    """Measure and print our load of a file, and the peers."""
    rows = into_new_lakes(file, QUICK_PEERS, n_runs)
    rows += [row for row in into_new_lakes(tenth, SLOW_PEERS, 1) if row.name != LOAD]
    show(f"{title}: peers write the messages table only", rows, rows[0])
    return rows


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", default="200000", help="separated by commas; peers run on the first")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ages", choices=("young", "old", "all"), default="young", help="of lakes; old takes an hour")
    arguments = parser.parse_args()
    first, *larger = (int(each) for each in arguments.messages.split(","))
    # Both plain files, the uneven one, and what a load needs.
    most_bytes = (4 * first + 6 * max([first, *larger])) * BYTES_PER_MESSAGE
    if shutil.disk_usage(ROOT).free < most_bytes:
        sys.exit(f"the benchmark needs about {most_bytes / 1e9:.0f} GB of free disk; give fewer --messages")

    print(f"making export files of {arguments.messages} messages (kept in {CACHE.relative_to(ROOT)})", flush=True)
    tenth = max(1, first // 10)
    by_id, typed, uneven = files.plain(first), files.plain(first, by_id=False), files.uneven(first * 7 // 10)
    loading = {
        "plain, item by id": against_peers("plain file, item by id", by_id, files.plain(tenth), arguments.runs),
        "plain, typed": against_peers(
            "the same messages, typed", typed, files.plain(tenth, by_id=False), arguments.runs
        ),
        "uneven": against_peers("late and changing keys", uneven, files.uneven(tenth * 7 // 10), arguments.runs),
    }
    for title in ("plain, item by id", "plain, typed"):
        print(f"{title}: {loading[title][0].cpu_s * 100_000 / first:.1f} CPU s for 100,000 messages")
    curve = [into_new_lakes(files.plain(n_messages), (), 1)[0] for n_messages in larger]
    if larger:
        show("memory curve", curve, None)
    n_small = 2 * arguments.runs + 1
    small = [
        into_one_lake("an hour, item by id", files.hours(n_small)),
        into_one_lake("an hour, typed", files.hours(n_small, by_id=False)),
        into_one_lake("1 KB", [files.small(number) for number in range(n_small)]),
    ]
    show("small windows, into a lake that is there", small, None)
    in_one_file = into_new_lakes(files.years(N_YEARS), (), 1)
    show("eight years in one file", in_one_file, None)
    small_app = years.measure()

    sizes_mb, answers = read(3 * arguments.runs)
    show_reading(sizes_mb, answers)
    age = costs.measure(LAKE_SIZES)
    aged = ages.measure(ages.chosen(arguments.ages))
    published = publishing.measure(PUBLISHED_FILES)

    result = {
        "machine": machine(),
        "loading": {title: [asdict(row) for row in rows] for title, rows in loading.items()},
        "memory_curve": [asdict(row) for row in curve],
        "small": [asdict(row) for row in small],
        "years": [asdict(row) for row in in_one_file],
        "small_app": small_app,
        "reading": {"mb": sizes_mb, "questions": [asdict(row) for row in answers]},
        "age": age,
        **aged,
        **published,
    }
    (CACHE / "result.json").write_text(json.dumps(result, indent=1))
    print(f"all figures are in {(CACHE / 'result.json').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
