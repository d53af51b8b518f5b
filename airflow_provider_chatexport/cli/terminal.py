"""Output for people: tables on stdout, and the progress of long work on stderr.

On a terminal, progress is a bar that moves. In a log, with ``--verbose``, it is one line when a stage ends, and one now
and then while a long stage lasts.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column, Table
from rich.text import Text

from airflow_provider_chatexport.core.progress import RATE_AFTER_S, LoggedProgress, format_amount

log = logging.getLogger(__name__)

# Ids and times are not longer than this. Broken into two pieces, they could not be copied.
_UNBROKEN: Final = 28
_SOME_ROOM: Final = 10
_GAP: Final = 2
# Messages may contain control sequences, which a terminal would obey.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class TerminalProgress:
    """The progress of long work, as a context manager. Loads and maintenance call ``stage``.

    :param clock: seconds that never go back.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        console = console or Console(stderr=True)
        self._progress = Progress(
            _NameColumn(),
            BarColumn(bar_width=24),
            _AmountColumn(table_column=Column(no_wrap=True)),
            _TimeColumn(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            get_time=clock,
        )
        self._current: tuple[str, TaskID] | None = None
        self._logged = LoggedProgress(log.info, clock) if not console.is_terminal else None

    def __enter__(self) -> Self:
        if self._logged is None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._logged is None:
            self._progress.stop()
        else:
            self._logged.__exit__(kind, error, trace)

    def say(self, what: str) -> None:
        """Show a stage of unknown length."""
        self.stage(what, 0, None)

    def stage(self, name: str, done: int, whole: int | None) -> None:
        """Show how far a stage is. A new name starts a new stage."""
        if self._logged is not None:
            self._logged.stage(name, done, whole)
            return
        if self._current is None or self._current[0] != name:
            if self._current is not None:
                self._progress.refresh()  # so that even a short stage is drawn once
                self._progress.remove_task(self._current[1])
            self._current = (name, self._progress.add_task(name, total=whole))
        self._progress.update(self._current[1], completed=done, total=whole)

    def print_line(self, line: str) -> None:
        """Print a line to stdout. A bar on the same terminal makes room for it."""
        if self._logged is None:
            self._progress.stop()
        click.echo(line)
        if self._logged is None:
            self._progress.start()


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


def can_ask() -> bool:
    """Return whether a person at a terminal sees a question on stderr and can answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, err: bool = False) -> None:
    """Print a table to stdout, or to stderr, as wide as the terminal allows.

    Long text is broken into lines first, ids and times last. If stdout is not a terminal, nothing is broken.
    """
    console = Console(markup=False, highlight=False, stderr=err)
    cells = [[_short(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = max(sum(widths) + _GAP * len(widths), console.width)
    unbroken = _unbroken(widths, console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(columns):
        is_number = all(isinstance(row[at], int | float | None) for row in rows)
        table.add_column(
            name,
            justify="right" if is_number else "left",
            overflow="fold",
            min_width=widths[at] if at in unbroken else None,
        )
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _unbroken(widths: Sequence[int], width: int) -> set[int]:
    """Return which columns keep their width: as many as possible, narrow ones first, with some room for the others."""
    room = width - _GAP * len(widths)
    kept: set[int] = set()
    for n_before, at in enumerate(sorted(range(len(widths)), key=lambda each: widths[each])):
        n_after = len(widths) - n_before - 1
        if widths[at] > _UNBROKEN or widths[at] + _SOME_ROOM * n_after > room:
            break
        room -= widths[at]
        kept.add(at)
    return kept


def _short(value: Any) -> str:
    """Return a value as short text: times without zeros, as a terminal has 80 columns, and no control characters."""
    text = str(value).removesuffix("T00:00:00.000000Z").replace(".000000Z", "Z") if value is not None else ""
    return _CONTROL.sub("\ufffd", text)
