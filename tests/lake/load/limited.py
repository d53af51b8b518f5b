"""Runs ``chatexport`` in forks that cannot write large files.

    SIZE ARGUMENT...    arguments of a fork: the largest size of a file in bytes, and those of the command

The system enforces the limit for every library alike: the write fails as on a full disk.
"""

from __future__ import annotations

import resource
import signal
import sys
from pathlib import Path


def attempt(arguments: list[str]) -> None:
    size_bytes, *typed = arguments
    sys.dont_write_bytecode = True  # half a file of bytecode would stop every later process
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size_bytes),) * 2)
    main(typed)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from forks import serve

    from airflow_provider_chatexport import pipeline  # noqa: F401 - commands import it when they run
    from airflow_provider_chatexport.cli import main

    serve(attempt)
