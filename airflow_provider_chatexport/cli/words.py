"""Small words of sentences: counts, the first names of a list, and what a mistyped name may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_SOME = 10


def count(number: int, what: str) -> str:
    """Return a number with its noun: ``1 load``, ``2 loads``."""
    return f"{number} {what}{'s' * (number != 1)}"


def some(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    return ", ".join(names[:_SOME]) + (f" and {len(names) - _SOME} more" if len(names) > _SOME else "")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question with the names that resemble a mistyped one, or the empty string if none does."""
    near = [repr(each) for each in difflib.get_close_matches(name, list(names))]
    return f" Did you mean {' or '.join(near)}?" if near else ""
