"""Options of a load: limits that are just met and just exceeded."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.errors import CallError


@pytest.mark.parametrize(
    ("allowed", "max_rejected", "rejected"),
    [
        (True, None, 1000),
        (True, 0, 0),
        (False, 0, 1),
        (True, 10, 10),
        (False, 10, 11),
        (True, 0.01, 10),
        (False, 0.01, 11),
        (False, 0.0, 1),
        (True, 1.0, 1000),
        (True, 1, 1),
        (False, 1, 2),
    ],
)
def test_rejects_are_allowed_up_to_a_count_or_a_share(
    allowed: bool, max_rejected: int | float | None, rejected: int
) -> None:
    """1 is one line and 1.0 is all lines; a limit that is met exactly is allowed. So it is for messages that vanish."""
    assert allowed is LoadOptions(max_rejected=max_rejected).allows(rejected=rejected, decoded=1000)
    assert allowed is LoadOptions(max_vanished=max_rejected).allows_vanished(vanished=rejected, shown=1000)


@pytest.mark.parametrize("lines", [29, 50, 100, 1000, 3_000_000])
@pytest.mark.parametrize("percent", range(101))
def test_a_share_that_is_met_exactly_is_allowed(percent: int, lines: int) -> None:
    """A float is not exactly the share that people write: 0.29 of 100 lines is 29 lines."""
    options = LoadOptions(max_rejected=float(f"{percent / 100:.2f}"))
    allowed = percent * lines // 100
    assert (True, False) == tuple(options.allows(rejected=allowed + more, decoded=lines) for more in (0, 1))


@pytest.mark.parametrize(
    ("text", "max_rejected"),
    [("any number", None), ("0", 0), ("10", 10), ("5 %", 0.05), ("0.1 %", 0.001), ("100 %", 1.0), ("0 %", 0.0)],
)
def test_the_limit_of_rejects_is_written_as_it_was_meant(text: str, max_rejected: int | float | None) -> None:
    """A share is not a count: the limit is 5 % of the lines, not 0.05 lines."""
    assert text == LoadOptions(max_rejected=max_rejected).allowed_rejects


@pytest.mark.parametrize(
    ("sentence", "options"),
    [
        ("max_rejected is -1; give a count", {"max_rejected": -1}),
        ("max_rejected is 1.5; give a count", {"max_rejected": 1.5}),
        ("max_vanished is -1; give a count", {"max_vanished": -1}),
        (r"max_vanished is 1.5; give a count .* or a share of the messages", {"max_vanished": 1.5}),
        ("retention is '30'; write how long the service keeps messages", {"retention": 30}),
        ("max_line_bytes is 0; give a number of bytes above 0", {"max_line_bytes": 0}),
        ("max_unpacked_bytes is -5; give a number", {"max_unpacked_bytes": -5}),
        ("max_rejected is '5'; give a count", {"max_rejected": "5"}),
        ("max_rejected is nan; give a count", {"max_rejected": float("nan")}),
        ("max_rejected is True; give a count", {"max_rejected": True}),
        ("max_line_bytes is '100'; give a number", {"max_line_bytes": "100"}),
        ("max_line_bytes is None; give a number", {"max_line_bytes": None}),
        ("promote is 'messages.a=BIGINT'; write {", {"promote": "messages.a=BIGINT"}),
        (r"promote is {'messages': \['a'\]}; write {", {"promote": {"messages": ["a"]}}),
        ("messages.a cannot be promoted to <class 'int'>; types are", {"promote": {"messages": {"a": int}}}),
    ],
)
def test_limits_that_make_no_sense_are_refused_at_once(sentence: str, options: dict[str, Any]) -> None:
    """A DAG with a mistake must not parse, instead of failing at night."""
    with pytest.raises(CallError, match=sentence):
        LoadOptions(**options)
