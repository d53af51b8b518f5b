"""Between the socket and the app: notes every request, and spoils those that a fault is set for.

Plain ASGI, as it has to see and stop single messages. To close a connection in mid-answer it needs the transport, which
ASGI does not know: ``TransportProtocol`` is uvicorn's own protocol that puts it into the scope.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import deque
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_provider_chatexport.sandbox.clock import Clock
from airflow_provider_chatexport.sandbox.exports.file_host import expired, status_error
from airflow_provider_chatexport.sandbox.web.faults import FILE_HOST_PATH, Do, Fault, Faults
from airflow_provider_chatexport.sandbox.web.rate_limits import Quota
from airflow_provider_chatexport.sandbox.web.responses import CODE_OF_STATUS, ApiCode, ApiError, error_reply

CONTROL_PATH: Final = "/_sandbox"
TRANSPORT: Final = "chatexport.transport"


class TransportProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with the connection's transport in the scope, under ``extensions``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does this only for listeners that were made with an explicit protocol number, and ours is not: without
        # it every answer waits 40 ms for the acknowledgement of its own headers (measured).
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        app = self.app

        async def app_with_transport(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            scope.setdefault("extensions", {})[TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = app_with_transport


@dataclass(slots=True, kw_only=True)
class NotedRequest:
    """One request. ``status`` is None when the client got no answer; ``fault`` names what was done to it."""

    method: str
    path: str
    header_names: tuple[str, ...]
    status: int | None = None
    fault: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "path": self.path,
            "headers": list(self.header_names),
            "status": self.status,
            "fault": self.fault,
        }


class Wire:
    """The outermost layer. Control calls pass untouched and unnoted."""

    def __init__(self, app: ASGIApp, faults: Faults, clock: Clock, requests: deque[NotedRequest]) -> None:
        self._app = app
        self._faults = faults
        self._clock = clock
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(f"{CONTROL_PATH}/"):
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        fault = self._faults.take_for_wire(method, path)
        noted = NotedRequest(
            method=method,
            path=path,
            header_names=tuple(sorted(name.decode("latin-1") for name, _ in scope["headers"])),
            fault=fault.do.value if fault else None,
        )
        self._requests.append(noted)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                noted.status = message["status"]
            await send(message)

        try:
            if fault is None:
                await self._app(scope, receive, noting)
            else:
                await self._spoil(fault, scope, receive, noting)
        except asyncio.CancelledError:
            # The server ends and has waited long enough: the client loses its connection, as when a real one goes down.
            await _hang_up(scope, receive)

    async def _spoil(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        match fault.do:
            case Do.STATUS:
                await self._error_answer(scope["path"], int(fault.amount))(scope, receive, send)
            case Do.EXPIRE:
                await expired()(scope, receive, send)
            case Do.DROP:
                await _hang_up(scope, receive)
            case Do.DROP_AFTER_ACCEPT:
                await self._app(scope, receive, _lose)
                await _hang_up(scope, receive)
            case Do.TRUNCATE:
                cut = _Cut(send, scope, int(fault.amount))
                await self._app(scope, receive, cut)
                if cut.done:
                    await _hang_up(scope, receive)
            case Do.CORRUPT:
                await self._app(scope, receive, lambda message: send(_corrupted(message)))
            case Do.SLOW:
                await self._app(scope, receive, _late(send, fault.amount))
            case Do.FAIL_TASK | Do.STALL_TASK:
                # Those are for whoever creates tasks; take_for_wire() never hands them out.
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


def _transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport = scope["extensions"][TRANSPORT]
    return transport


async def _hang_up(scope: Scope, receive: Receive) -> None:
    """Closes the connection, and returns when uvicorn knows: it would write an answer of its own otherwise."""
    _transport(scope).close()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lose(message: Message) -> None:
    """An answer that goes nowhere."""


class _Cut:
    """Sends the first ``n_bytes`` of a body that is declared longer, then closes."""

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
    """The same with one byte wrong in the middle of each chunk: the highest bit, so that text is no longer UTF-8."""
    body: bytes = message.get("body", b"")
    if not body:
        return message
    middle = len(body) // 2
    return {**message, "body": body[:middle] + bytes([body[middle] ^ 0x80]) + body[middle + 1 :]}


def _late(send: Send, seconds: float) -> Send:
    async def late(message: Message) -> None:
        if message["type"] == "http.response.start":
            await asyncio.sleep(seconds)
        await send(message)

    return late
