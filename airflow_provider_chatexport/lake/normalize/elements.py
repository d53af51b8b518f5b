"""What was met of an element of an array while it comes in fragments, until it is known what its lists belong to."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Self

import msgspec

from airflow_provider_chatexport.core.entities import Entity, infer_bare
from airflow_provider_chatexport.lake.normalize.export_file import Line
from airflow_provider_chatexport.lake.normalize.shapes import holds_a_user_export
from airflow_provider_chatexport.lake.raw_json import joined

# What an element is, its first keys tell: one of nothing but keys must not fill the memory.
MAX_KEYS: Final = 10_000

Part = tuple[str, bool, Line]  # a member's key, whether this is an item of that member's list, and the value


class SpillFile:
    """Parts in a file of no name, which is made when the first one comes: few elements need it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.empty()

    def write(self, part: Part) -> None:
        key, is_item, line = part
        if self._stream is None:
            self._stream = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - ``empty`` closes it
        told = (key, is_item, line.number, line.offset, len(line.raw), line.size)
        self._stream.write(msgspec.json.encode(told) + b"\n" + line.raw)

    def taken_out(self) -> Iterator[Part]:
        """In the order in which they came."""
        if self._stream is not None:
            self._stream.seek(0)
            while told := self._stream.readline():
                key, is_item, number, offset, n_bytes, size = msgspec.json.decode(told)
                yield key, is_item, Line(number, offset, self._stream.read(n_bytes), size)
            self.empty()

    def empty(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


@dataclass(slots=True, kw_only=True)
class ElementBuffer:
    """Parts are held up to ``max_bytes`` together, and those that come then are spilled: the channel may stand behind
    gigabytes that belong to it.

    ``of``: which member the lists belong to, the ``head``. ``is_open``: it was taken, and what comes is no longer held.
    """

    of: Entity
    spill: SpillFile
    max_bytes: int
    head: Line | None = None
    is_open: bool = False
    has_items: bool = False
    n_bytes: int = 0
    keys: set[str] = field(default_factory=set)
    held: list[Part] = field(default_factory=list)

    def hold(self, key: str, line: Line, *, is_item: bool) -> None:
        self.n_bytes += line.size
        self.has_items = self.has_items or is_item
        if len(self.keys) < MAX_KEYS:
            self.keys.add(key)
        if key == self.of.value and not is_item and self.head is None:
            self.head = line
        if self.is_too_long:
            self.spill.write((key, is_item, line))
        else:
            self.held.append((key, is_item, line))

    def taken_out(self) -> Iterator[Part]:
        """All but the head, in their order."""
        held, self.held = self.held, []
        for part in itertools.chain(held, self.spill.taken_out()):
            if self.head is None or part[2].offset != self.head.offset:
                yield part

    @property
    def is_too_long(self) -> bool:
        """To be held as one object."""
        return self.n_bytes > self.max_bytes

    @property
    def is_whose_lists_are(self) -> bool:
        """A channel or user with all that is theirs: items were met, or it has such a head and something else, and is
        no object of the API that has a key of that name."""
        if self.has_items or self.head is None or len(self.keys) < 2:
            return self.has_items
        fields = dict.fromkeys(self.keys, b"") | {self.of.value: self.head.raw}
        return infer_bare(fields) is None and (self.of is Entity.CHANNEL or holds_a_user_export(fields))

    def whole(self) -> bytes:
        """The object that its members make, or the beginning of one that is too long."""
        parts = itertools.chain(self.held, itertools.islice(self.spill.taken_out(), 1))
        return joined((key, line.raw) for key, _, line in parts)
