"""What could not become a row: the line as it stands, where it stands, and why."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import msgspec

from airflow_provider_chatexport.lake import schema
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


REJECT_COLUMNS: Final = {
    column.name: column.kind.value for column in schema.REJECTS if column not in (schema.EXPORTED_AT, schema.LOAD_ID)
}


class RejectFile:
    """Rejects as JSON lines in a file: of a file of garbage there may be millions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_rows = 0
        self._stream: IO[bytes] | None = None

    def append(self, row: Reject) -> None:
        if self._stream is None:
            self._stream = self.path.open("ab" if self.n_rows else "wb")
        self._stream.write(msgspec.json.encode(row) + b"\n")
        self.n_rows += 1

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


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
