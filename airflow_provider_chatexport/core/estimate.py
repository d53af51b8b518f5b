"""An estimate of a backfill: exports, hours under the rate limit, disk, memory, files."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

from airflow_provider_chatexport.core.plan import MAX_CHANNELS_PER_EXPORT
from airflow_provider_chatexport.errors import CallError

# The service's limit for an app ("Rate Limits": ExportChannels).
EXPORTS_PER_MINUTE: Final = 60
# Measured on a month of the sandbox's chat, 49,023 messages with their users, members and reactions: 99.1 MB as typed
# lines, and 12.1 MB in the lake, in 106 files. The footer of a small file takes about 16 kB.
EXPORT_BYTES_PER_MESSAGE: Final = 2_020
LAKE_BYTES_PER_MESSAGE: Final = 215
LAKE_BYTES_PER_FILE: Final = 16_000
# Messages, reactions, attachments: a merge leaves one file per month. Channels, members, reads, users: one in all.
EVENT_TABLES: Final = 3
SNAPSHOT_TABLES: Final = 4
# About how many of the newest loads still have files of their own: loads merge what earlier ones have left behind.
UNMERGED_LOADS: Final = 15
DAYS_PER_MONTH: Final = 30
# The export, its normalized lines, DuckDB's spill files and the new data files together, as a multiple of the unpacked
# export (docs/operating.md).
WORK_COPIES: Final = 3
# The most that a load has taken, for an export of 2.9 GB (benchmarks/README.md).
MEMORY_BYTES: Final = 800_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a backfill needs. Sizes are in bytes.

    ``hours`` is the time that the rate limit alone takes. ``work_bytes`` and ``memory_bytes`` are those of one load at
    a time, for messages that are spread evenly over the windows.
    """

    exports: int
    hours: float
    download_bytes: int
    lake_bytes: int
    work_bytes: int
    memory_bytes: int
    files: int

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON types."""
        return asdict(self) | {"hours": round(self.hours, 2)}


def estimate(*, channels: int, messages: int, windows: int) -> Estimate:
    """Estimate the backfill of some channels.

    :param messages: in all channels and windows.
    :param windows: of at most one UTC day each; the backfill exports every channel in every window.
    :raises CallError: a number is negative, or there is no channel or window.
    """
    if channels < 1 or windows < 1 or messages < 0:
        raise CallError("there is nothing to plan; give at least one channel and one window, and zero or more messages")
    exports = windows * math.ceil(channels / MAX_CHANNELS_PER_EXPORT)
    unmerged = min(windows, UNMERGED_LOADS)
    merged_months = math.ceil((windows - unmerged) / DAYS_PER_MONTH)
    files = unmerged * (EVENT_TABLES + SNAPSHOT_TABLES) + merged_months * EVENT_TABLES
    files += SNAPSHOT_TABLES if merged_months else 0
    return Estimate(
        exports=exports,
        hours=exports / EXPORTS_PER_MINUTE / 60,
        download_bytes=messages * EXPORT_BYTES_PER_MESSAGE,
        lake_bytes=messages * LAKE_BYTES_PER_MESSAGE + files * LAKE_BYTES_PER_FILE,
        work_bytes=WORK_COPIES * math.ceil(messages / windows) * EXPORT_BYTES_PER_MESSAGE,
        memory_bytes=MEMORY_BYTES,
        files=files,
    )
