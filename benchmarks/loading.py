"""Loading: ``chatexport load`` against what people use today, the memory curve, and a window of 2 MB."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exports import WINDOW_SINCE, WINDOW_UNTIL
from process import CACHE, PEER_PYTHON, ROOT, Spent, export_file, load, spend, warm

OURS = "chatexport load"
FLOOR = "bare line scan"
COPY = "DuckDB COPY, best case"
DLT = "dlt"
PANDAS = "pandas"

# Beyond this pyarrow's one block does not reach, and pandas takes 16 times as much memory.
PEERS_AT_MOST_MB = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One way to load one file into a new folder. ``n_runs`` None: as many as there are rounds."""

    name: str
    file: Path
    command: Callable[[Path, Path], list[str | Path]]
    n_runs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A job's figures: the median time, the largest memory; ``ours_is`` times as fast is the first job of the list.

    That ratio is the median of the rounds' own ratios of MB/s, since other work on the machine comes and goes.
    """

    name: str
    file_mb: float
    runs: int
    seconds: float
    seconds_min: float
    seconds_max: float
    mb_per_s: float
    peak_mb: float
    ours_is: float


def against_peers(size_mb: int, n_rounds: int) -> list[Measured]:
    plain = export_file(f"plain:{size_mb}")
    small = export_file(f"plain:{PEERS_AT_MOST_MB}") if size_mb > PEERS_AT_MOST_MB else plain
    whole = export_file(f"whole:{size_mb}")
    return _in_turn(
        [
            Job(name=OURS, file=plain, command=_ours),
            Job(name=f"{OURS}, every oddity", file=whole, command=_ours),
            Job(name=FLOOR, file=plain, command=_peer("bare_line_scan.py")),
            Job(name=COPY, file=plain, command=_peer("duckdb_copy.py", "3")),
            Job(name="DuckDB COPY, as it detects", file=small, command=_peer("duckdb_copy.py", "-1")),
            Job(name="pyarrow.json", file=small, command=_peer("pyarrow_json.py")),
            Job(name=PANDAS, file=small, command=_peer("pandas_json.py"), n_runs=1),
            Job(name=DLT, file=small, command=_peer("dlt_filesystem.py"), n_runs=1),
        ],
        n_rounds,
    )


def memory_curve(sizes_mb: Sequence[int], n_rounds: int) -> list[Measured]:
    files = [export_file(f"whole:{size_mb}") for size_mb in sizes_mb]
    return _in_turn([Job(name=f"{size} MB", file=file, command=_ours) for size, file in zip(sizes_mb, files)], n_rounds)


def window(n_rounds: int, history: Path | None, history_name: str) -> list[Measured]:
    """A window of 2 MB into an empty lake, and into one that has a history (of which each run gets a copy)."""
    file = export_file("window")
    stated = ("--since", WINDOW_SINCE.isoformat(), "--until", WINDOW_UNTIL.isoformat())

    def into_empty(file: Path, folder: Path) -> list[str | Path]:
        return load(file, folder / "lake", *stated)

    def into_history(file: Path, folder: Path) -> list[str | Path]:
        # Hard links: a load only adds names and replaces names, it never writes into a file that is there.
        shutil.copytree(history, folder / "lake", copy_function=os.link)
        return load(file, folder / "lake", *stated)

    jobs = [Job(name="into an empty lake", file=file, command=into_empty)]
    if history is not None:
        jobs.append(Job(name=f"into a lake of {history_name}", file=file, command=into_history))
    return _in_turn(jobs, n_rounds)


def _ours(file: Path, folder: Path) -> list[str | Path]:
    return load(file, folder / "lake")


def _peer(script: str, *more: str) -> Callable[[Path, Path], list[str | Path]]:
    return lambda file, folder: [PEER_PYTHON, ROOT / "benchmarks" / "peers" / script, file, folder, *more]


def _in_turn(jobs: Sequence[Job], n_rounds: int) -> list[Measured]:
    """All jobs once, then all again: in turn rather than in a row, so that all see the same weather."""
    for job in jobs:
        warm(job.file)
    spent: dict[str, list[Spent]] = {job.name: [] for job in jobs}
    for n_round in range(n_rounds):
        for job in jobs:
            if job.n_runs is None or n_round < job.n_runs:
                with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                    spent[job.name].append(spend(job.command(job.file, Path(folder))))
    first = jobs[0]
    return [_measured(job, spent[job.name], _mb(first), spent[first.name]) for job in jobs]


def _measured(job: Job, runs: Sequence[Spent], ours_mb: float, ours: Sequence[Spent]) -> Measured:
    seconds = [run.seconds for run in runs]
    # Rounds pair by pair; where a job has fewer runs than rounds, the first rounds.
    ratios = [(ours_mb / our.seconds) / (_mb(job) / run.seconds) for our, run in zip(ours, runs)]
    return Measured(
        name=job.name,
        file_mb=round(_mb(job), 1),
        runs=len(runs),
        seconds=round(statistics.median(seconds), 3),
        seconds_min=round(min(seconds), 3),
        seconds_max=round(max(seconds), 3),
        mb_per_s=round(_mb(job) / statistics.median(seconds), 1),
        peak_mb=round(max(run.peak_mb for run in runs), 1),
        ours_is=round(statistics.median(ratios), 3),
    )


def _mb(job: Job) -> float:
    return job.file.stat().st_size / 1e6
