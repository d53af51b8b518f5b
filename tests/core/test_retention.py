"""Retention policies as values, and how long the service keeps messages by them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_chatexport.core.retention import (
    MARGIN,
    SERVICE,
    Retention,
    RetentionPolicy,
    RetentionTarget,
    parse_retention,
    stated_retention,
)
from airflow_provider_chatexport.core.times import EARLIEST
from airflow_provider_chatexport.errors import CallError

OLD, INACTIVE = RetentionTarget.OLD_MESSAGES, RetentionTarget.INACTIVE_CHANNELS
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def policy(target: RetentionTarget, hours: int, **others: Any) -> RetentionPolicy:
    return RetentionPolicy(target=target, max_age_hours=hours, **others)


def test_an_age_is_a_duration() -> None:
    """The service counts hours; loads compare times."""
    assert timedelta(days=1.5) == policy(OLD, 36).max_age


@pytest.mark.parametrize("hours", [0, -1, 10**12])
def test_an_age_that_is_none_is_refused(hours) -> None:
    """A policy that deletes everything, or nothing for a thousand years, is a reply that was misread."""
    with pytest.raises(ValueError, match="old-messages"):
        policy(OLD, hours)
    with pytest.raises(ValueError, match="hours"):
        Retention(max_age_hours=hours)


@pytest.mark.parametrize(
    ("hours", "policies"),
    [
        (None, []),
        (720, [policy(OLD, 720)]),
        (48, [policy(INACTIVE, 48)]),
        (48, [policy(OLD, 720), policy(INACTIVE, 48)]),
        (48, [policy(OLD, 48), policy(INACTIVE, 720)]),
        (720, [policy(OLD, 720), policy(INACTIVE, 48, is_enabled=False)]),
        (None, [policy(OLD, 720, is_enabled=False)]),
    ],
)
def test_the_smallest_age_of_all_policies_counts(hours: int | None, policies: list[RetentionPolicy]) -> None:
    """A message younger than that is safe from each of them; a policy that is disabled deletes nothing."""
    assert hours == Retention.by(policies).max_age_hours


def test_an_export_knows_all_from_an_hour_after_the_age_on() -> None:
    """A policy may run while the export is written; without a policy it knows everything."""
    assert NOW - timedelta(days=30) + MARGIN == Retention(max_age_hours=720).horizon(NOW)
    assert Retention().horizon(NOW) is None
    assert EARLIEST == Retention(max_age_hours=720).horizon(EARLIEST + timedelta(days=1))


@pytest.mark.parametrize(
    ("hours", "text", "value"),
    [
        (720, "30 days", "30d"),
        (720, "30 days", " 720h "),
        (720, "30 days", timedelta(days=30)),
        (36, "36 hours", "1.5d"),
        (24, "1 days", "1440m"),
        (48, "2 days", Retention(max_age_hours=48)),
        (None, "for ever", Retention()),
    ],
)
def test_a_retention_is_written_as_a_duration(hours: int | None, text: str, value: Any) -> None:
    """As everywhere on the command line, or as a timedelta in Python."""
    retention = parse_retention(value)
    assert (Retention(max_age_hours=hours), text) == (retention, str(retention))
    assert retention == stated_retention(value)


@pytest.mark.parametrize("hours", [None, 24, 720])
def test_a_retention_survives_json(hours: int | None) -> None:
    """It crosses XCom in a receipt."""
    retention = Retention(max_age_hours=hours)
    assert retention == Retention.from_json(json.loads(json.dumps(retention.to_json())))


def test_none_and_service_are_what_they_are() -> None:
    """None is no clipping; what the service says is not known yet."""
    assert (None, SERVICE, None) == (parse_retention(None), parse_retention("service"), stated_retention(None))
    with pytest.raises(CallError, match=r"retention is 'service'; .* without a service to ask; write a duration"):
        stated_retention("service")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("30 days", "retention is '30 days'; write how long the service keeps messages, such as 30d or 720h"),
        ("", "retention is ''; write how long"),
        ("Service", "retention is 'Service'; write how long"),
        (720, "retention is '720'; write how long"),
        (True, "retention is 'True'; write how long"),
        ("30m", "retention is '30m'; the service counts whole hours"),
        (timedelta(days=2, seconds=1), "the service counts whole hours"),
        ("23h", "retention is '23h'; a policy of the service has an age of a day at least"),
        ("0d", "a day at least"),
        (timedelta(days=-30), "a day at least"),
        ("999999d", "a century at most"),
        ("9999999999999d", "whole hours"),
    ],
)
def test_an_age_that_no_policy_can_have_is_refused(value: Any, sentence: str) -> None:
    """30m is months to some people, and minutes to us: half an hour would let the lake keep nearly everything."""
    with pytest.raises(CallError, match=sentence):
        parse_retention(value)
