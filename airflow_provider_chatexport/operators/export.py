"""Tasks that start exports and wait for them. What they return are receipts for ``LoadExportOperator``."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow.providers.common.compat.sdk import BaseOperator, conf
from airflow.providers.standard.triggers.temporal import DateTimeTrigger

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.watch import Watch, watch_exports
from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.core.plan import ChannelsRequest, ExportFlags, UsersRequest, plan_channels, plan_users
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.core.window import Window, WindowSources, resolve
from airflow_provider_chatexport.errors import CallError, TaskOverdueError, WindowError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.failures import airflow_failures
from airflow_provider_chatexport.operators.channels import Channels, chosen_channels
from airflow_provider_chatexport.operators.params import listed, run_inputs, window_end
from airflow_provider_chatexport.operators.submit import KnownExports, OnMissingChannel, Submission
from airflow_provider_chatexport.triggers.export import BACKSTOP, ExportTaskTrigger, read_event

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

DEFAULT_WAIT_TIMEOUT: Final = timedelta(hours=6)
DEFAULT_SETTLE: Final = timedelta(seconds=60)


class BaseExportOperator(BaseOperator):
    """Start the exports of this run, wait for all of them, return their receipts.

    :param chatexport_conn_id: a connection of type ``chatexport``.
    :param wait_timeout: how long to wait in all, as a duration or in seconds.
    :param poll_interval: a fixed pause between looks, as a duration or in seconds; by default it grows with the age
        of the exports from 1 to 60 seconds.
    :param deferrable: wait in the triggerer instead of on the worker.
    :param fresh: start new exports even where those of an earlier try of this task could be waited for.
    :param on_missing_channel: what to do where the service refuses some of the channels: ``fail``, naming all of
        them, or ``skip`` them.
    :param settle: how old the end of the window must be before anything is exported; a run that starts sooner waits.
    :param allow_open_window: export a window whose end is still to come; what comes later is not in the export.
    """

    template_fields: Sequence[str] = ("chatexport_conn_id",)
    ui_color = "#e3f2ff"

    def __init__(
        self,
        *,
        chatexport_conn_id: str = ChatExportHook.default_conn_name,
        wait_timeout: timedelta | float = DEFAULT_WAIT_TIMEOUT,
        poll_interval: timedelta | float | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        fresh: bool = False,
        on_missing_channel: OnMissingChannel = "fail",
        settle: timedelta = DEFAULT_SETTLE,
        allow_open_window: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if on_missing_channel not in ("fail", "skip"):
            raise CallError(f'on_missing_channel is {on_missing_channel!r}; write "fail" or "skip"')
        self.chatexport_conn_id = chatexport_conn_id
        self.fresh = fresh
        self.on_missing_channel = on_missing_channel
        self.settle = settle
        self.allow_open_window = allow_open_window
        self.wait_timeout = wait_timeout
        self.poll_interval = poll_interval
        self.deferrable = deferrable

    @abstractmethod
    def plan(self, context: Context) -> Sequence[ChannelsRequest | UsersRequest]:
        """What to ask the service for in this run. :raises CallError: the run does not say, or says it wrongly."""

    def window_until(self, context: Context) -> datetime | None:  # noqa: ARG002
        """The end of the run's window; None where there is no window. :raises WindowError: it is not usable."""
        return None

    def execute(self, context: Context) -> list[dict[str, Any]]:
        with airflow_failures():
            patience_s = self._patience_s()
            poll_interval_s = None if self.poll_interval is None else seconds(self.poll_interval)
            self._settle(self.window_until(context))
            requests = self.plan(context)
            known = KnownExports(context.get("task_state_store"))
            if self.fresh:
                known.forget(requests)
            settings = ChatExportHook(self.chatexport_conn_id).settings()
            with ChatExportClient(settings) as client:
                submission = Submission(client, known)
                submission.submit(requests, on_missing_channel=self.on_missing_channel)
            receipts, started_epoch_s = submission.receipts, submission.started_epoch_s
            # Of the first try: a retry that finds its exports again has what is left, not the whole time once more.
            deadline_epoch_s = started_epoch_s + patience_s
            task_ids = [receipt.task_id for receipt in receipts]
            if not self.deferrable:
                watch = Watch(
                    task_ids,
                    started_epoch_s=started_epoch_s,
                    deadline_epoch_s=deadline_epoch_s,
                    poll_s=poll_interval_s,
                )
                try:
                    with ChatExportClient(settings.without_retries()) as client:
                        states = watch_exports(client, watch)
                except TaskOverdueError:
                    known.give_more_time(receipts)
                    raise
                known.forget(receipt.request for receipt in receipts)
                return _returned(receipts, {task_id: state.created_at for task_id, state in states.items()})
        return self.defer(
            trigger=ExportTaskTrigger(
                chatexport_conn_id=self.chatexport_conn_id,
                task_ids=task_ids,
                started_epoch_s=started_epoch_s,
                deadline_epoch_s=deadline_epoch_s,
                poll_interval_s=poll_interval_s,
                receipts=[receipt.to_json() for receipt in receipts],
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(deadline_epoch_s - time.time(), 0.0)) + BACKSTOP,
        )

    def execute_complete(self, context: Context, event: Any = None) -> list[dict[str, Any]]:
        """Where the task goes on after its deferral, in a new process: all that it knows is in the event."""
        with airflow_failures():
            known = KnownExports(context.get("task_state_store"))
            if isinstance(event, dict) and event.get("status") == "timeout":
                known.give_more_time([Receipt.from_json(dict(each)) for each in event["receipts"]])
            completed = read_event(event)
            receipts = [Receipt.from_json(dict(each)) for each in completed.receipts]
            known.forget(receipt.request for receipt in receipts)
            return _returned(receipts, completed.created_at)

    def execute_settled(self, context: Context, event: Any = None) -> list[dict[str, Any]]:  # noqa: ARG002
        """Where the task goes on when the end of its window is old enough."""
        return self.execute(context)

    def _settle(self, until: datetime | None) -> None:
        """Waits until the window's end is ``settle`` old: messages may still be on their way."""
        if until is None or self.allow_open_window:
            return
        moment = until + self.settle
        wait_s = (moment - datetime.now(UTC)).total_seconds()
        if wait_s <= 0:
            return
        log.info("waiting for the window to settle until=%s", moment.isoformat())
        if self.deferrable:
            timeout = timedelta(seconds=wait_s) + BACKSTOP
            self.defer(trigger=DateTimeTrigger(moment), method_name="execute_settled", timeout=timeout)
        time.sleep(wait_s)

    def _patience_s(self) -> float:
        """The shorter of ``wait_timeout`` and ``execution_timeout``, which Airflow itself does not count while a task
        is deferred."""
        patience_s = seconds(self.wait_timeout)
        return min(patience_s, self.execution_timeout.total_seconds()) if self.execution_timeout else patience_s


