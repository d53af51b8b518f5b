"""Run an export task as Airflow does, in forks, deferral included, and kill it at one of its steps.

    STORE [STEP NUMBER]    arguments of a fork; without a step: kill nothing, print all steps

A step is the start or the end of one of the calls below. Python's profiler reports them, so the program needs no hooks
for it. ``STORE`` is the folder that stands for Airflow's store of a task instance.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from support import exporting, run

from airflow_provider_chatexport.core.window import Window

CALLS = {
    "BaseExportOperator.execute",
    "ChatExportClient.submit_channels",
    "SubmittedExports.find",
    "SubmittedExports.remember",
    "ExportTaskTrigger.run",
    "BaseExportOperator.execute_complete",
    "SubmittedExports.begin",
    "SubmittedExports.done",
}
DAY = timedelta(days=1)
WINDOW = Window.parse("2025-01-01", "2025-01-04")


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
    """A profiler that lists the steps, and kills the process at one of them.

    :param step: the kind of step to kill at.
    :param number: which one of its kind, from 1.
    """

    def __init__(self, step: str = "", number: int = 0) -> None:
        self.kill_at = (step, number)
        self.seen: list[str] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "return") and frame.f_code.co_qualname in CALLS:
            step = f"{event} {frame.f_code.co_qualname}"
            self.seen.append(step)
            if (step, self.seen.count(step)) == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def three_exports(store: Any) -> Any:
    """Run a task that exports three days, each as one export."""
    days = {"since": WINDOW.since, "until": WINDOW.until, "max_window": DAY}
    return run(exporting(deferrable=True, **days), {"task_state_store": store})


def attempt(arguments: list[str]) -> None:
    """Run the task, or what comes of it before it is killed."""
    folder, *kill_at = arguments
    steps = Steps(kill_at[0], int(kill_at[1])) if kill_at else Steps()
    sys.setprofile(steps)
    three_exports(FolderStore(Path(folder)))
    sys.setprofile(None)
    print("\nSTEPS", *steps.seen, sep="\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from forks import serve

    serve(attempt)
