"""Commands as whole processes: what they took, and why they failed."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ERROR = re.compile(r"[\w.]+(Error|Exception): ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One command that ran. ``error``: the last line of what it printed, if it failed."""

    seconds: float
    cpu_s: float
    peak_mb: float
    error: str | None = None


def run(command: Sequence[str | Path]) -> Run:
    """Run a command, and return what it took."""
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
        error = None
        if status:
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines() or [f"status {status}"]
            # An exception may have notes behind it.
            error = next((line for line in reversed(lines) if _ERROR.match(line)), lines[-1])
        cpu_s = usage.ru_utime + usage.ru_stime
        return Run(seconds=seconds, cpu_s=cpu_s, peak_mb=usage.ru_maxrss / 1024, error=error)


def succeeded(command: Sequence[str | Path]) -> Run:
    """Run a command that has to succeed, and return what it took."""
    ran = run(command)
    if ran.error is not None:
        sys.exit(f"{command} failed: {ran.error}")
    return ran
