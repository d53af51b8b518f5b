"""Sets of channels, shared between all coverage entries of a lake that are of the same channels.

A load of 250 channels has one window, and so has the next one. Kept per channel, a year of such loads would be
millions of entries. So an entry has a set of channels, and equal sets are one object: the work on entries of equal
sets is work on their spans alone. Where sets overlap without being equal, ``Partition`` cuts them into atoms::

    sets     {a b c}  {b c d}
    atoms    {a}  {b c}  {d}

The channels of an atom are in exactly the same sets, so whatever holds for one of them holds for all.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from weakref import WeakValueDictionary


class ChannelSet:
    """Some channels. Equal sets are one object: comparing and hashing them costs nothing, however large they are.

    :ivar names: the channels, as ``TYPE:ID``; ascending, each once.
    """

    __slots__ = ("__weakref__", "names")
    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[str]) -> ChannelSet:
        """Return the set of these channels."""
        key = tuple(sorted(set(names)))
        with _LOCK:
            found = _SETS.get(key)
            if found is None:
                found = cls()
                found.names = tuple(map(sys.intern, key))  # the names of two sets are mostly the same
                _SETS[found.names] = found
        return found

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"ChannelSet.of({list(self.names)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ChannelSet.of, (self.names,)

    def to_json(self) -> dict[str, list[str]]:
        """Return the channels' ids by what stands before them: ``{"team:": ["x", "y"]}``. Most types have many ids."""
        grouped: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            kind, colon, channel_id = name.partition(":")
            before, rest = (kind + colon, channel_id) if colon else ("", name)
            grouped[before].append(rest)
        return dict(grouped)

    @classmethod
    def from_json(cls, value: Mapping[str, list[str]]) -> ChannelSet:
        """Read a set of channels."""
        return cls.of(before + rest for before, ids in value.items() for rest in ids)


_LOCK: Final = threading.Lock()
_SETS: Final[WeakValueDictionary[tuple[str, ...], ChannelSet]] = WeakValueDictionary()


def names_in(sets: Iterable[ChannelSet]) -> set[str]:
    """Return the channels of all of these sets."""
    return {name for each in dict.fromkeys(sets) for name in each.names}


class Partition:
    """Sets of channels, cut into atoms: groups of channels that are in exactly the same sets.

    It costs one step for each channel of each distinct set.
    """

    def __init__(self, sets: Iterable[ChannelSet]) -> None:
        distinct = list(dict.fromkeys(sets))
        numbers = itertools.count()
        atom_of: dict[str, int] = {}
        for each in distinct:
            # Channels that were together until now remain together if both are in this set, or neither is.
            split: dict[int | None, int] = {}
            for name in each.names:
                before = atom_of.get(name)
                after = split.get(before)
                if after is None:
                    after = split[before] = next(numbers)
                atom_of[name] = after
        self._atom_of = atom_of
        self._atoms_of = {each: list(dict.fromkeys(map(atom_of.__getitem__, each.names))) for each in distinct}

    def atoms_of(self, channels: ChannelSet) -> list[int]:
        """Return the numbers of the atoms that a set consists of."""
        return self._atoms_of[channels]

    def channels(self) -> Iterator[tuple[str, int]]:
        """Yield every channel with the number of its atom."""
        yield from self._atom_of.items()
