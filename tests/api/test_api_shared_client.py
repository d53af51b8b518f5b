"""What the waits of one app share on an event loop: connections, turns, and the pauses that the service asks for."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_chatexport.api.polling import ExportPoller, wait_for_exports_async
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.api.shared_client import StatusRequests
from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.errors import ConnectionSettingsError, ServiceError, TaskOverdueError

RUNNING = (200, {}, b'{"task_id":"t","status":"running","created_at":1768640897000000000}')
COMPLETED = (
    200,
    {},
    b'{"task_id":"t","status":"completed","created_at":1768640897000000000,"result":{"url":"http://files.example/t"}}',
)


@pytest.fixture
def service(scripted_server: Callable[..., Any]) -> Any:
    """Start a server that keeps connections and says that all exports are running."""
    server = scripted_server(answers_per_connection=100_000)
    server.answer = lambda _path, _headers: RUNNING
    return server


async def wait_for(service: Any, name: str, *, left_s: float = 3600.0, max_failures: int = 0, **others: Any) -> str:
    """Wait for one export; return how that ended."""
    settings = ServiceSettings(api_key="key", api_secret="s" * 32, base_url=service.url, **others)
    now_epoch_s = time.time()
    poller = ExportPoller(
        [TaskId(name)],
        started_epoch_s=now_epoch_s,
        deadline_epoch_s=now_epoch_s + left_s,
        poll_s=0.05,
        max_failures=max_failures,
    )
    try:
        await wait_for_exports_async(settings, poller)
    except (ServiceError, TaskOverdueError) as error:
        return type(error).__name__
    return "completed"


def asked(service: Any) -> list[str]:
    """Return the names of the exports that were asked for, in the order of the requests."""
    return [path.partition("?")[0].rpartition("/")[2] for path, _ in service.requests]


async def until(is_true: Callable[[], object]) -> None:
    """Return when something is true."""
    async with asyncio.timeout(60):
        while not is_true():  # noqa: ASYNC110 - the server is a thread
            await asyncio.sleep(0.01)


async def test_a_wait_whose_connection_the_server_closed_goes_on(scripted_server) -> None:
    """Not even one failure is allowed here: a connection that the server closes while it is kept must not be one."""
    service = scripted_server(answers_per_connection=1)
    service.answer = lambda _path, _headers: COMPLETED if len(service.requests) > 6 else RUNNING
    assert "completed" == await wait_for(service, "a")


async def test_a_wait_at_its_deadline_asks_before_all_others(service) -> None:
    """Three hundred waits have yet to ask: the one whose time is over must not end minutes later."""
    waits = [asyncio.ensure_future(wait_for(service, "other")) for _ in range(300)]
    await asyncio.sleep(0)
    assert "TaskOverdueError" == await wait_for(service, "late", left_s=-1.0)
    assert asked(service).index("late") < 50
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


async def test_a_pause_that_one_wait_is_asked_for_holds_the_others(service, caplog) -> None:
    """The service's limit is that of the app: each wait that asks too early only prolongs the pause."""
    answers = [(429, {"retry-after": "1"}, b'{"code":9,"message":"slow down"}')]
    service.answer = lambda _path, _headers: answers.pop() if answers else COMPLETED
    first = asyncio.ensure_future(wait_for(service, "first"))
    await until(lambda: "slow down" in caplog.text)
    refused_s = time.monotonic()
    assert "completed" == await wait_for(service, "other")
    assert time.monotonic() - refused_s > 0.5
    assert "completed" == await first


async def test_the_pace_follows_what_is_left_of_the_limit(service) -> None:
    """The limit is not documented: the replies say how many requests the app has left."""
    at_s: list[float] = []
    headers = {"x-ratelimit-remaining": "2", "x-ratelimit-reset": str(int(time.time()) + 3600)}

    def answer(_path: str, _headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        at_s.append(time.monotonic())
        return 200, headers, (COMPLETED if len(at_s) == 4 else RUNNING)[2]

    service.answer = answer
    assert "completed" == await wait_for(service, "a")
    # Without the headers, these two requests would come a tenth of a second after the one before them.
    assert at_s[3] - at_s[1] > 1.0


async def test_each_wait_counts_its_own_failures(service) -> None:
    """Waits share connections and turns, not their patience: one that allows no failure ends, the other goes on."""
    answers = [(503, {}, b""), (503, {}, b"")]
    service.answer = lambda _path, _headers: answers.pop() if answers else COMPLETED
    ends = await asyncio.gather(wait_for(service, "a"), wait_for(service, "b", max_failures=5))
    assert ["ServiceUnavailableError", "completed"] == ends


async def test_the_last_wait_closes_the_connections(service) -> None:
    """A triggerer runs for weeks: a connection that stays open after its waits is lost for good."""
    ends = [asyncio.ensure_future(wait_for(service, str(n))) for n in range(20)]
    await until(lambda: len(set(asked(service))) == 20)
    for wait in ends[:10]:
        wait.cancel()
    service.answer = lambda _path, _headers: COMPLETED
    assert ["completed"] * 10 == (await asyncio.gather(*ends, return_exceptions=True))[10:]
    await until(lambda: service.n_connections == 0)


def test_an_event_loop_that_was_closed_under_its_waits_is_forgotten(service) -> None:
    """Each loop has a client of its own: that of a closed loop must not be kept for ever."""
    loop = asyncio.new_event_loop()
    settings = ServiceSettings(api_key="key", api_secret="s" * 32, base_url=service.url)
    loop.run_until_complete(StatusRequests(settings, deadline_epoch_s=math.inf).__aenter__())
    loop.close()
    forgotten = weakref.ref(loop)
    del loop
    service.answer = lambda _path, _headers: COMPLETED
    assert "completed" == asyncio.run(wait_for(service, "b"))
    gc.collect()
    assert forgotten() is None


def test_a_wait_that_cannot_begin_leaves_nothing_behind(service, tmp_path) -> None:
    """A certificate file of a connection may be broken: that ends the wait, and keeps neither client nor loop."""
    (tmp_path / "ca.pem").write_text("not a certificate")
    loop = asyncio.new_event_loop()
    with pytest.raises(ConnectionSettingsError, match="ca_file"):
        loop.run_until_complete(wait_for(service, "a", ca_file=str(tmp_path / "ca.pem")))
    forgotten = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert forgotten() is None
