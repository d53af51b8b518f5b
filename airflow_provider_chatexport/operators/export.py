"""Tasks that start exports and wait for them. What they return are receipts for ``LoadExportOperator``."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator, conf

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, watch_exports
from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.core.plan import ChannelsRequest, ExportFlags, UsersRequest, plan_channels, plan_users
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError, TaskFailedError, TaskOverdueError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.config import configured_s
from airflow_provider_chatexport.hooks.exceptions import (
    as_airflow_errors,
    checked_arguments,
    explain_timeout,
    seconds_to_timeout,
)
from airflow_provider_chatexport.operators.channels import Channels, chosen_channels
from airflow_provider_chatexport.operators.links import ExportTaskLink
from airflow_provider_chatexport.operators.params import duration, parse_names, run_inputs
from airflow_provider_chatexport.operators.submission import (
    OnMissingChannel,
    SubmittedExport,
    SubmittedExports,
    Submitter,
    find_unfinished,
)
from airflow_provider_chatexport.operators.windowed import wait_out, window_of
from airflow_provider_chatexport.triggers.export import BACKSTOP, ExportTaskTrigger, read_event

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

# What the trigger hands through beside each receipt, for a deferral that ends in splitting.
_N_SPLITS: Final = "n_splits"
_STARTED_EPOCH_S: Final = "started_epoch_s"
# How long before Airflow's alarm a wait on the worker ends by itself.
_BEFORE_THE_ALARM_S: Final = 2.0


class BaseExportOperator(BaseOperator):
    """Start the exports of this run, wait for all of them, return their receipts.

    :param chatexport_conn_id: a connection of type ``chatexport``.
    :param wait_timeout: how long to wait in all, as a duration or in seconds; by default 6 hours.
    :param poll_interval: a fixed pause between looks, as a duration or in seconds; by default it grows with the age
        of the exports from 1 to 60 seconds.
    :param deferrable: wait in the triggerer instead of on the worker.
    :param fresh: start new exports even where those of an earlier try of this task could be waited for.
    :param on_missing_channel: what to do where the service does not know some of the channels: ``fail``, naming all
        of them, or ``skip`` them; the task itself, where it knows none.
    :param grace_period: how old the end of the window must be before anything is exported, as a duration or in
        seconds; a run that starts sooner waits. By default a minute. The section ``[chatexport]`` of Airflow's
        configuration has these three defaults.
    :param max_splits: how often an export of channels that fails, or is not done in its share of the time, is halved by
        window and asked for again; the shares of ``max_splits`` + 1 rounds are equal.
    :param allow_open_window: export a window whose end is still to come; what comes later is not in the export.
    """

    template_fields: Sequence[str] = ("chatexport_conn_id",)
    ui_color = "#e3f2ff"
    operator_extra_links = (ExportTaskLink(),)
    export_url = ""

    def __init__(
        self,
        *,
        chatexport_conn_id: str = ChatExportHook.default_conn_name,
        wait_timeout: timedelta | float | None = None,
        poll_interval: timedelta | float | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        fresh: bool = False,
        on_missing_channel: OnMissingChannel = "fail",
        grace_period: timedelta | float | None = None,
        max_splits: int = 0,
        allow_open_window: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with checked_arguments():
            if on_missing_channel not in ("fail", "skip"):
                raise CallError(f'on_missing_channel is {on_missing_channel!r}; write "fail" or "skip"')
            if not isinstance(max_splits, int) or max_splits < 0:
                raise CallError(f"max_splits is {max_splits!r}; give a whole number, 0 or more")
            self.grace_period = duration(grace_period, "grace_period")
            self.wait_timeout = duration(wait_timeout, "wait_timeout")
            self.poll_interval = duration(poll_interval, "poll_interval")
        self.chatexport_conn_id = chatexport_conn_id
        self.fresh = fresh
        self.on_missing_channel = on_missing_channel
        self.max_splits = max_splits
        self.allow_open_window = allow_open_window
        self.deferrable = deferrable

    @abstractmethod
    def plan(self, context: Context) -> Sequence[ChannelsRequest | UsersRequest]:
        """What to ask the service for in this run. :raises CallError: the run does not say, or says it wrongly."""

    def wait_out_grace_period(self, context: Context) -> None:
        """Before anything is asked of the service. :raises WindowError: the run's window is not usable."""

    def execute(self, context: Context) -> list[dict[str, Any]]:
        with as_airflow_errors(), explain_timeout(self._too_late):
            # What is wrong with the call itself is told before anything is asked of the service.
            self._patience_s()
            self.wait_out_grace_period(context)
            requests = self.plan(context)
            known = SubmittedExports.of(context)
            # Of the first try: a retry has what is left of the time, and not the whole of it once more.
            began_epoch_s = known.begin(fresh=self.fresh)
            with ChatExportHook(self.chatexport_conn_id).client() as client:
                submission = Submitter(client, known)
                submission.submit(requests, on_missing_channel=self.on_missing_channel)
            return self._wait(known, submission.started, began_epoch_s)

    def execute_complete(self, context: Context, event: Any = None) -> list[dict[str, Any]]:
        """Where the task goes on after its deferral, in a new process: all that it knows is in the event."""
        with as_airflow_errors(), explain_timeout(self._too_late):
            known = SubmittedExports.of(context)
            handed = event.get("receipts") or [] if isinstance(event, dict) else []
            receipts = [Receipt.from_json(dict(each)) for each in handed]
            self._show(receipts)
            status = event.get("status") if isinstance(event, dict) else None
            if status in ("failed", "timeout") and self.max_splits and receipts:
                started = [
                    SubmittedExport(receipt=receipt, n_splits=each.get(_N_SPLITS, 0))
                    for receipt, each in zip(receipts, handed, strict=True)
                ]
                halved = self._split(known, started, overdue=status == "timeout")
                if halved is not None:
                    return self._wait(known, halved, handed[0].get(_STARTED_EPOCH_S, time.time()))
            created_at = read_event(event)
            known.done()
            return _returned(receipts, created_at)

    def execute_after_grace_period(self, context: Context, event: Any = None) -> list[dict[str, Any]]:  # noqa: ARG002
        """Where the task goes on when the end of its window is old enough."""
        return self.execute(context)

    def _wait(
        self, known: SubmittedExports, started: list[SubmittedExport], started_epoch_s: float
    ) -> list[dict[str, Any]]:
        """Until all are completed, deferred or here.

        :raises TaskDeferred: the task goes on in ``execute_complete``.
        :raises AirflowSkipException: there is none: the service knows no channel, and they are to be skipped.
        :raises TaskFailedError: the service ended one as failed.
        :raises TaskOverdueError: the deadline passed.
        """
        if not started:
            raise AirflowSkipException("the service knows none of the channels, so there is nothing to export")
        deadline_epoch_s = started_epoch_s + self._patience_s() * self._share(started)
        poll_interval_s = self._poll_interval_s()
        receipts = [each.receipt for each in started]
        task_ids = [receipt.task_id for receipt in receipts]
        self._show(receipts)
        if self.deferrable:
            self.defer(
                trigger=ExportTaskTrigger(
                    chatexport_conn_id=self.chatexport_conn_id,
                    task_ids=task_ids,
                    started_epoch_s=started_epoch_s,
                    deadline_epoch_s=deadline_epoch_s,
                    poll_interval_s=poll_interval_s,
                    receipts=[
                        {**each.receipt.to_json(), _N_SPLITS: each.n_splits, _STARTED_EPOCH_S: started_epoch_s}
                        for each in started
                    ],
                ),
                method_name="execute_complete",
                timeout=timedelta(seconds=max(deadline_epoch_s - time.time(), 0.0)) + BACKSTOP,
            )
        if left_s := seconds_to_timeout():
            # Airflow's alarm would say nothing of the exports, and be followed by a retry without a minute to wait.
            deadline_epoch_s = min(deadline_epoch_s, time.time() + left_s - min(_BEFORE_THE_ALARM_S, left_s / 2))
        watch = ExportPoller(
            task_ids, started_epoch_s=started_epoch_s, deadline_epoch_s=deadline_epoch_s, poll_s=poll_interval_s
        )
        settings = ChatExportHook(self.chatexport_conn_id).settings()
        try:
            with ChatExportClient(settings.without_retries()) as client:
                states = watch_exports(client, watch)
        except (TaskFailedError, TaskOverdueError) as error:
            halved = self._split(known, started, overdue=isinstance(error, TaskOverdueError))
            if halved is not None:
                return self._wait(known, halved, started_epoch_s)
            raise
        known.done()
        return _returned(receipts, {task_id: state.created_at for task_id, state in states.items()})

    def _share(self, started: Iterable[SubmittedExport]) -> float:
        """The part of the time that is over before exports are split once more: each halving has an equal part. All of
        it, where there is nothing to halve."""
        n_splits = [each.n_splits for each in started if each.can_be_halved(self.max_splits)]
        return (max(n_splits) + 1) / (self.max_splits + 1) if n_splits else 1.0

    def _split(
        self, known: SubmittedExports, started: list[SubmittedExport], *, overdue: bool
    ) -> list[SubmittedExport] | None:
        """What to wait for instead, if the service does not finish some of these; None: there is no way on."""
        if not self.max_splits:
            return None
        with ChatExportHook(self.chatexport_conn_id).client() as client:
            lost = find_unfinished(client, started, overdue=overdue)
            halved = [each for each in lost if each.can_be_halved(self.max_splits)]
            if overdue and not halved and self._share(started) < 1:
                # What could be halved is done by now. The rest has the rest of the time.
                return [replace(each, n_splits=self.max_splits) for each in started]
            if not halved or (len(halved) < len(lost) and not overdue):
                return None
            submission = Submitter(client, known)
            submission.split(halved, on_missing_channel=self.on_missing_channel)
        return [*(each for each in started if each not in halved), *submission.started]

    @property
    def _too_late(self) -> str:
        return (
            f"the exports were not started or not waited for within the execution_timeout of {self.execution_timeout}; "
            "the service goes on with those that it has, so give the task more time and clear it"
        )

    def _patience_s(self) -> float:
        """The shorter of ``wait_timeout`` and ``execution_timeout``, which Airflow itself does not count while a task
        is deferred."""
        patience_s = _positive_s(configured_s("wait_timeout_s") if self.wait_timeout is None else self.wait_timeout)
        return min(patience_s, self.execution_timeout.total_seconds()) if self.execution_timeout else patience_s

    def _poll_interval_s(self) -> float | None:
        """A fixed pause between looks; None: it grows with the age of the exports."""
        interval = configured_s("poll_interval_s") or None if self.poll_interval is None else self.poll_interval
        return None if interval is None else _positive_s(interval)

    def _show(self, receipts: Sequence[Receipt]) -> None:
        """For the extra link: the address of the first export at the service, without key or token."""
        if receipts:
            base_url = ChatExportHook(self.chatexport_conn_id).settings().base_url
            self.export_url = f"{base_url}/api/v2/tasks/{receipts[0].task_id}"


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
    :param lookback: export that much before the window again, for late edits, deletes and reactions; as all durations,
        a timedelta or seconds.
    :param max_window: longer windows become several exports.
    :param partition_span: of a run that has a partition date and no data interval (``CronPartitionTimetable``), how
        long its window is; whole days are those of the timetable's time zone.
    :param on_no_channels: what to do where a query finds no channel: ``fail``, or ``skip`` the task.
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
        lookback: timedelta | float | None = None,
        max_window: timedelta | float | None = None,
        partition_span: timedelta | float | None = None,
        on_no_channels: Literal["fail", "skip"] = "fail",
        version: Literal["v1", "v2"] = "v2",
        include_truncated_messages: bool = False,
        include_soft_deleted_channels: bool = False,
        clear_deleted_message_text: bool = False,
        export_users: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with checked_arguments():
            if on_no_channels not in ("fail", "skip"):
                raise CallError(f'on_no_channels is {on_no_channels!r}; write "fail" or "skip"')
            self.lookback = duration(lookback, "lookback") or timedelta(0)
            self.max_window = duration(max_window, "max_window")
            self.partition_span = duration(partition_span, "partition_span")
        self.on_no_channels = on_no_channels
        self.channels = channels
        self.extra_channels = extra_channels
        self.since = since
        self.until = until
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
        channels = chosen_channels(self, context, window)
        if not channels and isinstance(self.channels, ChannelQuery):
            if self.on_no_channels == "skip":
                raise AirflowSkipException(f"the channel query finds no channel for {window}")
            raise CallError(
                "the channel query finds no channel; check its filter_conditions, or set "
                'on_no_channels="skip" if that may be'
            )
        return [request for each in windows for request in plan_channels(channels, each, flags)]

    def wait_out_grace_period(self, context: Context) -> None:
        wait_out(self, self.window(context).until)

    def window(self, context: Context) -> Window:
        """:raises WindowError: the run has no usable window; the sentence names the fix."""
        return window_of(self, context)


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
        return plan_users(parse_names(self.user_ids) or parse_names(run_inputs(context).get("user_ids")))


def _positive_s(duration: timedelta | float) -> float:
    """:raises CallError: it is not positive."""
    value = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if value <= 0:
        raise CallError(f"wait_timeout and poll_interval must be more than zero, not {duration}")
    return value


def _returned(receipts: Iterable[Receipt], created_at: Mapping[TaskId, datetime]) -> list[dict[str, Any]]:
    return [replace(receipt, created_at=created_at.get(receipt.task_id)).to_json() for receipt in receipts]
