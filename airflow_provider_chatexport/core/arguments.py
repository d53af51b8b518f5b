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
# What to do about a template that made text of a value. Of ``repr`` only lists and the like can be read again.
RENDER_NATIVELY: Final = (
    "if a template made text of a list, set render_template_as_native_obj=True on the DAG, or give the output of the "
    "other task itself, such as task.output"
)
SEPARATE_BY_COMMAS: Final = "write the names separated by commas"
# How the text of a Python object begins that a template rendered: no name of a channel or a user does.
_STARTS_OF_RENDERED: Final = ("[", "(", "{", "<", "Lazy")
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


def parse_names(value: Any, name: str, example: str, *, remedy: str = RENDER_NATIVELY) -> list[str]:
    """Return names from a list, or from text: comma-separated, or a list that a template rendered.

    :param name: of the argument, for the error.
    :param example: of a name, for the error.
    :param remedy: what to do about text that cannot be read. By default the value comes from a template of Airflow.
    :raises CallError: it is neither.
    """
    if value is None:
        return []
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith(_STARTS_OF_RENDERED):
            return [each.strip() for each in text.split(",") if each.strip() and each.strip() != "None"]
        try:
            value = parse_rendered(text)
        except ValueError:
            raise CallError(f"{name} is text that cannot be read as a list of names; {remedy}") from None
    names = list(value) if isinstance(value, Iterable) and not isinstance(value, Mapping) else [value]
    if wrong := next((each for each in names if not isinstance(each, str)), None):
        why = ""
        if isinstance(wrong, (int, float)) and remedy is RENDER_NATIVELY:
            why = " (with render_template_as_native_obj, a template makes a number of text that has digits only)"
        raise CallError(
            f"{name} contains a value of type {type(wrong).__name__}{why}; write names as text, such as {example}"
        )
    return names


def is_whole(value: object, *, least: int) -> bool:
    """Return whether a value is a whole number, and not too small; true and false are not numbers."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def parse_duration(value: Any, name: str) -> timedelta | None:
    """Return a duration that is given as a timedelta or as a number of seconds; None for None.

    :raises CallError: it is neither, or it is infinite.
    """
    if value is None or isinstance(value, timedelta):
        return value
    with contextlib.suppress(OverflowError, ValueError):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return timedelta(seconds=value)
    why = ", and templates are not rendered there" if isinstance(value, str) and "{{" in value else ""
    raise CallError(f"{name} is {value!r}{why}; give a timedelta, such as timedelta(hours=1), or a number of seconds")


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
    why = " (with render_template_as_native_obj, a template such as {{ ds_nodash }} makes a number)"
    why = why if isinstance(value, (int, float)) else ""
    raise WindowError(
        f"the window's {name} is of type {type(value).__name__}; give a datetime, or ISO 8601 text such as "
        f"2026-01-01T00:00:00Z{why}"
    )
