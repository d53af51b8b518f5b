"""The result of a query on stdout: drawn for a terminal, as text for a pipe, as CSV and NDJSON for programs.

All but the drawing stream: a batch of rows is in memory at a time.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import click
from rich.cells import cell_len, chop_cells

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.catalog.output import QueryOutput

# As many rows as DuckDB's shell shows.
_BOX_ROWS: Final = 40
_ALL_COLUMNS_SHOWN: Final = re.compile(r"(\d+) columns \((\d+) shown\)$")
_ONE_WIDE_ROW: Final = re.compile(r"^ *1 rows .*columns \(\d+ shown\)$", re.MULTILINE)
# For terminals whose encoding has no lines to draw with.
_IN_ASCII: Final = str.maketrans("┌┬┐├┼┤└┴┘─│…·", "+++++++++-|~.")
_GAP: Final = "  "
# One message of 20,000 characters must not fill every row with as many spaces: longer cells stick out.
_WIDEST: Final = 100
_QUOTED: Final = re.compile(r'[",\r\n]')
# A line break would make two rows of one, and a terminal obeys control sequences.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ESCAPED: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def print_drawn(output: QueryOutput) -> None:
    """Print the result as DuckDB draws it, as wide as the terminal is; a single row without room as a record.

    One row of 55 columns is one screen as a record, of which the table has three columns. Of several rows, the table
    has those that can be compared.
    """
    drawn = output.box(width=_width(), rows=_BOX_ROWS)
    if _ONE_WIDE_ROW.search(drawn):
        print_records(output)
        return
    try:
        drawn.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        drawn = drawn.translate(_IN_ASCII)
    _print(f"{drawn}\n")
    if match := _ALL_COLUMNS_SHOWN.search(drawn):
        click.echo(f"--records shows all {match.group(1)} columns, and --csv all rows", err=True)


def print_text(output: QueryOutput) -> None:
    """Print all rows and columns in aligned columns, one row per line. The first batch decides the widths."""
    widths: list[int] = []
    numbers: list[bool] = []

    def line(cells: Sequence[str]) -> str:
        aligned = (
            " " * (width - cell_len(cell)) + cell if is_number else cell + " " * (width - cell_len(cell))
            for cell, width, is_number in zip(cells, widths, numbers, strict=True)
        )
        return _GAP.join(aligned).rstrip()

    for rows in _with_first(output):
        cells = [[_text(value) for value in row] for row in rows]
        if not widths:
            columns = zip(output.columns, *cells, strict=True)
            widths = [min(max(map(cell_len, column)), _WIDEST) for column in columns]
            numbers = [bool(rows) and all(_is_number(row[at]) for row in rows) for at in range(len(output.columns))]
            _print(f"{line(output.columns)}\n")
        _print("".join(f"{line(row)}\n" for row in cells))


def print_records(output: QueryOutput) -> None:
    """Print each row as a block of names and values. On a terminal, long values are broken into lines."""
    longest = max(map(cell_len, output.columns))
    room = max(_width() - longest - len(_GAP), 10) if sys.stdout.isatty() else None
    number = 0
    for rows in output.batches():
        for row in rows:
            number += 1
            block = [f"--- row {number}"]
            for name, value in zip(output.columns, row, strict=True):
                head = name + " " * (longest - cell_len(name)) + _GAP
                text = _text(value)
                pieces = chop_cells(text, room) if room and text else [text]
                block.append(f"\n{' ' * (longest + len(_GAP))}".join([head + pieces[0], *pieces[1:]]).rstrip())
            _print("\n".join([*block, ""]))


def write_csv(output: QueryOutput) -> None:
    """Print CSV in UTF-8: an absent value is empty, and an empty text is ``""``."""
    _stream(output, ",".join(map(_csv, output.columns)) + "\n", lambda row: ",".join(map(_csv, row)) + "\n")


def write_ndjson(output: QueryOutput) -> None:
    """Print one JSON object per line.

    :raises CallError: two columns have one name, and an object would have only one of them.
    """
    columns = output.columns
    if doubled := {name for name in columns if columns.count(name) > 1}:
        raise CallError(f"the query has several columns {min(doubled)!r}; name each of them with AS")
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=str).encode
    _stream(output, "", lambda row: encode(dict(zip(columns, row, strict=True))) + "\n")


def _stream(output: QueryOutput, header: str, line: Callable[[Sequence[Any]], str]) -> None:
    for at, rows in enumerate(_with_first(output)):
        text = (header if at == 0 else "") + "".join(map(line, rows))
        sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def _print(text: str) -> None:
    # ``click.echo`` would write UTF-8 to a terminal that asks for ASCII.
    sys.stdout.write(text)
    sys.stdout.flush()


def _with_first(output: QueryOutput) -> Iterable[list[list[Any]]]:
    """Yield the batches, of which there is at least one."""
    batches = output.batches()
    yield next(batches, [])
    yield from batches


def _csv(value: Any) -> str:
    if value is None:
        return ""
    text = _as_text(value)
    return '"' + text.replace('"', '""') + '"' if not text or _QUOTED.search(text) else text


def _text(value: Any) -> str:
    if value is None:
        return "NULL"
    return _CONTROL.sub(lambda found: _ESCAPED.get(found.group(), "\ufffd"), _as_text(value))


def _as_text(value: Any) -> str:
    """Return a value that is not null as text, in which nothing is quoted or escaped yet."""
    match value:
        case bool():
            return "true" if value else "false"
        case list() | dict():
            return json.dumps(value, ensure_ascii=False, default=str)
        case _:
            return str(value)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _width() -> int:
    return shutil.get_terminal_size().columns
