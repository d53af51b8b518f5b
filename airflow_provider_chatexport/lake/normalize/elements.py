"""Units: what ``entities`` decides about, one after another.

Most units are lines. An element of an array, and a line too long to be held, come in fragments instead, and their
fragments become units here. The lists of such an element belong to its channel (or user), the *head*, which may stand
behind them. So the parts are held until it is known what the lists belong to, in memory up to a limit, then in a file:

    fragments      units
    messages[0]    (held)
    messages[1]    (held)
    draft          (held)
    channel        ElementStart, Part channel, Part messages[0], Part messages[1], Part draft
    members[0]     Part members[0]
    end            ElementEnd

An element without a head or a list, such as an envelope in an array, is put together again and becomes one unit.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar, Final, Self

import msgspec

from airflow_provider_chatexport.core.entities import ALIASES, Entity, infer_bare
from airflow_provider_chatexport.lake.normalize.export_file import ExportReader, Line, LongLine
from airflow_provider_chatexport.lake.normalize.json_slicer import BrokenJsonError, JsonFragment
from airflow_provider_chatexport.lake.normalize.rejects import MAX_REJECT_BYTES
from airflow_provider_chatexport.lake.normalize.shapes import (
    REPLY_DURATION,
    holds_a_user_export,
    is_bare_message,
    unwrap,
)
from airflow_provider_chatexport.lake.raw_json import NotAnObjectError, joined

# The first keys say what an element is. One of nothing but keys must not fill the memory.
MAX_KEYS: Final = 10_000


class ElementStart(msgspec.Struct, frozen=True, gc=False):
    """The start of an element with parts, which belong to nothing before them."""

    is_line: ClassVar[bool] = False


class Part(msgspec.Struct, frozen=True, gc=False):
    """A member of an element, or an item of that member's list. ``is_doubled``: its key came before."""

    key: str
    is_item: bool
    line: Line
    is_doubled: bool = False
    is_line: ClassVar[bool] = False


class ElementEnd(msgspec.Struct, frozen=True, gc=False):
    """The end of an element with parts. ``in_array``: what follows does not belong to its channel."""

    in_array: bool
    is_line: ClassVar[bool] = True


class Element(msgspec.Struct, frozen=True, gc=False):
    """A whole element: an object put together from its members, or a value that is not an object."""

    line: Line
    is_line: ClassVar[bool] = True


class BrokenLine(msgspec.Struct, frozen=True, gc=False):
    """A long line that is not well formed. The parts before the fault have come."""

    line: Line
    is_line: ClassVar[bool] = True


# ``is_line``: the unit counts as a line of the file.
Unit = Line | ElementStart | Part | ElementEnd | Element | BrokenLine


def units(reader: ExportReader, folder: Path, head: Entity, max_line_bytes: int) -> Iterator[Unit]:
    """Yield the units of a file.

    :param folder: for the parts of an element that do not fit into memory.
    :param head: what the lists of an element belong to.
    :raises InputError: the file breaks off, or its array is not well formed.
    """
    with SpillFile(folder) as spill:
        element = ElementBuffer(head=head, spill=spill, max_bytes=max_line_bytes)
        if reader.is_cut_into_fragments:
            yield from _units_of_elements(reader.fragments(max_line_bytes), element, in_array=True)
            return
        for line in reader.lines(max_line_bytes):
            if isinstance(line, LongLine):
                yield from _units_of_long_line(line, element)
            else:
                yield line


def _units_of_long_line(line: LongLine, element: ElementBuffer) -> Iterator[Unit]:
    """Yield a channel or user with its lists, fragment by fragment. What comes after a fault is lost.

    Only the keys of the line say whether it is one, and they may stand anywhere. Any other object is too long.
    """
    try:
        for unit in _units_of_elements(line.fragments(element.max_bytes), element, in_array=False):
            if not isinstance(unit, Element):
                yield unit
            else:
                if element.may_be_head:
                    yield ElementStart()
                yield line.as_too_long(element.max_bytes)
    except BrokenJsonError:
        line.skip()
        if element.is_open:
            yield BrokenLine(line.as_too_long(MAX_REJECT_BYTES))
        else:
            yield line.as_too_long(element.max_bytes)


def _units_of_elements(fragments: Iterator[JsonFragment], element: ElementBuffer, *, in_array: bool) -> Iterator[Unit]:
    """Yield the units of elements.

    :param element: holds their parts; after a fault it is as it was at the fault.
    :raises BrokenJsonError: the fragments are not well formed; the parts before the fault have been yielded.
    """
    element.clear()
    try:
        for fragment in fragments:
            line = Line(fragment.element, fragment.offset, fragment.raw, fragment.size)
            if fragment.key is None:
                yield from element.end(line, in_array=in_array)
                element.clear()
                continue
            if element.head is Entity.USER and fragment.key == REPLY_DURATION:
                continue
            part = Part(fragment.key, fragment.item, line, element.is_doubled(fragment))
            if element.is_open:
                yield part
            else:
                element.hold(part)
                # What is no longer than a line is decided when all of its keys are known, whatever their order.
                if element.has_items and element.head_line is not None and element.n_bytes > element.max_bytes:
                    yield from element.open()
    except BrokenJsonError:
        if not element.is_open and (element.has_items or element.head_line is not None):
            yield from element.open()
        raise


