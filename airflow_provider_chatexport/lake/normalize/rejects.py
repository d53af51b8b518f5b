"""What could not become a row: the bytes as they stand, where they stand, and why.

A reject holds what it could not take: the line, where that is one object or none; of a channel or a user with lists,
on a line or in an array, the item or member alone, so that a line of a thousand faults is not kept a thousand times.
``raw_size_bytes`` is of the same. Where the reader behind refuses an object that had to be taken out of its line, the
object is what is left to hold. The number and the offset are a line's always, and an item's in an array.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import msgspec

from airflow_provider_chatexport.core.entities import ALIASES, ENVELOPE_NAME_KEYS, OTHER_NAMES, Entity
from airflow_provider_chatexport.lake.normalize.export_file import Line
from airflow_provider_chatexport.lake.schema.tables import EXPORTED_AT, LOAD_ID, REJECTS

MAX_REJECT_BYTES: Final = 64 * 1024

# Where a line's entity can be told, if it can without the whole of it.
_BEGIN_BYTES: Final = 512
_NAME_KEYS: Final = "|".join(ENVELOPE_NAME_KEYS)
_NAMES: Final = "|".join((*ALIASES, *OTHER_NAMES))
_NAMED: Final = re.compile(rf'\s*\{{\s*"(?:{_NAME_KEYS})"\s*:\s*"({_NAMES})"\s*(?:[,}}]|$)'.encode())
_KEYED: Final = re.compile(rf'\s*\{{\s*"({_NAMES})"\s*:\s*(?:[\{{\[n]|$)'.encode())
_BARE_CHANNEL: Final = re.compile(rb'"(?:config|frozen|member_count|created_by)"\s*:')
_BARE_MESSAGE: Final = re.compile(rb'"(?:text|html)"\s*:')


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A row of ``rejects``; the columns are described in the registry."""

    line_number: int
    byte_offset: int
    reason: str
    raw: str
    raw_encoding: str
    raw_size_bytes: int


REJECT_COLUMNS: Final = {column.name: column.kind.value for column in REJECTS if column not in (EXPORTED_AT, LOAD_ID)}


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


def begins_a_part(raw: bytes, of: Entity) -> bool:
    """Whether a line that could not be read began as a channel, or a user, that what follows would belong to.

    Its first bytes alone are asked: further on, a broken line of anything else may have such names as well.
    """
    begin = raw[:_BEGIN_BYTES]
    if named := _NAMED.match(begin) or _KEYED.match(begin):
        # Lists are of the channel or user that stands behind them.
        return ALIASES.get(named[1].decode()) is of or named[0].endswith(b"[")
    is_channel = b'"cid"' in begin and _BARE_CHANNEL.search(begin) and not _BARE_MESSAGE.search(begin)
    return of is Entity.CHANNEL and bool(is_channel)
