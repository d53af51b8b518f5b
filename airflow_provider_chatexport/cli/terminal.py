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
import unicodedata
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

import click

from airflow_provider_chatexport.core.progress import LoggedProgress

if TYPE_CHECKING:
    from rich.console import Console

    from airflow_provider_chatexport.cli.bar import Bar

log = logging.getLogger(__name__)

# Ids and times are not longer than this. Broken into two pieces, they could not be copied.
_UNBROKEN: Final = 28
_SOME_ROOM: Final = 10
_GAP: Final = 2
# Messages may contain control sequences, which a terminal would obey.
# Variables with which people have terminal output in a pipe.
_FORCED: Final = ("FORCE_COLOR", "TTY_COMPATIBLE")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class TerminalProgress:
    """The progress of long work, as a context manager. Loads and maintenance call ``stage``.

    :param console: where the bar is drawn; by default stderr.
    :param clock: seconds that never go back.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._bar: Bar | None = None
        self._logged: LoggedProgress | None = None
        if _is_terminal(sys.stderr) if console is None else console.is_terminal:
            # Rich takes a tenth of a second to import, which a load in a log does not need.
            from airflow_provider_chatexport.cli.bar import Bar  # noqa: PLC0415

            self._bar = Bar(console, clock)
        else:
            self._logged = LoggedProgress(log.info, clock)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._logged is not None:
            self._logged.__exit__(kind, error, trace)

    def say(self, what: str) -> None:
        """Show a stage of unknown length."""
        self.stage(what, 0, None)

    def stage(self, name: str, done: int, whole: int | None) -> None:
        """Show how far a stage is. A new name starts a new stage."""
        if self._bar is not None:
            self._bar.stage(name, done, whole)
        if self._logged is not None:
            self._logged.stage(name, done, whole)

    def print_line(self, line: str) -> None:
        """Print a line to stdout. A bar on the same terminal makes room for it."""
        if self._bar is not None:
            self._bar.stop()
        click.echo(line)
        if self._bar is not None:
            self._bar.start()


def _is_terminal(stream: TextIO) -> bool:
    """Return whether people see what is printed, as Rich decides it."""
    return stream.isatty() or any(os.environ.get(name) for name in _FORCED)


def can_ask() -> bool:
    """Return whether a person at a terminal sees a question on stderr and can answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, err: bool = False) -> None:
    """Print a table to stdout, or to stderr, as wide as the terminal allows.

    Long text is broken into lines first, ids and times last. If stdout is not a terminal, nothing is broken.
    """
    cells = [[_short(value) for value in row] for row in rows]
    are_numbers = [all(isinstance(row[at], int | float | None) for row in rows) for at in range(len(columns))]
    widths = [max(map(_width, column)) for column in zip(columns, *cells, strict=True)]
    stream = sys.stderr if err else sys.stdout
    if not _is_terminal(stream) and "COLUMNS" not in os.environ:
        for row in (columns, *cells):
            click.echo(_aligned(row, widths, are_numbers), err=err)
        return
    # Rich takes a tenth of a second to import, which a load in a log does not need.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console(markup=False, highlight=False, stderr=err)
    unbroken = _unbroken(widths, console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(columns):
        table.add_column(
            name,
            justify="right" if are_numbers[at] else "left",
            overflow="fold",
            min_width=widths[at] if at in unbroken else None,
        )
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _aligned(cells: Sequence[str], widths: Sequence[int], are_numbers: Sequence[bool]) -> str:
    """Return a line of a table, in columns that are as wide as their longest cell."""
    aligned = []
    for cell, width, is_number in zip(cells, widths, are_numbers, strict=True):
        room = " " * (width - _width(cell))
        aligned.append(room + cell if is_number else cell + room)
    return (" " * _GAP).join(aligned).rstrip()


def _width(text: str) -> int:
    """Return how many places of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else not unicodedata.combining(each) for each in text)


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
