"""Inputs of a run: its params and its conf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Param

if TYPE_CHECKING:
    from airflow.sdk import Context


def window_params(*, channels: bool = True) -> dict[str, Param]:
    """Return params for a DAG that give the form of a manual run date-time pickers and a list of channels.

    All of them are optional. A run that leaves them empty takes its window from the schedule.

    :param channels: include the list of channels; without it the form offers the window only.
    """
    text = "Leave both ends empty to use the window of the schedule."
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
            description="One TYPE:ID per line. Used if the operator names no channels.",
        )
    return params


def run_inputs(context: Context) -> Mapping[str, Any]:
    """Return the params of the run, overridden by its conf."""
    conf = getattr(context.get("dag_run"), "conf", None) or {}
    return {**(context.get("params") or {}), **conf}
