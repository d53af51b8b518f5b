"""Two thin drivers over ``protocol``: a blocking client for workers, an asyncio client for triggerers.

Both use httpx's transports instead of its clients. A client logs the URL of each request at INFO, and our URLs contain
the API key. A client also follows redirects and keeps cookies; this API has neither.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, TypeVar

import httpx
from tenacity import AsyncRetrying, Retrying

from airflow_provider_chatexport.api import protocol
from airflow_provider_chatexport.api.download import Downloaded, ProgressCallback, download
from airflow_provider_chatexport.api.error_replies import Reply, error_from, read_date
from airflow_provider_chatexport.api.part_file import part_file
from airflow_provider_chatexport.api.protocol import Call
from airflow_provider_chatexport.api.rate_limit import Quota, read_quota
from airflow_provider_chatexport.api.retry import RetryPolicy
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.api.transport import (
    KEPT_CONNECTIONS,
    NEW_CONNECTIONS,
    ConnectionTrace,
    transport_options,
)
from airflow_provider_chatexport.api.user_export import UserExport, save_reply
from airflow_provider_chatexport.core.discovery import ChannelPage, ChannelQuery, ChannelSearch, FoundChannel
from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid, UserId, UsersRequest
from airflow_provider_chatexport.core.retention import SERVICE, Retention, RetentionPolicy
from airflow_provider_chatexport.core.task import TaskId, TaskState
from airflow_provider_chatexport.errors import (
    NotFoundError,
    RequestRefusedError,
    ServiceUnavailableError,
    UnauthorizedError,
    UnexpectedReplyError,
)

log = logging.getLogger(__name__)

# Most replies of this API have a few KB, and a page of 30 channels has some hundred. A larger one is not of this API.
MAX_REPLY_BYTES: Final = 32 * 1024 * 1024

_T = TypeVar("_T")


class ChatExportClient:
    """A blocking client of the service. Use it as a context manager, or close it.

    Every call is repeated as ``RetryPolicy`` says and raises ``ServiceError`` after the last attempt.

    :param deadline_epoch_s: unix seconds; no attempt starts after this moment.
    """

    def __init__(self, settings: ServiceSettings, *, deadline_epoch_s: float = math.inf) -> None:
        self.settings = settings
        self._deadline_epoch_s = deadline_epoch_s
        self._service_ahead_s = 0.0
        options = transport_options(settings, settings.base_url)
        self._transport = httpx.HTTPTransport(**options, limits=KEPT_CONNECTIONS)
        self._new_connections = httpx.HTTPTransport(**options, limits=NEW_CONNECTIONS)

    def now(self) -> datetime:
        """Return the time by the service's clock, as its replies say it; by this machine's before the first reply."""
        return datetime.fromtimestamp(time.time() + self._service_ahead_s, UTC)

    def submit_channels(self, request: ChannelsRequest) -> TaskId:
        """Start a channel export."""
        return self._run(protocol.submit_channels(request))

    def submit_users(self, request: UsersRequest) -> TaskId:
        """Start a users export."""
        return self._run(protocol.submit_users(request))

    def task(self, task_id: TaskId) -> TaskState:
        """Return an export's status, with a fresh link if the export is completed."""
        return self._run(protocol.get_task(task_id, self.settings))

    def download(self, task_id: TaskId, target: Path, *, progress: ProgressCallback | None = None) -> Downloaded:
        """Download the file of a completed export, as ``download.download`` does."""
        return download(self, task_id, target, progress=progress)

    def export_user(self, user_id: UserId, target: Path, *, progress: ProgressCallback | None = None) -> UserExport:
        """Export one user at once, without a task, and write the reply to ``target``.

        Every attempt starts from the beginning, because the service makes a new reply.

        :raises RequestRefusedError: the service does not know the user, or the user has more than 10,000 messages or
            reactions (``is_too_large_a_user``).
        :raises DownloadError: the file cannot be written.
        """
        call = protocol.export_user(user_id)
        with part_file(target, what=f"the export of user {user_id[:64]}") as file:
            export: UserExport = self._retrying(call)(self._save_once, call, file, target, progress)
        log.info("export of one user saved bytes=%d", export.size_bytes)
        return export

    def query_channels(self, page: ChannelPage) -> tuple[FoundChannel, ...]:
        """Return one page of channels."""
        return self._run(protocol.query_channels(page))

    def find_channels(self, query: ChannelQuery) -> Iterator[Cid]:
        """Yield each channel that matches a query once, one request per page."""
        search = ChannelSearch(query)
        while page := search.next_page:
            yield from search.record_page(self.query_channels(page))

    def retention_policy(self) -> tuple[RetentionPolicy, ...]:
        """Return the app's retention policies: what the service deletes for good."""
        return self._run(protocol.retention_policy())

    def retention(self) -> Retention:
        """Return how long the service keeps messages, by the app's retention policies.

        :raises RequestRefusedError: the service does not say. The message says what to do instead of asking it.
        :raises UnauthorizedError: the service refuses the key or the secret.
        """
        try:
            return Retention.by(self.retention_policy())
        except (UnauthorizedError, NotFoundError, RequestRefusedError, UnexpectedReplyError) as error:
            if error.http_status == 401:
                raise
            raise RequestRefusedError(
                f'{error.message}. The service does not say how long it keeps messages, which retention="{SERVICE}" '
                'asks for; write the shortest age of the app\'s retention policies instead, such as retention="30d"',
                http_status=error.http_status,
                code=error.code,
            ) from None

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()
        self._new_connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, call: Call[_T]) -> _T:
        value: _T = self._retrying(call)(self._once, call)
        return value

    def _retrying(self, call: Call[Any]) -> Retrying:
        policy = RetryPolicy(self.settings, starts_export=call.starts_export, deadline_epoch_s=self._deadline_epoch_s)
        return Retrying(**policy.options())

    def _once(self, call: Call[_T]) -> _T:
        request = protocol.sign(call, self.settings, now_epoch_s=time.time())
        try:
            response = self._send(request, call)
            try:
                body = self._read_body(response, call)
            finally:
                response.close()
            if (date_epoch_s := read_date(response.headers)) is not None:
                self._service_ahead_s = date_epoch_s - time.time()
        except (httpx.HTTPError, OSError) as error:
            raise _no_answer_error(error, call, self.settings) from None
        return protocol.read_reply(call, _reply(response, body), self.settings, now_epoch_s=time.time())

    def _save_once(
        self, call: Call[Any], file: BinaryIO, target: Path, progress: ProgressCallback | None
    ) -> UserExport:
        request = protocol.sign(call, self.settings, now_epoch_s=time.time())
        try:
            response = self._send(request, call)
            try:
                if response.is_success:
                    return save_reply(response, call, self.settings, file, target, progress)
                body = self._read_body(response, call)
            finally:
                response.close()
        except httpx.HTTPError as error:  # an OSError here is one of the disk
            raise _no_answer_error(error, call, self.settings) from None
        raise error_from(_reply(response, body), doing=call.doing, settings=self.settings, now_epoch_s=time.time())

    def _send(self, request: httpx.Request, call: Call[Any]) -> httpx.Response:
        """Send a request, and send it again if it met a kept connection that the server had closed."""
        trace = ConnectionTrace()
        request.extensions["trace"] = trace.note
        try:
            return self._transport.handle_request(request)
        except (httpx.TransportError, OSError) as error:
            # The service may have accepted an export all the same: the retry policy repeats that, and says so.
            if call.starts_export or not trace.is_stale(error):
                raise
        return self._new_connections.handle_request(request)

    def _read_body(self, response: httpx.Response, call: Call[Any]) -> bytearray:
        body = bytearray()
        for chunk in response.iter_bytes():
            _check_size(len(body) + len(chunk), call, self.settings)
            body += chunk
        return body


