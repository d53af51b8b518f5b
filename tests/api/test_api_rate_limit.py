"""The shared pace of status requests: many waiters of one app do not make a burst."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.api.client import AsyncChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, wait_for_exports_async
from airflow_provider_chatexport.api.rate_limit import STATUS_REQUESTS_PER_SECOND, RateLimiter, rate_limiter_for
from airflow_provider_chatexport.api.settings import ServiceSettings


@given(st.lists(st.floats(0.0, 0.5), min_size=1, max_size=200), st.sampled_from([1.0, 10.0, 40.0]))
def test_slots_are_spaced_by_the_rate_and_never_wasted(steps: list[float], per_second: float) -> None:
    """No two waiters get the same slot, and a waiter without others before it gets one at once."""
    rate_limiter, now_s, slots_s = RateLimiter(per_second), 100.0, []
    for step_s in steps:
        now_s += step_s
        slots_s.append(now_s + rate_limiter.reserve(now_s))
        free_from_s = slots_s[-2] + 1 / per_second if len(slots_s) > 1 else 0.0
        assert abs(slots_s[-1] - max(now_s, free_from_s)) < 1e-6
    assert all(later - earlier > 1 / per_second - 1e-6 for earlier, later in pairwise(slots_s))


def test_an_app_has_one_rate_limiter(make_settings: Any) -> None:
    """Two connections to one app share its limit; another app has a limit of its own."""
    settings = make_settings()
    assert rate_limiter_for(settings) is rate_limiter_for(make_settings(max_attempts=1))
    assert rate_limiter_for(settings) is not rate_limiter_for(make_settings(api_key="another"))


async def test_many_waiters_of_one_app_share_the_pace(task_id: Any, settings: ServiceSettings, control: Any) -> None:
    """Thirty waiters that start together take as long as the pace allows, and each gets an answer."""

    async def wait_for_it() -> None:
        async with AsyncChatExportClient(settings) as client:
            poller = ExportPoller([task_id], started_epoch_s=0.0, deadline_epoch_s=1e12, poll_s=0.1)
            await wait_for_exports_async(client, poller)

    started_s = time.monotonic()
    await asyncio.gather(*(wait_for_it() for _ in range(30)))
    assert time.monotonic() - started_s >= 29 / STATUS_REQUESTS_PER_SECOND
    assert len(control.requests("/api/v2/tasks/")) >= 30


async def test_a_cancelled_waiter_does_not_block_those_behind_it() -> None:
    """A cancelled trigger leaves its slot unused; the next waiter gets the slot after it, not the same one."""
    rate_limiter = RateLimiter(20.0)
    started_s = time.monotonic()
    await rate_limiter.wait()
    cancelled = asyncio.ensure_future(rate_limiter.wait())
    await asyncio.sleep(0)
    cancelled.cancel()
    await rate_limiter.wait()
    assert time.monotonic() - started_s > 0.1
