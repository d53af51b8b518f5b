"""Small words of sentences: counts, the first names of a list, and what a mistyped name may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def count(number: int, what: str) -> str:
    """Return a number with its noun: ``1 load``, ``2 loads``."""
    return f"{number} {what}{'s' * (number != 1)}"


def some(names: Sequence[str], *, at_most: int = 10) -> str:
    """Return the first names of a list, and how many more there are."""
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question with the names that resemble a mistyped one, or the empty string if none does."""
    near = [repr(each) for each in difflib.get_close_matches(name, list(names))]
    return f" Did you mean {' or '.join(near)}?" if near else ""
