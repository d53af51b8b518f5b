"""The service's retention policies: what it deletes for good, and from which age on ("Data Retention Policy").

A policy deletes hard and in the background. Cleaning begins 24 hours after a policy is enabled or changed, and may take
days. So an export can still contain what a policy covers, and a later export of the same window lacks it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Self

from airflow_provider_chatexport.core.arguments import parse_duration_text
from airflow_provider_chatexport.core.times import EARLIEST
from airflow_provider_chatexport.errors import CallError

# The value of ``retention`` that asks the service for its policies.
SERVICE: Final = "service"
# A policy may run while an export is written, and clocks differ. So a claim begins this much after the age of a policy.
MARGIN: Final = timedelta(hours=1)
# The service gives the time in whole seconds. So its own clock may be up to this much later.
CLOCK_STEP: Final = timedelta(seconds=1)
# The shortest age that the service accepts ("Data Retention Policy").
SHORTEST_HOURS: Final = 24

_CENTURY_HOURS: Final = 36_525 * 24
_HOUR: Final = timedelta(hours=1)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long the service keeps messages, by the policies of the app at one moment.

    :param max_age_hours: older messages may be gone; None if the app has no policy.
    :raises ValueError: the age is not above 0, or more than a century.
    """

    max_age_hours: int | None = None

    def __post_init__(self) -> None:
        hours = self.max_age_hours
        if hours is not None and not 0 < hours <= _CENTURY_HOURS:
            raise ValueError(f"the age is {hours} hours")

    @classmethod
    def by(cls, policies: Iterable[RetentionPolicy]) -> Self:
        """Return what policies keep together: the smallest age counts, whatever it is an age of.

        ``inactive-channels`` deletes a channel in which nothing has happened for that long. All of its messages are
        older then. So a message that is younger than the smallest age is safe from both kinds of policy.
        """
        return cls(max_age_hours=min((each.max_age_hours for each in policies if each.is_enabled), default=None))

    def horizon(self, moment: datetime) -> datetime | None:
        """Return from when on an export has every message that was not deleted by a person; None for all of time.

        :param moment: when the export was finished, by the service's clock (aware, UTC).
        """
        if self.max_age_hours is None:
            return None
        max_age = timedelta(hours=self.max_age_hours)
        return EARLIEST if moment - EARLIEST <= max_age else moment - max_age + MARGIN

    def __str__(self) -> str:
        hours = self.max_age_hours
        if hours is None:
            return "for ever"
        return f"{hours // 24} days" if hours % 24 == 0 else f"{hours} hours"

    def to_json(self) -> dict[str, Any]:
        """Return the retention as JSON types."""
        return {"max_age_hours": self.max_age_hours}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` returned.

        :raises TypeError: the age is not a whole number.
        :raises ValueError: the age is out of range.
        """
        hours = value["max_age_hours"]
        if hours is not None and (isinstance(hours, bool) or not isinstance(hours, int)):
            raise TypeError("max_age_hours is not a whole number")
        return cls(max_age_hours=hours)


# What people may give as ``retention``, and what it is once it is read.
RetentionArgument = str | timedelta | Retention | None
RetentionOption = Retention | Literal["service"] | None


def parse_retention(value: RetentionArgument) -> RetentionOption:
    """Return what a person gave as ``retention``: a duration, ``service`` or None.

    :raises CallError: it is none of these, or no age that a policy can have.
    """
    if value is None or isinstance(value, Retention):
        return value
    if value == SERVICE:
        return SERVICE
    age = parse_duration_text(value) if isinstance(value, str) else value
    if not isinstance(age, timedelta):  # a bare number could be seconds, hours or days
        raise _wrong(value, f'write how long the service keeps messages, such as 30d or 720h, or "{SERVICE}"')
    hours, rest = divmod(age, _HOUR)
    if rest:
        raise _wrong(value, "the service counts whole hours")
    if not SHORTEST_HOURS <= hours <= _CENTURY_HOURS:
        raise _wrong(value, "a policy of the service has an age of a day at least, and of a century at most")
    return Retention(max_age_hours=hours)


def stated_retention(option: RetentionArgument) -> Retention | None:
    """Return the retention of files that a person loads.

    :raises CallError: the service should be asked, and no service is involved.
    """
    retention = parse_retention(option)
    if retention == SERVICE:
        raise _wrong(
            SERVICE, "files that are already here come without a service to ask; write a duration, such as 30d"
        )
    return retention


def _wrong(value: object, remedy: str) -> CallError:
    return CallError(f"retention is {str(value)[:40]!r}; {remedy}", argument="retention")
