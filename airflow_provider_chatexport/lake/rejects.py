"""What could not become a row: the line as it stands, where it stands, and why."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from typing import Any, Final

from airflow_provider_chatexport.lake.source import Line

MAX_REJECT_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A row of ``rejects``; the columns are described in the registry."""

    line_number: int
    byte_offset: int
    reason: str
    raw: str
    raw_encoding: str
    raw_size_bytes: int

    def to_row(self) -> dict[str, Any]:
        return asdict(self)


def reject(line: Line, reason: str) -> Reject:
    """A row of ``rejects``; the raw bytes are cut at a limit, and base64 where they are not UTF-8."""
    head = line.raw[:MAX_REJECT_BYTES]
    try:
        raw, encoding = head.decode(), "utf-8"
    except UnicodeDecodeError:
        raw, encoding = base64.b64encode(head).decode(), "base64"
    return Reject(
        line_number=line.number,
        byte_offset=line.offset,
        reason=reason,
        raw=raw,
        raw_encoding=encoding,
        raw_size_bytes=line.size,
    )
