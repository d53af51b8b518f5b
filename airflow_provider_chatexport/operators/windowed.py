"""Which window a run is about, and when it is old enough to be exported.

Of an operator with ``since``, ``until``, ``lookback``, ``partition_span``, ``grace_period``, ``allow_open_window`` and
``deferrable``.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from airflow.providers.standard.triggers.temporal import DateTimeTrigger

from airflow_provider_chatexport.core.window import Window, WindowSources, resolve
from airflow_provider_chatexport.errors import WindowError
from airflow_provider_chatexport.hooks.config import configured_s
from airflow_provider_chatexport.operators.params import run_inputs, window_end
from airflow_provider_chatexport.triggers.export import BACKSTOP

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

# A worker's clock may be behind the scheduler's: the end of a window that is to come so soon is waited for.
MAX_AHEAD: Final = timedelta(minutes=5)


def window_of(operator: Any, context: Context) -> Window:
    """The run's window, with what is looked back at.

    :raises WindowError: the run has no usable window; the sentence names the fix.
    """
    asked = run_inputs(context)
    window = resolve(
        WindowSources(
            arguments=(window_end(operator.since, "since"), window_end(operator.until, "until")),
            conf=(window_end(asked.get("since"), "since"), window_end(asked.get("until"), "until")),
            data_interval=(context.get("data_interval_start"), context.get("data_interval_end")),
            partition=(context.get("partition_date"), operator.partition_span),
            zone=_zone_of(context),
        )
    )
    if window.until > datetime.now(UTC) + MAX_AHEAD and not operator.allow_open_window:
        raise WindowError(
            f"the window {window} ends in the future, so an export would not have all of it; run later, give an "
            "until that has passed, or set allow_open_window=True"
        )
    return window.looking_back(operator.lookback)


def wait_out(operator: Any, until: datetime) -> None:
    """Waits until the window's end is ``grace_period`` old: messages may still be on their way.

    :raises TaskDeferred: the task goes on in the operator's ``execute_after_grace_period``.
    """
    if operator.allow_open_window:
        return
    default = timedelta(seconds=configured_s("grace_period_s"))
    moment = until + (default if operator.grace_period is None else operator.grace_period)
    wait_s = (moment - datetime.now(UTC)).total_seconds()
    if wait_s <= 0:
        return
    log.info("waiting for the window to settle until=%s", moment.isoformat())
    if operator.deferrable:
        timeout = timedelta(seconds=wait_s) + BACKSTOP
        operator.defer(trigger=DateTimeTrigger(moment), method_name="execute_after_grace_period", timeout=timeout)
    time.sleep(wait_s)


def _zone_of(context: Context) -> tzinfo:
    """Where the schedule's days begin and end: Airflow tells a partition's date in UTC, whatever the timetable's is."""
    timetable = getattr(context.get("dag"), "timetable", None)
    # The timetable of the DAG file's own world has it in the open, the scheduler's has it as text or hides it.
    zone = getattr(timetable, "timezone", None) or getattr(timetable, "_timezone", None)
    if isinstance(zone, str):
        zone = ZoneInfo(zone)
    return zone if isinstance(zone, tzinfo) else UTC
