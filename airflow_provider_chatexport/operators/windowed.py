"""Operators that are about a window: which window a run has, and when it is old enough to be exported."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal
from zoneinfo import ZoneInfo

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_chatexport.core.arguments import check_window_end, parse_duration
from airflow_provider_chatexport.core.retention import (
    CLOCK_STEP,
    SERVICE,
    Retention,
    RetentionArgument,
    parse_retention,
)
from airflow_provider_chatexport.core.window import Window, WindowSources, resolve
from airflow_provider_chatexport.errors import CallError, WindowError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.config import configured_s
from airflow_provider_chatexport.hooks.exceptions import as_airflow_errors, checked_arguments
from airflow_provider_chatexport.operators.params import run_inputs
from airflow_provider_chatexport.triggers.events import BACKSTOP

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

# A worker's clock may be behind the scheduler's. A window that ends within this time is waited for, not refused.
MAX_AHEAD: Final = timedelta(minutes=5)
_ARGUMENTS: Final = "the operator's arguments"


class WindowedOperator(BaseOperator):
    """An operator that works on the window of its run.

    The window is half-open, so consecutive windows tile exactly. It comes from the first of these that has one:
    ``window``, ``since`` and ``until`` of the operator, the same of the run's conf or params, the run's data interval,
    the partition's date.

    :param window: ``all`` for the whole history instead of a window: everything up to the export. It needs no data
        interval, and goes with neither ``since`` and ``until`` nor ``lookback``. (templated)
    :param since: start of the window (inclusive), as a datetime or as ISO 8601 text with an offset. (templated)
    :param until: end of the window (exclusive), likewise. (templated)
    :param lookback: start the window this much earlier, so that late edits, deletes and reactions are exported again.
        Like every duration, a timedelta or a number of seconds.
    :param partition_span: length of a partition, for runs that have a partition date and no data interval
        (``CronPartitionTimetable``). Whole days are days of the timetable's time zone.
    :param grace_period: how old the end of the window must be before the task asks the service for anything. A task
        that runs earlier waits. Default: ``grace_period_s`` in section ``[chatexport]`` of Airflow's configuration,
        60 seconds.
    :param allow_open_window: accept a window that ends in the future, and do not wait for its end. Messages that are
        written after the export are not in it.
    """

    template_fields: Sequence[str] = ("window", "since", "until")

    # Subclasses that wait take it as an argument.
    deferrable: bool

    def __init__(
        self,
        *,
        window: Literal["all"] | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        lookback: timedelta | float | None = None,
        partition_span: timedelta | float | None = None,
        grace_period: timedelta | float | None = None,
        allow_open_window: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with checked_arguments():
            self.lookback = parse_duration(lookback, "lookback") or timedelta(0)
            self.partition_span = parse_duration(partition_span, "partition_span")
            self.grace_period = parse_duration(grace_period, "grace_period")
            if window == "all" and _is_whole_history(window, since, until, _ARGUMENTS) and self.lookback:
                raise CallError('window="all" exports the whole history; leave lookback out')
        self.window = window
        self.since = since
        self.until = until
        self.allow_open_window = allow_open_window

    def run_window(self, context: Context) -> Window | None:
        """Return the window of the run, lookback included; None for the whole history.

        :raises WindowError: the run has no usable window; the message says how to give it one.
        """
        inputs = run_inputs(context)
        if _is_whole_history(self.window, self.since, self.until, _ARGUMENTS):
            return None
        # Arguments come first, as for ``resolve``.
        if not (_is_given(self.since) or _is_given(self.until)) and _is_whole_history(
            inputs.get("window"), inputs.get("since"), inputs.get("until"), "the run's conf or params"
        ):
            return None
        window = resolve(
            WindowSources(
                arguments=(check_window_end(self.since, "since"), check_window_end(self.until, "until")),
                conf=(check_window_end(inputs.get("since"), "since"), check_window_end(inputs.get("until"), "until")),
                data_interval=(context.get("data_interval_start"), context.get("data_interval_end")),
                partition=(context.get("partition_date"), self.partition_span),
                zone=_zone_of(context),
                timetable=type(getattr(context.get("dag"), "timetable", None)).__name__,
            )
        )
        if window.until > datetime.now(UTC) + MAX_AHEAD and not self.allow_open_window:
            raise WindowError(
                f"the window {window} ends in the future, so an export would be incomplete; run later, give an until "
                "that has passed, or set allow_open_window=True"
            )
        return window.looking_back(self.lookback)

    def wait_out_grace_period(self, context: Context) -> None:
        """Wait until the end of the window is ``grace_period`` old: messages may still be on their way.

        :raises WindowError: the run has no usable window.
        :raises TaskDeferred: the triggerer waits; the task resumes in ``execute_after_grace_period``.
        """
        window = self.run_window(context)
        if window is None or self.allow_open_window:
            return
        default = timedelta(seconds=configured_s("grace_period_s"))
        moment = window.until + (default if self.grace_period is None else self.grace_period)
        wait_s = (moment - datetime.now(UTC)).total_seconds()
        if wait_s <= 0:
            return
        log.info("waiting for the grace period of the window to end until=%s", moment.isoformat())
        if self.deferrable:
            # Most tasks do not wait here, and this takes a fifth of the time of all imports of an export.
            from airflow.providers.standard.triggers.temporal import DateTimeTrigger  # noqa: PLC0415

            timeout = timedelta(seconds=wait_s) + BACKSTOP
            self.defer(trigger=DateTimeTrigger(moment), method_name="execute_after_grace_period", timeout=timeout)
        time.sleep(wait_s)

    def execute_after_grace_period(self, context: Context, event: Any = None) -> Any:  # noqa: ARG002
        """Resume the task after the grace period, in a new process."""
        return self.execute(context)


class SplitWindowOperator(WindowedOperator):
    """Split the window of the run into short ones, for export tasks that are mapped over them.

    Returns a list of ``{"since": ..., "until": ...}``, the oldest first. Together they tile the window exactly::

        weeks = SplitWindowOperator(task_id="weeks", max_window=timedelta(days=7))
        ExportChannelsOperator.partial(task_id="export", channels=["team:x"]).expand_kwargs(weeks.output)

    Takes the arguments of ``WindowedOperator``, but for ``grace_period``: it is the export tasks that wait. And:

    :param max_window: length of each window, as a timedelta or in seconds. The last one may be shorter.
    :param retention: how long the service keeps messages, by the app's retention policies: a duration such as ``30d``,
        or ``service`` to ask it. Windows that lie wholly before are left out: no export can cover them any more.
    :param chatexport_conn_id: a connection of type ``chatexport``, to ask the service. (templated)
    """

    template_fields: Sequence[str] = ("since", "until", "chatexport_conn_id")

    def __init__(
        self,
        *,
        max_window: timedelta | float,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        lookback: timedelta | float | None = None,
        partition_span: timedelta | float | None = None,
        allow_open_window: bool = False,
        retention: RetentionArgument = None,
        chatexport_conn_id: str = ChatExportHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            since=since,
            until=until,
            lookback=lookback,
            partition_span=partition_span,
            allow_open_window=allow_open_window,
            **kwargs,
        )
        with checked_arguments():
            span = parse_duration(max_window, "max_window")
            if span is None or span <= timedelta(0):
                raise CallError(f"max_window is {max_window!r}; give a duration above 0, such as timedelta(days=7)")
            self.retention = parse_retention(retention)
        self.max_window = span
        self.chatexport_conn_id = chatexport_conn_id

    def execute(self, context: Context) -> list[dict[str, str]]:
        """Return the windows."""
        with as_airflow_errors():
            window = self.run_window(context)
            if window is None:
                raise WindowError("the whole history has no start, and cannot be split; give since and until")
            n_most, horizon = conf.getint("core", "max_map_length"), self._horizon()
            windows = list(islice(_after(horizon, window.split(self.max_window)), n_most + 1))
            if len(windows) > n_most:
                fitting = timedelta(seconds=-(-window.span // timedelta(seconds=n_most)))
                raise CallError(
                    f"{window} has more than {n_most} windows of {self.max_window}, and Airflow maps {n_most} tasks "
                    f"at most ([core] max_map_length); set max_window to {fitting} or more"
                )
        log.info("window split window=%s windows=%d", window, len(windows))
        return [each.to_json() for each in windows]

    def _horizon(self) -> datetime | None:
        """Return from when on an export knows all; None for all of time.

        :raises ServiceError: the service was asked, and does not say.
        """
        if self.retention is None:
            return None
        retention, now = known_retention(self.retention, self.chatexport_conn_id)
        return retention.horizon(now + CLOCK_STEP)


def _after(horizon: datetime | None, windows: Iterable[Window]) -> Iterator[Window]:
    """Yield the windows that do not lie wholly before a moment."""
    return (window for window in windows if horizon is None or window.until > horizon)


def known_retention(retention: Retention | Literal["service"], chatexport_conn_id: str) -> tuple[Retention, datetime]:
    """Return how long the service keeps messages, and the time now, by its own clock if it is asked.

    :raises ServiceError: the service was asked, and does not say.
    """
    if retention != SERVICE:
        return retention, datetime.now(UTC)
    with ChatExportHook(chatexport_conn_id).client() as client:
        return client.retention(), client.now()


def _is_whole_history(window: Any, since: Any, until: Any, where: str) -> bool:
    """Return whether a source of the window asks for the whole history.

    :raises WindowError: it asks for a window as well, or for something else.
    """
    if not _is_given(window):
        return False
    if window != "all":
        raise WindowError(
            f'window in {where} is {str(window)[:40]!r}; write "all" for the whole history, or leave it out'
        )
    if _is_given(since) or _is_given(until):
        raise WindowError(f'{where} have window="all" and since or until; leave out one or the other')
    return True


def _is_given(value: Any) -> bool:
    """Return whether an input has a value. Templates render a missing one as "" or "None"."""
    return value not in (None, "", "None")


def _zone_of(context: Context) -> tzinfo:
    """Return the time zone of the schedule, in which its days start and end.

    Airflow gives a partition's date in UTC, whatever the zone of the timetable.
    """
    timetable = getattr(context.get("dag"), "timetable", None)
    # The timetable class that a DAG file uses has a public attribute; the scheduler's has it as text, or private.
    zone = getattr(timetable, "timezone", None) or getattr(timetable, "_timezone", None)
    if isinstance(zone, str):
        zone = ZoneInfo(zone)
    return zone if isinstance(zone, tzinfo) else UTC
