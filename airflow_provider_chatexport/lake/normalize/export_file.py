"""An export file as bytes: gzip undone, BOM dropped, cut into lines or into the fragments of one JSON array.

Nothing here holds a file in memory: at most one chunk, one line or one fragment of an array at a time.
"""

from __future__ import annotations

import gzip
import itertools
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from airflow_provider_chatexport.core.options import MAX_LINE_BYTES
from airflow_provider_chatexport.errors import InputError
from airflow_provider_chatexport.lake.normalize.json_slicer import JsonFragment, JsonSlicer

GZIP_MAGIC: Final = b"\x1f\x8b"
BOM: Final = b"\xef\xbb\xbf"
CHUNK_BYTES: Final = 4 * 1024 * 1024
# A line that may hold a channel or a user with lists of what is theirs; a sorted answer about a user tells first how
# long it took.
_HOLDS_LISTS: Final = re.compile(
    rb'\s*\{\s*(?:"duration"\s*:\s*"[^"]*"\s*,\s*)?"(?:channel|users?|messages|members|reads?|reactions)"\s*:\s*[\{\[n]'
)
_TYPED_START: Final = re.compile(rb'\{"type":"\w+","data":\{')
_SPREAD_START: Final = re.compile(rb'\{[ \t\r]*\n\s*(?:["}]|\Z)')
_OBJECT_LINE: Final = re.compile(rb'^\s*\{\s*"', re.MULTILINE)
# Where among the first lines one has to begin as an object.
LOOKED_AT_BYTES: Final = 64 * 1024
# What is looked at several times over had better stay in the processor's cache.
BLOCK_BYTES: Final = 128 * 1024
# No line within a block can be longer than the block; the database's own limit of an object is twice this.
MAX_BLOCK_BYTES: Final = 8 * 1024 * 1024
MAX_RATIO: Final = 200
USUAL_UNPACKED_BYTES: Final = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end. ``raw`` is the beginning only where the line is longer than the limit."""

    number: int
    offset: int
    raw: bytes
    size: int

    @property
    def too_long(self) -> bool:
        return self.size > len(self.raw)


def _line(number: int, offset: int, raw: bytes) -> Line:
    """:param raw: with what of its end is left."""
    raw = raw.removesuffix(b"\r")
    return Line(number, offset, raw, len(raw))


class LongLine:
    """A line that is longer than the limit, and begins as one that holds a channel or a user with all that is theirs:
    what it is too long for is to be held, and no more of it than a fragment has to be.

    Whoever meets it takes all of its ``chunks``, in ``fragments`` or not, before the next line.
    """

    def __init__(self, path: Path, number: int, offset: int, begin: bytes, more: Iterator[bytes]) -> None:
        self.number = number
        self.offset = offset
        self.begin = begin
        self.size = 0
        self.after = b""
        self._path = path
        self._chunks = self._up_to_its_end(more)

    def _up_to_its_end(self, more: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in itertools.chain([self.begin], more):
            text, end, self.after = chunk.partition(b"\n")
            self.size += len(text)
            yield text
            if end:
                break

    def fragments(self, max_bytes: int) -> Iterator[JsonFragment]:
        """:raises BrokenJsonError: it is not one well-formed object."""
        return JsonSlicer(self._path, self._chunks, self.offset, max_bytes, of_line=self.number).fragments()

    def pass_over(self) -> None:
        """To its end."""
        for _ in self._chunks:
            pass


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines, as they stand.

    A line that is longer than any block should be comes cut, as the last block.
    """

    first_line: int
    n_lines: int
    offset: int
    text: bytes

    def lines(self) -> Iterator[Line]:
        """Those that are not blank."""
        offset = self.offset
        for number, raw in enumerate(self.text.split(b"\n"), self.first_line):
            if raw and not raw.isspace():
                yield _line(number, offset, raw)
            offset += len(raw) + 1

    def most_openings(self) -> int:
        """How many brackets a line of it opens at most, those in strings too: no value is nested deeper."""
        # One pass that drops nearly all of it is several times cheaper than to count line by line.
        return max(map(len, self.text.translate(None, _BUT_OPENINGS).split(b"\n")))


_BUT_OPENINGS: Final = bytes(set(range(256)) - set(b"{[\n"))


