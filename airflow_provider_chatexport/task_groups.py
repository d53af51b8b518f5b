"""The usual case in three lines: export this run's window, and load it into the lake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import TaskGroup

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.operators.export import DEFAULT_SETTLE, ExportChannelsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator


def chat_export_to_lake(
    *,
    lake: str | Path,
    channels: Iterable[str] | str | None = None,
    group_id: str = "chat_export_to_lake",
    chatexport_conn_id: str = ChatExportHook.default_conn_name,
    lookback: timedelta = timedelta(0),
    settle: timedelta = DEFAULT_SETTLE,
    deferrable: bool = True,
    outlets: Sequence[Any] = (),
    export: Mapping[str, Any] | None = None,
    load: Mapping[str, Any] | None = None,
    default_args: Mapping[str, Any] | None = None,
) -> TaskGroup:
    """A task group of two tasks, ``export`` and ``load``; call it where the DAG is defined.

    The window is that of the run, as ``ExportChannelsOperator`` finds it: the group knows nothing of the schedule.

    :param lake: the lake's address: a local path or an fsspec address. (templated)
    :param channels: channels as ``TYPE:ID``; by default those of the run's conf or params ``channels``. (templated)
    :param group_id: name of the group, which is the prefix of its tasks' names.
    :param chatexport_conn_id: a connection of type ``chatexport``, for both tasks. (templated)
    :param lookback: export that much before the window again, for late edits, deletes and reactions.
    :param settle: how old the end of the window must be before anything is exported.
    :param deferrable: wait in the triggerer instead of on a worker.
    :param outlets: assets that the load updates.
    :param export: further arguments of ``ExportChannelsOperator``, such as ``{"pool": "chatexport"}``.
    :param load: further arguments of ``LoadExportOperator``, such as ``{"promote": {...}}``.
    :param default_args: of both tasks, such as ``{"retries": 3}``.
    :raises CallError: ``export`` or ``load`` has an argument that is one of the group's own.
    """
    shared = {"chatexport_conn_id": chatexport_conn_id}
    of_export = {**shared, "channels": channels, "lookback": lookback, "settle": settle, "deferrable": deferrable}
    of_load = {**shared, "lake": lake, "outlets": list(outlets)}
    # Its converter is generic, and mypy takes the converter's type variable for the argument's type.
    with TaskGroup(group_id=group_id, default_args=dict(default_args or {})) as group:  # type: ignore[arg-type]
        exporting = ExportChannelsOperator(task_id="export", **_joined(of_export, export, "export"))
        loading = LoadExportOperator(task_id="load", exports=exporting.output, **_joined(of_load, load, "load"))
        exporting >> loading
    return group


def _joined(ours: Mapping[str, Any], further: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    further = further or {}
    if twice := sorted({*ours, "task_id", "exports"} & set(further)):
        raise CallError(f"{', '.join(twice)} in {name} is an argument of chat_export_to_lake itself; give it there")
    return {**ours, **further}
