"""One command as a whole process: how long, and how much memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "bench"
PYTHON = Path(sys.executable)
CHATEXPORT = PYTHON.with_name("chatexport")
PEER_PYTHON = ROOT / ".venv-bench" / "bin" / "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Wall time, interpreter start included, and the largest resident memory (``ru_maxrss``; 1 MB is 10**6 bytes)."""

    seconds: float
    peak_mb: float


def spend(command: Sequence[str | Path]) -> Spent:
    """Runs a command. One that fails ends the benchmark, with what it said."""
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
            sys.exit(f"{' '.join(map(str, command))} failed:\n{output.read().decode(errors='replace')[-2000:]}")
    return Spent(seconds=seconds, peak_mb=usage.ru_maxrss * 1024 / 1e6)


def load(file: Path, lake: Path, *more: str) -> list[str | Path]:
    return [CHATEXPORT, "load", file, "--lake", lake, "--json", *more]


def script(name: str, *arguments: str) -> str:
    """The output of one of the scripts beside this module, in the project's own environment."""
    command = [PYTHON, ROOT / "benchmarks" / name, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def export_file(which: str) -> Path:
    return Path(script("exports.py", which))


def warm(file: Path) -> None:
    """Reads a file once, so that the first to be measured does not pay for the disk."""
    with file.open("rb") as stream:
        while stream.read(1 << 24):
            pass
