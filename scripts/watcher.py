"""End the processes that a program started when the program dies, however it dies: SIGKILL lets it end nothing itself.

The watcher is a process of its own. It reads process ids and folders from a pipe, which ends with the program that
writes into it.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil


class Watcher:
    """A context manager: what it watches ends with this process, and at the latest with the block."""

    def __enter__(self) -> Self:
        # A session of its own: a signal for the group of this process must not end the watcher as well.
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        return self

    def watch(self, pid: int) -> None:
        """End this process and all of its descendants when the time has come."""
        assert self._process.stdin is not None
        print(pid, file=self._process.stdin, flush=True)

    def remove(self, folder: Path) -> None:
        """Remove this folder when the watched processes have ended."""
        assert self._process.stdin is not None
        print(folder.resolve(), file=self._process.stdin, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


def _end(watched: list[psutil.Process]) -> None:
    """Kill processes and their descendants, until all of them are gone.

    Descendants are listed before their ancestors die, because those of a dead process cannot be found.
    """
    while watched:
        family = set(watched)
        for process in watched:
            with contextlib.suppress(psutil.NoSuchProcess):
                family.update(process.children(recursive=True))
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, left = psutil.wait_procs(family, timeout=2)
        watched = [process for process in left if _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    """Return whether it runs. In a container without an init process, dead ones stay in the list as zombies."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _remove(folder: Path) -> None:
    """Remove a folder, in which a process that another watcher ends may still write."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _watched_until_the_end() -> tuple[list[psutil.Process], list[Path]]:
    # Objects of psutil know when a process started: a later one with the same id is another.
    watched, folders = [], []
    for line in map(str.strip, sys.stdin):
        if line.isdigit():
            with contextlib.suppress(psutil.NoSuchProcess):
                watched.append(psutil.Process(int(line)))
        else:
            folders.append(Path(line))
    return [process for process in watched if process.is_running() and _is_alive(process)], folders


if __name__ == "__main__":
    processes, folders = _watched_until_the_end()
    _end(processes)
    for folder in folders:
        _remove(folder)
