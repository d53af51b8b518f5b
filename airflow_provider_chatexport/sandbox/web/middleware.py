"""Between the socket and the app: records every request, and spoils those that a fault is set for.

Plain ASGI, because it sees and stops single messages. Closing a connection in the middle of an answer needs the
transport, which ASGI does not have: ``TransportProtocol`` is uvicorn's own protocol that puts it into the scope.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import deque
from collections.abc import MutableMapping
from email.utils import formatdate
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_provider_chatexport.sandbox.clock import Clock
from airflow_provider_chatexport.sandbox.exports.file_host import expired, status_error
from airflow_provider_chatexport.sandbox.web.faults import FILE_HOST_PATH, Do, Fault, Faults
from airflow_provider_chatexport.sandbox.web.rate_limits import Quota
from airflow_provider_chatexport.sandbox.web.request_log import CONTROL_PATH, RecordedRequest
from airflow_provider_chatexport.sandbox.web.responses import CODE_OF_STATUS, ApiCode, ApiError, error_reply

TRANSPORT: Final = "chatexport.transport"


class TransportProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with the connection's transport in the scope, under ``extensions``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Disable Nagle's algorithm and give the app the transport."""
        super().connection_made(transport)
        # asyncio does this only for listeners that were made with an explicit protocol number, and ours is not: without
        # it every answer waits 40 ms for the acknowledgement of its own headers (measured).
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        app = self.app

        async def app_with_transport(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            scope.setdefault("extensions", {})[TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = app_with_transport


class FaultMiddleware:
    """The outermost layer. Control calls pass through it without a fault and without a record."""

    def __init__(self, app: ASGIApp, faults: Faults, clock: Clock, requests: deque[RecordedRequest]) -> None:
        self._app = app
        self._faults = faults
        self._clock = clock
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"].startswith(f"{CONTROL_PATH}/"):
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        fault = self._faults.take_for_answer(method, path)
        request = RecordedRequest(
            method=method,
            path=path,
            headers=tuple(sorted(name.decode("latin-1") for name, _ in scope["headers"])),
            fault=fault.kind.value if fault else None,
        )
        self._requests.append(request)

        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                date = formatdate(self._clock.now_s(), usegmt=True).encode()
                message = {**message, "headers": [*message.get("headers", ()), (b"date", date)]}
            await send(message)

        try:
            if fault is None:
                await self._app(scope, receive, send_and_record)
            else:
                await self._spoil(fault, scope, receive, send_and_record)
        except asyncio.CancelledError:
            # The server stops and has waited long enough: clients lose their connections, as when a real one goes down.
            await _hang_up(scope, receive)

    async def _spoil(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        match fault.kind:
            case Do.STATUS:
                await self._error_answer(scope["path"], int(fault.amount))(scope, receive, send)
            case Do.BUDGET:
                await self._budget_answer()(scope, receive, send)
            case Do.EXPIRE:
                await expired()(scope, receive, send)
            case Do.DROP:
                await _hang_up(scope, receive)
            case Do.DROP_AFTER_ACCEPT:
                await self._app(scope, receive, _discard)
                await _hang_up(scope, receive)
            case Do.TRUNCATE:
                truncated = _Truncated(send, scope, int(fault.amount))
                await self._app(scope, receive, truncated)
                if truncated.done:
                    await _hang_up(scope, receive)
            case Do.CORRUPT:
                await self._app(scope, receive, lambda message: send(_corrupted(message)))
            case Do.SLOW:
                await self._app(scope, receive, _late(send, fault.amount))
            case Do.FAIL_TASK | Do.STALL_TASK:
                # take_for_answer() never returns these: they apply where a task is created.
                raise AssertionError(fault.do)

    def _error_answer(self, path: str, status: int) -> ASGIApp:
        if path.startswith(FILE_HOST_PATH):
            return status_error(status)
        headers = {}
        if status == 429:
            quota = Quota(limit=60, remaining=0, reset_epoch_s=math.ceil(self._clock.now_s()) + 1)
            headers = {"retry-after": "1", **quota.headers()}
        code = CODE_OF_STATUS.get(status, ApiCode.INTERNAL if status >= 500 else ApiCode.INPUT)
        return error_reply(ApiError(status, code, f"fault: status {status}"), headers=headers)

    def _budget_answer(self) -> ASGIApp:
        """Return the refusal of an app that has used up its database time ("API Budget").

        Most requests of the rate limit are left, and it resets much later: a client that waited for that would be late.
        """
        quota = Quota(limit=10_000, remaining=9_990, reset_epoch_s=math.ceil(self._clock.now_s()) + 3600)
        budget = {"x-budget-used-ms": "60250", "x-budget-limit-ms": "60000", "x-budget-remaining-ms": "0"}
        error = ApiError(429, ApiCode.RATE_LIMIT, "fault: the API budget is used up")
        return error_reply(error, headers={"retry-after": "1", **quota.headers(), **budget})


def _transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport = scope["extensions"][TRANSPORT]
    return transport


async def _hang_up(scope: Scope, receive: Receive) -> None:
    """Close the connection, and return when uvicorn knows: it would write an answer of its own otherwise."""
    _transport(scope).close()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _discard(message: Message) -> None:
    """Send nothing."""


class _Truncated:
    """Sends the first ``n_bytes`` of a body that is declared longer, then closes the connection."""

    def __init__(self, send: Send, scope: Scope, n_bytes: int) -> None:
        self._send = send
        self._scope = scope
        self._left_bytes = n_bytes
        self.done = False

    async def __call__(self, message: Message) -> None:
        if self.done:
            return
        body: bytes = message.get("body", b"")
        if len(body) <= self._left_bytes:
            self._left_bytes -= len(body)
            await self._send(message)
            return
        self.done = True
        await self._send({**message, "body": body[: self._left_bytes], "more_body": True})
        _transport(self._scope).close()


def _corrupted(message: Message) -> Message:
    """Return the message with one byte wrong in the middle: its highest bit, so that text is no longer UTF-8."""
    body: bytes = message.get("body", b"")
    if not body:
        return message
    middle = len(body) // 2
    return {**message, "body": body[:middle] + bytes([body[middle] ^ 0x80]) + body[middle + 1 :]}


def _late(send: Send, seconds: float) -> Send:
    async def send_late(message: Message) -> None:
        if message["type"] == "http.response.start":
            await asyncio.sleep(seconds)
        await send(message)

    return send_late
