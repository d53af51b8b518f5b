"""What a person sees: tables on stdout, and on stderr how far long work is, where that is a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table


class TerminalProgress:
    """Stages of a load. Used as a context manager."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._current: tuple[str, TaskID] | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, what: str) -> None:
        """A stage of unknown length."""
        self.stage(what, 0, None)

    def stage(self, name: str, done: int, whole: int | None) -> None:
        """How far a stage is; a new name begins a new one."""
        if self._current is None or self._current[0] != name:
            if self._current is not None:
                self._progress.remove_task(self._current[1])
            self._current = (name, self._progress.add_task(name, total=whole))
        self._progress.update(self._current[1], completed=done, total=whole)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on stdout, as wide as the terminal allows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    numeric = [all(isinstance(row[at], int | float | None) for row in rows) for at in range(len(columns))]
    for name, is_number in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_short(value) for value in row))
    Console(markup=False, highlight=False).print(table)


def _short(value: Any) -> str:
    """RFC3339 without what is zero: a table has 80 columns."""
    return str(value).removesuffix("T00:00:00.000000Z").replace(".000000Z", "Z") if value is not None else ""
