"""Parts of records that are read from JSON only when they are asked for.

A lake that is years old has tens of thousands of records that rewrites replaced, and each lists files and coverage. A
load asks only for those of the records that its snapshot still needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload

S = TypeVar("S")
T = TypeVar("T")


class ReadLater(Sequence[T]):
    """A tuple that is read from a JSON list at the first look into it.

    :param raw: the text of the list, compact.
    :param read: returns the tuple.
    :param source: the second argument of ``read``. A function for each object would be one more object for the garbage
        collector, which looks at all of them.
    """

    __slots__ = ("_read", "_source", "_values", "raw")

    def __init__(self, raw: bytes, read: Callable[[bytes, S], tuple[T, ...]], source: S) -> None:
        self.raw = raw
        self._read: Callable[[bytes, Any], tuple[T, ...]] = read
        self._source = source
        self._values: tuple[T, ...] | None = None

    @property
    def is_read(self) -> bool:
        """Whether anything has read the list yet."""
        return self._values is not None

    def mentions(self, name: str) -> bool:
        """Return whether the text of the list has a name, or text that looks like it. This reads nothing."""
        return f'"{name}"'.encode() in self.raw

    def _all(self) -> tuple[T, ...]:
        if self._values is None:
            self._values = self._read(self.raw, self._source)
        return self._values

    def __bool__(self) -> bool:
        return self.raw != b"[]"

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[T]:
        return iter(self._all())

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self._all()[index]

    def __eq__(self, other: object) -> bool:
        return self._all() == (other._all() if isinstance(other, ReadLater) else other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())
