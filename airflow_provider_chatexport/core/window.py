"""The window of a run: a half-open span of time, in UTC and microseconds.

The service documents only "after" and "before" for its bounds, and not which column they compare. So requests have
padded bounds, and the load keeps the rows with ``since <= created_at < until``. Consecutive windows therefore tile
exactly, whatever the service's bounds are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Final, Self

from airflow_provider_chatexport.core.times import EARLIEST, LATEST, format_rfc3339
from airflow_provider_chatexport.errors import WindowError

# One second on both sides covers inclusive bounds, exclusive bounds, and bounds of whole seconds.
REQUEST_PADDING: Final = timedelta(seconds=1)
# In half of a shorter window the padding would be most of the request.
SHORTEST_HALVED: Final = timedelta(minutes=1)
_CALENDAR: Final = f"give a time of the years {EARLIEST.year} to {LATEST.year - 1}"
# A time as callers write it: an aware datetime, ISO 8601 text with an offset, or a date for its UTC midnight.
Moment = str | date | datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """``[since, until)``: aware datetimes, converted to UTC.

    :raises WindowError: a time has no time zone, or since is not before until.
    """

    since: datetime
    until: datetime

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            object.__setattr__(self, name, _in_utc(getattr(self, name), f"the window's {name}"))
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
    def parse(cls, since: Moment, until: Moment) -> Self:
        """Return a window from its ends as a caller writes them.

        :raises WindowError: an end is missing or is not a time, or the constructor refuses the times.
        """
        return cls(since=parse_moment(since, "the window's since"), until=parse_moment(until, "the window's until"))

    def __contains__(self, moment: datetime) -> bool:
        return self.since <= moment < self.until

    def __str__(self) -> str:
        return f"{format_rfc3339(self.since)}..{format_rfc3339(self.until)}"

    @property
    def span(self) -> timedelta:
        """The length of the window."""
        return self.until - self.since

    def padded(self) -> Window:
        """Return the window to request from the service, so that it misses nothing inside this one."""
        since, until = self.since - REQUEST_PADDING, self.until + REQUEST_PADDING
        return Window(since=max(since, EARLIEST), until=min(until, LATEST - timedelta.resolution))

    def looking_back(self, lookback: timedelta) -> Window:
        """Return the same window with a since that is ``lookback`` earlier, to export late changes again.

        :raises WindowError: lookback is negative, or reaches past the calendar.
        """
        if lookback < timedelta(0):
            raise WindowError(f"lookback is negative ({lookback}); give a duration of zero or more")
        if lookback > self.since - EARLIEST:
            raise WindowError(f"a lookback of {lookback} goes past the start of the calendar; {_CALENDAR}")
        return Window(since=self.since - lookback, until=self.until)

    def split(self, max_span: timedelta) -> Iterator[Window]:
        """Yield consecutive windows of at most ``max_span`` that tile this one exactly.

        :raises WindowError: max_span is not positive.
        """
        if max_span <= timedelta(0):
            raise WindowError(f"max_window is {max_span}; give a duration longer than zero")
        since = self.since
        while since < self.until:
            until = min(since + max_span, self.until)
            yield Window(since=since, until=until)
            since = until

    def halves(self) -> tuple[Window, Window] | None:
        """Return two windows that tile this one, or None if it is too short for that to help."""
        if self.span < SHORTEST_HALVED:
            return None
        middle = self.since + self.span // 2
        return Window(since=self.since, until=middle), Window(since=middle, until=self.until)

    def to_json(self) -> dict[str, str]:
        """Return the window as JSON types."""
        return {"since": format_rfc3339(self.since), "until": format_rfc3339(self.until)}

    @classmethod
    def from_json(cls, value: dict[str, str]) -> Self:
        """Read what ``to_json`` returned."""
        return cls.parse(value["since"], value["until"])


def parse_moment(value: Moment, name: str) -> datetime:
    """Return a time in UTC from what a caller writes.

    :param name: what the time is, for the error, such as ``the window's since``.
    :raises WindowError: it is missing, is not a time, has no time zone, or is outside of a lake's calendar.
    """
    if isinstance(value, datetime):
        return _in_utc(value, name)
    if isinstance(value, date):
        return _in_utc(datetime.combine(value, time(tzinfo=UTC)), name)
    # Callers without type checks may pass anything, and templates render a missing value as "" or "None".
    text = str(value).strip()
    if text in ("", "None"):
        raise WindowError(f"{name} is missing; give a time, such as 2026-01-01T00:00:00Z")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        if "{{" in text:
            raise WindowError(
                f"{name} is a template that was not rendered: {text[:60]!r}; Airflow renders templates in "
                "the arguments of operators, and not in the conf or params of a run"
            ) from None
        raise WindowError(
            f"{name} is not a time: {text[:60]!r}; write ISO 8601 with an offset, such as 2026-01-01T00:00:00Z"
        ) from None
    if moment.tzinfo is None and len(text) <= len("2026-01-01"):
        moment = moment.replace(tzinfo=UTC)
    return _in_utc(moment, name)


def _in_utc(moment: datetime, name: str) -> datetime:
    if moment.tzinfo is None:
        raise WindowError(
            f"{name} ({moment.isoformat()}) has no time zone; write an offset, such as {moment.isoformat()}+00:00"
        )
    try:
        utc = moment.astimezone(UTC)
    except OverflowError:
        utc = moment.replace(tzinfo=UTC)
    if not EARLIEST <= utc < LATEST:
        raise WindowError(f"{name} ({moment.isoformat()}) is outside of a lake's calendar; {_CALENDAR}")
    # Make a plain datetime. Airflow passes pendulum's, which in datetime.UTC loses its zone in ``since - timedelta``
    # (measured with pendulum 3.3).
    return datetime.combine(utc.date(), utc.time(), UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSources:
    """Where a run's window may come from, each as (since, until). Either end may be missing.

    ``partition``: the date of a partitioned run, and the length of a partition: whole days of ``zone``, or hours.
    ``timetable``: the class of the DAG's timetable, for the hint of an error; empty if it is not known.
    """

    arguments: tuple[Any, Any] = (None, None)
    conf: tuple[Any, Any] = (None, None)
    data_interval: tuple[Any, Any] = (None, None)
    partition: tuple[Any, timedelta | None] = (None, None)
    zone: tzinfo = UTC
    timetable: str = ""


def resolve(sources: WindowSources) -> Window:
    """Return the window of a run: from arguments, else run conf and params, else data interval, else partition.

    A source with only one end is refused. The other end could only come from the next source, which answers another
    question.

    :raises WindowError: no source has a window, or the first one that has any cannot be used.
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
        start, span = sources.partition
        if start is not None and span is not None:
            return Window.parse(start, _partition_end(start, span, sources.zone))
        if start is not None:
            raise WindowError(
                f"this run has a partition date ({start}) and no data interval, and the length of a partition is "
                "unknown; give the operator partition_span, such as timedelta(days=1)"
            )
        raise WindowError(
            "this run has no window: it has no data interval (a manual run without a logical date, an asset-triggered "
            f'or a partitioned run); {_TRIGGER_WITH}, or window="all" for the whole history'
        )
    if since == until:
        raise WindowError(
            f"this run's data interval has zero length (both ends are {format_rfc3339(since)}){_cause(since, sources)}"
        )
    return Window.parse(since, until)


