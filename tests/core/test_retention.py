"""Retention policies as values."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_chatexport.core.retention import RetentionPolicy, RetentionTarget


def test_an_age_is_a_duration() -> None:
    """The service counts hours; loads compare times."""
    policy = RetentionPolicy(target=RetentionTarget.OLD_MESSAGES, max_age_hours=36)
    assert timedelta(days=1.5) == policy.max_age


@pytest.mark.parametrize("hours", [0, -1, 10**12])
def test_an_age_that_is_none_is_refused(hours) -> None:
    """A policy that deletes everything, or nothing for a thousand years, is a reply that was misread."""
    with pytest.raises(ValueError, match="old-messages"):
        RetentionPolicy(target=RetentionTarget.OLD_MESSAGES, max_age_hours=hours)