class AsyncChatExportClient:
    """An asyncio client that asks for status, for triggerers. Use it as a context manager, or ``await aclose()``.

    ``quota`` is what the last reply said about the rate limit of status requests.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.quota: Quota | None = None
        options = transport_options(settings, settings.base_url)
        self._transport = httpx.AsyncHTTPTransport(**options, limits=KEPT_CONNECTIONS)
        self._new_connections = httpx.AsyncHTTPTransport(**options, limits=NEW_CONNECTIONS)

    async def task(self, task_id: TaskId) -> TaskState:
        """Return an export's status, with a fresh link if the export is completed."""
        return await self._run(protocol.get_task(task_id, self.settings))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()
        await self._new_connections.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, call: Call[_T]) -> _T:
        policy = RetryPolicy(self.settings, starts_export=call.starts_export)
        return await AsyncRetrying(**policy.options())(self._once, call)

    async def _once(self, call: Call[_T]) -> _T:
        request = protocol.sign(call, self.settings, now_epoch_s=time.time())
        try:
            response = await self._send(request, call)
            try:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    _check_size(len(body) + len(chunk), call, self.settings)
                    body += chunk
            finally:
                await response.aclose()
        except (httpx.HTTPError, OSError) as error:
            raise _no_answer_error(error, call, self.settings) from None
        reply, now_epoch_s = _reply(response, body), time.time()
        self.quota = read_quota(reply.headers, now_epoch_s=now_epoch_s) or self.quota
        return protocol.read_reply(call, reply, self.settings, now_epoch_s=now_epoch_s)

    async def _send(self, request: httpx.Request, call: Call[Any]) -> httpx.Response:
        """Send a request as ``ChatExportClient`` does."""
        trace = ConnectionTrace()
        request.extensions["trace"] = trace.note_async
        try:
            return await self._transport.handle_async_request(request)
        except (httpx.TransportError, OSError) as error:
            if call.starts_export or not trace.is_stale(error):
                raise
        return await self._new_connections.handle_async_request(request)


def _no_answer_error(error: Exception, call: Call[Any], settings: ServiceSettings) -> ServiceUnavailableError:
    """Return the error for a request without a whole answer. ``reply_lost``: the service may have acted on it."""
    never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError))
    if isinstance(error, httpx.TimeoutException):
        phases = {httpx.ConnectTimeout: "connect", httpx.PoolTimeout: "pool", httpx.WriteTimeout: "write"}
        phase = phases.get(type(error), "read")
        what = f"{settings.host} did not answer within the {phase} timeout"
        remedy = f"try again later, or raise {phase}_timeout_s"
    elif never_sent:
        what = f"{settings.host} cannot be reached ({type(error).__name__})"
        remedy = "check the address, the proxy and the network"
    else:
        what = f"the connection to {settings.host} was lost ({type(error).__name__})"
        remedy = "try again later"
    return ServiceUnavailableError(f"{call.doing} failed: {what}; {remedy}", reply_lost=not never_sent)


def _check_size(size_bytes: int, call: Call[Any], settings: ServiceSettings) -> None:
    """Refuse a reply that is larger than any reply of the API.

    :raises UnexpectedReplyError: it is.
    """
    if size_bytes > MAX_REPLY_BYTES:
        raise UnexpectedReplyError(
            f"{call.doing} failed: the reply of {settings.host} is larger than {MAX_REPLY_BYTES >> 20} MB; check that "
            "this is the address of the chat API"
        )


def _reply(response: httpx.Response, body: bytearray) -> Reply:
    return Reply(status=response.status_code, headers=dict(response.headers), body=bytes(body))
