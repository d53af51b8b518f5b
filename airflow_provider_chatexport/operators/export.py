"""Operators that start exports and wait for them. They return receipts, which ``LoadExportOperator`` loads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.core.arguments import parse_duration, parse_names
from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.core.plan import (
    A_USER,
    ChannelsRequest,
    ExportFlags,
    UsersRequest,
    plan_channels,
    plan_users,
)
from airflow_provider_chatexport.core.retention import SERVICE, Retention, RetentionArgument, parse_retention
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.hooks.exceptions import checked_arguments
from airflow_provider_chatexport.operators.base_export import BaseExportOperator
from airflow_provider_chatexport.operators.channels import Channels, ChannelsArgument
from airflow_provider_chatexport.operators.params import run_inputs
from airflow_provider_chatexport.operators.windowed import WindowedOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class ExportChannelsOperator(ChannelsArgument, WindowedOperator, BaseExportOperator):
    """Export the messages of channels in the window of the run.

    Takes the arguments of ``ChannelsArgument`` (channels), ``WindowedOperator`` (the window) and
    ``BaseExportOperator`` (starting and waiting), and those below. Any number of channels: each export takes 25.

    In Airflow 3, schedule the DAG with ``CronDataIntervalTimetable``. The data interval of plain ``"@daily"`` has zero
    length, and the operator refuses it.

    :param max_window: split a longer window into several exports. The whole history is not split.
    :param retention: ``service`` to ask the service for the app's retention policies, which the receipts then carry to
        ``LoadExportOperator(retention="service")``. Another value concerns the load only, and changes nothing here.
    :param on_no_channels: what to do if a query finds no channel: ``fail``, or ``skip`` the task.
    :param version: format of the export file, ``v2`` or ``v1``.
    :param include_truncated_messages: export messages that a truncation hides, too.
    :param include_soft_deleted_channels: accept soft-deleted channels.
    :param clear_deleted_message_text: leave out the text of deleted messages.
    :param export_users: export the users of the channels, too. Without them a v2 file names people by id only. v1 has
        them in any case.
    """

    template_fields: Sequence[str] = (
        *ChannelsArgument.template_fields,
        *WindowedOperator.template_fields,
        *BaseExportOperator.template_fields,
    )

    def __init__(
        self,
        *,
        channels: Channels = None,
        extra_channels: Iterable[str] | str | None = None,
        window: Literal["all"] | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        lookback: timedelta | float | None = None,
        max_window: timedelta | float | None = None,
        partition_span: timedelta | float | None = None,
        grace_period: timedelta | float | None = None,
        allow_open_window: bool = False,
        retention: RetentionArgument = None,
        on_no_channels: Literal["fail", "skip"] = "fail",
        version: Literal["v1", "v2"] = "v2",
        include_truncated_messages: bool = False,
        include_soft_deleted_channels: bool = False,
        clear_deleted_message_text: bool = False,
        export_users: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            channels=channels,
            extra_channels=extra_channels,
            window=window,
            since=since,
            until=until,
            lookback=lookback,
            partition_span=partition_span,
            grace_period=grace_period,
            allow_open_window=allow_open_window,
            **kwargs,
        )
        with checked_arguments():
            if on_no_channels not in ("fail", "skip"):
                raise CallError(f'on_no_channels is {on_no_channels!r}; write "fail" or "skip"')
            self.max_window = parse_duration(max_window, "max_window")
            self.retention = parse_retention(retention)
            if window == "all" and self.max_window:
                raise CallError('window="all" exports the whole history, which is not split; leave max_window out')
        self.on_no_channels = on_no_channels
        self.version = version
        self.include_truncated_messages = include_truncated_messages
        self.include_soft_deleted_channels = include_soft_deleted_channels
        self.clear_deleted_message_text = clear_deleted_message_text
        self.export_users = export_users

    def ask_retention(self, client: ChatExportClient) -> Retention | None:
        """Return what the service says of its retention policies, if ``retention`` is ``service``.

        :raises RequestRefusedError: the service does not say.
        """
        return client.retention() if self.retention == SERVICE else None

    def plan(self, context: Context) -> list[ChannelsRequest]:
        """Return a request for each part of the window and each 25 channels.

        :raises AirflowSkipException: the query finds no channel, and ``on_no_channels`` is ``skip``.
        """
        flags = ExportFlags(
            version=self.version,
            include_truncated_messages=self.include_truncated_messages,
            include_soft_deleted_channels=self.include_soft_deleted_channels,
            clear_deleted_message_text=self.clear_deleted_message_text,
            export_users=self.export_users and self.version == "v2",
        )
        window = self.run_window(context)
        windows = [*window.split(self.max_window)] if window and self.max_window else [window]
        channels = self.resolve_channels(context, window)
        if not channels and isinstance(self.channels, ChannelQuery):
            if self.on_no_channels == "skip":
                raise AirflowSkipException(f"the channel query finds no channel for {window or 'the whole history'}")
            raise CallError(
                "the channel query finds no channel; check its filter_conditions, or set "
                'on_no_channels="skip" if that can happen'
            )
        return [request for each in windows for request in plan_channels(channels, each, flags)]


class ExportUsersOperator(BaseExportOperator):
    """Export everything that the service stores about some users, for example for a data-subject request.

    Takes the arguments of ``BaseExportOperator``, and:

    :param user_ids: ids in a list or separated by commas. Any number: each export takes 25. Default: ``user_ids`` of
        the run's conf or params. (templated)
    """

    template_fields: Sequence[str] = ("user_ids", *BaseExportOperator.template_fields)

    def __init__(self, *, user_ids: Iterable[str] | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.user_ids = user_ids

    def plan(self, context: Context) -> list[UsersRequest]:
        """Return a request for each 25 users."""
        user_ids = parse_names(self.user_ids, "user_ids", A_USER) or parse_names(
            run_inputs(context).get("user_ids"), "user_ids in the run's conf or params", A_USER
        )
        if not user_ids:
            raise CallError(
                f"there is no user to export; give user_ids, such as {A_USER}, or trigger the run with them in conf "
                f'{{"user_ids": ["{A_USER}"]}}'
            )
        return plan_users(user_ids)
