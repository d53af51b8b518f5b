"""What a backfill asks for: exports, hours under the rate limit, disk, memory, files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_chatexport.core.plan import MAX_CHANNELS_PER_EXPORT
from airflow_provider_chatexport.errors import CallError

# The service's limit for an app ("Rate Limits": ExportChannels).
EXPORTS_PER_MINUTE: Final = 60
# A month of the sandbox's chat, 49,023 messages with their users, members and reactions: 99.1 MB as typed lines, and
# 12.1 MB in the lake in 106 files, of which a footer of a small file is about 16 kB.
EXPORT_BYTES_PER_MESSAGE: Final = 2_020
LAKE_BYTES_PER_MESSAGE: Final = 215
LAKE_BYTES_PER_FILE: Final = 16_000
# Messages, reactions, attachments, channels, members, reads, users.
FILES_PER_WINDOW: Final = 7
# The unpacked export, the lines that are taken apart, what DuckDB spills, the files in the making (docs/operating.md).
WORK_COPIES: Final = 3
# The largest that a load took, of an export of 2.9 GB (benchmarks/README.md).
MEMORY_BYTES: Final = 800_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """Sizes in bytes. ``hours``: what the rate limit alone takes. ``work_bytes`` and ``memory_bytes``: of one load at a
    time, with messages spread evenly over windows."""

    exports: int
    hours: float
    download_bytes: int
    lake_bytes: int
    work_bytes: int
    memory_bytes: int
    files: int

    def to_json(self) -> dict[str, Any]:
        return {
            "exports": self.exports,
            "hours": round(self.hours, 2),
            "download_bytes": self.download_bytes,
            "lake_bytes": self.lake_bytes,
            "work_bytes": self.work_bytes,
            "memory_bytes": self.memory_bytes,
            "files": self.files,
        }


def sizing(*, channels: int, messages: int, windows: int) -> Sizing:
    """:param messages: in all.
    :param windows: of at most one UTC day each; every one is exported for every channel.
    :raises CallError: a number is negative, or there is no channel or window.
    """
    if channels < 1 or windows < 1 or messages < 0:
        raise CallError("there is nothing to plan; give at least one channel and one window, and messages from 0")
    exports = windows * math.ceil(channels / MAX_CHANNELS_PER_EXPORT)
    files = windows * FILES_PER_WINDOW
    return Sizing(
        exports=exports,
        hours=exports / EXPORTS_PER_MINUTE / 60,
        download_bytes=messages * EXPORT_BYTES_PER_MESSAGE,
        lake_bytes=messages * LAKE_BYTES_PER_MESSAGE + files * LAKE_BYTES_PER_FILE,
        work_bytes=WORK_COPIES * math.ceil(messages / windows) * EXPORT_BYTES_PER_MESSAGE,
        memory_bytes=MEMORY_BYTES,
        files=files,
    )
