"""Settings for the sandbox with pauses of milliseconds, clients, and servers that follow a script."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest

from airflow_provider_chatexport.api.client import AsyncChatExportClient, ChatExportClient
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid, ExportFlags
from airflow_provider_chatexport.core.task import TaskId, TaskState
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.sandbox import Sandbox

AskStatus = Callable[[ServiceSettings, TaskId], TaskState]


@pytest.fixture
def make_settings(sandbox: Sandbox) -> Callable[..., ServiceSettings]:
    """Make settings for the sandbox, with the changes that a test is about."""

    def make(**others: Any) -> ServiceSettings:
        address = {"api_key": sandbox.api_key, "api_secret": sandbox.api_secret, "base_url": sandbox.url}
        return ServiceSettings(**{"first_wait_s": 0.001, "longest_wait_s": 0.01, **address, **others})

    return make


@pytest.fixture
def settings(make_settings: Callable[..., ServiceSettings]) -> ServiceSettings:
    """Return settings for the sandbox."""
    return make_settings()


@pytest.fixture
def small_request() -> ChannelsRequest:
    """Request ten hours of one channel: the file has some hundred KB, so that tests stay quick."""
    window = Window.parse("2025-01-01T00:00:00Z", "2025-01-01T10:00:00Z")
    return ChannelsRequest(channels=(Cid("livestream:ubuntu"),), window=window, flags=ExportFlags())


@pytest.fixture
def client(settings: ServiceSettings) -> Iterator[ChatExportClient]:
    """Open a blocking client of the sandbox."""
    with ChatExportClient(settings) as client:
        yield client


@pytest.fixture
def task_id(client: ChatExportClient, small_request: ChannelsRequest) -> TaskId:
    """Submit an export; it may still be running."""
    return client.submit_channels(small_request)


@pytest.fixture(params=["sync", "async"])
def ask_status(request: pytest.FixtureRequest) -> AskStatus:
    """Ask for an export's status through a fresh client. Both drivers must behave alike, so tests run over each."""

    def with_sync(settings: ServiceSettings, task_id: TaskId) -> TaskState:
        with ChatExportClient(settings) as client:
            return client.task(task_id)

    def with_async(settings: ServiceSettings, task_id: TaskId) -> TaskState:
        async def run() -> TaskState:
            async with AsyncChatExportClient(settings) as client:
                return await client.task(task_id)

        return asyncio.run(run())

    return with_sync if request.param == "sync" else with_async


Answer = tuple[int, dict[str, str], bytes]  # status, headers, body


class ScriptedServer:
    """A server for behaviour that the sandbox does not have.

    ``answer`` takes the path and the headers of a request. ``requests`` collects both of all requests, and
    ``n_connections`` is how many connections are open.

    :param answers_per_connection: keep connections, and close each at the request after so many answers, without an
        answer: so a client sees a connection that the server closes while the request is on its way. None closes
        connections after an answer.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, answers_per_connection: int | None = None) -> None:
        self.answer: Callable[[str, dict[str, str]], Answer] = lambda _path, _headers: (404, {}, b"")
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.n_connections = 0
        script, counting = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            n_answers = 0

            def handle(self) -> None:
                """Answer the requests of a connection, until the client closes it: perhaps before an answer."""
                with counting:
                    script.n_connections += 1
                try:
                    with contextlib.suppress(ConnectionError):
                        super().handle()
                finally:
                    with counting:
                        script.n_connections -= 1

            def do_GET(self) -> None:
                """Answer as the script says."""
                self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                script.requests.append((self.path, headers))
                self.close_connection = self.n_answers == answers_per_connection
                if self.close_connection:
                    return
                self.n_answers += 1
                status, answer_headers, body = script.answer(self.path, headers)
                self.send_response_only(status)
                usual = {"date": self.date_time_string(), "content-length": str(len(body))}
                for name, value in (usual | answer_headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = answers_per_connection is None

            do_POST = do_GET  # noqa: N815 - a name of the base class

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
                """Keep stderr clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def scripted_server() -> Iterator[Callable[..., ScriptedServer]]:
    """Start scripted servers that stop with the test."""
    with contextlib.ExitStack() as running:
        yield lambda **arguments: running.enter_context(ScriptedServer(**arguments))
