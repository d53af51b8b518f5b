"""Only what is missing: which windows a lake does not cover yet, and a run that exports and loads them.

``plan`` decides and starts nothing. ``run`` exports and loads the windows of a plan, each as a load of its own::

    sync_plan = plan(lake_uri, None, until=now - timedelta(minutes=1))
    for outcome in run(settings, sync_plan, lake_uri=lake_uri):
        print(outcome.missing.window, outcome.report or outcome.problem)

There is no state but the lake's. What is loaded is covered, so it is in no later plan.

What if the process dies
- between submit and load: the service deletes the unused exports after 60 days, and the next run exports those windows;
- after a load: the next run goes on with what is still missing.

Two runs at once have the same plan. They export and load the same windows twice, and the newer exports are right.
"""

from __future__ import annotations

import functools
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, wait_for_exports
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.plan import MAX_CHANNELS_PER_EXPORT, ChannelsRequest, Cid, ExportFlags, parse_cid
from airflow_provider_chatexport.core.progress import Progress, silent
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.retention import CLOCK_STEP, Retention
from airflow_provider_chatexport.core.times import EPOCH, format_rfc3339
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import (
    CallError,
    DownloadError,
    InputError,
    NotFoundError,
    RequestRefusedError,
    ShrinkError,
    TaskFailedError,
    TaskOverdueError,
)
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.coverage import BEGINNING, CoverageEntry, TimeSpan, channels_of
from airflow_provider_chatexport.lake.commits.gaps import gaps
from airflow_provider_chatexport.lake.commits.lost_coverage import LostSpan
from airflow_provider_chatexport.lake.load.horizon import Horizons
from airflow_provider_chatexport.lake.load.job import DEFAULT_OPTIONS
from airflow_provider_chatexport.lake.load.report import LoadReport
from airflow_provider_chatexport.lake.storage.address import Storage, open_store

log = logging.getLogger(__name__)

