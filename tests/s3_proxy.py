"""A proxy in front of an S3 server, for what networks do: requests that are late, lost, or changed on their way."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the client sent it. ``target`` is the path with the query."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Send = Callable[[Request], Reply]
# Answers a request, usually with what the server replies; None closes the connection without an answer.
Behaviour = Callable[[Request, Send], Reply | None]


@dataclass(slots=True)
class S3Proxy:
    """A running proxy. ``behaviour`` may be changed at any time; ``requests`` are those that clients sent so far."""

    url: str
    behaviour: Behaviour = lambda request, send: send(request)
    requests: list[Request] = field(default_factory=list)

    def n_of(self, *methods: str) -> int:
        return sum(request.method in methods for request in self.requests)


@contextlib.contextmanager
def in_front_of(server_port: int) -> Iterator[S3Proxy]:
    """Run a proxy while the context lasts."""

    def send(request: Request) -> Reply:
        # The host that the client signed is the proxy's, and the server accepts that.
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server_port, timeout=60)) as connection:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                connection.putheader(name, value)
            connection.endheaders(request.body)
            reply = connection.getresponse()
            return Reply(reply.status, dict(reply.getheaders()), reply.read())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self._read_body()
            changed = ("expect", "transfer-encoding", "content-length")
            headers = {name: value for name, value in self.headers.items() if name.lower() not in changed}
            headers["Content-Length"] = str(len(body))
            request = Request(self.command, self.path, headers, body)
            proxy.requests.append(request)
            reply = proxy.behaviour(request, send)
            if reply is None:
                self.close_connection = True
                return
            self.send_response_only(reply.status)
            length = str(len(reply.body)) if self.command != "HEAD" else reply.headers.get("Content-Length", "0")
            hop_by_hop = ("connection", "content-length", "transfer-encoding")
            others = {name: value for name, value in reply.headers.items() if name.lower() not in hop_by_hop}
            for name, value in {**others, "Content-Length": length}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def _read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":  # which is how Arrow uploads
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():  # trailers, up to an empty line
                pass
            return body

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 - names of the base class

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        http_server.daemon_threads = True
        proxy = S3Proxy(f"http://127.0.0.1:{http_server.server_port}")
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        try:
            yield proxy
        finally:
            http_server.shutdown()
            thread.join()


def ignoring_conditions(request: Request, send: Send) -> Reply:
    """Answer as a store does that does not know ``If-None-Match``: each such write is a success."""
    reply = send(request)
    return Reply(200, {"ETag": '"0"'}) if reply.status == HTTPStatus.PRECONDITION_FAILED else reply
