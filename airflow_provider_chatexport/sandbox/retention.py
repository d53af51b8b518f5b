"""The app's retention policies, and the runs that delete by them ("Data Retention Policy").

The service begins to clean 24 hours after a policy is enabled or changed. How often it cleans then is not documented:
here once a day, by the sandbox's clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from airflow_provider_chatexport.core.retention import RetentionPolicy, RetentionTarget
from airflow_provider_chatexport.sandbox.clock import Clock

# "Data Retention Policy": from 24 hours to five years.
MIN_AGE_HOURS: Final = 24
MAX_AGE_HOURS: Final = 43_800
RUN_EVERY: Final = timedelta(hours=24)


class Cutoffs(NamedTuple):
    """The times before which the latest runs have deleted; None if there was no run."""

    messages_before: datetime | None = None
    channels_unused_since: datetime | None = None


class Retention:
    """The policies of one app, none at first.

    :ivar applied: the latest cutoffs that the world knows of.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Remove all policies."""
        self.applied = Cutoffs()
        self._policies: dict[RetentionTarget, RetentionPolicy] = {}

    def policies(self) -> list[RetentionPolicy]:
        """Return the policies that are enabled."""
        return list(self._policies.values())

    def set(self, target: RetentionTarget, max_age_hours: int | None) -> None:
        """Enable a policy or change its age; its next run is then 24 hours from now. The same age changes nothing.

        :param max_age_hours: None removes the policy. What it has deleted stays deleted.
        :raises ValueError: the service does not allow this age.
        """
        if max_age_hours is None:
            self._policies.pop(target, None)
            return
        if not MIN_AGE_HOURS <= max_age_hours <= MAX_AGE_HOURS:
            raise ValueError(
                f"max_age_hours of {target.value} must be from {MIN_AGE_HOURS} to {MAX_AGE_HOURS}, not {max_age_hours}"
            )
        old = self._policies.get(target)
        if old is None or old.max_age_hours != max_age_hours:
            now = self._clock.now()
            self._policies[target] = RetentionPolicy(target=target, max_age_hours=max_age_hours, enabled_at=now)

    def cutoffs(self) -> Cutoffs:
        """Return what the latest runs have deleted."""
        return Cutoffs(self._cutoff(RetentionTarget.OLD_MESSAGES), self._cutoff(RetentionTarget.INACTIVE_CHANNELS))

    def _cutoff(self, target: RetentionTarget) -> datetime | None:
        policy = self._policies.get(target)
        if policy is None or policy.enabled_at is None:
            return None
        n_runs = (self._clock.now() - policy.enabled_at) // RUN_EVERY
        return policy.enabled_at + n_runs * RUN_EVERY - policy.max_age if n_runs else None
