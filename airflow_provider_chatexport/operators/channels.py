"""Which channels a run is about: named, or found by a query at the service."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import BaseOperator, conf
from jinja2 import TemplateError

from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.core.plan import Cid, parse_cid
from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError, WindowError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.exceptions import ArgumentError, as_airflow_errors, checked_arguments
from airflow_provider_chatexport.operators.params import duration, parse_names, run_inputs
from airflow_provider_chatexport.operators.windowed import wait_out, window_of

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

Channels = Iterable[str] | str | ChannelQuery | None

# Ten exports of 25 channels. At 60 exports a minute for the whole app, more tasks do not make it faster.
DEFAULT_CHANNELS_PER_TASK: Final = 250


class ListChannelsOperator(BaseOperator):
    """List channels in batches, for export tasks that are mapped over them.

    A query is asked once the run's window has settled, where the run has one: a channel whose first message is still on
    its way would be missed.

    :param channels: channels as ``TYPE:ID``, or a ``ChannelQuery``, as ``ExportChannelsOperator`` takes them.
        (templated, also within the query)
    :param extra_channels: channels besides, such as soft-deleted ones, which no query finds. (templated)
    :param channels_per_task: how many channels a batch has at most.
    :param since: begin of the window, if it is not the run's; a query's templates know it as ``since``. (templated)
    :param until: end of the window. (templated)
    :param lookback: how far before the window will be exported again; ``since`` begins there.
    :param partition_span: as for ``ExportChannelsOperator``.
    :param grace_period: as for ``ExportChannelsOperator``.
    :param allow_open_window: do not wait for the window's end.
    :param deferrable: wait in the triggerer instead of on the worker.
    :param chatexport_conn_id: a connection of type ``chatexport``. (templated)
    """

    template_fields: Sequence[str] = ("channels", "extra_channels", "since", "until", "chatexport_conn_id")
    ui_color = "#eeeeff"

    def __init__(
        self,
        *,
        channels: Channels = None,
        extra_channels: Iterable[str] | str | None = None,
        channels_per_task: int = DEFAULT_CHANNELS_PER_TASK,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        lookback: timedelta | float | None = None,
        partition_span: timedelta | float | None = None,
        grace_period: timedelta | float | None = None,
        allow_open_window: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        chatexport_conn_id: str = ChatExportHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if channels_per_task < 1:
            raise ArgumentError(f"channels_per_task is {channels_per_task}; give a number above 0")
        with checked_arguments():
            self.lookback = duration(lookback, "lookback") or timedelta(0)
            self.partition_span = duration(partition_span, "partition_span")
            self.grace_period = duration(grace_period, "grace_period")
        self.channels = channels
        self.extra_channels = extra_channels
        self.channels_per_task = channels_per_task
        self.since = since
        self.until = until
        self.allow_open_window = allow_open_window
        self.deferrable = deferrable
        self.chatexport_conn_id = chatexport_conn_id

    def execute(self, context: Context) -> list[list[Cid]]:
        with as_airflow_errors():
            window = self._window(context)
            if window is not None and isinstance(self.channels, ChannelQuery):
                wait_out(self, window.until)
            cids = chosen_channels(self, context, window)
            if not cids and not isinstance(self.channels, ChannelQuery):
                raise CallError("there is no channel to list; name some, or give a ChannelQuery")
            n_most = conf.getint("core", "max_map_length")
            if len(cids) > self.channels_per_task * n_most:
                raise CallError(
                    f"{len(cids)} channels in batches of {self.channels_per_task} make more tasks than the {n_most} "
                    "that Airflow maps ([core] max_map_length); set channels_per_task to "
                    f"{-(-len(cids) // n_most)} or more"
                )
        log.info("channels listed channels=%d channels_per_task=%d", len(cids), self.channels_per_task)
        return [cids[start : start + self.channels_per_task] for start in range(0, len(cids), self.channels_per_task)]

    def execute_after_grace_period(self, context: Context, event: Any = None) -> list[list[Cid]]:  # noqa: ARG002
        """Where the task goes on when the end of its window is old enough."""
        return self.execute(context)

    def _window(self, context: Context) -> Window | None:
        """The run's; None where it has none, which is the export's to refuse: a list of channels can do without."""
        try:
            return window_of(self, context)
        except WindowError:
            return None


def chosen_channels(operator: Any, context: Context, window: Window | None) -> list[Cid]:
    """The channels of an operator with ``channels``, ``extra_channels`` and a connection, each once, in their order.

    :param window: what a query's templates know as ``since`` and ``until``, RFC3339 text in UTC.
    :raises CallError: one is not TYPE:ID.
    :raises ServiceError: the query could not be asked.
    """
    extra = [parse_cid(text) for text in parse_names(operator.extra_channels)]
    given = operator.channels
    if not isinstance(given, ChannelQuery):
        # A list without a channel was chosen so; text may be a template over something absent.
        is_open = given is None or isinstance(given, str)
        named = parse_names(given) or (parse_names(run_inputs(context).get("channels")) if is_open else [])
        return list(dict.fromkeys([*(parse_cid(text) for text in named), *extra]))
    conditions = _rendered(operator, given.filter_conditions, context, window)
    with ChatExportHook(operator.chatexport_conn_id).client() as client:
        found = list(client.find_channels(ChannelQuery(filter_conditions=conditions, sort=given.sort)))
    log.info("channels found channels=%d", len(found))
    return list(dict.fromkeys([*found, *extra]))


def _rendered(operator: Any, conditions: Mapping[str, Any], context: Context, window: Window | None) -> dict[str, Any]:
    """Airflow renders the fields of objects in place, which a query, being a value, does not allow."""
    ends = {} if window is None else {"since": format_rfc3339(window.since), "until": format_rfc3339(window.until)}
    try:
        rendered: dict[str, Any] = operator.render_template(dict(conditions), {**context, **ends})
    except TemplateError as error:
        raise CallError(
            f"a template in filter_conditions of the channel query cannot be rendered: {error}; the ends of the run's "
            "window, wherever it comes from, are {{ since }} and {{ until }}"
        ) from None
    return rendered
