"""Turns at asking: many waiters of one app are no burst."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any

import httpx
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.api.client import AsyncChatExportClient, ChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, watch_exports_async
from airflow_provider_chatexport.api.rate_limit import LOOKS_PER_SECOND, RateLimiter, turns_of
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid
from airflow_provider_chatexport.core.window import Window


@given(st.lists(st.floats(0.0, 0.5), min_size=1, max_size=200), st.sampled_from([1.0, 10.0, 40.0]))
def test_turns_are_never_closer_than_the_rate_and_never_wasted(steps: list[float], per_second: float) -> None:
    """Whenever they come, no two get the same turn; and who comes to an empty line goes at once."""
    turns, now_s, taken = RateLimiter(per_second), 100.0, []
    for step in steps:
        now_s += step
        pause_s = turns.take(now_s)
        taken.append(now_s + pause_s)
        free_since = taken[-2] + 1 / per_second if len(taken) > 1 else 0.0
        assert abs(taken[-1] - max(now_s, free_since)) < 1e-6
    assert all(later - earlier > 1 / per_second - 1e-6 for earlier, later in pairwise(taken))


def settings_of(sandbox: Any, **others: Any) -> ServiceSettings:
    return ServiceSettings(api_key=sandbox.api_key, api_secret=sandbox.api_secret, base_url=sandbox.url, **others)


def test_the_line_is_one_per_app(sandbox) -> None:
    """Two connections to the same app share it; another app has its own limits, and its own line."""
    ours = settings_of(sandbox)
    assert turns_of(ours) is turns_of(settings_of(sandbox, max_attempts=1))
    other = ServiceSettings(api_key="another", api_secret="s" * 32, base_url=sandbox.url)
    assert turns_of(ours) is not turns_of(other)


async def test_many_waiters_of_one_app_ask_one_after_the_other(start_sandbox) -> None:
    """Thirty that begin in the same instant take as long as the common pace allows, and each is answered."""
    sandbox = start_sandbox(task_s=0.0)
    settings = settings_of(sandbox)
    with ChatExportClient(settings) as client:
        window = Window.parse("2025-01-01T09:00:00Z", "2025-01-01T10:00:00Z")
        request = ChannelsRequest(channels=(Cid("livestream:ubuntu"),), window=window)
        task_id = client.submit_channels(request)

    async def wait_for_it() -> None:
        async with AsyncChatExportClient(settings) as client:
            watch = ExportPoller([task_id], started_epoch_s=0.0, deadline_epoch_s=1e12, poll_s=0.1)
            await watch_exports_async(client, watch)

    began_s = time.monotonic()
    await asyncio.gather(*(wait_for_it() for _ in range(30)))
    assert time.monotonic() - began_s >= 29 / LOOKS_PER_SECOND
    async with httpx.AsyncClient() as control:
        asked = (await control.get(f"{sandbox.url}/_sandbox/requests")).json()
    assert 30 <= sum("/tasks/" in each["path"] for each in asked)


async def test_a_waiter_who_gives_up_leaves_the_line_in_order() -> None:
    """A trigger that is cancelled must not hold up those behind it."""
    turns = RateLimiter(20.0)
    await turns.wait()
    leaving = asyncio.ensure_future(turns.wait())
    await asyncio.sleep(0)
    leaving.cancel()
    began_s = time.monotonic()
    await turns.wait()
    assert time.monotonic() - began_s > 0.05
