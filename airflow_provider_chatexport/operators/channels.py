"""Which channels a run is about: named, or found by a query at the service."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.core.plan import Cid, parse_cid
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.failures import ArgumentError, airflow_failures
from airflow_provider_chatexport.operators.params import listed, run_inputs

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

Channels = Iterable[str] | str | ChannelQuery | None

# Ten exports of 25 channels. At 60 exports a minute for the whole app, more tasks do not make it faster.
DEFAULT_CHANNELS_PER_TASK: Final = 250


class ListChannelsOperator(BaseOperator):
    """List channels in batches, for export tasks that are mapped over them.

    :param channels: channels as ``TYPE:ID``, or a ``ChannelQuery``, as ``ExportChannelsOperator`` takes them.
        (templated, also within the query)
    :param extra_channels: channels besides, such as soft-deleted ones, which no query finds. (templated)
    :param channels_per_task: how many channels a batch has at most.
    :param chatexport_conn_id: a connection of type ``chatexport``. (templated)
    """

    template_fields: Sequence[str] = ("channels", "extra_channels", "chatexport_conn_id")
    ui_color = "#eeeeff"

    def __init__(
        self,
        *,
        channels: Channels = None,
        extra_channels: Iterable[str] | str | None = None,
        channels_per_task: int = DEFAULT_CHANNELS_PER_TASK,
        chatexport_conn_id: str = ChatExportHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if channels_per_task < 1:
            raise ArgumentError(f"channels_per_task is {channels_per_task}; give a number above 0")
        self.channels = channels
        self.extra_channels = extra_channels
        self.channels_per_task = channels_per_task
        self.chatexport_conn_id = chatexport_conn_id

    def execute(self, context: Context) -> list[list[Cid]]:
        with airflow_failures():
            cids = chosen_channels(self, context)
            n_most = conf.getint("core", "max_map_length")
            if len(cids) > self.channels_per_task * n_most:
                raise CallError(
                    f"{len(cids)} channels in batches of {self.channels_per_task} make more tasks than the {n_most} "
                    "that Airflow maps ([core] max_map_length); set channels_per_task to "
                    f"{-(-len(cids) // n_most)} or more"
                )
        log.info("channels listed channels=%d channels_per_task=%d", len(cids), self.channels_per_task)
        return [cids[start : start + self.channels_per_task] for start in range(0, len(cids), self.channels_per_task)]


def chosen_channels(operator: Any, context: Context) -> list[Cid]:
    """The channels of an operator with ``channels``, ``extra_channels`` and a connection, each once, in their order.

    :raises CallError: one is not TYPE:ID.
    :raises ServiceError: the query could not be asked.
    """
    extra = [parse_cid(text) for text in listed(operator.extra_channels)]
    query = operator.channels
    if not isinstance(query, ChannelQuery):
        named = listed(query) or listed(run_inputs(context).get("channels"))
        return list(dict.fromkeys([*(parse_cid(text) for text in named), *extra]))
    # Airflow renders the fields of objects in place, which a query, being a value, does not allow.
    conditions = operator.render_template(dict(query.filter_conditions), context)
    with ChatExportHook(operator.chatexport_conn_id).client() as client:
        found = list(client.find_channels(ChannelQuery(filter_conditions=conditions, sort=query.sort)))
    log.info("channels found channels=%d", len(found))
    return list(dict.fromkeys([*found, *extra]))
