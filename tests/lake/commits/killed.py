"""Runs ``chatexport`` in forks, and kills it at one of the steps in which it changes the lake.

    LAKE NUMBER ARGUMENT...    arguments of a fork; NUMBER 0: kill nothing, print the steps

A step is a call that changes a file or a folder of the lake. Python reports it as an audit event before it happens, so
nothing in the program has to know about it. Of several steps of one kind, such as the links of several files, the first
and the last count.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

# Creating a folder is not a step: to a reader, an empty folder is the same as none.
CHANGES = ("os.rename", "os.link", "os.remove", "os.rmdir", "shutil.rmtree")
WRITING = os.O_WRONLY | os.O_RDWR
NAMES = r"\w+\.ndjson|\b(messages/event_month|(channels|members|reads|users)/export_date)"


class Steps:
    """An audit hook that counts the steps, and kills the process at one of them.

    :param kill_at: the step's number, from 1; 0 for no step.
    """

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
        step = " ".join([event, *(path.removeprefix(self.lake) for path in paths)])
        self.kinds.append(re.sub(NAMES, "T", re.sub(r"[0-9a-f]{8,}|\d+", "#", step)))
        if len(self.kinds) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def _writes(args: tuple[Any, ...]) -> bool:
    return len(args) > 2 and isinstance(args[2], int) and bool(args[2] & WRITING)


def worth_killing_at(kinds: list[str]) -> list[int]:
    """Return the numbers of the first step of each kind, and of the last one too if it makes a file appear."""
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
            lines = [f"{number} {steps.kinds[number - 1]}" for number in worth_killing_at(steps.kinds)]
            os.write(1, "\n".join(["\nSTEPS", *lines]).encode())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from forks import serve

    from airflow_provider_chatexport import pipeline  # noqa: F401 - commands import it when they run
    from airflow_provider_chatexport.cli import main

    serve(attempt)
