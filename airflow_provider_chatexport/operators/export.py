"""Tasks that start exports and wait for them. What they return are receipts for ``LoadExportOperator``."""

from __future__ import annotations

import ast
import logging
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.watch import Watch, watch_exports
from airflow_provider_chatexport.core.plan import ChannelsRequest, ExportFlags, UsersRequest, plan_channels, plan_users
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.core.window import Window, WindowSources, resolve
from airflow_provider_chatexport.errors import CallError, WindowError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.failures import airflow_failures
from airflow_provider_chatexport.triggers.export import BACKSTOP, ExportTaskTrigger, read_event

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

DEFAULT_WAIT_TIMEOUT: Final = timedelta(hours=6)


class BaseExportOperator(BaseOperator):
    """Start the exports of this run, wait for all of them, return their receipts.

    :param chatexport_conn_id: a connection of type ``chatexport``.
    :param wait_timeout: how long to wait in all, as a duration or in seconds.
    :param poll_interval: a fixed pause between looks, as a duration or in seconds; by default it grows with the age
        of the exports from 1 to 60 seconds.
    :param deferrable: wait in the triggerer instead of on the worker.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.chatexport_conn_id = chatexport_conn_id
        self.wait_timeout = wait_timeout
        self.poll_interval = poll_interval
        self.deferrable = deferrable

    @abstractmethod
    def plan(self, context: Context) -> Sequence[ChannelsRequest | UsersRequest]:
        """What to ask the service for in this run. :raises CallError: the run does not say, or says it wrongly."""

    def execute(self, context: Context) -> list[dict[str, Any]]:
        with airflow_failures():
            requests = self.plan(context)
            started_epoch_s = time.time()
            deadline_epoch_s = started_epoch_s + seconds(self.wait_timeout)
            poll_interval_s = None if self.poll_interval is None else seconds(self.poll_interval)
            settings = ChatExportHook(self.chatexport_conn_id).settings()
            with ChatExportClient(settings) as client:
                receipts = [self._submit(client, request) for request in requests]
            task_ids = [receipt.task_id for receipt in receipts]
            if not self.deferrable:
                watch = Watch(
                    task_ids,
                    started_epoch_s=started_epoch_s,
                    deadline_epoch_s=deadline_epoch_s,
                    poll_s=poll_interval_s,
                )
                with ChatExportClient(settings.without_retries()) as client:
                    states = watch_exports(client, watch)
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
            timeout=timedelta(seconds=seconds(self.wait_timeout)) + BACKSTOP,
        )

    def execute_complete(self, context: Context, event: Any = None) -> list[dict[str, Any]]:  # noqa: ARG002
        """Where the task goes on after its deferral, in a new process: all that it knows is in the event."""
        with airflow_failures():
            completed = read_event(event)
            return _returned([Receipt.from_json(dict(each)) for each in completed.receipts], completed.created_at)

    def _submit(self, client: ChatExportClient, request: ChannelsRequest | UsersRequest) -> Receipt:
        match request:
            case ChannelsRequest():
                task_id = client.submit_channels(request)
                size, window = f"channels={len(request.channels)}", request.window
            case UsersRequest():
                task_id = client.submit_users(request)
                size, window = f"users={len(request.user_ids)}", None
        # At once, and before anything else can fail: the service has no list of its tasks.
        log.info("export started task_id=%s %s window=%s fingerprint=%s", task_id, size, window, request.fingerprint)
        return Receipt(task_id=task_id, request=request)


class ExportChannelsOperator(BaseExportOperator):
    """Export the messages of channels in this run's window.

    The window is that of the arguments, else of the run's conf or params ``since`` and ``until``, else the run's data
    interval. It is half-open, and consecutive windows tile exactly. In Airflow 3, schedule with
    ``CronDataIntervalTimetable``: the interval of ``"@daily"`` alone has zero length, and is refused.

    :param channels: channels as ``TYPE:ID``, as a list or separated by commas; any number, 25 go into one export. By
        default those of the run's conf or params ``channels``. (templated)
    :param since: begin of the window, inclusive: a datetime or ISO 8601 text with an offset. (templated)
    :param until: end of the window, exclusive. (templated)
    :param version: format of the file at the service, ``v2`` or ``v1``.
    :param include_truncated_messages: messages that a truncation hides come along.
    :param include_soft_deleted_channels: channels that were deleted softly may be named.
    :param clear_deleted_message_text: the text of deleted messages is left out.
    :param export_users: as the service documents it.
    """

    template_fields: Sequence[str] = ("channels", "since", "until", *BaseExportOperator.template_fields)

    def __init__(
        self,
        *,
        channels: Iterable[str] | str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        version: Literal["v1", "v2"] = "v2",
        include_truncated_messages: bool = False,
        include_soft_deleted_channels: bool = False,
        clear_deleted_message_text: bool = False,
        export_users: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
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
        asked = run_inputs(context)
        channels = listed(self.channels) or listed(asked.get("channels"))
        return plan_channels(channels, self.window(context), flags)

    def window(self, context: Context) -> Window:
        """:raises WindowError: the run has no usable window; the sentence names the fix."""
        asked = run_inputs(context)
        return resolve(
            WindowSources(
                arguments=(_end(self.since, "since"), _end(self.until, "until")),
                conf=(_end(asked.get("since"), "since"), _end(asked.get("until"), "until")),
                data_interval=(context.get("data_interval_start"), context.get("data_interval_end")),
            )
        )


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


def run_inputs(context: Context) -> Mapping[str, Any]:
    """What the person or program that triggered the run gave it: params, and conf over them."""
    dag_run = context.get("dag_run")
    given = getattr(dag_run, "conf", None) or {}
    return {**(context.get("params") or {}), **given}


def listed(value: Any) -> list[str]:
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
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise CallError("a list of names cannot be read; write them separated by commas") from None
    names = list(value) if isinstance(value, Iterable) and not isinstance(value, Mapping) else [value]
    if not all(isinstance(name, str) for name in names):
        raise CallError("a list of names holds something that is not text; write names, such as messaging:general")
    return names


def _end(value: Any, name: str) -> str | datetime | None:
    if value is None or isinstance(value, (str, datetime)):
        return value
    raise WindowError(
        f"the window's {name} is a {type(value).__name__}; give a datetime, or ISO 8601 text such as "
        "2026-01-01T00:00:00Z"
    )


def _returned(receipts: Iterable[Receipt], created_at: Mapping[TaskId, datetime]) -> list[dict[str, Any]]:
    return [replace(receipt, created_at=created_at.get(receipt.task_id)).to_json() for receipt in receipts]
