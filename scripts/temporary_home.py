"""A temporary folder for processes, which are gone together with it, whatever ends the script that started them.

A script that is killed cannot clean up. So a second process watches it: when the script is gone, it ends every process
that works in the folder, and removes the folder. Processes are found by their working folder, because their names and
environments are overwritten by programs that set a title, as PostgreSQL and Celery do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

GRACE_S = 3.0


@contextlib.contextmanager
def temporary_home(prefix: str) -> Iterator[Path]:
    """Yield a new folder. Start processes with it, or a folder in it, as their working folder.

    Other users may enter it, but not list it: PostgreSQL refuses to run as root.
    """
    home = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
    home.chmod(0o711)
    # A session of its own, so that no signal to the script's process group or terminal reaches it.
    watcher = subprocess.Popen([sys.executable, __file__, str(os.getpid()), str(home)], cwd="/", start_new_session=True)
    try:
        yield home
    finally:
        clear(home)
        watcher.kill()
        watcher.wait()


def clear(home: Path) -> None:
    """End all processes that work in the folder, and remove it."""
    # SIGINT: PostgreSQL then disconnects its clients and releases its shared memory, which SIGKILL leaves behind.
    for ending, patience_s in ((signal.SIGINT, GRACE_S), (signal.SIGKILL, GRACE_S)):
        deadline = time.monotonic() + patience_s
        signalled: set[int] = set()
        while (there := processes_in(home)) and time.monotonic() < deadline:
            # A process may start others while it ends.
            for process in there:
                if process.pid not in signalled or ending is signal.SIGKILL:
                    signalled.add(process.pid)
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(ending)
            time.sleep(0.1)
    shutil.rmtree(home, ignore_errors=True)


def processes_in(home: Path) -> list[psutil.Process]:
    """Return the processes whose working folder is the folder or in it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(home):
                found.append(process)
    return found


def _watch(owner: int, home: Path) -> None:
    """Wait until the owner, the parent of this process, is gone; then clear its folder."""
    while os.getppid() == owner:
        time.sleep(0.2)
    clear(home)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), Path(sys.argv[2]))
