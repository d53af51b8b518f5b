"""The status requests of all waits of one app on one event loop: one client, one queue of turns.

A triggerer runs thousands of triggers on one loop. If each had a client, each would keep a socket, and none would know
how often the others ask. Here they share both. There is no task in the background: each wait sends its own requests, in
its own task. So cancelling a trigger cancels its request, and log lines have the trigger's context. What is shared is
closed when the last wait leaves. An event loop that was closed before that is forgotten.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from airflow_provider_chatexport.api.client import AsyncChatExportClient
from airflow_provider_chatexport.api.rate_limit import pace_per_second
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.api.transport import MAX_CONNECTIONS
from airflow_provider_chatexport.api.turns import Turn, TurnQueue
from airflow_provider_chatexport.core.task import TaskId, TaskState
from airflow_provider_chatexport.errors import ChatExportError, ServiceError

# If thousands of waits reach their deadline together, some get their last turn minutes later. Airflow's own time-out
# comes ten minutes after the deadline.
LAST_TURN_WITHIN_S: Final = 300.0
# One reply holds all waits, and it may come from a gateway that asks for hours. After so long the next wait asks again.
_LONGEST_HOLD_S: Final = 60.0


class StatusRequests:
    """The status requests of one wait. Use it as an asynchronous context manager.

    :param settings: how to reach the service. The client does not retry: the wait counts failures.
    :param deadline_epoch_s: unix seconds. At this moment the wait's turn comes before all others.
    """

    def __init__(self, settings: ServiceSettings, *, deadline_epoch_s: float) -> None:
        self._settings = settings.without_retries()
        self._deadline_epoch_s = deadline_epoch_s
        self._is_first = True

    async def __aenter__(self) -> Self:
        self._app = _app_of(self._settings)
        self._client = self._app.open_client(self._settings)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._app.close_client(self._settings)

    async def ask(self, task_id: TaskId, *, pause_s: float) -> TaskState:
        """Wait for a turn, and return an export's status.

        :param pause_s: after how long the turn is due, by the queue's clock. The first turn is due at once.
        :raises ServiceError: the request failed.
        :raises TimeoutError: the deadline passed some minutes ago, and there was no turn.
        """
        is_first, self._is_first = self._is_first, False
        return await self._app.ask(
            self._client, task_id, pause_s=pause_s, is_first=is_first, deadline_epoch_s=self._deadline_epoch_s
        )


class _App:
    """The client and the queue of turns that the waits of one app on one event loop share.

    :param forget: called when the last wait has left.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, forget: Callable[[], object]) -> None:
        self._loop = loop
        self._forget = forget
        self._queue = TurnQueue(per_second=pace_per_second(None), n_at_once=MAX_CONNECTIONS)
        self._waiting: dict[Turn, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        # By settings, because two connections may reach the app in different ways. Each with the number of its waits.
        self._clients: dict[ServiceSettings, tuple[AsyncChatExportClient, int]] = {}

    def open_client(self, settings: ServiceSettings) -> AsyncChatExportClient:
        """Return the client for these settings."""
        try:
            client, n_waits = self._clients.get(settings) or (AsyncChatExportClient(settings), 0)
        except ChatExportError:
            self._forget_if_unused()
            raise
        self._clients[settings] = client, n_waits + 1
        return client

    async def close_client(self, settings: ServiceSettings) -> None:
        """Close the client for these settings if this was its last wait."""
        client, n_waits = self._clients.pop(settings)
        if n_waits > 1:
            self._clients[settings] = client, n_waits - 1
            return
        self._forget_if_unused()
        await client.aclose()

    async def ask(
        self,
        client: AsyncChatExportClient,
        task_id: TaskId,
        *,
        pause_s: float,
        is_first: bool,
        deadline_epoch_s: float,
    ) -> TaskState:
        """Wait for a turn and ask, as ``StatusRequests.ask`` says."""
        now_s, left_s = self._loop.time(), max(0.0, deadline_epoch_s - time.time())
        turn = self._queue.enter(now_s, pause_s=pause_s, is_first=is_first)
        self._waiting[turn] = given = self._loop.create_future()
        at_deadline = self._loop.call_later(left_s, self._expedite, turn)
        self._give_turns()
        try:
            async with asyncio.timeout(left_s + LAST_TURN_WITHIN_S):
                await given
            state = await client.task(task_id)
        except ServiceError as error:
            if retry_after_s := getattr(error, "retry_after_s", None):
                self._queue.hold(self._loop.time() + min(retry_after_s, _LONGEST_HOLD_S))
            raise
        else:
            return state
        finally:
            at_deadline.cancel()
            self._waiting.pop(turn, None)
            self._queue.per_second = pace_per_second(client.quota)
            self._queue.end(self._loop.time(), turn)
            self._give_turns()

    def _forget_if_unused(self) -> None:
        if self._clients:
            return
        self._forget()
        self._look_at(None)

    def _expedite(self, turn: Turn) -> None:
        self._queue.expedite(self._loop.time(), turn)
        self._give_turns()

    def _give_turns(self) -> None:
        """Give the turns that may be given now, and come back for the next one."""
        now_s = self._loop.time()
        while (turn := self._queue.give(now_s)) is not None:
            given = self._waiting.pop(turn)
            # The future of a cancelled wait is done. Its turn ends when the wait's own task runs.
            if not given.done():
                given.set_result(None)
        self._look_at(self._queue.next_look_s(now_s))

    def _look_at(self, at_s: float | None) -> None:
        if self._timer is not None:
            if at_s is not None and self._timer.when() <= at_s:
                return  # it sets the next timer
            self._timer.cancel()
        self._timer = None if at_s is None else self._loop.call_at(at_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._give_turns()


_AppKey = tuple[asyncio.AbstractEventLoop, str, str]
_apps: dict[_AppKey, _App] = {}


def _app_of(settings: ServiceSettings) -> _App:
    """Return what the waits of an app share on the running event loop."""
    loop = asyncio.get_running_loop()
    for closed in [key for key in list(_apps) if key[0].is_closed()]:
        _apps.pop(closed, None)
    # The service counts requests per app, and a key belongs to one app.
    key = (loop, settings.base_url, settings.api_key)
    if key not in _apps:
        _apps[key] = _App(loop, forget=lambda: _apps.pop(key, None))
    return _apps[key]
