"""Defaults of a deployment: the section ``[chatexport]`` of Airflow's configuration."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import conf

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.provider_info import CONFIG_OPTIONS


def configured_s(option: str) -> float:
    """Return the value of an option, or its default, in seconds.

    Call it when a task runs, not when a DAG file is parsed.

    :raises CallError: the value is not a number of zero or more.
    """
    text = conf.get("chatexport", option, fallback=CONFIG_OPTIONS[option]["default"])
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise CallError(f"[chatexport] {option} in Airflow's configuration is {text[:40]!r}; give a number of seconds")
    return value