class PlainBlocks:
    """The file in blocks of whole lines, and ``path``, where its bytes lie unpacked."""

    def __init__(self, source: ExportReader, unpacked: Path) -> None:
        self._source = source
        self._unpacked = unpacked
        self.path = unpacked if source.is_wrapped else source.path

    def __iter__(self) -> Iterator[Block]:
        """:raises InputError: a gzip stream is damaged or breaks off."""
        if not self._source.is_wrapped:
            yield from self._blocks(None)
            return
        with self._unpacked.open("wb") as target:
            yield from self._blocks(target)

    def _blocks(self, target: BinaryIO | None) -> Iterator[Block]:
        line, offset, rest = 1, self._source.bom_bytes, b""
        for chunk in self._source.chunks(BLOCK_BYTES):
            if target is not None:
                target.write(chunk)
            end = chunk.rfind(b"\n") + 1
            if not end:
                rest += chunk
            else:
                text, rest = rest + chunk[:end], chunk[end:]
                n_lines = text.count(b"\n")
                yield Block(line, n_lines, offset, text)
                line += n_lines
                offset += len(text)
            if len(rest) > MAX_BLOCK_BYTES:
                break
        if rest:
            yield Block(line, 1, offset, rest)


class ExportReader:
    """One export file on disk.

    :param tell: is told how many bytes of the file have been read, packed ones where it is packed.
    :raises InputError: the file cannot be opened, is empty, or its gzip stream is damaged.
    """

    def __init__(
        self, path: Path, *, max_unpacked_bytes: int | None = None, tell: Callable[[int], None] | None = None
    ) -> None:
        self.path = path
        self._tell = tell
        self._max_unpacked_bytes = max_unpacked_bytes
        self.bom_bytes = 0
        head = self._begin(1024)
        if not head:
            raise InputError(f"{path} holds nothing; an export file has JSON lines or one JSON array")
        self.is_array = head.startswith(b"[")
        # As people's tools print JSON: an object's first line is its bracket alone, and a key comes next.
        self.is_spread = _SPREAD_START.match(head) is not None
        self.begins_typed = _TYPED_START.match(head) is not None
        # One line that is damaged is one reject, also where it is the first. A page of the web may quote JSON.
        if not head.startswith((b"{", b"[")) and (
            head.startswith(b"<") or not _OBJECT_LINE.search(self._begin(LOOKED_AT_BYTES))
        ):
            raise InputError(
                f"{path} is not an export file: it begins with neither an object nor an array of JSON; "
                "give the file that an export's link leads to"
            )

    def chunks(self, size: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The unpacked bytes, without a BOM."""
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
                    if self._tell is not None:
                        self._tell(raw.tell())
                    yield chunk[self.bom_bytes :] if n_bytes == len(chunk) else chunk
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{self.path} breaks off or is damaged ({type(error).__name__} while unpacking gzip); fetch it again"
            ) from None
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror or error}") from None

    def _unpacked_limit(self) -> int:
        """Chat packs to a tenth or so; what expands a thousandfold was made to fill a disk."""
        if self._max_unpacked_bytes is not None:
            return self._max_unpacked_bytes
        return max(USUAL_UNPACKED_BYTES, MAX_RATIO * self.path.stat().st_size)

    @property
    def is_wrapped(self) -> bool:
        """Packed, or begun with a BOM: not to be read by others as it lies on disk."""
        with self.path.open("rb") as stream:
            return stream.read(3).startswith((GZIP_MAGIC, BOM))

    def plain_blocks(self, unpacked: Path) -> PlainBlocks:
        """:param unpacked: where to write the plain bytes if the file is packed."""
        return PlainBlocks(self, unpacked)

    @staticmethod
    def _unpacked(raw: BinaryIO) -> BinaryIO | gzip.GzipFile:
        packed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        return gzip.GzipFile(fileobj=raw) if packed else raw

    def _begin(self, size: int) -> bytes:
        """The file's first bytes past what is blank."""
        begin = b""
        for count, chunk in enumerate(self.chunks(size)):
            begin = (begin + chunk).lstrip()
            if count >= 3 or len(begin) >= size:
                break
        return begin

    def lines(self, max_line_bytes: int) -> Iterator[Line | LongLine]:
        """Lines that are not blank, with their number from 1 (blank ones counted) and their offset."""
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
                if not over and without_end > max_line_bytes and _HOLDS_LISTS.match(raw):
                    yield LongLine(self.path, number, offset, raw, iter(()))
                elif over or without_end > max_line_bytes:
                    yield Line(number, offset, raw[:max_line_bytes] if not over else head, without_end)
                elif raw and not raw.isspace():
                    yield _line(number, offset, raw)
                offset += size + 1
                over = 0
            if len(rest) > max_line_bytes + 1:  # not for a CR alone
                if not over and _HOLDS_LISTS.match(rest):
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
            yield _line(number + 1, offset, rest)

    def fragments(self, max_bytes: int = MAX_LINE_BYTES) -> Iterator[JsonFragment]:
        """The elements of one JSON array, or objects spread over lines, in fragments: one may be larger than memory.

        :param max_bytes: of a value that is longer only the beginning is kept.
        :raises InputError: they are not well formed, or break off.
        """
        return JsonSlicer(self.path, self.chunks(), self.bom_bytes, max_bytes).fragments()
