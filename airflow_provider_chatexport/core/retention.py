"""The service's retention policies: what it deletes for good, and from which age on ("Data Retention Policy").

A policy deletes hard and in the background. Cleaning begins 24 hours after a policy is enabled or changed, and may take
days. So an export can still contain what a policy covers, and a later export of the same window lacks it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

_CENTURY_HOURS: Final = 36_525 * 24


class RetentionTarget(enum.Enum):
    """What a policy deletes. The value is the service's name of the policy."""

    OLD_MESSAGES = "old-messages"
    INACTIVE_CHANNELS = "inactive-channels"  # by the latest of created_at, updated_at and last_message_at


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """One policy of the app.

    :param max_age_hours: what is older is deleted. The docs allow 24 to 43,800 hours, in some places 87,600.
    :param enabled_at: when the policy was enabled or last changed; None if the service does not say.
    :raises ValueError: the age is not above 0, or more than a century.
    """

    target: RetentionTarget
    max_age_hours: int
    is_enabled: bool = True
    enabled_at: datetime | None = None

    def __post_init__(self) -> None:
        if not 0 < self.max_age_hours <= _CENTURY_HOURS:
            raise ValueError(f"the age of {self.target.value} is {self.max_age_hours} hours")

    @property
    def max_age(self) -> timedelta:
        """``max_age_hours`` as a duration."""
        return timedelta(hours=self.max_age_hours)
