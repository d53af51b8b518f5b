"""The pace of status requests: what the replies say about the rate limit, and how much of it a triggerer takes.

The limit of status requests is not documented. Every reply contains it: how many requests are left to the app, and when
the count starts again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from airflow_provider_chatexport.api.error_replies import first_number, read_date

# The pace until a reply says what the limit is. The service allows 10,000 similar requests a minute.
USUAL_PER_SECOND: Final = 40.0
# The bounds of the pace. A request costs a triggerer about a millisecond of CPU time. If no requests are left, one a
# second finds out when there are some again.
FASTEST_PER_SECOND: Final = 80.0
SLOWEST_PER_SECOND: Final = 1.0
# A triggerer leaves half of what is left to workers and to other triggerers. All of them see what is left, so several
# triggerers slow down together before the limit is reached.
SHARE_OF_WHAT_IS_LEFT: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The rate limit of a kind of request, by one reply: how many requests are left, and seconds until it resets."""

    n_left: float
    resets_in_s: float


def read_quota(headers: Mapping[str, str], *, now_epoch_s: float) -> Quota | None:
    """Return what a reply says about the rate limit, or None if it does not."""
    n_left = first_number(headers.get("x-ratelimit-remaining", ""))
    reset_epoch_s = first_number(headers.get("x-ratelimit-reset", ""))
    if n_left is None or reset_epoch_s is None:
        return None
    # Both times are whole seconds of the service's clock.
    return Quota(n_left=n_left, resets_in_s=max(1.0, reset_epoch_s - (read_date(headers) or now_epoch_s)))


def pace_per_second(quota: Quota | None) -> float:
    """Return how many status requests a second one process sends for one app."""
    if quota is None:
        return USUAL_PER_SECOND
    wanted = SHARE_OF_WHAT_IS_LEFT * quota.n_left / quota.resets_in_s
    return min(FASTEST_PER_SECOND, max(SLOWEST_PER_SECOND, wanted))
