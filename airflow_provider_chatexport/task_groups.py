"""The usual case in three lines: export the window of the run, and load it into the lake."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, Unpack

from airflow.providers.common.compat.sdk import TaskGroup

from airflow_provider_chatexport.core.retention import RetentionArgument
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.operators.channels import Channels, ListChannelsOperator
from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator
from airflow_provider_chatexport.operators.submission import OnMissingChannel

# Arguments that the task ``channels`` needs as well: both work on the same window.
_WINDOW_ARGUMENTS: Final = ("since", "until", "partition_span", "allow_open_window")
# Arguments of the operators that the group sets itself.
_GROUP_ARGUMENTS: Final = ("task_id", "channels", "extra_channels", "exports", "wait")


class ExportArguments(TypedDict, total=False):
    """Arguments of ``ExportChannelsOperator`` that the group hands on to it, as they are."""

    since: datetime | str | None
    until: datetime | str | None
    max_window: timedelta | float | None
    partition_span: timedelta | float | None
    allow_open_window: bool
    on_no_channels: Literal["fail", "skip"]
    on_missing_channel: OnMissingChannel
    version: Literal["v1", "v2"]
    include_truncated_messages: bool
    include_soft_deleted_channels: bool
    clear_deleted_message_text: bool
    export_users: bool
    wait_timeout: timedelta | float | None
    poll_interval: timedelta | float | None
    fresh: bool
    max_splits: int


class LoadArguments(TypedDict, total=False):
    """Arguments of ``LoadExportOperator`` that the group hands on to it, as they are."""

    on_missing_file: Literal["fail", "export"]
    on_empty: Literal["load", "skip"]
    strict: bool
    max_rejected: int | float | None
    accept_shrink: bool
    max_vanished: int | float | None
    keep_superseded: bool
    promote: Mapping[str, Mapping[str, str]] | None
    max_line_bytes: int
    max_unpacked_bytes: int | None
    hash_users: bool
    drop_text: bool
    work_dir: str | Path | None
    auto_compact: bool


class OperatorArguments(ExportArguments, LoadArguments, total=False):
    """Arguments of the two operators that the group hands on to them, as they are."""


def chat_export_to_lake(
    *,
    lake: str | Path,
    lake_conn_id: str | None = None,
    channels: Channels = None,
    extra_channels: Iterable[str] | str | None = None,
    channels_per_task: int | None = None,
    group_id: str = "chat_export_to_lake",
    chatexport_conn_id: str = ChatExportHook.default_conn_name,
    window: Literal["all"] | None = None,
    lookback: timedelta | float | None = None,
    grace_period: timedelta | float | None = None,
    retention: RetentionArgument = None,
    deferrable: bool = True,
    outlets: Sequence[Any] = (),
    export: Mapping[str, Any] | None = None,
    load: Mapping[str, Any] | None = None,
    default_args: Mapping[str, Any] | None = None,
    **kwargs: Unpack[OperatorArguments],
) -> TaskGroup:
    """Create a task group of two tasks, ``export`` and ``load``; call it inside a DAG.

    The window is that of the run, as ``ExportChannelsOperator`` finds it. With ``channels_per_task``, a task
    ``channels`` runs first and lists all channels. The other two are then mapped over its batches, as ``batch.export``
    and ``batch.load``. Each batch is a load of its own.

    :param lake: address of the lake: a local path, or an fsspec address. (templated)
    :param lake_conn_id: a connection through which the lake is reached, such as ``aws_default``. Default: the
        environment of the worker. The export task checks first that the lake can be written. (templated)
    :param channels: channels as ``TYPE:ID``, or a ``ChannelQuery``. Default: ``channels`` of the run's conf or params.
        (templated)
    :param extra_channels: channels to add, such as soft-deleted ones, which no query finds. (templated)
    :param channels_per_task: map export and load over batches of at most this many channels. Default: one export task
        and one load task for all channels.
    :param group_id: name of the group, which prefixes the ids of its tasks.
    :param chatexport_conn_id: a connection of type ``chatexport``, for all tasks. (templated)
    :param window: ``all`` for the whole history of the channels instead of a window. (templated)
    :param lookback: start the window this much earlier, so that late edits, deletes and reactions are exported again.
    :param grace_period: how old the end of the window must be before the export starts.
    :param retention: how long the service keeps messages, by the app's retention policies, so that the lake keeps what
        they have deleted: a duration such as ``30d``, or ``service`` to ask the service whenever exports are submitted.
    :param deferrable: wait in the triggerer instead of on a worker.
    :param outlets: assets that each load updates.
    :param export: more arguments for the export task alone, such as ``{"pool": "chatexport"}``.
    :param load: more arguments for the load task alone, such as ``{"execution_timeout": timedelta(hours=1)}``.
    :param default_args: default arguments of all tasks, such as ``{"retries": 3}``.
    :param kwargs: every other argument of ``ExportChannelsOperator`` and ``LoadExportOperator`` but ``wait``, such as
        ``since``, ``until``, ``max_splits`` or ``promote``. It goes to the operator that has it.
    :raises CallError: no operator has such an argument, or an argument is given in two places.
    """
    shared: dict[str, Any] = {"chatexport_conn_id": chatexport_conn_id}
    of_lake = {"lake": lake, "lake_conn_id": lake_conn_id}
    windowed = {
        **shared,
        "window": window,
        "lookback": lookback,
        "grace_period": grace_period,
        "deferrable": deferrable,
    }
    for_export, for_load = _divided(kwargs)
    export_arguments = _merged({**windowed, **of_lake, "retention": retention, **for_export}, export, "export")
    load_arguments = _merged(
        {**shared, **of_lake, "outlets": list(outlets), "retention": retention, **for_load}, load, "load"
    )

    def export_and_load(**channels: Any) -> None:
        exporting = ExportChannelsOperator(task_id="export", **channels, **export_arguments)
        exporting >> LoadExportOperator(task_id="load", exports=exporting.output, **load_arguments)

    # The converter of default_args is generic, and mypy takes its type variable for the type of the argument.
    with TaskGroup(group_id=group_id, default_args=dict(default_args or {})) as group:  # type: ignore[arg-type]
        if channels_per_task is None:
            export_and_load(channels=channels, extra_channels=extra_channels)
        else:
            listing = ListChannelsOperator(
                task_id="channels",
                channels=channels,
                extra_channels=extra_channels,
                channels_per_task=channels_per_task,
                **windowed,
                **{name: export_arguments[name] for name in _WINDOW_ARGUMENTS if name in export_arguments},
            )
            _mapped("batch", export_and_load, listing)
    return group


def _mapped(group_id: str, tasks: Callable[..., None], listing: ListChannelsOperator) -> None:
    """Map a group of tasks over the batches that a task lists."""
    # Its import takes a third as long as that of this module. A group that is not mapped does not need it.
    from airflow.providers.common.compat.sdk import task_group  # noqa: PLC0415

    @task_group(group_id=group_id)
    def batch(channels: Any) -> None:
        tasks(channels=channels)

    batch.expand(channels=listing.output)


def _divided(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments for the export task, and those for the load task.

    :raises CallError: neither task has such an argument.
    """
    export_names, load_names = ExportArguments.__annotations__, LoadArguments.__annotations__
    for name in arguments:
        if name not in export_names and name not in load_names:
            hint = "give what every task has, such as pool or retries, in export, load or default_args"
            if near := difflib.get_close_matches(name, [*export_names, *load_names], n=1):
                hint = f"did you mean {near[0]}?"
            raise CallError(f"chat_export_to_lake has no argument {name}; {hint}")
    return (
        {name: value for name, value in arguments.items() if name in export_names},
        {name: value for name, value in arguments.items() if name in load_names},
    )


def _merged(ours: Mapping[str, Any], more: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    more = more or {}
    if twice := sorted({*ours, *_GROUP_ARGUMENTS} & set(more)):
        raise CallError(
            f"{name} contains {', '.join(twice)}, which chat_export_to_lake sets itself; remove it there, and use the "
            "argument of chat_export_to_lake if it has one"
        )
    return {**ours, **more}
