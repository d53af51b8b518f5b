"""The operator that lists what a lake does not cover, for export tasks that are mapped over it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_chatexport.core.arguments import (
    GIVE_LAKE,
    check_window_end,
    parse_duration,
    parse_names,
    require_text,
)
from airflow_provider_chatexport.core.plan import A_CHANNEL
from airflow_provider_chatexport.core.retention import RetentionArgument, parse_retention
from airflow_provider_chatexport.core.window import parse_moment
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.config import configured_s
from airflow_provider_chatexport.hooks.exceptions import as_airflow_errors, checked_arguments
from airflow_provider_chatexport.hooks.lake_storage import lake_filesystem, path_text
from airflow_provider_chatexport.operators.channels import (
    DEFAULT_CHANNELS_PER_TASK,
    Channels,
    ChannelsArgument,
    check_channels_per_task,
)
from airflow_provider_chatexport.operators.params import run_inputs
from airflow_provider_chatexport.operators.windowed import known_retention

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_chatexport.core.plan import Cid
    from airflow_provider_chatexport.sync import MissingWindow

log = logging.getLogger(__name__)


class ListGapsOperator(ChannelsArgument):
    """List what a lake does not cover up to the run, for export and load tasks that are mapped over it.

    A DAG with it repairs itself: after an outage, a failed month or a change of the channels, its next run exports what
    is missing, and nothing else. Returns a list of arguments for ``ExportChannelsOperator``, the oldest window first::

        @task_group
        def missing(channels, window, since, until):
            export = ExportChannelsOperator(
                task_id="export", channels=channels, window=window, since=since, until=until
            )
            export >> LoadExportOperator(task_id="load", exports=export.output, lake=LAKE)

        gaps = ListGapsOperator(task_id="gaps", lake=LAKE, channels=["team:x"])
        missing.expand_kwargs(gaps.output)

    Set ``max_active_runs=1`` for the DAG: two runs at once would export the same. The list is computed from the lake's
    records, which a retry reads again.

    :param lake: address of the lake. (templated)
    :param lake_conn_id: a connection through which the lake is reached, such as ``aws_default``, as for Airflow's
        ``ObjectStoragePath``. Default: the environment of the worker. (templated)
    :param channels: as for ``ExportChannelsOperator``. Without any, the channels that the lake covers somewhere.
    :param extra_channels: channels to add. (templated)
    :param since: start of what the lake should cover, as a datetime or as ISO 8601 text with an offset. Default:
        ``since`` of the run's conf or params, else the first covered moment of each channel, and the whole history of a
        channel that the lake does not know. (templated)
    :param until: end of what the lake should cover, likewise. Default: ``until`` of the run's conf or params, else the
        end of the run's data interval, else now without the grace period. (templated)
    :param lookback: list also this much before each gap, so that late edits, deletes and reactions are exported again.
        It is in one window with the start of the gap: if that fails, the next list has both again.
    :param max_window: split what is missing into windows of this length. A lookback comes on top of the first one of a
        gap. A whole history is not split.
    :param grace_period: how long messages may be on their way. An export of an open window, or of the whole history,
        does not count for the last ``grace_period`` before it was made. Default: ``grace_period_s`` in section
        ``[chatexport]`` of Airflow's configuration, 60 seconds.
    :param retention: how long the service keeps messages, by the app's retention policies: a duration such as ``30d``,
        or ``service`` to ask it. What lies before is not listed, because no export can cover it any more. Load with the
        same ``retention``.
    :param channels_per_task: the most channels of a window.
    :param chatexport_conn_id: a connection of type ``chatexport``, for channel queries and to ask for retention
        policies. (templated)
    """

    template_fields: Sequence[str] = (
        *ChannelsArgument.template_fields,
        "lake",
        "lake_conn_id",
        "since",
        "until",
        "chatexport_conn_id",
    )
    ui_color = "#eeeeff"

    def __init__(
        self,
        *,
        lake: str | Path,
        lake_conn_id: str | None = None,
        channels: Channels = None,
        extra_channels: Iterable[str] | str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        lookback: timedelta | float | None = None,
        max_window: timedelta | float | None = None,
        grace_period: timedelta | float | None = None,
        retention: RetentionArgument = None,
        channels_per_task: int = DEFAULT_CHANNELS_PER_TASK,
        chatexport_conn_id: str = ChatExportHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(channels=channels, extra_channels=extra_channels, **kwargs)
        with checked_arguments():
            self.lookback = parse_duration(lookback, "lookback") or timedelta(0)
            self.max_window = parse_duration(max_window, "max_window")
            self.grace_period = parse_duration(grace_period, "grace_period")
            self.retention = parse_retention(retention)
            self.channels_per_task = check_channels_per_task(channels_per_task)
        self.lake = path_text(lake)
        self.lake_conn_id = lake_conn_id
        self.since = since
        self.until = until
        self.chatexport_conn_id = chatexport_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the arguments of the export tasks; an empty list if nothing is missing."""
        # This imports duckdb and pyarrow. A DAG file that only names the operator must not load them.
        from airflow_provider_chatexport import sync  # noqa: PLC0415

        with as_airflow_errors():
            lake = require_text(self.lake, "lake", GIVE_LAKE)
            grace_period = (
                timedelta(seconds=configured_s("grace_period_s")) if self.grace_period is None else self.grace_period
            )
            retention, now = None, datetime.now(UTC)
            if self.retention is not None:
                retention, now = known_retention(self.retention, self.chatexport_conn_id)
            since, until = self._end(context, "since"), self._end(context, "until")
            if until is None and (interval_end := context.get("data_interval_end")) is not None:
                until = parse_moment(interval_end, "the end of the run's data interval")
            sync_plan = sync.plan(
                lake,
                self._channels_if_any(context),
                storage=lake_filesystem(lake, self.lake_conn_id),
                extra_channels=parse_names(self.extra_channels, "extra_channels", A_CHANNEL),
                since=since,
                until=now - grace_period if until is None else min(until, now),
                lookback=self.lookback,
                max_window=self.max_window,
                grace_period=grace_period,
                retention=retention,
                now=now,
                max_channels=self.channels_per_task,
            )
            n_windows, n_most = len(sync_plan.windows), conf.getint("core", "max_map_length")
            if n_windows > n_most:
                raise CallError(
                    f"{n_windows} windows are missing, and Airflow maps {n_most} tasks at most ([core] "
                    "max_map_length); set a longer max_window, more channels_per_task, or a later since"
                )
        log.info("gaps listed channels=%d windows=%d until=%s", len(sync_plan.channels), n_windows, sync_plan.until)
        return [_arguments(missing) for missing in sync_plan.windows]

    def _channels_if_any(self, context: Context) -> list[Cid] | None:
        """Return the channels that were asked for; None if the lake's own are meant."""
        is_open = self.channels is None or isinstance(self.channels, str)
        if is_open and not self.names_of_channels(context):
            return None
        return self.resolve_channels(context, None)

    def _end(self, context: Context, name: str) -> datetime | None:
        """Return one end of what the lake should cover, from the argument or from the run's conf and params."""
        for value in (getattr(self, name), run_inputs(context).get(name)):
            end = check_window_end(value, name)
            if end is not None and end not in ("", "None"):
                return parse_moment(end, name)
        return None


def _arguments(missing: MissingWindow) -> dict[str, Any]:
    """Return the arguments of an export task: always the same four, because a task group is mapped over them."""
    ends = missing.window.to_json() if missing.window else {"since": None, "until": None}
    return {"channels": list(missing.channels), "window": None if missing.window else "all", **ends}