class ExportChannelsOperator(BaseExportOperator):
    """Export the messages of channels in this run's window.

    The window is that of the arguments, else of the run's conf or params ``since`` and ``until``, else the run's data
    interval. It is half-open, and consecutive windows tile exactly. In Airflow 3, schedule with
    ``CronDataIntervalTimetable``: the interval of ``"@daily"`` alone has zero length, and is refused.

    :param channels: channels as ``TYPE:ID``, as a list or separated by commas, or a ``ChannelQuery`` that finds them
        when the task runs; any number, 25 go into one export. By default those of the run's conf or params
        ``channels``. (templated, also within the query)
    :param extra_channels: channels besides, such as soft-deleted ones, which no query finds. (templated)
    :param since: begin of the window, inclusive: a datetime or ISO 8601 text with an offset. (templated)
    :param until: end of the window, exclusive. (templated)
    :param lookback: export that much before the window again, for late edits, deletes and reactions.
    :param max_window: longer windows become several exports.
    :param partition_span: of a run that has a partition date and no data interval (``CronPartitionTimetable``), how
        long its window is.
    :param version: format of the file at the service, ``v2`` or ``v1``.
    :param include_truncated_messages: messages that a truncation hides come along.
    :param include_soft_deleted_channels: channels that were deleted softly may be named.
    :param clear_deleted_message_text: the text of deleted messages is left out.
    :param export_users: as the service documents it.
    """

    template_fields: Sequence[str] = (
        "channels",
        "extra_channels",
        "since",
        "until",
        *BaseExportOperator.template_fields,
    )

    def __init__(
        self,
        *,
        channels: Channels = None,
        extra_channels: Iterable[str] | str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        lookback: timedelta = timedelta(0),
        max_window: timedelta | None = None,
        partition_span: timedelta | None = None,
        version: Literal["v1", "v2"] = "v2",
        include_truncated_messages: bool = False,
        include_soft_deleted_channels: bool = False,
        clear_deleted_message_text: bool = False,
        export_users: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.extra_channels = extra_channels
        self.since = since
        self.until = until
        self.lookback = lookback
        self.max_window = max_window
        self.partition_span = partition_span
        self.version = version
        self.include_truncated_messages = include_truncated_messages
        self.include_soft_deleted_channels = include_soft_deleted_channels
        self.clear_deleted_message_text = clear_deleted_message_text
        self.export_users = export_users

    def plan(self, context: Context) -> list[ChannelsRequest]:
        flags = ExportFlags(
            version=self.version,
            include_truncated_messages=self.include_truncated_messages,
            include_soft_deleted_channels=self.include_soft_deleted_channels,
            clear_deleted_message_text=self.clear_deleted_message_text,
            export_users=self.export_users,
        )
        window = self.window(context)
        windows = list(window.split(self.max_window) if self.max_window else [window])
        channels = chosen_channels(self, context)
        if not channels and isinstance(self.channels, ChannelQuery):
            raise CallError("the channel query finds no channel; check its filter_conditions")
        return [request for each in windows for request in plan_channels(channels, each, flags)]

    def window_until(self, context: Context) -> datetime:
        return self.window(context).until

    def window(self, context: Context) -> Window:
        """:raises WindowError: the run has no usable window; the sentence names the fix."""
        asked = run_inputs(context)
        window = resolve(
            WindowSources(
                arguments=(window_end(self.since, "since"), window_end(self.until, "until")),
                conf=(window_end(asked.get("since"), "since"), window_end(asked.get("until"), "until")),
                data_interval=(context.get("data_interval_start"), context.get("data_interval_end")),
                partition=(context.get("partition_date"), self.partition_span),
            )
        )
        if window.until > datetime.now(UTC) and not self.allow_open_window:
            raise WindowError(
                f"the window {window} ends in the future, so an export would not have all of it; run later, give an "
                "until that has passed, or set allow_open_window=True"
            )
        return window.looking_back(self.lookback)


class ExportUsersOperator(BaseExportOperator):
    """Export all that the service holds of some users, for a data-subject request for instance.

    :param user_ids: ids as a list or separated by commas; any number, 25 go into one export. By default those of the
        run's conf or params ``user_ids``. (templated)
    """

    template_fields: Sequence[str] = ("user_ids", *BaseExportOperator.template_fields)

    def __init__(self, *, user_ids: Iterable[str] | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.user_ids = user_ids

    def plan(self, context: Context) -> list[UsersRequest]:
        return plan_users(listed(self.user_ids) or listed(run_inputs(context).get("user_ids")))


def seconds(duration: timedelta | float) -> float:
    """:raises CallError: it is not positive."""
    value = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if value <= 0:
        raise CallError(f"wait_timeout and poll_interval must be more than zero, not {duration}")
    return value


def _returned(receipts: Iterable[Receipt], created_at: Mapping[TaskId, datetime]) -> list[dict[str, Any]]:
    return [replace(receipt, created_at=created_at.get(receipt.task_id)).to_json() for receipt in receipts]
