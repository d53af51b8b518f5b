"""What a person sees: tables on stdout, and on stderr how far long work is.

On a terminal that is a line that moves. Elsewhere, in a log, it is a line when a stage ends and now and then while it
lasts, for those who asked for them with ``--verbose``.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from airflow_provider_chatexport.core.progress import LoggedProgress, amount

log = logging.getLogger(__name__)

# Ids and times are not longer, and are not read in two pieces.
_UNBROKEN: Final = 28
_SOME_ROOM: Final = 10
_GAP: Final = 2
# Messages may hold sequences that a terminal obeys.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class TerminalProgress:
    """Stages of long work. Used as a context manager; ``stage`` is what loads and upkeep call."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _Told(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            transient=True,
        )
        self._current: tuple[str, TaskID] | None = None
        self._logged = LoggedProgress(log.info, time.monotonic) if not console.is_terminal else None

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
        """A stage of unknown length."""
        self.stage(what, 0, None)

    def stage(self, name: str, done: int, whole: int | None) -> None:
        """How far a stage is; a new name begins a new one."""
        if self._logged is not None:
            self._logged.stage(name, done, whole)
            return
        if self._current is None or self._current[0] != name:
            if self._current is not None:
                self._progress.refresh()  # a short stage is seen as well, where it ended
                self._progress.remove_task(self._current[1])
            self._current = (name, self._progress.add_task(name, total=whole))
        self._progress.update(self._current[1], completed=done, total=whole)


class _Told(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(amount(task.description, int(task.completed), task.total, task.speed))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on stdout, as wide as the terminal allows; ids and times are broken last. Where no terminal is, nothing
    is broken."""
    console = Console(markup=False, highlight=False)
    told = [[_short(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *told, strict=True)]
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
    for row in told:
        table.add_row(*row)
    console.print(table)


def _unbroken(widths: Sequence[int], width: int) -> set[int]:
    """Which columns can keep their width, the narrow ones first, so that each of the others has some room."""
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
    """RFC3339 without what is zero, because a table has 80 columns; and nothing that a terminal would obey."""
    text = str(value).removesuffix("T00:00:00.000000Z").replace(".000000Z", "Z") if value is not None else ""
    return _CONTROL.sub("\ufffd", text)
