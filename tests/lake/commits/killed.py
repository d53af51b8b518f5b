"""Runs ``chatexport``, in forks, and kills it at one of the steps in which it changes the lake.

    LAKE NUMBER ARGUMENT...    arguments of a fork; NUMBER 0: kill nothing, print the steps

A step is a call that changes a file or a folder of the lake, as Python's audit events tell of it before it happens; of
steps of one kind, such as the links of several files, the first and the last count. Nothing in the program knows of it.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

# That a folder is made is no step: to whoever reads, an empty one is as none.
CHANGES = ("os.rename", "os.link", "os.remove", "os.rmdir", "shutil.rmtree")
WRITING = os.O_WRONLY | os.O_RDWR
NAMES = r"\w+\.ndjson|\b(messages/event|(channels|members|reads|users)/export)_date"


class Steps:
    """:param numbers: which steps to kill at, counted from 1 over all calls."""

    def __init__(self, lake: str, kill_at: int) -> None:
        self.lake = lake
        self.kill_at = kill_at
        self.kinds: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in CHANGES and not (event == "open" and _writes(args)):
            return
        paths = [os.fsdecode(each) for each in args if isinstance(each, (str, bytes, os.PathLike))]
        if not any(path.startswith(self.lake) for path in paths):
            return
        told = " ".join([event, *(path.removeprefix(self.lake) for path in paths)])
        self.kinds.append(re.sub(NAMES, "T", re.sub(r"[0-9a-f]{8,}|\d+", "#", told)))
        if len(self.kinds) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def _writes(args: tuple[Any, ...]) -> bool:
    return len(args) > 2 and isinstance(args[2], int) and bool(args[2] & WRITING)


def worth_killing_at(kinds: list[str]) -> list[int]:
    """The first step of each kind, and of those that make files appear the last one too, as numbers from 1."""
    firsts = {kind: number for number, kind in reversed(list(enumerate(kinds, 1)))}
    lasts = {kind: number for number, kind in enumerate(kinds, 1) if kind.startswith(("os.link", "os.rename"))}
    return sorted({*firsts.values(), *lasts.values()})


def attempt(arguments: list[str]) -> None:
    lake, number, *typed = arguments
    steps = Steps(lake, int(number))
    sys.addaudithook(steps)
    try:
        main(typed)
    finally:
        if steps.kill_at == 0:
            sys.stdout.flush()
            told = [f"{number} {steps.kinds[number - 1]}" for number in worth_killing_at(steps.kinds)]
            os.write(1, "\n".join(["\nSTEPS", *told]).encode())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from forks import serve

    from airflow_provider_chatexport import pipeline  # noqa: F401 - what commands import when they run
    from airflow_provider_chatexport.cli import main

    serve(attempt)
