"""Two thin drivers over ``protocol``: one for a worker, one for a triggerer.

They speak through httpx's transports rather than its clients. A client logs the URL of every request at INFO, and ours
hold the API key; it also follows the environment's cookies and redirects, of which this API has none.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx
from tenacity import AsyncRetrying, Retrying

from airflow_provider_chatexport.api import protocol
from airflow_provider_chatexport.api.download import Downloaded, ProgressCallback, download
from airflow_provider_chatexport.api.error_replies import Reply
from airflow_provider_chatexport.api.protocol import Call
from airflow_provider_chatexport.api.retry import RetryPolicy
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.api.transport import transport_options
from airflow_provider_chatexport.core.discovery import ChannelPage, ChannelQuery, ChannelSearch, FoundChannel
from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid, UsersRequest
from airflow_provider_chatexport.core.task import TaskId, TaskState
from airflow_provider_chatexport.errors import ServiceUnavailableError, UnexpectedReplyError

log = logging.getLogger(__name__)

# Replies of this API are a few KB, a page of 30 channels some hundreds. What is larger comes from something else.
MAX_REPLY_BYTES: Final = 32 * 1024 * 1024

_T = TypeVar("_T")


class ChatExportClient:
    """The service over a blocking connection pool. Use as a context manager, or close.

    :param deadline_epoch_s: unix seconds, after which nothing is tried once more.
    """

    def __init__(self, settings: ServiceSettings, *, deadline_epoch_s: float = math.inf) -> None:
        self.settings = settings
        self._deadline_epoch_s = deadline_epoch_s
        self._transport = httpx.HTTPTransport(**transport_options(settings, settings.base_url))

    def submit_channels(self, request: ChannelsRequest) -> TaskId:
        """Start a channel export. :raises ServiceError: after the last attempt."""
        return self._run(protocol.submit_channels(request))

    def submit_users(self, request: UsersRequest) -> TaskId:
        """Start a users export. :raises ServiceError: after the last attempt."""
        return self._run(protocol.submit_users(request))

    def task(self, task_id: TaskId) -> TaskState:
        """An export's status, with a fresh link if it is completed. :raises ServiceError: after the last attempt."""
        return self._run(protocol.get_task(task_id, self.settings))

    def download(self, task_id: TaskId, target: Path, *, progress: ProgressCallback | None = None) -> Downloaded:
        """The file of a completed export. Raises as ``download.download`` does, which this is."""
        return download(self, task_id, target, progress=progress)

    def query_channels(self, page: ChannelPage) -> tuple[FoundChannel, ...]:
        """One page of channels. :raises ServiceError: after the last attempt."""
        return self._run(protocol.query_channels(page))

    def find_channels(self, query: ChannelQuery) -> Iterator[Cid]:
        """All channels that a query finds, each once, a page at a time. :raises ServiceError: as ``query_channels``."""
        search = ChannelSearch(query)
        while page := search.next_page:
            yield from search.saw(self.query_channels(page))

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, call: Call[_T]) -> _T:
        patience = RetryPolicy(self.settings, starts_export=call.starts_export, deadline_epoch_s=self._deadline_epoch_s)
        value: _T = Retrying(**patience.options())(self._once, call)
        return value

    def _once(self, call: Call[_T]) -> _T:
        request = protocol.sign(call, self.settings, now_epoch_s=time.time())
        try:
            response = self._transport.handle_request(request)
            try:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += checked_size(chunk, len(body), call, self.settings)
            finally:
                response.close()
        except (httpx.HTTPError, OSError) as error:
            raise no_answer(error, call, self.settings) from None
        return protocol.read_reply(call, _reply(response, body), self.settings, now_epoch_s=time.time())


class AsyncChatExportClient:
    """The service over asyncio. Use as an async context manager, or ``await aclose()``."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self._transport = httpx.AsyncHTTPTransport(**transport_options(settings, settings.base_url))

    async def submit_channels(self, request: ChannelsRequest) -> TaskId:
        """Start a channel export. :raises ServiceError: after the last attempt."""
        return await self._run(protocol.submit_channels(request))

    async def submit_users(self, request: UsersRequest) -> TaskId:
        """Start a users export. :raises ServiceError: after the last attempt."""
        return await self._run(protocol.submit_users(request))

    async def task(self, task_id: TaskId) -> TaskState:
        """An export's status, with a fresh link if it is completed. :raises ServiceError: after the last attempt."""
        return await self._run(protocol.get_task(task_id, self.settings))

    async def query_channels(self, page: ChannelPage) -> tuple[FoundChannel, ...]:
        """One page of channels. :raises ServiceError: after the last attempt."""
        return await self._run(protocol.query_channels(page))

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, call: Call[_T]) -> _T:
        patience = RetryPolicy(self.settings, starts_export=call.starts_export)
        return await AsyncRetrying(**patience.options())(self._once, call)

    async def _once(self, call: Call[_T]) -> _T:
        request = protocol.sign(call, self.settings, now_epoch_s=time.time())
        try:
            response = await self._transport.handle_async_request(request)
            try:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += checked_size(chunk, len(body), call, self.settings)
            finally:
                await response.aclose()
        except (httpx.HTTPError, OSError) as error:
            raise no_answer(error, call, self.settings) from None
        return protocol.read_reply(call, _reply(response, body), self.settings, now_epoch_s=time.time())


def no_answer(error: Exception, call: Call[Any], settings: ServiceSettings) -> ServiceUnavailableError:
    """The error for a request that got no whole answer. ``reply_lost``: the service may have acted on it."""
    never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError))
    if isinstance(error, httpx.TimeoutException):
        limit = {httpx.ConnectTimeout: "connect", httpx.PoolTimeout: "pool", httpx.WriteTimeout: "write"}
        phase = limit.get(type(error), "read")
        what = f"no answer from {settings.host} within the {phase} time-out"
        cure = f"try again later, or raise {phase}_timeout_s"
    elif never_sent:
        what = f"{settings.host} cannot be reached ({type(error).__name__})"
        cure = "check the address, the proxy and the network"
    else:
        what = f"the connection to {settings.host} was lost ({type(error).__name__})"
        cure = "try again later"
    return ServiceUnavailableError(f"{call.doing} failed: {what}; {cure}", reply_lost=not never_sent)


def checked_size(chunk: bytes, size_so_far_bytes: int, call: Call[Any], settings: ServiceSettings) -> bytes:
    """:raises UnexpectedReplyError: with this chunk the reply is larger than any that the API has."""
    if size_so_far_bytes + len(chunk) > MAX_REPLY_BYTES:
        raise UnexpectedReplyError(
            f"{call.doing} failed: the reply of {settings.host} is larger than {MAX_REPLY_BYTES >> 20} MB; check that "
            "the address is the chat API's"
        )
    return chunk


def _reply(response: httpx.Response, body: bytearray) -> Reply:
    return Reply(status=response.status_code, headers=dict(response.headers), body=bytes(body))