class SpillFile:
    """Parts in a file without a name, which is created with the first of them: few elements need it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def write(self, part: Part) -> None:
        """Append a part."""
        line = part.line
        if self._stream is None:
            self._stream = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - ``clear`` closes it
        head = (part.key, part.is_item, part.is_doubled, line.number, line.offset, len(line.raw), line.size)
        self._stream.write(msgspec.json.encode(head) + b"\n" + line.raw)

    def take(self) -> Iterator[Part]:
        """Yield the parts in the order in which they came, and forget them."""
        if self._stream is not None:
            self._stream.seek(0)
            while head := self._stream.readline():
                key, is_item, is_doubled, number, offset, n_bytes, size = msgspec.json.decode(head)
                yield Part(key, is_item, Line(number, offset, self._stream.read(n_bytes), size), is_doubled)
            self.clear()

    def clear(self) -> None:
        """Forget all parts."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


@dataclass(slots=True, kw_only=True)
class ElementBuffer:
    """The parts of one element while it is not known what its lists belong to.

    Parts up to ``max_bytes`` together are held in memory, and later ones are spilled: the head may stand behind
    gigabytes that belong to it.

    :param head: which member the lists belong to.
    :ivar head_line: that member, once it came.
    :ivar is_open: the parts were yielded, and later ones are not held any more.
    :ivar has_doubled: some key came twice while the parts were held.
    """

    head: Entity
    spill: SpillFile
    max_bytes: int
    head_line: Line | None = None
    is_open: bool = False
    has_items: bool = False
    has_doubled: bool = False
    in_doubled: bool = False
    n_bytes: int = 0
    keys: set[str] = field(default_factory=set)
    held: list[Part] = field(default_factory=list)

    def clear(self) -> None:
        """Start with the next element."""
        self.spill.clear()
        self.head_line, self.is_open, self.has_items, self.n_bytes = None, False, False, 0
        self.keys, self.held, self.has_doubled = set(), [], False

    def is_doubled(self, fragment: JsonFragment) -> bool:
        """Return whether the key of a fragment came before, as that of another member."""
        if fragment.is_first and fragment.key is not None:
            self.in_doubled = fragment.key in self.keys
            if len(self.keys) < MAX_KEYS:
                self.keys.add(fragment.key)
        return self.in_doubled

    def hold(self, part: Part) -> None:
        """Keep a part for ``open`` or ``end``."""
        self.n_bytes += part.line.size
        self.has_items = self.has_items or part.is_item
        self.has_doubled = self.has_doubled or part.is_doubled
        if part.key == self.head.value and not part.is_item and self.head_line is None:
            self.head_line = part.line
        if self.n_bytes > self.max_bytes:
            self.spill.write(part)
        else:
            self.held.append(part)

    def open(self) -> Iterator[Unit]:
        """Yield the parts that are held: first the head, wherever it stood."""
        self.is_open = True
        yield ElementStart()
        if self.head_line is not None:
            yield Part(self.head.value, False, self.head_line)
        held, self.held = self.held, []
        for part in itertools.chain(held, self.spill.take()):
            if self.head_line is None or part.line.offset != self.head_line.offset:
                yield part

    def end(self, line: Line, *, in_array: bool) -> Iterator[Unit]:
        """Yield what is left of the element at its end.

        :param line: the element, if it is not an object.
        """
        # A line in which a key stands twice is a reject. That is decided once it is put together again.
        if not self.is_open and self._has_lists and not self.has_doubled:
            yield from self.open()
        if self.is_open:
            yield ElementEnd(in_array)
            return
        raw = line.raw or self._whole()
        size = max(line.size, len(raw), self.n_bytes)
        yield Element(Line(line.number, line.offset, raw[: self.max_bytes], size))

    @property
    def may_be_head(self) -> bool:
        """Whether the keys say that the object is a channel or user that what follows belongs to."""
        fields = {part.key: part.line.raw for part in itertools.chain(self.held, self.spill.take())}
        with contextlib.suppress(NotAnObjectError):
            return any(ALIASES.get(name) is self.head for _, name, _ in itertools.islice(unwrap(fields, b""), 1))
        return False

    @property
    def _has_lists(self) -> bool:
        """Whether this is a channel or user with lists, rather than an object to be put together again.

        It is one if items came, or if it has a head and other keys, and is not an object of the API that happens to
        have a key of that name.
        """
        fields = dict.fromkeys(self.keys, b"")
        if is_bare_message(fields):
            return False
        if self.has_items or self.head_line is None or len(self.keys) < 2:
            return self.has_items
        fields |= {self.head.value: self.head_line.raw}
        return infer_bare(fields) is None and (self.head is Entity.CHANNEL or holds_a_user_export(fields))

    def _whole(self) -> bytes:
        """Return the object that the members make, or the start of one that is longer than ``max_bytes``."""
        members: list[tuple[Part, list[bytes]]] = []
        for part in itertools.chain(self.held, itertools.islice(self.spill.take(), 1)):
            last = members[-1][0] if members else None
            if last is not None and part.is_item and (last.key, last.is_doubled) == (part.key, part.is_doubled):
                members[-1][1].append(part.line.raw)
            else:
                members.append((part, [part.line.raw]))
        return joined((part.key, b"[%b]" % b",".join(raws) if part.is_item else raws[0]) for part, raws in members)
