"""`make bench`: `chatexport load` and its peers on the same file, and reading a lake of three years.

    make bench                       300 MB, the same by id, the peers, an hourly window, reading, a lake's age
    make bench SIZES=300,1000,3000   the memory curve as well

All commands run as whole processes, in turn. Reading is compared with the same rows as plain DuckDB writes them. The
benchmark prints tables and writes .cache/bench/result.json. Other work on the machine changes all figures; the ratios
of one run hold.
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
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import costs
import reading
from rich.console import Console
from rich.table import Table

from airflow_provider_chatexport.core.entities import References, Shape
from airflow_provider_chatexport.core.plan import ExportFlags
from airflow_provider_chatexport.sandbox.chat.world import Bounds, World
from airflow_provider_chatexport.sandbox.exports.render import ExportJob, render_channels_export

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "bench"
CHATEXPORT = Path(sys.executable).with_name("chatexport")
PEER_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
BYTES_PER_MESSAGE = 2080
HOURLY_MB = 2
LOAD = "chatexport load"
# The same messages with ids in place of users and channels, in a file of a third of the size.
LOAD_BY_ID = "chatexport load, item by id"
HISTORY_MB, HISTORY_DAYS, HISTORY_MESSAGES = 30, 1100, 3_000_000
LAKE_SIZES = (10, 1000, 5000)  # loads
# These are so slow that they get a tenth of the file. Their time grows with the size.
SLOW_PEERS = ("pandas", "dlt")
# Peers fail on these keys: integers beyond 64 bits, and a value that is a number in one line and an object in another.
# The file has neither them nor objects without members, so that the peers can be measured at all.
PEERS_STOP_AT = ("sequence", "priority")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One command on one file: medians over the runs.

    ``cpu_s`` is user and system time of all cores. ``peak_mb`` is the largest resident memory of the process.
    """

    name: str
    file_mb: float
    seconds: float
    cpu_s: float
    peak_mb: float
    runs: int

    @property
    def mb_per_s(self) -> float:
        """MB of the file per second."""
        return self.file_mb / self.seconds


def n_messages(size_mb: int) -> int:
    """Return how many messages the typed export of this size has."""
    return max(100, size_mb * 1_000_000 // BYTES_PER_MESSAGE)


def export_file(size_mb: int, *, by_id: bool = False) -> Path:
    """Return a typed v2 export of about this size. The sandbox makes it once, and always the same bytes.

    :param by_id: return the same messages as ``item`` lines, with references by id.
    """
    path = CACHE / f"export-{size_mb}mb{'-by-id' * by_id}.ndjson"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    world = World.load(messages=n_messages(size_mb))
    cids = tuple(cid for cid in world.cids if not world.channel_is_deleted(cid))
    job = ExportJob(
        cids=cids,
        windows=((None, None),) * len(cids),
        flags=ExportFlags(include_truncated_messages=True),
        bounds=Bounds.HALF_OPEN,
        shape=Shape.ITEM if by_id else Shape.TYPED,
        references=References.ID if by_id else References.OBJECT,
        gzip=False,
    )
    part = path.with_suffix(".part")
    with part.open("wb") as target:
        for line in _lines(render_channels_export(world, job)):
            target.write(_plain(line))
    part.rename(path)
    return path


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _plain(line: bytes) -> bytes:
    def kept(fields: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in fields.items() if key not in PEERS_STOP_AT and value != {}}

    value = json.loads(line, object_hook=kept)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def run(command: Sequence[str | Path]) -> tuple[float, float, float]:
    """Run a command; return wall seconds, CPU seconds and peak resident MB. A failing command ends the benchmark."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        pid = os.posix_spawn(
            str(command[0]),
            [str(part) for part in command],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, output.fileno(), 2)],
        )
        _, status, usage = os.wait4(pid, 0)
        seconds = time.perf_counter() - began
        if status:
            output.seek(0)
            sys.exit(f"{command} failed:\n{output.read().decode()[-2000:]}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(jobs: dict[str, Path], n_runs: int) -> list[Measured]:
    """Run each job on its file, in turn, so that a change of the machine's speed affects all jobs alike."""
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in jobs}
    for _ in range(n_runs):
        for name, file in jobs.items():
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                figures[name].append(run(_command(name, file, Path(folder))))
    return [
        Measured(
            name=name,
            file_mb=round(jobs[name].stat().st_size / 1e6, 1),
            seconds=round(statistics.median(seconds for seconds, _, _ in runs), 3),
            cpu_s=round(statistics.median(cpu_s for _, cpu_s, _ in runs), 3),
            peak_mb=round(max(peak for _, _, peak in runs), 1),
            runs=len(runs),
        )
        for name, runs in figures.items()
    ]


