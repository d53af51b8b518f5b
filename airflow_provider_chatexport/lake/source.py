"""An export file as bytes: gzip undone, BOM dropped, cut into lines or into the pieces of one JSON array.

Nothing here holds a file in memory: at most one chunk, one line or one piece of an array at a time.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from airflow_provider_chatexport.core.options import MAX_LINE_BYTES
from airflow_provider_chatexport.errors import InputError

GZIP_MAGIC: Final = b"\x1f\x8b"
BOM: Final = b"\xef\xbb\xbf"
CHUNK_BYTES: Final = 4 * 1024 * 1024
# A line that may hold a channel or a user with lists of what is theirs.
_HOLDS_LISTS: Final = re.compile(rb'\s*\{\s*"(?:channel|user|messages|members|reads?|reactions)"\s*:\s*[\{\[]')
_TYPED_START: Final = re.compile(rb'\{"type":"\w+","data":\{')
# What is looked at several times over had better stay in the processor's cache.
BLOCK_BYTES: Final = 128 * 1024
# No line within a block can be longer than the block; the database's own limit of an object is twice this.
MAX_BLOCK_BYTES: Final = 8 * 1024 * 1024
MAX_RATIO: Final = 200
USUAL_UNPACKED_BYTES: Final = 1024 * 1024 * 1024
STREAMED_LISTS: Final = frozenset({"messages", "members", "reads", "read", "reactions", "users"})


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


class LongLine:
    """A line that is longer than the limit, and begins as one that holds a channel or a user with all that is theirs:
    what it is too long for is to be held, and no more of it than a piece has to be.

    Whoever meets it takes all of its ``chunks``, in ``pieces`` or not, before the next line.
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

    def pieces(self, max_bytes: int) -> Iterator[Piece]:
        """:raises BrokenJsonError: it is not one well-formed object."""
        return _Slicer(self._path, self._chunks, self.offset, max_bytes, of_line=self.number).pieces()

    def pass_over(self) -> None:
        """To its end."""
        for _ in self._chunks:
            pass


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of an array's element: a member's value, one item of a streamed list, or (key None) its end.

    An element that is no object comes whole, with its end. ``raw`` is the beginning only where the value is longer
    than the limit.
    """

    element: int
    offset: int
    key: str | None
    raw: bytes
    item: bool = False
    over: int = 0

    @property
    def size(self) -> int:
        return len(self.raw) + self.over


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
                yield Line(number, offset, raw, len(raw))
            offset += len(raw) + 1

    def most_openings(self) -> int:
        """How many brackets a line of it opens at most, those in strings too: no value is nested deeper."""
        # One pass that drops nearly all of it is several times cheaper than to count line by line.
        return max(map(len, self.text.translate(None, _BUT_OPENINGS).split(b"\n")))


_BUT_OPENINGS: Final = bytes(set(range(256)) - set(b"{[\n"))


class PlainBlocks:
    """The file in blocks of whole lines, and ``path``, where its bytes lie unpacked."""

    def __init__(self, source: ExportFile, unpacked: Path) -> None:
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


class ExportFile:
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
        head = b"".join(self._some_chunks(1024)).lstrip()
        if not head:
            raise InputError(f"{path} holds nothing; an export file has JSON lines or one JSON array")
        self.is_array = head.startswith(b"[")
        # As people's tools print JSON: an object's first line is its bracket alone.
        self.is_spread = head.partition(b"\n")[0].strip() == b"{" and b"\n" in head
        self.begins_typed = _TYPED_START.match(head) is not None
        if not self.is_array and not head.startswith(b"{"):
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

    def _some_chunks(self, size: int) -> Iterator[bytes]:
        for count, chunk in enumerate(self.chunks(size)):
            yield chunk
            if count >= 3 or chunk.strip():
                return

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
                if not over and size > max_line_bytes and _HOLDS_LISTS.match(raw):
                    yield LongLine(self.path, number, offset, raw, iter(()))
                elif over or size > max_line_bytes:
                    yield Line(number, offset, raw[:max_line_bytes] if not over else head, size)
                elif raw and not raw.isspace():
                    yield Line(number, offset, raw.rstrip(b"\r"), size - raw.endswith(b"\r"))
                offset += size + 1
                over = 0
            if len(rest) > max_line_bytes:
                if not over and _HOLDS_LISTS.match(rest):
                    long = LongLine(self.path, number + 1, offset, rest, chunks)
                    yield long
                    number += 1
                    offset += long.size + 1
                    rest, chunks = b"", itertools.chain([long.after], chunks)
                    continue
                if not over:
                    head = rest[:max_line_bytes]
                over += len(rest)
                rest = b""
        size = len(rest) + over
        if over:
            yield Line(number + 1, offset, head, size)
        elif rest.strip():
            yield Line(number + 1, offset, rest, size)

    def pieces(self, max_bytes: int = MAX_LINE_BYTES) -> Iterator[Piece]:
        """The elements of one JSON array, or objects spread over lines, in pieces: one may be larger than memory.

        :param max_bytes: of a value that is longer only the beginning is kept.
        :raises InputError: they are not well formed, or break off.
        """
        return _Slicer(self.path, self.chunks(), self.bom_bytes, max_bytes).pieces()


class BrokenJsonError(InputError):
    """An array, or objects one after another, are not well formed."""


class _TooLongError(Exception):
    """A value is longer than the limit."""


def _nested(levels: int) -> bytes:
    """A pattern of an object or a list, whole, with values nested so deep at most."""
    inner = plain = rb'[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+"'
    for _ in range(levels):
        inner = rb"%b|[\[{](?:%b)*+[\]}]" % (plain, inner)
    return rb"[\[{](?:%b)*+[\]}]" % inner


class _Slicer:
    """Cuts one JSON array, or objects one after another, into pieces by brackets and strings, without building objects.

    A value's own syntax is not checked here: whoever parses the piece does.
    """

    # What is nested no deeper than objects of chat are is found in one step, and all else bracket by bracket.
    _USUAL = re.compile(_nested(6), re.DOTALL)
    _SKIP = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
    _SPACE = re.compile(rb"[\s,:]*")
    _STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
    _ATOM = re.compile(rb'[^\s,\[\]{}"]++')
    _TO_BRACKET = re.compile(rb'[^"\[\]{}]*+')
    _TO_QUOTE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)

    def __init__(
        self, path: Path, chunks: Iterator[bytes], offset: int, max_bytes: int, *, of_line: int | None = None
    ) -> None:
        """:param offset: where the chunks begin. :param of_line: they hold one object, which is the line's."""
        self._path = path
        self._chunks = chunks
        self._max_bytes = max_bytes
        self._of_line = of_line
        self._buffer = b""
        self._at = 0
        self._dropped = offset
        self._element = of_line - 1 if of_line is not None else 0

    def pieces(self) -> Iterator[Piece]:
        is_array = self._of_line is None and self._peek() == b"["
        self._at += is_array
        while True:
            byte = self._peek(at_end=not is_array)
            if byte == (b"]" if is_array else b""):
                break
            self._element += 1
            begin = self._offset
            whole, over = b"", 0
            if byte == b"{":
                self._at += 1
                yield from self._members()
            else:
                whole, over = self._value()
            if self._of_line is not None:
                break
            yield Piece(self._element, begin, None, whole, over=over)
        self._at += is_array
        if self._peek(at_end=True):
            raise self._broken("has more after the array's end")
        if self._of_line is not None:
            yield Piece(self._element, begin, None, whole, over=over)

    def _members(self) -> Iterator[Piece]:
        of_channel = False
        while (byte := self._peek()) != b"}":
            if byte != b'"':
                raise self._broken("has a key that is no string")
            key = self._key()
            of_channel = of_channel or key == "channel"
            # An API object may have short lists of these names as well; only a channel's messages are ever many.
            if self._peek() == b"[" and (key == "messages" or (of_channel and key in STREAMED_LISTS)):
                self._at += 1
                while self._peek() != b"]":
                    begin = self._offset
                    raw, over = self._value()
                    yield Piece(self._element, begin, key, raw, item=True, over=over)
                self._at += 1
            else:
                begin = self._offset
                raw, over = self._value()
                yield Piece(self._element, begin, key, raw, over=over)
        self._at += 1

    def _key(self) -> str:
        raw, _ = self._value()
        try:
            key = str(json.loads(raw))
        except ValueError:
            raise self._broken("has a key that is not JSON") from None
        return key.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    @property
    def _offset(self) -> int:
        return self._dropped + self._at

    def _more(self) -> bool:
        """Drops what was consumed and reads a chunk on. Values being cut begin at ``_at``, so they stay whole."""
        chunk = next(self._chunks, b"")
        self._buffer = self._buffer[self._at :] + chunk
        self._dropped += self._at
        self._at = 0
        return bool(chunk)

    def _peek(self, *, at_end: bool = False) -> bytes:
        """The next byte that is not space, comma or colon."""
        while True:
            found = self._SPACE.match(self._buffer, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at : self._at + 1]
            if not self._more():
                if at_end:
                    return b""
                raise self._broken("breaks off")

    def _value(self) -> tuple[bytes, int]:
        """A value, or its beginning and how much more there is of it."""
        first = self._peek()
        try:
            if first in b"{[":
                length = self._container()
            else:
                length = self._scalar(self._STRING if first == b'"' else self._ATOM)
        except _TooLongError:
            head = self._buffer[self._at : self._at + self._max_bytes]
            return head, self._pass_over() - len(head)
        raw = self._buffer[self._at : self._at + length]
        self._at += length
        if length > self._max_bytes:
            return raw[: self._max_bytes], length - self._max_bytes
        return raw, 0

    def _scalar(self, pattern: re.Pattern[bytes]) -> int:
        while True:
            match = pattern.match(self._buffer, self._at)
            # A match that reaches the buffer's end may go on in the next chunk.
            if match and (match.end() < len(self._buffer) or pattern is self._STRING):
                return match.end() - self._at
            self._more_of_value()

    def _container(self) -> int:
        if usual := self._USUAL.match(self._buffer, self._at):
            return usual.end() - self._at
        depth, length = 0, 0
        while True:
            skipped = self._SKIP.match(self._buffer, self._at + length)
            end = skipped.end() if skipped else self._at + length
            byte = self._buffer[end : end + 1]
            length = end - self._at
            if byte in (b"{", b"["):
                depth += 1
                length += 1
            elif byte in (b"}", b"]"):
                depth -= 1
                length += 1
                if depth == 0:
                    return length
            else:  # the buffer ended, inside a string perhaps: the skip stopped before it
                self._more_of_value()

    def _more_of_value(self) -> None:
        if len(self._buffer) - self._at > self._max_bytes:
            raise _TooLongError
        if not self._more():
            raise self._broken("breaks off in a value")

    def _pass_over(self) -> int:
        """The size of a value that is too long to be held: it is read on, and dropped as it is read."""
        size, depth, in_string = 0, 0, False
        is_atom = self._buffer[self._at : self._at + 1] not in (b'"', b"{", b"[")
        while True:
            begin = self._at
            while True:
                to_next = self._ATOM if is_atom else self._TO_QUOTE if in_string else self._TO_BRACKET
                found = to_next.match(self._buffer, self._at)
                self._at = found.end() if found else self._at
                byte = self._buffer[self._at : self._at + 1]
                if byte in (b"", b"\\"):  # the buffer ended, within an escape perhaps
                    break
                self._at += not is_atom
                in_string = in_string != (byte == b'"')
                depth += (byte in (b"{", b"[")) - (byte in (b"}", b"]")) if not in_string else 0
                if is_atom or (depth == 0 and not in_string):
                    return size + self._at - begin
            size += self._at - begin
            if not self._more():
                raise self._broken("breaks off in a value")

    def _broken(self, what: str) -> BrokenJsonError:
        return BrokenJsonError(
            f"{self._path} {what} at byte {self._offset} (element {self._element}); it is not a whole export file, "
            "fetch it again"
        )
