"""Starts and stops a sandbox: in a thread for tests, or in the foreground for the command line."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self

import uvicorn

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.sandbox.chat.world import World
from airflow_provider_chatexport.sandbox.control import SandboxControl
from airflow_provider_chatexport.sandbox.service import Service
from airflow_provider_chatexport.sandbox.settings import API_KEY, API_SECRET, SandboxSettings
from airflow_provider_chatexport.sandbox.web.app import build_app
from airflow_provider_chatexport.sandbox.web.middleware import TransportProtocol

__all__ = ["Sandbox", "SandboxSettings", "serve"]

# How long the end waits for running requests: one that a fault delays must not delay the end.
GRACE_S: Final = 1


class Sandbox:
    """A sandbox in a thread of this process.

    ::

        with Sandbox(SandboxSettings(rate_limit=False)) as sandbox:
            sandbox.control.fault("drop", "/api/v2/tasks")
            ...  # clients call sandbox.url with sandbox.api_key and sandbox.api_secret

    It accepts connections from the first line of the block. ``url`` is its address, without a slash at the end.

    :param world: the chat to serve; by default the one that the settings describe.
    :raises CallError: the address is in use or not of this machine, or the settings name data that does not exist.
    """

    api_key: Final = API_KEY
    api_secret: Final = API_SECRET

    def __init__(self, settings: SandboxSettings | None = None, *, world: World | None = None) -> None:
        self._settings = settings or SandboxSettings()
        self._world = world
        self._running: contextlib.ExitStack | None = None
        self._control: SandboxControl | None = None
        self.url = ""

    @property
    def world(self) -> World:
        """The chat as it is now, control calls included.

        :raises RuntimeError: the sandbox is not running.
        """
        if self._world is None:
            raise _not_running()
        return self._world

    @property
    def control(self) -> SandboxControl:
        """Faults, requests, the clock and changes of history.

        :raises RuntimeError: the sandbox is not running.
        """
        if self._control is None:
            raise _not_running()
        return self._control

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(_listen(self._settings))
            self._world = self._world or _world(self._settings)
            service = Service.start(self._settings, self._world)
            stack.callback(service.close)
            server = _Server(service)
            thread = threading.Thread(target=server.run, args=([listener],), name="chatexport-sandbox", daemon=True)
            thread.start()
            stack.callback(server.end, thread)
            server.ready.wait()
            self.url = _url(listener)
            self._control = stack.enter_context(SandboxControl(self.url))
            self._running = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._running is not None:
            self._running.close()
            self._running = self._control = None


def serve(settings: SandboxSettings, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then return.

    :param announce: called with the URL once the server accepts connections.
    :raises CallError: the address is in use or not of this machine, or the settings name data that does not exist.
    """
    with _listen(settings) as listener:
        service = Service.start(settings, _world(settings))
        with contextlib.closing(service):
            _Server(service, when_ready=lambda: announce(_url(listener))).run([listener])


class _Server(uvicorn.Server):
    """uvicorn that says when it is ready, and to which a signal is an end and not a failure."""

    def __init__(self, service: Service, when_ready: Callable[[], None] | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                build_app(service),
                http=TransportProtocol,
                loop="asyncio",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="error",
                server_header=False,
                date_header=False,  # replies have the time of the sandbox's clock
            )
        )
        self._when_ready = when_ready
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and say so."""
        await super().startup(sockets)
        self.ready.set()
        if self._when_ready is not None:
            self._when_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM stop the server."""
        # uvicorn raises the signal again at the end, which would turn a clean end into a non-zero exit code.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # uvicorn checks for its end ten times a second and then sleeps a tenth of a second more: 45 of the 77 s that the
    # sandbox's own tests took. These two methods do the same without the waits.

    async def main_loop(self) -> None:
        """Wait for the end."""
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close all connections, and wait shortly for running requests."""
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=GRACE_S)

    def end(self, thread: threading.Thread) -> None:
        """Stop the server that runs in ``thread``, and wait for it."""
        self.should_exit = True
        thread.join()


def _world(settings: SandboxSettings) -> World:
    if settings.data is None and settings.messages is None:
        return World.shipped()
    return World.load(settings.data, settings.messages)


def _not_running() -> RuntimeError:
    return RuntimeError("the sandbox is not running; use it in a with block")


def _listen(settings: SandboxSettings) -> socket.socket:
    """Return a listening socket, so that the port is known and taken before anything else is set up."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=512)
    except OSError as problem:
        raise CallError(
            f"the sandbox cannot listen on {settings.host}:{settings.port}: {problem.strerror or problem}; "
            "choose another --port, or 0 for any free one, and a --host of this machine"
        ) from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
