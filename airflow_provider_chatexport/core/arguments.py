"""Arguments as they come in: from a person, a shell or a template.

Shells and templates render a missing value as ``""`` or ``"None"``.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_chatexport.errors import CallError, WindowError

DURATION_EXAMPLES: Final = "90s, 15m, 36h or 7d"
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])", re.ASCII)
_DURATION_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
GIVE_LAKE: Final = "give a folder, or an address such as s3://bucket/lake"


def require_text(value: object, name: str, hint: str) -> str:
    """Return the text without the space around it.

    :param hint: what to give instead, for the error.
    :raises CallError: it is empty, or is not text.
    """
    text = value.strip() if isinstance(value, str) else value
    if text in ("", "None", None):
        raise CallError(f"{name} is empty; {hint}")
    if not isinstance(text, str):
        raise CallError(f"{name} is not text but of type {type(value).__name__}; {hint}")
    return text


def parse_names(value: Any) -> list[str]:
    """Return names from a list, or from text: comma-separated, or a list that a template rendered.

    :raises CallError: it is neither.
    """
    if value is None:
        return []
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith("["):
            return [name.strip() for name in text.split(",") if name.strip() and name.strip() != "None"]
        try:
            value = parse_rendered(text)
        except ValueError:
            raise CallError("a list of names cannot be read; write the names separated by commas") from None
    names = list(value) if isinstance(value, Iterable) and not isinstance(value, Mapping) else [value]
    if not all(isinstance(name, str) for name in names):
        raise CallError("a list of names contains something that is not text; write names, such as messaging:general")
    return names


def parse_duration(value: Any, name: str) -> timedelta | None:
    """Return a duration that is given as a timedelta or as a number of seconds; None for None.

    :raises CallError: it is neither, or it is infinite.
    """
    if value is None or isinstance(value, timedelta):
        return value
    with contextlib.suppress(OverflowError, ValueError):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return timedelta(seconds=value)
    raise CallError(f"{name} is {value!r}; give a timedelta, such as timedelta(hours=1), or a number of seconds")


def parse_duration_text(text: str) -> timedelta | None:
    """Return the duration that a text gives, such as ``90s``, ``15m``, ``36h`` or ``7d``; None if it gives none."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    try:
        return timedelta(**{_DURATION_UNITS[match.group(2)]: float(match.group(1))})
    except OverflowError:
        return timedelta.max


def parse_rendered(text: str) -> Any:
    """Return the value that a template rendered as text: a Python literal or JSON.

    :raises ValueError: it is neither.
    """
    for read in (ast.literal_eval, json.loads):
        with contextlib.suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return read(text)
    raise ValueError("neither Python nor JSON")


def check_window_end(value: Any, name: str) -> str | datetime | None:
    """Return one end of a window, unread.

    :raises WindowError: it is neither text nor a datetime.
    """
    if value is None or isinstance(value, (str, datetime)):
        return value
    raise WindowError(
        f"the window's {name} is of type {type(value).__name__}; give a datetime, or ISO 8601 text such as "
        "2026-01-01T00:00:00Z"
    )
