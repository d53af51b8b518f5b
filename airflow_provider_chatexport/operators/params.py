"""Inputs of a run: its params and its conf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Param

if TYPE_CHECKING:
    from airflow.sdk import Context


def window_params(*, channels: bool = True, required: bool = False) -> dict[str, Param]:
    """Return params for a DAG that give the form of a manual run date-time pickers and a list of channels.

    All of them are optional. A run that leaves them empty takes its window from the schedule.

    :param channels: include the list of channels; without it the form offers the window only.
    :param required: do not start a run without both ends of the window, for a DAG with ``schedule=None``.
    """
    text = "With a time zone." if required else "Leave both ends empty to use the window of the schedule."
    # A param without a default has to be filled in, and Airflow allows it only without a schedule.
    default: dict[str, Any] = {"type": "string"} if required else {"default": None, "type": ["null", "string"]}
    params = {
        name: Param(**default, format="date-time", title=title, description=text)
        for name, title in (("since", "Since (inclusive)"), ("until", "Until (exclusive)"))
    }
    if channels:
        params["channels"] = Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Channels",
            description="One TYPE:ID per line. Used if the operator names no channels.",
        )
    return params


def run_inputs(context: Context) -> Mapping[str, Any]:
    """Return the params of the run, overridden by its conf."""
    conf = getattr(context.get("dag_run"), "conf", None) or {}
    return {**(context.get("params") or {}), **conf}