def _command(name: str, file: Path, folder: Path) -> list[str | Path]:
    if name in (LOAD, LOAD_BY_ID):
        return [CHATEXPORT, "load", file, "--lake", folder / "lake", "--json"]
    return [PEER_PYTHON, ROOT / "benchmarks" / "peers.py", name, file, folder]


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
        ratio = "" if reference is None or row is reference else f"{reference.mb_per_s / row.mb_per_s:.2f} x as fast"
        table.add_row(
            row.name,
            f"{row.file_mb:.0f}",
            f"{row.seconds:.2f}",
            f"{row.cpu_s:.2f}",
            f"{row.mb_per_s:.0f}",
            f"{row.peak_mb:.0f}",
            ratio,
        )
    Console().print(table)


def read(n_times: int) -> tuple[dict[str, float], list[reading.Answered]]:
    """Measure reading. The lake of three years is made once and kept."""
    folder = CACHE / "history"
    if not (folder / "ours" / "catalog.duckdb").exists():
        print(f"making a lake of {HISTORY_DAYS} days and {HISTORY_MESSAGES} messages, twice", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        history = [ROOT / "benchmarks" / "history.py", export_file(HISTORY_MB), str(HISTORY_DAYS)]
        run([sys.executable, *history, str(HISTORY_MESSAGES), folder])
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


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="300", help="MB, separated by commas; peers run on the first")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    first, *larger = (int(size) for size in arguments.sizes.split(","))
    if shutil.disk_usage(ROOT).free < 6_000_000 * max([first, *larger]):
        sys.exit(f"the benchmark needs about {6 * max([first, *larger]) // 1000} GB of free disk; give smaller --sizes")

    print(f"making export files of {arguments.sizes} MB (kept in {CACHE.relative_to(ROOT)})", flush=True)
    whole, tenth, hourly = export_file(first), export_file(max(1, first // 10)), export_file(HOURLY_MB)
    quick = ("bare line scan", "DuckDB COPY", "pyarrow.json")
    ours = {LOAD: whole, LOAD_BY_ID: export_file(first, by_id=True)}
    against = measure(ours | dict.fromkeys(quick, whole), arguments.runs)
    against += measure(dict.fromkeys(SLOW_PEERS, tenth), 1)
    show("loading: peers write the messages table only", against, against[0])
    for row in against[: len(ours)]:
        print(f"{row.name}: {row.cpu_s * 100_000 / n_messages(first):.1f} CPU s for 100,000 messages")
    curve = [against[0], *(measure({LOAD: export_file(size)}, 1)[0] for size in larger)]
    if larger:
        show("memory curve", curve, None)
    hour = measure({LOAD: hourly}, arguments.runs)
    show("an hourly window", hour, None)

    sizes_mb, answers = read(3 * arguments.runs)
    show_reading(sizes_mb, answers)
    age = costs.measure(LAKE_SIZES)

    result = {
        "machine": machine(),
        "loading": [asdict(row) for row in against],
        "memory_curve": [asdict(row) for row in curve],
        "hourly": [asdict(row) for row in hour],
        "reading": {"mb": sizes_mb, "questions": [asdict(row) for row in answers]},
        "age": age,
    }
    (CACHE / "result.json").write_text(json.dumps(result, indent=1))
    print(f"all figures are in {(CACHE / 'result.json').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
