"""An export file as bytes: unpacked, without a BOM, cut into lines or into the fragments of one JSON array.

Nothing here holds a whole file: at most one chunk, one line or one fragment of an array at a time.
"""

from __future__ import annotations

import gzip
import itertools
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import msgspec

from airflow_provider_chatexport.core.options import MAX_LINE_BYTES
from airflow_provider_chatexport.errors import InputError
from airflow_provider_chatexport.lake.normalize.foreign import ForeignFormat, foreign_format, foreign_text
from airflow_provider_chatexport.lake.normalize.json_slicer import JsonFragment, JsonSlicer

GZIP_MAGIC: Final = b"\x1f\x8b"
BOM: Final = b"\xef\xbb\xbf"
CHUNK_BYTES: Final = 4 * 1024 * 1024
# The start of a line that may hold a whole channel or user with its lists: its keys may have any order.
_IS_OBJECT: Final = re.compile(rb"\s*\{")
_ENVELOPE_START: Final = re.compile(rb'\{"type":"\w+","(data|item)":\{')
_EMBEDDED_USER: Final = re.compile(rb'"(?:user|created_by)":\{')
_SPREAD_START: Final = re.compile(rb'\{[ \t\r]*\n\s*(?:["}]|\Z)|\{\s*"channel"\s*:\s*\{[ \t\r]*\n\s*"')
_OBJECT_LINE: Final = re.compile(rb'^\s*\{\s*"', re.MULTILINE)
# One of the lines in so many first bytes has to start as an object.
LOOKED_AT_BYTES: Final = 64 * 1024
_HEAD_BYTES: Final = 1024
MAX_RATIO: Final = 200
USUAL_UNPACKED_BYTES: Final = 1024 * 1024 * 1024


# A Struct of msgspec is made in a quarter of the time of a frozen dataclass, and there is one for every line.
class Line(msgspec.Struct, frozen=True, gc=False):
    """One line without its end. ``raw`` is only the start of a line that is longer than the limit."""

    number: int
    offset: int
    raw: bytes
    size: int
    is_line: ClassVar[bool] = True

    @property
    def too_long(self) -> bool:
        """Whether the line is longer than the limit."""
        return self.size > len(self.raw)

    @classmethod
    def of(cls, number: int, offset: int, raw: bytes) -> Line:
        """Return a whole line.

        :param raw: may still have a CR at its end.
        """
        raw = raw.removesuffix(b"\r")
        return cls(number, offset, raw, len(raw))


