"""Parts of records that are read from JSON only when they are asked for.

A lake that is years old has tens of thousands of records that rewrites replaced, and each lists files, coverage, counts
and sources. A load asks only for those of the records that its snapshot still needs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

S = TypeVar("S")
T = TypeVar("T")


class ReadLater(Sequence[T]):
    """A tuple that is read at the first look into it. It is not empty.

    :param read: returns the tuple.
    :param source: the argument of ``read``. A function for each object would be one more object for the garbage
        collector, which looks at all of them.
    :param known: what is known of the values without reading them.
    """

    __slots__ = ("_read", "_values", "known", "source")

    def __init__(self, read: Callable[[S], tuple[T, ...]], source: S, known: Any = None) -> None:
        self._read: Callable[[Any], tuple[T, ...]] = read
        self.source: Any = source
        self.known = known
        self._values: tuple[T, ...] | None = None

    @property
    def is_read(self) -> bool:
        """Whether anything has read the tuple yet."""
        return self._values is not None

    def _all(self) -> tuple[T, ...]:
        if self._values is None:
            self._values = self._read(self.source)
        return self._values

    def __bool__(self) -> bool:
        return True

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


class MappingReadLater(Mapping[str, Any]):
    """A dictionary that is read at the first look at a key that is not known.

    :param known: some of its keys.
    :param later: the names that all other keys can have; None for any.
    :param read: returns the dictionary.
    :param source: the argument of ``read``.
    """

    __slots__ = ("_later", "_read", "known", "source")

    def __init__(
        self,
        known: Mapping[str, Any],
        later: Collection[str] | None,
        read: Callable[[S], Mapping[str, Any]],
        source: S,
    ) -> None:
        self.known = known
        self._later = later
        self._read: Callable[[Any], Mapping[str, Any]] = read
        self.source: Any = source

    def __getitem__(self, key: str) -> Any:
        if key in self.known or (self._later is not None and key not in self._later):
            return self.known[key]
        return self._read(self.source)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read(self.source))

    def __len__(self) -> int:
        return len(self._read(self.source))

    def __repr__(self) -> str:
        return repr(dict(self))
