"""Sandboxes in processes of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def running(command: Sequence[str]) -> Iterator[str]:
    """Run a command that starts a sandbox; yield its URL, and end it with SIGTERM."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("listening on "), line
        yield line.split()[-1]
        process.terminate()
        assert process.wait(timeout=30) == 0