# Exports that the service works on while the oldest one is waited for and loaded.
MAX_IN_FLIGHT: Final = 8
# The service takes 60 exports a minute, and no more than two in one second.
_START_EVERY_S: Final = 0.5
DEFAULT_GRACE_PERIOD: Final = timedelta(minutes=1)
DEFAULT_WAIT: Final = timedelta(hours=2)
DEFAULT_FLAGS: Final = ExportFlags(export_users=True)
# Errors of one window. After any other error, such as a wrong key or a full disk, the other windows would fail as well.
_OF_ONE_WINDOW: Final = (
    TaskFailedError,
    TaskOverdueError,
    RequestRefusedError,
    NotFoundError,
    DownloadError,
    InputError,
    ShrinkError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingWindow:
    """A window that some channels miss. ``window`` is None for the whole history."""

    channels: tuple[Cid, ...]
    window: Window | None

    @property
    def label(self) -> str:
        """The channels for a sentence: the first one, and how many more."""
        more = f" and {len(self.channels) - 1} more" if len(self.channels) > 1 else ""
        return f"{self.channels[0]}{more}"

    def __str__(self) -> str:
        return f"{self.label}, {self.window or 'the whole history'}"

    def to_json(self) -> dict[str, Any]:
        """Return the window as JSON types."""
        return {"channels": list(self.channels), "window": self.window.to_json() if self.window else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPlan:
    """What to export and load so that the lake covers ``channels`` up to ``until``: the oldest windows first."""

    channels: tuple[Cid, ...]
    until: datetime
    windows: tuple[MissingWindow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return {
            "until": format_rfc3339(self.until),
            "n_channels": len(self.channels),
            "plan": [missing.to_json() for missing in self.windows],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a window.

    :param report: of its load; None if it was not loaded.
    :param problem: why it was not loaded; None if it was, or if the service knows none of its channels.
    :param unknown_channels: channels of the window that the service does not know.
    """

    missing: MissingWindow
    report: LoadReport | None = None
    problem: str | None = None
    unknown_channels: tuple[Cid, ...] = ()


def plan(
    lake_uri: str,
    channels: Iterable[str] | None,
    *,
    storage: Storage = None,
    until: datetime,
    extra_channels: Iterable[str] = (),
    since: datetime | None = None,
    lookback: timedelta = timedelta(0),
    max_window: timedelta | None = None,
    grace_period: timedelta = DEFAULT_GRACE_PERIOD,
    retention: Retention | None = None,
    now: datetime | None = None,
    max_channels: int = MAX_CHANNELS_PER_EXPORT,
) -> SyncPlan:
    """Return what the lake does not cover. Channels that miss the same window are exported together.

    :param channels: as ``TYPE:ID``; None for all that the lake covers somewhere.
    :param storage: how to reach the lake, if the environment does not say.
    :param until: end of what should be covered, aware.
    :param extra_channels: channels to add.
    :param since: start of what should be covered, aware. None for the first covered moment of each channel, and for the
        whole history of a channel that the lake does not know.
    :param lookback: export this much before each gap once more, for late edits and deletes.
    :param max_window: split what is missing into windows of this length. A lookback comes on top of the first one of a
        gap. A whole history is never split, because it has no start.
    :param grace_period: how long messages may be on their way, as for ``Lake.gaps``.
    :param retention: how long the service keeps messages. What lies before is left out, because no export can cover it
        any more. A whole history stays whole: the service may still have older messages.
    :param now: the time by the service's clock, from which the age of messages counts; by default the end, ``until``.
    :param max_channels: the most channels of a window.
    :raises CallError: a channel is not ``TYPE:ID``, the lake covers none, or ``since`` is not before ``until``.
    :raises LakeError: the lake cannot be read.
    """
    if since is not None and since >= until:
        raise CallError(
            f"since is {format_rfc3339(since)}, which is not before {format_rfc3339(until)}, the end of what is "
            "exported; give an earlier time",
            argument="since",
        )
    if max_window is not None and max_window <= timedelta(0):
        raise CallError(f"max_window is {max_window}; give a duration longer than zero", argument="max_window")
    snapshot = commit_log.read_snapshot(open_store(lake_uri, storage))
    entries, horizons = snapshot.coverage, Horizons(snapshot.records)
    # With an earlier moment, the horizon would be earlier, too. What the last load did not claim would be a gap again.
    moment = (now or until) + CLOCK_STEP
    names = sorted(channels_of(entries)) if channels is None else channels
    cids = tuple(dict.fromkeys(parse_cid(name) for name in [*names, *extra_channels]))
    if not cids and channels is None:
        raise CallError(f"the lake at {lake_uri} covers no channel yet; name channels, or give a query that finds them")
    windows = missing_windows(
        entries,
        cids,
        since=since,
        until=until,
        lookback=lookback,
        max_window=max_window,
        grace_period=grace_period,
        max_channels=max_channels,
        lost=snapshot.lost,
        horizon_of=lambda cid: horizons.of(cid, retention, exported_at=moment, moment=moment),
    )
    return SyncPlan(channels=cids, until=until, windows=windows)


def missing_windows(
    entries: Collection[CoverageEntry],
    channels: Sequence[Cid],
    *,
    since: datetime | None,
    until: datetime,
    lookback: timedelta,
    max_window: timedelta | None,
    grace_period: timedelta,
    max_channels: int,
    lost: Collection[LostSpan] = (),
    horizon_of: Callable[[str], datetime | None] = lambda _: None,
) -> tuple[MissingWindow, ...]:
    """Return the windows of a plan, from the coverage of a lake. Pure; the arguments are those of ``plan``.

    Every window contains a moment that is not covered, and what a lookback repeats is in one window with the start of
    the gap that follows. So a window that fails leaves a gap, whatever else is loaded, and the next plan repeats the
    same lookback before it. With a window of its own, a lookback that fails would never be repeated: the next one
    begins later.

    :param lost: what lost files leave uncovered.
    :param horizon_of: returns from when on an export of a channel knows all; None for all of time.
    """
    bounds: dict[str, Any] = {"until": until, "grace_period": grace_period, "lost": lost}
    missing = gaps(entries, channels, since=since, **bounds)
    never_covered = gaps(entries, missing, since=BEGINNING, **bounds) if lookback and since is None else {}
    batches: dict[Window | None, list[Cid]] = defaultdict(list)
    for cid, spans in missing.items():
        reached = since or _first_covered(never_covered.get(cid, []))
        for span in spans:
            if since is None and span.since == BEGINNING:
                batches[None].append(Cid(cid))
                continue
            horizon = horizon_of(cid) or BEGINNING
            begins = max(span.since, horizon)
            again = min(lookback, max(begins - max(reached, horizon), timedelta(0)))
            for window in _windows(replace(span, since=begins), max_window, again):
                batches[window].append(Cid(cid))
            reached = span.until
    windows = [
        MissingWindow(channels=tuple(batch[first : first + max_channels]), window=window)
        for window, batch in batches.items()
        for first in range(0, len(batch), max_channels)
    ]
    # A whole history may take the service longest, so it comes last.
    return tuple(sorted(windows, key=lambda each: (each.window is None, each.window and _ends(each.window))))


def _ends(window: Window) -> tuple[datetime, datetime]:
    return window.since, window.until


def _first_covered(never_covered: Sequence[TimeSpan]) -> datetime:
    """Return the first covered moment of a channel: the end of the gap that starts at the beginning of time, if any."""
    return never_covered[0].until if never_covered and never_covered[0].since == BEGINNING else BEGINNING


def _windows(span: TimeSpan, max_window: timedelta | None, again: timedelta) -> Iterator[Window]:
    """Yield windows that tile a span. A span from the beginning of time is one window, not thousands of empty ones.

    Cuts lie at whole multiples of ``max_window`` since 1970. So channels whose gaps begin at different moments share
    most windows.

    :param again: how much earlier the first window starts.
    """
    since = max(span.since, BEGINNING)
    if since >= span.until:
        return
    if max_window is None or span.until - since <= max_window or since == BEGINNING:
        yield Window(since=since - again, until=span.until)
        return
    cut = since + max_window - (since - EPOCH) % max_window
    yield Window(since=since - again, until=cut)
    yield from Window(since=cut, until=span.until).split(max_window)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Started:
    """The exports of a window: one, or several if the service refused a channel."""

    missing: MissingWindow
    receipts: list[Receipt]
    started_epoch_s: float


def run(
    settings: ServiceSettings,
    sync_plan: SyncPlan,
    *,
    lake_uri: str,
    flags: ExportFlags = DEFAULT_FLAGS,
    options: LoadOptions = DEFAULT_OPTIONS,
    wait_timeout: timedelta = DEFAULT_WAIT,
    progress: Progress = silent,
) -> Iterator[Outcome]:
    """Export and load the windows of a plan, and yield what became of each as soon as it is known.

    An error that concerns one window is its ``problem``, and the run goes on. The next plan has that window again.

    :param wait_timeout: how long to wait for an export.
    :raises ServiceError: the service cannot be reached, or refuses the key.
    :raises LakeError: the lake cannot be read or written.
    """
    ahead, in_flight = deque(sync_plan.windows), deque[_Started]()
    unknown: set[Cid] = set()
    next_start_s = time.monotonic()
    with ChatExportClient(settings) as client, ChatExportClient(settings.without_retries()) as polling_client:
        options = pipeline.ask_retention(client, options)
        while ahead or in_flight:
            started = None if ahead and len(in_flight) < MAX_IN_FLIGHT else in_flight.popleft()
            missing = ahead.popleft() if started is None else started.missing
            try:
                if started is None:
                    time.sleep(max(0.0, next_start_s - time.monotonic()))
                    next_start_s = time.monotonic() + _START_EVERY_S
                    in_flight.append(_start(client, missing, flags, unknown))
                    continue
                deadline_epoch_s = started.started_epoch_s + wait_timeout.total_seconds()
                _wait(polling_client, started, deadline_epoch_s, progress)
                report = _load(client, started, lake_uri, options, progress)
            except _OF_ONE_WINDOW as error:
                log.info("window not loaded window=%s problem=%s", missing, error.message)
                yield Outcome(missing=missing, problem=error.message)
            else:
                yield Outcome(
                    missing=missing,
                    report=report,
                    unknown_channels=tuple(cid for cid in missing.channels if cid in unknown),
                )


def _start(client: ChatExportClient, missing: MissingWindow, flags: ExportFlags, unknown: set[Cid]) -> _Started:
    started_epoch_s = time.time()
    request = ChannelsRequest(channels=missing.channels, window=missing.window, flags=flags).without(unknown)
    receipts = _submit(client, request, unknown) if request else []
    return _Started(missing=missing, receipts=receipts, started_epoch_s=started_epoch_s)


def _submit(client: ChatExportClient, request: ChannelsRequest, unknown: set[Cid]) -> list[Receipt]:
    """Start an export. If the service refuses it because of one channel, halve it until that channel is alone.

    :param unknown: gets the channels that the service does not know.
    """
    try:
        receipt = Receipt(task_id=client.submit_channels(request), request=request)
    except RequestRefusedError as error:
        if not error.part_may_succeed:
            raise
        if len(request.channels) > 1:
            return [receipt for half in request.split_channels() for receipt in _submit(client, half, unknown)]
        if not error.is_missing:
            raise
        unknown.update(request.channels)
        return []
    log.info("export started task_id=%s channels=%d window=%s", receipt.task_id, len(request.channels), request.window)
    return [receipt]


def _wait(client: ChatExportClient, started: _Started, deadline_epoch_s: float, progress: Progress) -> None:
    wait = functools.partial(progress, f"waiting for {started.missing}", 0, None)
    wait()
    poller = ExportPoller(
        [receipt.task_id for receipt in started.receipts],
        started_epoch_s=started.started_epoch_s,
        deadline_epoch_s=deadline_epoch_s,
    )
    wait_for_exports(client, poller, on_round=wait)


def _load(
    client: ChatExportClient, started: _Started, lake_uri: str, options: LoadOptions, progress: Progress
) -> LoadReport | None:
    """Load the exports of a window; return None if the service knows none of its channels."""
    if not started.receipts:
        return None
    return pipeline.load_exports(client, started.receipts, lake_uri=lake_uri, options=options, progress=progress)
