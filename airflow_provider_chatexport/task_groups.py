"""The usual case in three lines: export this run's window, and load it into the lake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from airflow.providers.common.compat.sdk import TaskGroup, task_group

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.operators.channels import Channels, ListChannelsOperator
from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator

_OF_THE_WINDOW: Final = ("since", "until", "partition_span", "allow_open_window")
_GROUPS_OWN: Final = ("task_id", "channels", "extra_channels", "exports")


def chat_export_to_lake(
    *,
    lake: str | Path,
    channels: Channels = None,
    extra_channels: Iterable[str] | str | None = None,
    channels_per_task: int | None = None,
    group_id: str = "chat_export_to_lake",
    chatexport_conn_id: str = ChatExportHook.default_conn_name,
    lookback: timedelta | float | None = None,
    grace_period: timedelta | float | None = None,
    deferrable: bool = True,
    outlets: Sequence[Any] = (),
    export: Mapping[str, Any] | None = None,
    load: Mapping[str, Any] | None = None,
    default_args: Mapping[str, Any] | None = None,
) -> TaskGroup:
    """A task group of two tasks, ``export`` and ``load``; call it where the DAG is defined.

    The window is that of the run, as ``ExportChannelsOperator`` finds it: the group knows nothing of the schedule. With
    ``channels_per_task`` there is a task ``channels`` before them, which lists all channels; the two are mapped over
    its batches as ``batch.export`` and ``batch.load``, each batch a load of its own.

    :param lake: the lake's address: a local path or an fsspec address. (templated)
    :param channels: channels as ``TYPE:ID``, or a ``ChannelQuery``; by default those of the run's conf or params
        ``channels``. (templated)
    :param extra_channels: channels besides, such as soft-deleted ones, which no query finds. (templated)
    :param channels_per_task: map export and load over batches of so many channels; by default there is one of each.
    :param group_id: name of the group, which is the prefix of its tasks' names.
    :param chatexport_conn_id: a connection of type ``chatexport``, for all tasks. (templated)
    :param lookback: export that much before the window again, for late edits, deletes and reactions.
    :param grace_period: how old the end of the window must be before anything is exported.
    :param deferrable: wait in the triggerer instead of on a worker.
    :param outlets: assets that each load updates.
    :param export: further arguments of ``ExportChannelsOperator``, such as ``{"pool": "chatexport"}``.
    :param load: further arguments of ``LoadExportOperator``, such as ``{"promote": {...}}``.
    :param default_args: of all tasks, such as ``{"retries": 3}``.
    :raises CallError: ``export`` or ``load`` has an argument that is one of the group's own.
    """
    shared: dict[str, Any] = {"chatexport_conn_id": chatexport_conn_id}
    of_window = {**shared, "lookback": lookback, "grace_period": grace_period, "deferrable": deferrable}
    of_export = _joined(of_window, export, "export")
    of_load = _joined({**shared, "lake": lake, "outlets": list(outlets)}, load, "load")

    def export_and_load(**chosen: Any) -> None:
        exporting = ExportChannelsOperator(task_id="export", **chosen, **of_export)
        exporting >> LoadExportOperator(task_id="load", exports=exporting.output, **of_load)

    @task_group(group_id="batch")
    def batch(channels: Any) -> None:
        export_and_load(channels=channels)

    # Its converter is generic, and mypy takes the converter's type variable for the argument's type.
    with TaskGroup(group_id=group_id, default_args=dict(default_args or {})) as group:  # type: ignore[arg-type]
        if channels_per_task is None:
            export_and_load(channels=channels, extra_channels=extra_channels)
        else:
            listing = ListChannelsOperator(
                task_id="channels",
                channels=channels,
                extra_channels=extra_channels,
                channels_per_task=channels_per_task,
                **of_window,
                # The channels are those of the window that is exported.
                **{name: of_export[name] for name in _OF_THE_WINDOW if name in of_export},
            )
            batch.expand(channels=listing.output)
    return group


def _joined(ours: Mapping[str, Any], further: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    further = further or {}
    if twice := sorted({*ours, *_GROUPS_OWN} & set(further)):
        raise CallError(f"{', '.join(twice)} in {name} is an argument of chat_export_to_lake itself; give it there")
    return {**ours, **further}
