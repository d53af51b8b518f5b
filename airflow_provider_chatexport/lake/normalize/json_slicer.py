"""JSON arrays, and objects one after another, cut into fragments, since an element may be larger than memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from airflow_provider_chatexport.errors import InputError

STREAMED_LISTS: Final = frozenset({"messages", "members", "reads", "read", "reactions", "users"})


class JsonFragment(msgspec.Struct, frozen=True, gc=False):
    """One part of an array's element: a member's value, one item of a streamed list, or (key None) the element's end.

    An element that is not an object comes whole, with its end. ``raw`` is only the start of a value that is longer than
    the limit, and ``over`` is the number of bytes that are left out.

    :ivar is_first: the member starts here, and not with an earlier item of its list.
    """

    element: int
    offset: int
    key: str | None
    raw: bytes
    item: bool = False
    over: int = 0
    is_first: bool = True

    @property
    def size(self) -> int:
        """Bytes of the whole value."""
        return len(self.raw) + self.over


class BrokenJsonError(InputError):
    """An array, or objects one after another, are not well formed."""


class _TooLongError(Exception):
    """A value is longer than the limit."""


def _nested(levels: int) -> bytes:
    """Return a pattern of a whole object or list whose values are nested at most so deep."""
    inner = plain = rb'[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+"'
    for _ in range(levels):
        inner = rb"%b|[\[{](?:%b)*+[\]}]" % (plain, inner)
    return rb"[\[{](?:%b)*+[\]}]" % inner


class JsonSlicer:
    """A cutter that takes one JSON array, or a sequence of objects, apart by brackets and strings.

    It builds no objects and does not check the syntax within a value: the parser of the fragment does.
    """

    # A value as deep as objects of chat usually are is found in one step, a deeper one bracket by bracket.
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
        """Start at the first chunk.

        :param offset: of the first chunk in the file.
        :param of_line: the number of the line, if the chunks hold one object that is a line.
        """
        self._path = path
        self._chunks = chunks
        self._max_bytes = max_bytes
        self._of_line = of_line
        self._buffer = b""
        self._at = 0
        self._dropped = offset
        self._element = of_line - 1 if of_line is not None else 0

    def fragments(self) -> Iterator[JsonFragment]:
        """Yield every member and item of every element, and then its end.

        :raises BrokenJsonError: the chunks are not well formed, or break off.
        """
        if self._of_line is not None:
            firsts = iter([self._peek()])
        elif self._peek() == b"[":
            self._at += 1
            firsts = self._each(b"]")
        else:
            firsts = self._each_to_the_end()
        for first in firsts:
            self._element += 1
            start = self._offset
            whole, over = b"", 0
            if first == b"{":
                self._at += 1
                yield from self._members()
            else:
                whole, over = self._value(first)
            if self._of_line is None:
                yield JsonFragment(self._element, start, None, whole, over=over)
        if self._peek(at_end=True):
            raise self._broken("has more after the array's end")
        if self._of_line is not None:
            yield JsonFragment(self._element, start, None, whole, over=over)

    def _members(self) -> Iterator[JsonFragment]:
        of_channel = False
        for byte in self._each(b"}"):
            if byte != b'"':
                raise self._broken("has a key that is not a string")
            key = self._key()
            of_channel = of_channel or key == "channel"
            first = self._peek()
            # An API object may have short lists of these names too. Only a channel's lists are too long to be held.
            if first == b"[" and key in STREAMED_LISTS and (of_channel or key == "messages" or self._is_too_long()):
                start = self._offset
                self._at += 1
                is_first = True
                for first_of_item in self._each(b"]"):
                    start = self._offset
                    raw, over = self._value(first_of_item)
                    yield JsonFragment(self._element, start, key, raw, item=True, over=over, is_first=is_first)
                    is_first = False
                if is_first:
                    yield JsonFragment(self._element, start, key, b"[]")
            else:
                start = self._offset
                raw, over = self._value(first)
                yield JsonFragment(self._element, start, key, raw, over=over)

    def _each(self, end: bytes) -> Iterator[bytes]:
        """Yield the first byte of each value or key up to this end, and consume the end and the commas between them."""
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

    def _each_to_the_end(self) -> Iterator[bytes]:
        """Yield the first byte of each object. An array that lost its brackets has commas between them."""
        while byte := self._peek(at_end=True):
            yield byte
            if self._peek(at_end=True) == b",":
                self._at += 1

    def _key(self) -> str:
        """Consume a key and its colon."""
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
        """Drop what was consumed and read another chunk.

        A value that is being cut starts at ``_at``, so it stays whole.
        """
        chunk = next(self._chunks, b"")
        self._buffer = self._buffer[self._at :] + chunk
        self._dropped += self._at
        self._at = 0
        return bool(chunk)

    def _peek(self, *, at_end: bool = False) -> bytes:
        """Return the next byte that is not a space, without consuming it."""
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
        """Consume the value that starts here, with this byte.

        :return: the value, or its start, and how many more bytes it has.
        """
        try:
            if first in b"{[":
                length = self._container()
            elif first in b",:]}":
                raise self._broken("has no value where one should be")
            else:
                length = self._scalar(self._STRING if first == b'"' else self._ATOM)
        except _TooLongError:
            head = self._buffer[self._at : self._at + self._max_bytes]
            return head, self._skip_value() - len(head)
        raw = self._buffer[self._at : self._at + length]
        self._at += length
        if length > self._max_bytes:
            return raw[: self._max_bytes], length - self._max_bytes
        return raw, 0

    def _is_too_long(self) -> bool:
        """Return whether the list that starts here is longer than the limit."""
        try:
            return self._container() > self._max_bytes
        except _TooLongError:
            return True

    def _scalar(self, pattern: re.Pattern[bytes]) -> int:
        """Return the length of the string, number or word that starts here."""
        while True:
            match = pattern.match(self._buffer, self._at)
            # A match that reaches the buffer's end may go on in the next chunk.
            if match and (match.end() < len(self._buffer) or pattern is self._STRING):
                return match.end() - self._at
            self._more_of_value()

    def _container(self) -> int:
        """Return the length of the object or list that starts here."""
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
            else:  # the buffer ended, perhaps inside a string: the skip stopped before it
                self._more_of_value()

    def _more_of_value(self) -> None:
        if len(self._buffer) - self._at > self._max_bytes:
            raise _TooLongError
        if not self._more():
            raise self._broken("breaks off in a value")

    def _skip_value(self) -> int:
        """Consume a value that is too long to be held, dropping it as it is read, and return its size."""
        size, depth, in_string = 0, 0, False
        is_atom = self._buffer[self._at : self._at + 1] not in (b'"', b"{", b"[")
        while True:
            start = self._at
            while True:
                to_next = self._ATOM if is_atom else self._TO_QUOTE if in_string else self._TO_BRACKET
                found = to_next.match(self._buffer, self._at)
                self._at = found.end() if found else self._at
                byte = self._buffer[self._at : self._at + 1]
                if byte in (b"", b"\\"):  # the buffer ended, perhaps within an escape
                    break
                self._at += not is_atom
                in_string = in_string != (byte == b'"')
                depth += (byte in (b"{", b"[")) - (byte in (b"}", b"]")) if not in_string else 0
                if is_atom or (depth == 0 and not in_string):
                    return size + self._at - start
            size += self._at - start
            if not self._more():
                raise self._broken("breaks off in a value")

    def _broken(self, what: str) -> BrokenJsonError:
        return BrokenJsonError(
            f"{self._path} {what} at byte {self._offset} (element {self._element}); it is not a whole export file, "
            "fetch it again"
        )
