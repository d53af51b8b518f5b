"""Rejects: what could not become a row, as the bytes that it is, where it stands, and why.

A reject keeps the whole line, if the line is one object or not an object at all. If the line or the element of an array
is a channel or user with lists, the reject keeps only the item or member that is at fault: a line with a thousand
faults must not be kept a thousand times. If DuckDB refuses an object that was taken out of its line, the reject keeps
the object. ``raw_size_bytes`` is the size of what is kept. Line number and byte offset are those of the line, and in an
array those of the item.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import IO, Final

import msgspec

from airflow_provider_chatexport.core.entities import ALIASES, ENVELOPE_NAME_KEYS, OTHER_NAMES, Entity
from airflow_provider_chatexport.lake.normalize.export_file import Line
from airflow_provider_chatexport.lake.schema.tables import EXPORTED_AT, LOAD_ID, REJECTS

MAX_REJECT_BYTES: Final = 64 * 1024

# The first bytes of a broken line say which entity it was.
_START_BYTES: Final = 512
_NAME_KEYS: Final = "|".join(ENVELOPE_NAME_KEYS)
_NAMES: Final = "|".join((*ALIASES, *OTHER_NAMES))
_NAMED: Final = re.compile(rf'\s*\{{\s*"(?:{_NAME_KEYS})"\s*:\s*"({_NAMES})"\s*(?:[,}}]|$)'.encode())
_KEYED: Final = re.compile(rf'\s*\{{\s*"({_NAMES})"\s*:\s*(?:[\{{\[n]|$)'.encode())
_BARE_CHANNEL: Final = re.compile(rb'"(?:config|frozen|member_count|created_by)"\s*:')
_BARE_MESSAGE: Final = re.compile(rb'"(?:text|html)"\s*:')


class Reject(msgspec.Struct, frozen=True):
    """The decision that a line, or an object of it, cannot become a row.

    ``entity``: the name that the object counts as; None: no entity could be recognised in the line.
    """

    line: Line
    reason: str
    entity: str | None = None


class RejectRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``rejects``; the registry describes the columns."""

    line_number: int
    byte_offset: int
    reason: str
    raw: str
    raw_encoding: str
    raw_size_bytes: int

    @classmethod
    def of(cls, reject: Reject) -> RejectRow:
        """Return the row of a reject: the raw bytes are cut at a limit, and base64 if they are not UTF-8."""
        line = reject.line
        head = line.raw[:MAX_REJECT_BYTES]
        try:
            raw, encoding = head.decode(), "utf-8"
        except UnicodeDecodeError:
            raw, encoding = base64.b64encode(head).decode(), "base64"
        return cls(
            line_number=line.number,
            byte_offset=line.offset,
            reason=reject.reason,
            raw=raw,
            raw_encoding=encoding,
            raw_size_bytes=line.size,
        )


REJECT_COLUMNS: Final = {column.name: column.kind.value for column in REJECTS if column not in (EXPORTED_AT, LOAD_ID)}


class RejectFile:
    """Rejects as JSON lines in a file: a file of garbage may have millions of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_rows = 0
        self._stream: IO[bytes] | None = None

    def append(self, reject: Reject) -> None:
        """Write one row."""
        if self._stream is None:
            self._stream = self.path.open("ab" if self.n_rows else "wb")
        self._stream.write(msgspec.json.encode(RejectRow.of(reject)) + b"\n")
        self.n_rows += 1

    def close(self) -> None:
        """Close the file; ``append`` opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def starts_as(head: Entity, raw: bytes) -> bool:
    """Return whether a line that could not be read started as the channel, or user, that the next lines belong to.

    Only the first bytes count: further on, a broken line of anything else may have such names as well.
    """
    start = raw[:_START_BYTES]
    if match := _NAMED.match(start) or _KEYED.match(start):
        # A list belongs to the channel or user that stands behind it on the line.
        return ALIASES.get(match[1].decode()) is head or match[0].endswith(b"[")
    is_channel = b'"cid"' in start and _BARE_CHANNEL.search(start) and not _BARE_MESSAGE.search(start)
    return head is Entity.CHANNEL and bool(is_channel)
