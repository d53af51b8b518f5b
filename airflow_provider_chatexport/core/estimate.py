"""A model of a backfill: what it asks of the service, the workers and the lake, and which choices do not scale.

Every figure follows from the number of channels, messages and windows by the constants below. Each constant was
measured, and names its measurement. A test holds the model against the figures of benchmarks/README.md and
docs/scaling.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from airflow_provider_chatexport.core.discovery import MAX_CHANNELS_PER_PAGE
from airflow_provider_chatexport.core.plan import MAX_CHANNELS_PER_EXPORT
from airflow_provider_chatexport.core.task import MAX_POLL_S, MIN_POLL_S
from airflow_provider_chatexport.errors import CallError

# The service's limit for an app ("Rate Limits": ExportChannels).
EXPORTS_PER_MINUTE: Final = 60
# A wait's next pause is MIN_POLL_S and this share of the age of its export (core/task.py).
_PAUSE_PER_AGE: Final = 0.1
# How many status requests a triggerer sends for an app in a second, at most (api/turns.py).
STATUS_REQUESTS_PER_S: Final = 80
# Measured on a month of the sandbox's chat, 49,023 messages with their users, members and reactions: 99.1 MB as typed
# lines, and 12.1 MB in the lake, in 106 files. The footer of a small file takes about 16 kB.
EXPORT_BYTES_PER_MESSAGE: Final = 2_020
LAKE_BYTES_PER_MESSAGE: Final = 215
LAKE_BYTES_PER_FILE: Final = 16_000
# messages, reactions, attachments: files by the time of the message. channels, members, reads, users: one per load.
EVENT_TABLES: Final = 3
SNAPSHOT_TABLES: Final = 4
# A load of up to this many days writes a file per day, else one per month (docs/architecture.md, "Files by size").
DAYS_WITH_A_FILE_EACH: Final = 14
DAYS_PER_MONTH: Final = 30.44
LARGEST_FILE_BYTES: Final = 256_000_000
# The export, its normalized lines, DuckDB's spill files and the new data files together, as a multiple of the unpacked
# export (docs/operating.md).
WORK_COPIES: Final = 3
# Memory of a load, by its unpacked export: 229 MB for 3.4 MB, 579 MB for 290 MB, 770 MB for 2.9 GB (benchmarks).
MEMORY_BYTES_AT_LEAST: Final = 230_000_000
MEMORY_PER_EXPORT_BYTE: Final = 1.2
MEMORY_BYTES_AT_MOST: Final = 800_000_000
# CPU seconds of an export task and a load task in Airflow, apart from the load itself (docs/scaling.md).
TASKS_CPU_S: Final = 2.2
# Of a load: at any size, per GB of export (benchmarks: 6.1 s for 290 MB), and per 1,000 loads in the lake.
LOAD_CPU_S: Final = 0.5
LOAD_CPU_S_PER_GB: Final = 21.0
LOAD_CPU_S_PER_1000_LOADS: Final = 0.1
# Requests of a load to an object store, apart from its own data files (docs/architecture.md, "What it costs").
STORE_REQUESTS_PER_LOAD: Final = 15
RECORDS_PER_LISTING: Final = 1_000

# What Airflow and this package allow by default.
MAX_MAPPED_TASKS: Final = 1_024
TRIGGERER_CAPACITY: Final = 1_000
RATE_LIMIT_PATIENCE_MINUTES: Final = 5
# Receipts cross XCom: 16 kB for 250 channels, 6.5 MB for 100,000.
MANY_CHANNELS_PER_TASK: Final = 5_000
MANY_LOADS: Final = 20_000
LONG_BACKFILL_HOURS: Final = 72.0
MUCH_DISK_BYTES: Final = 50_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """A backfill to plan: the messages to export, and how windows and tasks divide them.

    :param messages: in all channels and windows.
    :param window_length: of each window.
    :param channels_per_task: how many channels a pair of an export task and a load task has.
    :param export_time: how long the service takes for an export; nothing documents it.
    :raises CallError: a number is negative, or there is no channel or window.
    """

    channels: int
    messages: int
    windows: int
    window_length: timedelta = timedelta(days=1)
    channels_per_task: int = 250
    export_time: timedelta = timedelta(minutes=1)

    def __post_init__(self) -> None:
        if self.channels < 1 or self.windows < 1 or self.messages < 0:
            raise CallError(
                "there is nothing to plan; give at least one channel and one window, and zero or more messages"
            )
        if self.channels_per_task < 1 or self.window_length <= timedelta(0) or self.export_time < timedelta(0):
            raise CallError(
                "this cannot be planned; give at least one channel per task, a window longer than zero, and an export "
                "time of zero or more"
            )

    @property
    def tasks_per_window(self) -> int:
        """Pairs of an export task and a load task for each window."""
        return math.ceil(self.channels / self.channels_per_task)

    @property
    def exports_per_window(self) -> int:
        """Exports for each window: each task fills its own."""
        whole, rest = divmod(self.channels, self.channels_per_task)
        per_task = math.ceil(min(self.channels, self.channels_per_task) / MAX_CHANNELS_PER_EXPORT)
        return whole * per_task + math.ceil(rest / MAX_CHANNELS_PER_EXPORT)

    @property
    def window_days(self) -> float:
        """Length of a window in days."""
        return self.window_length / timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a backfill needs. Sizes are in bytes.

    :param hours: that the rate limit alone takes.
    :param requests: to the service: searches for channels, submits, status requests, links and files.
    :param lake_bytes: of the lake, after its loads have merged small files.
    :param files: that the lake has then. Loads write ``files_written``.
    :param store_requests: of the loads to an object store, without those of merges.
    :param work_bytes: disk that one load needs, for messages that are spread evenly over windows and channels.
    :param memory_bytes: of one load.
    :param cpu_hours: of all tasks, for one core.
    :param waits: exports that are waited for at the same time.
    :param warnings: sentences about choices that do not scale.
    """

    exports: int
    hours: float
    requests: int
    loads: int
    download_bytes: int
    lake_bytes: int
    work_bytes: int
    memory_bytes: int
    files: int
    files_written: int
    store_requests: int
    cpu_hours: float
    waits: int
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON types."""
        hours = {"hours": round(self.hours, 2), "cpu_hours": round(self.cpu_hours, 2)}
        return asdict(self) | hours | {"warnings": list(self.warnings)}


def estimate(backfill: Backfill) -> Estimate:
    """Estimate a backfill that exports every channel in every window."""
    exports = backfill.windows * backfill.exports_per_window
    loads = backfill.windows * backfill.tasks_per_window
    download_bytes = backfill.messages * EXPORT_BYTES_PER_MESSAGE
    full = backfill.messages * LAKE_BYTES_PER_MESSAGE // LARGEST_FILE_BYTES
    files_written = loads * _files_of_a_load(backfill) + full
    files = _files_left(backfill, loads, files_written, full)
    load_bytes = math.ceil(download_bytes / loads)
    export_s = backfill.export_time.total_seconds()
    searches = backfill.windows * math.ceil(backfill.channels / (MAX_CHANNELS_PER_PAGE - 1))
    return Estimate(
        exports=exports,
        hours=exports / EXPORTS_PER_MINUTE / 60,
        # Each export is submitted, asked for, and fetched: a fresh link, and the file.
        requests=searches + exports * (3 + status_requests(export_s)),
        loads=loads,
        download_bytes=download_bytes,
        lake_bytes=backfill.messages * LAKE_BYTES_PER_MESSAGE + files * LAKE_BYTES_PER_FILE,
        work_bytes=WORK_COPIES * load_bytes,
        memory_bytes=memory_of_a_load(load_bytes),
        files=files,
        files_written=files_written,
        store_requests=loads * STORE_REQUESTS_PER_LOAD + files_written + _listings(loads),
        cpu_hours=(
            loads * (TASKS_CPU_S + LOAD_CPU_S + LOAD_CPU_S_PER_1000_LOADS * loads / 2 / 1_000)
            + LOAD_CPU_S_PER_GB * download_bytes / 1e9
        )
        / 3_600,
        waits=min(exports, math.ceil(EXPORTS_PER_MINUTE / 60 * export_s)),
        warnings=tuple(_warnings(backfill, exports / EXPORTS_PER_MINUTE / 60, loads, load_bytes)),
    )


def memory_of_a_load(export_bytes: int) -> int:
    """Return the memory that a load takes, in bytes.

    :param export_bytes: of its exports, unpacked.
    """
    return min(MEMORY_BYTES_AT_MOST, MEMORY_BYTES_AT_LEAST + math.ceil(MEMORY_PER_EXPORT_BYTE * export_bytes))


def status_requests(export_s: float) -> int:
    """Return how many status requests the wait for an export sends, one after another.

    Pauses grow with the age of the export, from a second to a minute. And exports that start once a second share what
    a triggerer sends at most.
    """
    # After a pause of MIN_POLL_S + _PAUSE_PER_AGE * age, the age has grown by a fixed factor, but for a constant.
    start_s, steady_s = MIN_POLL_S / _PAUSE_PER_AGE, (MAX_POLL_S - MIN_POLL_S) / _PAUSE_PER_AGE
    growing = math.log1p(min(export_s, steady_s) / start_s) / math.log1p(_PAUSE_PER_AGE)
    steady = max(0.0, export_s - steady_s) / MAX_POLL_S
    return min(STATUS_REQUESTS_PER_S, 1 + math.ceil(growing + steady))


def _files_of_a_load(backfill: Backfill) -> int:
    """Return how many files a load writes at most: every table has rows, on every day."""
    days = backfill.window_days
    spans = math.ceil(days) if days <= DAYS_WITH_A_FILE_EACH else math.ceil(days / DAYS_PER_MONTH)
    return EVENT_TABLES * spans + SNAPSHOT_TABLES


def _files_left(backfill: Backfill, loads: int, files_written: int, full: int) -> int:
    """Return how many files stay, when the loads have merged what is small (docs/architecture.md, "Files by size").

    :param full: how many files are as large as files get.
    """
    months = math.ceil(backfill.windows * backfill.window_days / DAYS_PER_MONTH)
    # A lake of n loads has some log n records, each with a file of every table. Sixty loads left three.
    records = min(loads, math.ceil(2 + math.log2(loads) / 2))
    return min(files_written, EVENT_TABLES * months + (EVENT_TABLES + SNAPSHOT_TABLES) * records + full)


def _listings(loads: int) -> int:
    """Return how many requests list the records, above one for each load: a page of a listing has 1,000."""
    return loads * (loads - 1) // 2 // RECORDS_PER_LISTING


def _warnings(backfill: Backfill, hours: float, loads: int, load_bytes: int) -> Iterator[str]:
    """Yield a sentence for each choice that does not scale: what, why, and what to do."""
    tasks = backfill.tasks_per_window
    window_hours = backfill.window_length / timedelta(hours=1)
    hours_per_window = hours / backfill.windows
    if hours_per_window > window_hours / 2:
        yield (
            f"a window takes {hours_per_window:,.1f} hours of the rate limit and lasts {window_hours:,.1f}: runs will "
            "fall behind; make windows longer, or export only channels with new messages (last_message_at in a query)"
        )
    if hours > LONG_BACKFILL_HOURS and backfill.windows > 1:
        yield (
            f"the backfill takes {hours / 24:,.0f} days, and most exports may be of channels without a message; longer "
            f'windows take fewer exports, and window="all" takes {backfill.exports_per_window:,} in all'
        )
    if tasks > MAX_MAPPED_TASKS:
        yield (
            f"each window has {tasks:,} mapped tasks, and Airflow allows {MAX_MAPPED_TASKS:,}; raise "
            "channels_per_task, or [core] max_map_length"
        )
    if tasks > TRIGGERER_CAPACITY:
        yield (
            f"{tasks:,} tasks may wait at the same time, and a triggerer has room for {TRIGGERER_CAPACITY:,}; give the "
            "export tasks a pool that counts deferred ones, or raise [triggerer] capacity"
        )
    if backfill.exports_per_window > EXPORTS_PER_MINUTE * RATE_LIMIT_PATIENCE_MINUTES and tasks > 1:
        yield (
            f"a window has {backfill.exports_per_window:,} exports, and a request gives up after "
            f"{RATE_LIMIT_PATIENCE_MINUTES} minutes of rate limiting; give the export tasks a pool of a few slots that "
            "counts deferred ones"
        )
    if (of_a_task := min(backfill.channels, backfill.channels_per_task)) > MANY_CHANNELS_PER_TASK:
        yield (
            f"a task has {of_a_task:,} channels, whose receipts cross XCom, and one broken export fails all of them; "
            f"set channels_per_task to at most {MANY_CHANNELS_PER_TASK:,}"
        )
    if loads > MANY_LOADS:
        yield (
            f"the lake gets {loads:,} records, and every load lists them; raise channels_per_task, or make windows "
            "longer"
        )
    if WORK_COPIES * load_bytes > MUCH_DISK_BYTES:
        yield (
            f"each load needs {WORK_COPIES * load_bytes / 1e9:,.0f} GB of disk; make windows shorter, or lower "
            "channels_per_task"
        )
