"""Runs an export task as Airflow does, in forks, deferral included, and kills it at one of its steps.

    STORE [STEP NUMBER]    arguments of a fork; without a step: kill nothing, print all steps

A step is the begin or the end of one of the calls below, as Python's profiler tells of it: nothing in the program knows
of it. ``STORE`` is the folder that stands for Airflow's store of a task instance.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

CALLS = {
    "BaseExportOperator.execute",
    "ChatExportClient.submit_channels",
    "KnownExports.find",
    "KnownExports.remember",
    "ExportTaskTrigger.run",
    "BaseExportOperator.execute_complete",
    "KnownExports.begin",
    "KnownExports.done",
}


class FolderStore:
    """JSON values by key, which outlive the process that wrote them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str, default: Any = None) -> Any:
        path = self.folder / key
        return json.loads(path.read_text()) if path.exists() else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        (self.folder / "_new").write_text(json.dumps(value))
        (self.folder / "_new").rename(self.folder / key)

    def delete(self, key: str) -> None:
        (self.folder / key).unlink(missing_ok=True)

    def clear(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()


class Steps:
    """:param step: the kind of step to kill at. :param number: which one of its kind, from 1."""

    def __init__(self, step: str = "", number: int = 0) -> None:
        self.kill_at = (step, number)
        self.told: list[str] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "return") and frame.f_code.co_qualname in CALLS:
            step = f"{event} {frame.f_code.co_qualname}"
            self.told.append(step)
            if (step, self.told.count(step)) == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def attempt(arguments: list[str]) -> None:
    folder, *kill_at = arguments
    steps = Steps(kill_at[0], int(kill_at[1])) if kill_at else Steps()
    sys.setprofile(steps)
    three_exports(FolderStore(Path(folder)))
    sys.setprofile(None)
    print("\nSTEPS", *steps.told, sep="\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from forks import serve
    from test_killed_tries import three_exports

    serve(attempt)
