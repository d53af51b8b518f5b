"""Results that print well: as text in a shell, and as tables in a notebook."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

# A person looks at the first rows of a long list. ``to_json`` has them all.
MAX_ROWS: Final = 50


class Report(ABC):
    """The base of what the methods of ``Lake`` return.

    A subclass has ``to_json``. ``str()`` writes what that returns as aligned text, and a notebook shows it as HTML:
    lists of objects as a table each, everything else as one table of names and values.
    """

    __slots__ = ()

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON types."""

    def __str__(self) -> str:
        facts, lists = _facts_and_lists(self.to_json())
        blocks = [type(self).__name__]
        if facts:
            blocks.append(_aligned([[name, _shown(value)] for name, value in facts.items()]))
        for name, rows in lists.items():
            table = [list(rows[0]), *([_shown(value) for value in row.values()] for row in rows[:MAX_ROWS])]
            blocks.append(f"{name}\n{_aligned(table)}{_more(rows)}")
        return "\n\n".join(blocks)

    def _repr_html_(self) -> str:
        facts, lists = _facts_and_lists(self.to_json())
        blocks = [f"<p><strong>{type(self).__name__}</strong></p>"]
        if facts:
            blocks.append(_table("", (), [[name, _shown(value)] for name, value in facts.items()]))
        for name, rows in lists.items():
            cells = [[_shown(value) for value in row.values()] for row in rows[:MAX_ROWS]]
            blocks.append(_table(f"{name}{_more(rows)}", list(rows[0]), cells))
        return "".join(blocks)


def _facts_and_lists(value: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Return what is shown as one name and value, and what is shown as a table of its own."""
    lists = {
        name: each for name, each in value.items() if isinstance(each, list) and each and isinstance(each[0], dict)
    }
    return {name: each for name, each in value.items() if name not in lists}, lists


def _shown(value: Any) -> str:  # noqa: PLR0911 - a case for each type
    """Return a value as a person reads it; counts of zero and absent values are left out of an object."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case Mapping():
            return ", ".join(f"{name} {_shown(each)}" for name, each in value.items() if each) or "-"
        case [only]:
            return _shown(only)
        case [first, *others]:
            return f"{_shown(first)} and {len(others)} more"
        case []:
            return "-"
        case _:
            return str(value)


def _more(rows: Sequence[Any]) -> str:
    return f"\n... and {len(rows) - MAX_ROWS} more" if len(rows) > MAX_ROWS else ""


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(f"  {line}".rstrip() for line in lines)


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table. Values may come from people's data, so everything is escaped."""
    head = f"<thead><tr>{_cells('th', header)}</tr></thead>" if header else ""
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}{head}<tbody>{body}</tbody></table>"


def _cells(tag: str, values: Sequence[str]) -> str:
    return "".join(f'<{tag} style="text-align: left">{html.escape(value)}</{tag}>' for value in values)
