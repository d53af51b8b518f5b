"""Rate limits: what the headers say and when requests are refused. The clock of these sandboxes stands still."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.sandbox.clock import Clock
from airflow_provider_chatexport.sandbox.web.rate_limits import OverLimitError, RateLimits

SMALL = "team:ubuntu-meeting"


@pytest.fixture
def limited(start_sandbox, calls_to):
    """Return a client of a sandbox whose rate limits do not recover while a slow machine works."""
    return calls_to(start_sandbox(rate_limit=True, frozen_clock=True))


def test_the_third_export_within_a_second_is_refused(limited):
    """60 a minute are 2 a second at the service: a client that submits in a burst must fail here."""
    replies = [limited.export(SMALL) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [201, 201, 429]
    refused = replies[2]
    assert refused.json()["code"] == 9
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["x-ratelimit-remaining"] == "0"
    limited.control.advance_clock(timedelta(seconds=0.9))
    assert limited.export(SMALL).status_code == 429
    limited.control.advance_clock(timedelta(seconds=0.1))
    assert limited.export(SMALL).status_code == 201


def test_channels_and_users_have_a_limit_each(limited):
    """Limits are counted per endpoint."""
    user_id = limited.sandbox.world.user_ids()[0]
    assert {201} == {limited.export(SMALL).status_code for _ in range(2)}
    assert [limited.export_users(user_id).status_code for _ in range(3)] == [201, 201, 429]


def test_both_families_share_one_limit(limited, calls_to):
    """They are one endpoint of one app."""
    legacy = calls_to(limited.sandbox, legacy=True)
    assert [limited.export(SMALL).status_code, legacy.export(SMALL).status_code] == [201, 201]
    assert legacy.export(SMALL).status_code == 429


def test_every_answer_has_the_limit_in_lower_case_headers(limited):
    """The legacy SDK looks the names up as they arrive."""
    for reply in (limited.export(SMALL), limited.http.get("/tasks/x"), limited.query(), limited.export(version="v9")):
        names = {name.decode() for name, _ in reply.headers.raw}
        assert names >= {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}


def test_rate_limits_have_an_endpoint(limited):
    """A client may look before it submits."""
    limited.export(SMALL)
    body = limited.http.get(
        "/api/v2/rate_limits", params={"server_side": "true", "endpoints": "ExportChannels,QueryChannels"}
    ).json()
    assert body.keys() == {"server_side", "duration"}
    assert body["server_side"]["ExportChannels"].keys() == {"limit", "remaining", "reset"}
    assert [(name, quota["limit"], quota["remaining"]) for name, quota in body["server_side"].items()] == [
        ("ExportChannels", 60, 59),
        ("QueryChannels", 10_000, 10_000),
    ]
    assert len(limited.http.get("/rate_limits").json()) > 4


def test_without_limits_no_request_is_refused_and_the_headers_stay(calls):
    """Tests submit hundreds of exports."""
    replies = [calls.export(SMALL) for _ in range(5)]
    assert {201} == {reply.status_code for reply in replies}
    assert replies[4].headers["x-ratelimit-remaining"] == "55"


@given(st.lists(st.floats(0, 2), max_size=200))
def test_no_minute_and_no_second_accepts_more_than_its_limit(pauses_s):
    """At any rhythm of requests, at most 60 of a minute's window are accepted, and 2 of a second's."""
    clock = Clock(frozen=True)
    limits = RateLimits(clock, enforced=True)
    accepted_s, now_s = [], 0.0
    for pause_s in pauses_s:
        clock.advance(pause_s)
        now_s += pause_s
        try:
            limits.take("ExportChannels")
            accepted_s.append(now_s)
        except OverLimitError:
            continue
    # A window starts with its first request, so a span over two windows holds at most twice the limit.
    for start_s in accepted_s:
        assert sum(start_s <= at_s < start_s + 1 for at_s in accepted_s) <= 4
        assert sum(start_s <= at_s < start_s + 60 for at_s in accepted_s) <= 120
