"""The pace of status requests, as the replies say it."""

from __future__ import annotations

import pytest

from airflow_provider_chatexport.api.rate_limit import Quota, pace_per_second, read_quota

AT_NOON = {"date": "Sun, 29 Nov 2026 12:00:00 GMT"}
NOON_EPOCH_S = 1795953600


@pytest.mark.parametrize(
    ("headers", "quota"),
    [
        (
            {"x-ratelimit-remaining": "9000", "x-ratelimit-reset": f"{NOON_EPOCH_S + 30}"},
            Quota(n_left=9000, resets_in_s=30),
        ),
        (
            {"x-ratelimit-remaining": ", 60", "x-ratelimit-reset": f"{NOON_EPOCH_S - 5}"},
            Quota(n_left=60, resets_in_s=1),
        ),
        ({"x-ratelimit-remaining": "9000"}, None),
        ({"x-ratelimit-remaining": "many", "x-ratelimit-reset": f"{NOON_EPOCH_S}"}, None),
        ({}, None),
    ],
)
def test_the_quota_is_read_by_the_services_clock(headers: dict[str, str], quota: Quota | None) -> None:
    """A machine's clock may be wrong by more than the minute for which the service counts."""
    assert quota == read_quota({**AT_NOON, **headers}, now_epoch_s=NOON_EPOCH_S - 1000.0)


@pytest.mark.parametrize(
    ("quota", "per_second"),
    [
        (None, 40.0),
        (Quota(n_left=10_000, resets_in_s=60), 80.0),
        (Quota(n_left=6_000, resets_in_s=60), 50.0),
        (Quota(n_left=1_000, resets_in_s=50), 10.0),
        (Quota(n_left=60, resets_in_s=60), 1.0),
        (Quota(n_left=0, resets_in_s=10), 1.0),
    ],
)
def test_a_triggerer_takes_half_of_what_is_left(quota: Quota | None, per_second: float) -> None:
    """The limit is not documented, and workers and other triggerers share it: whatever it is, some must be left."""
    assert per_second == pace_per_second(quota)


def test_several_triggerers_together_stay_within_the_limit() -> None:
    """None knows of the others, but all see what is left: they slow down before the service refuses many."""
    n_left = 10_000.0
    for second in range(60):
        n_left -= sum(pace_per_second(Quota(n_left=n_left, resets_in_s=60 - second)) for _ in range(6))
    assert n_left > -100
