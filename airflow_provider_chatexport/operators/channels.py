"""Operators that are about channels: named ones, or those that a query finds when the task runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow.providers.common.compat.sdk import BaseOperator, conf
from jinja2 import TemplateError

from airflow_provider_chatexport.core.arguments import is_whole, parse_names
from airflow_provider_chatexport.core.discovery import RENDERED_CONDITIONS, ChannelQuery, check_rendered_conditions
from airflow_provider_chatexport.core.plan import A_CHANNEL, Cid, parse_cid
from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError, RequestRefusedError, WindowError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.exceptions import as_airflow_errors, checked_arguments
from airflow_provider_chatexport.operators.params import run_inputs
from airflow_provider_chatexport.operators.windowed import WindowedOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

Channels = Iterable[str] | str | ChannelQuery | None

# Ten exports of 25 channels. The service takes 60 exports a minute for the whole app, so more tasks are not faster.
DEFAULT_CHANNELS_PER_TASK: Final = 250


class ChannelsArgument(BaseOperator):
    """An operator that works on channels. It has a connection, ``chatexport_conn_id``.

    :param channels: channels as ``TYPE:ID``, in a list or separated by commas, or a ``ChannelQuery`` that finds them
        when the task runs. Default: ``channels`` of the run's conf or params. (templated, also inside the query)
    :param extra_channels: channels to add, such as soft-deleted ones, which no query finds. (templated)
    """

    template_fields: Sequence[str] = ("channels", "extra_channels")

    chatexport_conn_id: str

    def __init__(
        self, *, channels: Channels = None, extra_channels: Iterable[str] | str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.extra_channels = extra_channels

    def resolve_channels(self, context: Context, window: Window | None) -> list[Cid]:
        """Return the channels in their order, each once. A query is sent to the service.

        :param window: templates inside a query know its ends as ``since`` and ``until``, RFC3339 text in UTC.
        :raises CallError: a channel is not TYPE:ID, or a template cannot be rendered.
        :raises ServiceError: the query failed.
        """
        extra = [parse_cid(text) for text in parse_names(self.extra_channels, "extra_channels", A_CHANNEL)]
        if isinstance(self.channels, ChannelQuery):
            return list(dict.fromkeys([*self._find_channels(self.channels, context, window), *extra]))
        return list(dict.fromkeys([*(parse_cid(text) for text in self.names_of_channels(context)), *extra]))

    def names_of_channels(self, context: Context) -> list[str]:
        """Return the channels that are named in the argument, or else in the run's conf or params.

        :raises CallError: they are not names.
        """
        names = parse_names(self.channels, "channels", A_CHANNEL)
        # An empty list is a choice: an earlier task selected no channel. Empty text may be a template over a missing
        # value.
        if not names and (self.channels is None or isinstance(self.channels, str)):
            names = parse_names(run_inputs(context).get("channels"), "channels in the run's conf or params", A_CHANNEL)
        return names

    def _find_channels(self, query: ChannelQuery, context: Context, window: Window | None) -> list[Cid]:
        conditions = self._render_conditions(query.filter_conditions, context, window)
        made_text = f" ({RENDERED_CONDITIONS})" if conditions != dict(query.filter_conditions) else ""
        try:
            with ChatExportHook(self.chatexport_conn_id).client() as client:
                cids = list(client.find_channels(ChannelQuery(filter_conditions=conditions, sort=query.sort)))
        except RequestRefusedError as error:
            raise RequestRefusedError(f"{error.message}{made_text}", **error.facts) from None
        log.info("channels found channels=%d", len(cids))
        return cids

    def _render_conditions(
        self, conditions: Mapping[str, Any], context: Context, window: Window | None
    ) -> dict[str, Any]:
        """Return the conditions with their templates rendered.

        Airflow renders the fields of an object in place; a query is immutable.

        :raises CallError: a template cannot be rendered, or made text where the service takes a list or an object.
        """
        ends = {} if window is None else {"since": format_rfc3339(window.since), "until": format_rfc3339(window.until)}
        variables: Any = {**context, **ends}
        try:
            rendered: dict[str, Any] = self.render_template(dict(conditions), variables)
        except TemplateError as error:
            raise CallError(
                f"a template in filter_conditions of the channel query cannot be rendered: {error}; the ends of the "
                "run's window are {{ since }} and {{ until }}, whatever the window comes from"
            ) from None
        check_rendered_conditions(conditions, rendered)
        return rendered


def check_channels_per_task(number: int) -> int:
    """Return the number of channels of a task.

    :raises CallError: it is not a whole number above 0.
    """
    if not is_whole(number, least=1):
        raise CallError(f"channels_per_task is {number!r}; give a whole number above 0")
    return number


class ListChannelsOperator(ChannelsArgument, WindowedOperator):
    """List channels in batches, for export tasks that are mapped over them.

    Returns a list of lists of ``TYPE:ID``. A query runs after the grace period of the run's window: before that, a
    channel whose first message is still on its way would be missed. Named channels need no window.

    Takes the arguments of ``ChannelsArgument`` (channels) and ``WindowedOperator`` (the window), and:

    :param channels_per_task: the most channels in a batch.
    :param deferrable: wait in the triggerer instead of on the worker.
    :param chatexport_conn_id: a connection of type ``chatexport``. (templated)
    """

    template_fields: Sequence[str] = (
        *ChannelsArgument.template_fields,
        *WindowedOperator.template_fields,
        "chatexport_conn_id",
    )
    ui_color = "#eeeeff"

    def __init__(
        self,
        *,
        channels: Channels = None,
        extra_channels: Iterable[str] | str | None = None,
        channels_per_task: int = DEFAULT_CHANNELS_PER_TASK,
        window: Literal["all"] | None = None,
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
            self.channels_per_task = check_channels_per_task(channels_per_task)
        self.deferrable = deferrable
        self.chatexport_conn_id = chatexport_conn_id

    def execute(self, context: Context) -> list[list[Cid]]:
        """Return the batches.

        :raises TaskDeferred: a query waits for the grace period of the window.
        """
        with as_airflow_errors():
            window = self._window_if_any(context)
            is_query = isinstance(self.channels, ChannelQuery)
            if window is not None and is_query:
                self.wait_out_grace_period(context)
            cids = self.resolve_channels(context, window)
            if not cids and not is_query:
                raise CallError("there is no channel to list; name some, or give a ChannelQuery")
            n_most = conf.getint("core", "max_map_length")
            if len(cids) > self.channels_per_task * n_most:
                raise CallError(
                    f"{len(cids)} channels in batches of {self.channels_per_task} need more tasks than the {n_most} "
                    "that Airflow maps ([core] max_map_length); set channels_per_task to "
                    f"{-(-len(cids) // n_most)} or more"
                )
        log.info("channels listed channels=%d channels_per_task=%d", len(cids), self.channels_per_task)
        return [cids[start : start + self.channels_per_task] for start in range(0, len(cids), self.channels_per_task)]

    def _window_if_any(self, context: Context) -> Window | None:
        """Return the window of the run; None for the whole history, and if the export refuses the window later."""
        try:
            return self.run_window(context)
        except WindowError:
            return None
