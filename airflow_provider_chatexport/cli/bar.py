"""The bar of long work on a terminal, drawn by Rich."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column
from rich.text import Text

from airflow_provider_chatexport.core.progress import RATE_AFTER_S, format_amount


class Bar:
    """A bar that moves, between ``start`` and ``stop``.

    :param console: where it is drawn; by default stderr.
    :param clock: seconds that never go back.
    """

    def __init__(self, console: Console | None, clock: Callable[[], float]) -> None:
        self._progress = Progress(
            _NameColumn(),
            BarColumn(bar_width=24),
            _AmountColumn(table_column=Column(no_wrap=True)),
            _TimeColumn(table_column=Column(no_wrap=True)),
            console=console or Console(stderr=True),
            transient=True,
            get_time=clock,
        )
        self._current: tuple[str, TaskID] | None = None

    def start(self) -> None:
        """Draw the bar from now on."""
        self._progress.start()

    def stop(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def stage(self, name: str, done: int, whole: int | None) -> None:
        """Show how far a stage is. A new name starts a new stage."""
        if self._current is None or self._current[0] != name:
            if self._current is not None:
                self._progress.refresh()  # so that even a short stage is drawn once
                self._progress.remove_task(self._current[1])
            self._current = (name, self._progress.add_task(name, total=whole))
        self._progress.update(self._current[1], completed=done, total=whole)


class _NameColumn(ProgressColumn):
    """The name of the stage. If a line has no room for all of it, its end is left out."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class _AmountColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(format_amount(task.description, int(task.completed), task.total, _rate(task)))


class _TimeColumn(ProgressColumn):
    """The time left of a stage. For one of unknown length, such as an export, the time since its start."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(_clock(task.elapsed or 0), style="progress.elapsed")
        rate = _rate(task)
        return Text(_clock((task.total - task.completed) / rate) if rate else "-:--:--", style="progress.remaining")


def _rate(task: Task) -> float | None:
    """Return how much of a stage is done in a second, on average since its start; None in its first moments.

    Loads report in few and large steps. Rich's own rate is that between the last steps only.
    """
    elapsed_s = task.elapsed or 0
    return task.completed / elapsed_s if elapsed_s >= RATE_AFTER_S else None


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))