class LongLine:
    """An over-long line that may hold a whole channel or user. It is streamed; only a fragment has to fit in memory.

    The reader of the file goes on behind it once all of its chunks are consumed, by ``fragments`` or ``skip``.
    """

    def __init__(self, path: Path, number: int, offset: int, start: bytes, more: Iterator[bytes]) -> None:
        self.number = number
        self.offset = offset
        self.start = start
        self.size = 0
        self.after = b""
        self._ends_with_cr = False
        self._path = path
        self._chunks = self._up_to_its_end(more)

    def _up_to_its_end(self, more: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in itertools.chain([self.start], more):
            text, end, self.after = chunk.partition(b"\n")
            self.size += len(text)
            self._ends_with_cr = text.endswith(b"\r") if text else self._ends_with_cr
            yield text
            if end:
                break

    def fragments(self, max_bytes: int) -> Iterator[JsonFragment]:
        """Yield the line in fragments.

        :raises BrokenJsonError: it is not one well-formed object.
        """
        return JsonSlicer(self._path, self._chunks, self.offset, max_bytes, of_line=self.number).fragments()

    def as_too_long(self, max_bytes: int) -> Line:
        """Return the start of the line, once all of it was read."""
        return Line(self.number, self.offset, self.start[:max_bytes], self.size - self._ends_with_cr)

    def skip(self) -> None:
        """Read on to the line's end."""
        for _ in self._chunks:
            pass


class ExportReader:
    """One export file on disk.

    :ivar is_empty: there is nothing but blanks in it.
    :ivar payload_key: ``item`` or ``data``: where the first line has its object, if it has an envelope of that form.
    :param on_read: called with the number of bytes that have been read, as they lie on disk.
    :raises InputError: the file cannot be opened, is not an export, or its gzip stream is damaged.
    """

    def __init__(
        self, path: Path, *, max_unpacked_bytes: int | None = None, on_read: Callable[[int], None] | None = None
    ) -> None:
        self.path = path
        self._on_read = on_read
        self._max_unpacked_bytes = max_unpacked_bytes
        self.bom_bytes = 0
        if found := foreign_format(next(self.chunks(_HEAD_BYTES), b"")):
            raise self._not_an_export(found)
        head = self._first_bytes(_HEAD_BYTES)
        self.is_empty = not head
        self.is_array = head.startswith(b"[")
        # As tools print JSON for people: the first line ends with an opening bracket, and a key comes next.
        self.is_spread = _SPREAD_START.match(head) is not None
        start = _ENVELOPE_START.match(head)
        self.payload_key = start.group(1).decode() if start is not None else None
        # One damaged line is one reject, even if it is the first.
        if head and not head.startswith((b"{", b"[")) and not _OBJECT_LINE.search(self._first_bytes(LOOKED_AT_BYTES)):
            raise self._not_an_export(foreign_text(head))

    def _not_an_export(self, found: ForeignFormat | None) -> InputError:
        if found is not None:
            return InputError(f"{self.path} is {found.what}, and not an export file; {found.remedy}")
        return InputError(
            f"{self.path} is not an export file: it begins with neither an object nor an array of JSON; give the file "
            "that an export's link leads to"
        )

    def chunks(self, size: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yield the unpacked bytes, without a BOM."""
        try:
            with self.path.open("rb") as raw, self._unpacked(raw) as stream:
                limit = self._unpacked_limit() if stream is not raw else None
                n_bytes = 0
                while chunk := stream.read(size):
                    if not n_bytes:
                        self.bom_bytes = len(BOM) if chunk.startswith(BOM) else 0
                    n_bytes += len(chunk)
                    if limit is not None and n_bytes > limit:
                        raise InputError(
                            f"{self.path} unpacks to more than {limit} bytes; nothing was loaded. If it is an export "
                            "all the same, allow more with max_unpacked_bytes",
                            argument="max_unpacked_bytes",
                            retryable=False,
                        )
                    if self._on_read is not None:
                        self._on_read(raw.tell())
                    yield chunk[self.bom_bytes :] if n_bytes == len(chunk) else chunk
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{self.path} breaks off or is damaged ({type(error).__name__} while unpacking gzip); fetch it again"
            ) from None
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be read: {error.strerror or error}; check its disk, then load it again"
            ) from None

    def _unpacked_limit(self) -> int:
        """Return how far the file may expand: chat packs to about a tenth, a bomb expands a thousandfold."""
        if self._max_unpacked_bytes is not None:
            return self._max_unpacked_bytes
        return max(USUAL_UNPACKED_BYTES, MAX_RATIO * self.path.stat().st_size)

    @property
    def is_wrapped(self) -> bool:
        """Whether the file is packed or has a BOM, so that DuckDB cannot read it as it lies on disk."""
        with self.path.open("rb") as stream:
            return stream.read(3).startswith((GZIP_MAGIC, BOM))

    @property
    def likely_embeds_users(self) -> bool:
        """Whether the first objects hold whole users, rather than their ids."""
        return _EMBEDDED_USER.search(self._first_bytes(LOOKED_AT_BYTES)) is not None

    @property
    def is_cut_into_fragments(self) -> bool:
        """Whether the file is one array, or objects spread over lines, rather than an object a line."""
        return self.is_array or self.is_spread

    @staticmethod
    def _unpacked(raw: BinaryIO) -> BinaryIO | gzip.GzipFile:
        packed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        return gzip.GzipFile(fileobj=raw) if packed else raw

    def _first_bytes(self, size: int) -> bytes:
        """Return the first bytes of the file behind leading blanks."""
        first = b""
        for chunk in self.chunks(size):
            first = (first + chunk).lstrip()
            if len(first) >= size:
                break
        return first

    def lines(self, max_line_bytes: int) -> Iterator[Line | LongLine]:
        """Yield the lines that are not blank, with their number from 1 (blank lines count) and their offset."""
        chunks = self.chunks()
        number, offset, rest, head = 0, self.bom_bytes, b"", b""
        over = 0  # bytes of an overlong line that were read and dropped
        while (chunk := next(chunks, None)) is not None:
            parts = (rest + chunk).split(b"\n")
            rest = parts.pop()
            for raw in parts:
                number += 1
                size = len(raw) + over
                without_end = size - raw.endswith(b"\r")
                if not over and without_end > max_line_bytes and _IS_OBJECT.match(raw):
                    yield LongLine(self.path, number, offset, raw, iter(()))
                elif over or without_end > max_line_bytes:
                    yield Line(number, offset, raw[:max_line_bytes] if not over else head, without_end)
                elif raw and not raw.isspace():
                    yield Line.of(number, offset, raw)
                offset += size + 1
                over = 0
            if len(rest) > max_line_bytes + 1:  # not for a CR alone
                if not over and _IS_OBJECT.match(rest):
                    long = LongLine(self.path, number + 1, offset, rest, chunks)
                    yield long
                    number += 1
                    offset += long.size + 1
                    rest, chunks = b"", itertools.chain([long.after], chunks)
                    continue
                if not over:
                    head = rest[:max_line_bytes]
                over += len(rest) - 1
                rest = rest[-1:]
        size = len(rest) + over - rest.endswith(b"\r")
        if over or size > max_line_bytes:
            yield Line(number + 1, offset, head if over else rest[:max_line_bytes], size)
        elif rest.strip():
            yield Line.of(number + 1, offset, rest)

    def fragments(self, max_bytes: int = MAX_LINE_BYTES) -> Iterator[JsonFragment]:
        """Yield the elements of one JSON array, or objects spread over lines, in fragments.

        An element may be larger than memory.

        :param max_bytes: only the start of a longer value is kept.
        :raises InputError: the array is not well formed, or breaks off.
        """
        return JsonSlicer(self.path, self.chunks(), self.bom_bytes, max_bytes).fragments()
