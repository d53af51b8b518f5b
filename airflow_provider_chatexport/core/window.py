"""The window: a half-open span of time, UTC, in microseconds, that one run is about.

The service documents only "after" and "before" for its bounds, and not which column they compare. So requests ask
with padded bounds and the converter keeps ``since <= created_at < until``: consecutive windows tile exactly, whatever
the service's bounds are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, Self

from airflow_provider_chatexport.core.times import EARLIEST, LATEST, format_rfc3339
from airflow_provider_chatexport.errors import WindowError

# One second on both sides covers inclusive, exclusive and second-granular bounds alike.
REQUEST_PADDING: Final = timedelta(seconds=1)
# Below this the padding is most of what a half asks for.
SHORTEST_HALVED: Final = timedelta(minutes=1)
_CALENDAR: Final = "give a time between the years 2 and 9998"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """``[since, until)``: aware datetimes, held in UTC.

    :raises WindowError: a time is naive, or since is not before until.
    """

    since: datetime
    until: datetime

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            moment: datetime = getattr(self, name)
            if moment.tzinfo is None:
                raise WindowError(
                    f"the window's {name} ({moment.isoformat()}) has no time zone; write an offset, such as "
                    f"{moment.isoformat()}+00:00"
                )
            try:
                utc = moment.astimezone(UTC)
            except OverflowError:
                utc = moment.replace(tzinfo=UTC)
            if not EARLIEST <= utc < LATEST:
                raise WindowError(f"the window's {name} ({moment.isoformat()}) is at the calendar's end; {_CALENDAR}")
            # A plain datetime, set as a frozen dataclass allows it: pendulum's, which Airflow hands out, loses its zone
            # in ``since - timedelta`` once it is in datetime.UTC (measured with pendulum 3.3).
            object.__setattr__(self, name, datetime.combine(utc.date(), utc.time(), UTC))
        if self.since == self.until:
            raise WindowError(
                f"the window has zero length: since and until are both {format_rfc3339(self.since)}; "
                "give an until after since"
            )
        if self.since > self.until:
            raise WindowError(
                f"the window is reversed: since {format_rfc3339(self.since)} is after until "
                f"{format_rfc3339(self.until)}; swap them"
            )

    @classmethod
    def parse(cls, since: str | datetime, until: str | datetime) -> Self:
        """A window from what people write: datetimes, or ISO 8601 text with an offset (a date alone: UTC midnight).

        :raises WindowError: a text is no time, and all that the constructor refuses.
        """
        return cls(since=parse_moment(since, "since"), until=parse_moment(until, "until"))

    def __contains__(self, moment: datetime) -> bool:
        return self.since <= moment < self.until

    def __str__(self) -> str:
        return f"{format_rfc3339(self.since)}..{format_rfc3339(self.until)}"

    @property
    def span(self) -> timedelta:
        return self.until - self.since

    def padded(self, by: timedelta = REQUEST_PADDING) -> Window:
        """What to ask the service for, so that nothing inside is missed."""
        return Window(since=max(self.since - by, EARLIEST), until=min(self.until + by, LATEST - timedelta.resolution))

    def looking_back(self, lookback: timedelta) -> Window:
        """The same window begun ``lookback`` earlier: late edits, deletes and reactions come in with it.

        :raises WindowError: lookback is negative.
        """
        if lookback < timedelta(0):
            raise WindowError(f"lookback is negative ({lookback}); give a duration of zero or more")
        if lookback > self.since - EARLIEST:
            raise WindowError(f"a lookback of {lookback} goes past the calendar's begin; {_CALENDAR}")
        return Window(since=self.since - lookback, until=self.until)

    def split(self, max_span: timedelta) -> Iterator[Window]:
        """Consecutive windows of at most ``max_span`` that tile this one exactly.

        :raises WindowError: max_span is not positive.
        """
        if max_span <= timedelta(0):
            raise WindowError(f"max_window must be longer than zero, not {max_span}")
        since = self.since
        while since < self.until:
            until = min(since + max_span, self.until)
            yield Window(since=since, until=until)
            since = until

    def halves(self) -> tuple[Window, Window] | None:
        """Two windows that tile this one; None where it is too short for that to help."""
        if self.span < SHORTEST_HALVED:
            return None
        middle = self.since + self.span // 2
        return Window(since=self.since, until=middle), Window(since=middle, until=self.until)

    def to_json(self) -> dict[str, str]:
        return {"since": format_rfc3339(self.since), "until": format_rfc3339(self.until)}

    @classmethod
    def from_json(cls, value: dict[str, str]) -> Self:
        return cls.parse(value["since"], value["until"])


def parse_moment(value: str | datetime, name: str) -> datetime:
    """One end of a window from a datetime or from ISO 8601 text. A date alone means its UTC midnight.

    :raises WindowError: there is none, or the text is no time.
    """
    if isinstance(value, datetime):
        return value
    # From callers without types, and from templates over what is absent.
    text = str(value).strip()
    if text in ("", "None"):
        raise WindowError(f"the window has no {name}; give one, such as 2026-01-01T00:00:00Z")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise WindowError(
            f"the window's {name} is not a time: {text[:60]!r}; write ISO 8601 with an offset, such as "
            "2026-01-01T00:00:00Z"
        ) from None
    if moment.tzinfo is None and len(text) <= len("2026-01-01"):
        return moment.replace(tzinfo=UTC)
    return moment


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSources:
    """Where a run's window may come from, each as (since, until) with either end possibly missing.

    ``partition``: a partitioned run's date, and how long a partition is, in whole days of ``zone`` or in hours.
    """

    arguments: tuple[Any, Any] = (None, None)
    conf: tuple[Any, Any] = (None, None)
    data_interval: tuple[Any, Any] = (None, None)
    partition: tuple[Any, timedelta | None] = (None, None)
    zone: tzinfo = UTC


def resolve(sources: WindowSources) -> Window:
    """The window of a run: arguments, else run conf and params, else the data interval, else the partition.

    Half a window is refused rather than completed from the next source: the two ends would answer different questions.

    :raises WindowError: no source has a window, or the first that has one is half, naive, reversed or of zero length.
    """
    for since, until, where in (
        (*_present(sources.arguments), "the operator's arguments since and until"),
        (*_present(sources.conf), "the run's conf or params since and until"),
    ):
        if since is None and until is None:
            continue
        if since is None or until is None:
            missing = "since" if since is None else "until"
            raise WindowError(f"{where} give only one end of the window; give {missing} too")
        return Window.parse(since, until)
    since, until = sources.data_interval
    if since is None or until is None:
        begin, span = sources.partition
        if begin is not None and span is not None:
            return Window.parse(begin, _end_of(begin, span, sources.zone))
        if begin is not None:
            raise WindowError(
                f"this run has a partition date ({begin}) and no data interval, and nothing says how long a partition "
                "is; give the operator partition_span, such as timedelta(days=1)"
            )
        raise WindowError(
            "this run has no window: it has no data interval (a manual run without a logical date, an asset-triggered "
            'or a partitioned run); trigger it with conf {"since": "2026-01-01T00:00:00Z", "until": '
            '"2026-01-02T00:00:00Z"}, or give the operator since and until'
        )
    if since == until:
        raise WindowError(
            f"this run's data interval has zero length (both ends are {format_rfc3339(since)}), as it has for "
            '"@daily" in Airflow 3; schedule the DAG with CronDataIntervalTimetable("@daily", timezone="UTC") or '
            "CronTriggerTimetable(..., interval=timedelta(days=1)), or give the operator since and until"
        )
    return Window.parse(since, until)


def _end_of(begin: datetime, span: timedelta, zone: tzinfo) -> datetime:
    """Days are those of the zone's calendar, two of which in a year have 23 or 25 hours."""
    if span % timedelta(days=1):
        return begin + span
    local = begin.astimezone(zone)
    wall = datetime.combine(local.date(), local.time()) + span
    return wall.replace(tzinfo=zone)


def _present(ends: tuple[Any, Any]) -> tuple[Any, Any]:
    """Both ends; a template over an absent value renders to an empty string or to "None"."""
    since, until = (None if end in (None, "", "None") else end for end in ends)
    return since, until
