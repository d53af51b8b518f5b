"""JSON arrays, and objects one after another, cut into fragments: an element may be larger than memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.errors import InputError

STREAMED_LISTS: Final = frozenset({"messages", "members", "reads", "read", "reactions", "users"})


@dataclass(frozen=True, slots=True)
class JsonFragment:
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


class JsonSlicer:
    """Cut one JSON array, or a sequence of objects, into fragments by brackets and strings, without building objects.

    A value's own syntax is not checked here: whoever parses the fragment does.
    """

    # What is nested no deeper than objects of chat are is found in one step, and all else bracket by bracket.
    _USUAL = re.compile(_nested(6), re.DOTALL)
    _SKIP = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
    _SPACE = re.compile(rb"[ \t\r\n]*+")
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

    def fragments(self) -> Iterator[JsonFragment]:
        if self._of_line is not None:
            firsts = iter([self._peek()])
        elif self._peek() == b"[":
            self._at += 1
            firsts = self._each(b"]")
        else:
            firsts = iter(lambda: self._peek(at_end=True), b"")
        for first in firsts:
            self._element += 1
            begin = self._offset
            whole, over = b"", 0
            if first == b"{":
                self._at += 1
                yield from self._members()
            else:
                whole, over = self._value(first)
            if self._of_line is None:
                yield JsonFragment(self._element, begin, None, whole, over=over)
        if self._peek(at_end=True):
            raise self._broken("has more after the array's end")
        if self._of_line is not None:
            yield JsonFragment(self._element, begin, None, whole, over=over)

    def _members(self) -> Iterator[JsonFragment]:
        of_channel = False
        for byte in self._each(b"}"):
            if byte != b'"':
                raise self._broken("has a key that is no string")
            key = self._key()
            of_channel = of_channel or key == "channel"
            first = self._peek()
            # An API object may have short lists of these names as well; only a channel's are ever too long to be held.
            if first == b"[" and key in STREAMED_LISTS and (of_channel or key == "messages" or self._is_too_long()):
                self._at += 1
                for first_of_item in self._each(b"]"):
                    begin = self._offset
                    raw, over = self._value(first_of_item)
                    yield JsonFragment(self._element, begin, key, raw, item=True, over=over)
            else:
                begin = self._offset
                raw, over = self._value(first)
                yield JsonFragment(self._element, begin, key, raw, over=over)

    def _each(self, end: bytes) -> Iterator[bytes]:
        """The first byte of each value or key up to this end, which is in_place: one comma is between two of them."""
        byte = self._peek()
        while byte != end:
            yield byte
            byte = self._peek()
            if byte == b",":
                self._at += 1
                byte = self._peek()
                if byte == end:
                    raise self._broken("has a comma before an end")
            elif byte != end:
                raise self._broken("has no comma between two values")
        self._at += 1

    def _key(self) -> str:
        """Its colon is in_place too."""
        raw, _ = self._value(b'"')
        try:
            key = str(json.loads(raw))
        except ValueError:
            raise self._broken("has a key that is not JSON") from None
        if self._peek() != b":":
            raise self._broken("has no colon after a key")
        self._at += 1
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
        """The next byte that is not space."""
        while True:
            found = self._SPACE.match(self._buffer, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at : self._at + 1]
            if not self._more():
                if at_end:
                    return b""
                raise self._broken("breaks off")

    def _value(self, first: bytes) -> tuple[bytes, int]:
        """The value that begins here, with this byte, or its beginning and how much more there is of it."""
        try:
            if first in b"{[":
                length = self._container()
            elif first in b",:]}":
                raise self._broken("has no value where one should be")
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

    def _is_too_long(self) -> bool:
        """Of the list that begins here."""
        try:
            return self._container() > self._max_bytes
        except _TooLongError:
            return True

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
