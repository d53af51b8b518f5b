"""What a run is given by whoever triggers it: its params and its conf, and how they are read."""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Param

from airflow_provider_chatexport.errors import CallError, WindowError

if TYPE_CHECKING:
    from airflow.sdk import Context


def window_params(*, channels: bool = True) -> dict[str, Param]:
    """Params for a DAG, so that the form of a manual run has date-time pickers for the window and a list of channels.

    All are empty unless somebody fills them in, and then the window is that of the schedule.

    :param channels: with the list of channels; without, only the window can be chosen.
    """
    text = "Leave both ends empty for the window of the schedule."
    params = {
        "since": Param(None, type=["null", "string"], format="date-time", title="Since (inclusive)", description=text),
        "until": Param(None, type=["null", "string"], format="date-time", title="Until (exclusive)", description=text),
    }
    if channels:
        params["channels"] = Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Channels",
            description="TYPE:ID, one a line. They hold where the operator names none.",
        )
    return params


def run_inputs(context: Context) -> Mapping[str, Any]:
    """What the person or program that triggered the run gave it: params, and conf over them."""
    dag_run = context.get("dag_run")
    given = getattr(dag_run, "conf", None) or {}
    return {**(context.get("params") or {}), **given}


def parse_rendered(text: str) -> Any:
    """The value of which a template made text: as Python writes it, or JSON.

    :raises ValueError: it is neither.
    """
    for read in (ast.literal_eval, json.loads):
        with contextlib.suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return read(text)
    raise ValueError("neither Python nor JSON")


def parse_names(value: Any) -> list[str]:
    """Names from a list, or from text: separated by commas, or a list as a template renders it.

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
            raise CallError("a list of names cannot be read; write them separated by commas") from None
    names = list(value) if isinstance(value, Iterable) and not isinstance(value, Mapping) else [value]
    if not all(isinstance(name, str) for name in names):
        raise CallError("a list of names holds something that is not text; write names, such as messaging:general")
    return names


def duration(value: Any, name: str) -> timedelta | None:
    """A duration as it was given: a timedelta, or a number of seconds; None where it was not.

    :raises CallError: it is neither, or endless.
    """
    if value is None or isinstance(value, timedelta):
        return value
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return timedelta(seconds=value)
    except (OverflowError, ValueError):
        pass
    raise CallError(f"{name} is {value!r}; give a timedelta, such as timedelta(hours=1), or a number of seconds")


def window_end(value: Any, name: str) -> str | datetime | None:
    """One end of a window as it was given. :raises WindowError: it is neither text nor a datetime."""
    if value is None or isinstance(value, (str, datetime)):
        return value
    raise WindowError(
        f"the window's {name} is a {type(value).__name__}; give a datetime, or ISO 8601 text such as "
        "2026-01-01T00:00:00Z"
    )