_TRIGGER_WITH: Final = (
    'trigger it with conf {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}, or give the operator '
    "since and until"
)


def _cause(moment: datetime, sources: WindowSources) -> str:
    """Return why a data interval has zero length, and what to do: the rest of a sentence.

    Which timetable is in use decides: to name that one as the cure would be no help.
    """
    timetable, zone = sources.timetable, sources.zone
    if "DataInterval" in timetable:
        day = timedelta(days=1)
        before, after = ((moment + shift).astimezone(zone).utcoffset() for shift in (-day, day))
        if before != after:
            # Measured with Airflow 3.3: "0 2 * * *" in Europe/Berlin, for a manual run after 2026-03-29T03:00+02:00.
            return (
                f": clocks change in {zone} on that day, and {timetable} then gives a manual run no length if the time "
                f"of the schedule falls into the hour that does not exist; {_TRIGGER_WITH}"
            )
        return f", although {timetable} gives scheduled runs a length; {_TRIGGER_WITH}"
    if timetable in _WITHOUT_INTERVALS:
        return f", as every run of a DAG without a schedule; {_TRIGGER_WITH}"
    return (
        ', as it does for "@daily" in Airflow 3; schedule the DAG with CronDataIntervalTimetable("@daily", '
        'timezone="UTC") or CronTriggerTimetable(..., interval=timedelta(days=1)), or give the operator since and until'
    )


# The timetables of DAGs that run once, by hand, or when an asset is updated.
_WITHOUT_INTERVALS: Final = frozenset({"NullTimetable", "OnceTimetable", "ContinuousTimetable"})


def _partition_end(start: datetime, span: timedelta, zone: tzinfo) -> datetime:
    """Return the end of a partition. Whole days are days of the zone's calendar; two a year have 23 or 25 hours."""
    if span % timedelta(days=1):
        return start + span
    local = start.astimezone(zone)
    wall = datetime.combine(local.date(), local.time()) + span
    return wall.replace(tzinfo=zone)


def _present(ends: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return both ends, with None for an empty string or "None", as which a template renders a missing value."""
    since, until = (None if end in (None, "", "None") else end for end in ends)
    return since, until
