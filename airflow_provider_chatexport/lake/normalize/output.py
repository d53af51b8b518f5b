"""What normalizing makes of a file: its objects in one form, their keys, and how many of everything there are."""

from __future__ import annotations

import bisect
import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import IO, Final

import msgspec

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.lake.normalize.custom_keys import CustomKeys, KeyWatch
from airflow_provider_chatexport.lake.normalize.rejects import RejectFile

TYPED_MESSAGE: Final = b'{"type":"message","data":{'
TYPED_REACTION: Final = b'{"type":"reaction","data":{'
# How most lines of most files begin: their objects are known without taking the line apart.
STARTS: Final = {
    TYPED_MESSAGE: Entity.MESSAGE,
    TYPED_REACTION: Entity.REACTION,
    b'{"message":{': Entity.MESSAGE,
    b'{"reaction":{': Entity.REACTION,
    b'{"type":"message","item":{': Entity.MESSAGE,
    b'{"type":"reaction","item":{': Entity.REACTION,
}
ANY_START: Final = re.compile(b"|".join(re.escape(start) for start in STARTS))
_BY_NUMBER: Final = tuple(STARTS)
_NUMBERED: Final = b'{"n":'
_NUMBERS: Final = {start: number for number, start in enumerate(_BY_NUMBER)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizedObject:
    """An object as it was in_place on: its number, its line and that line's offset, its bytes, and the beginning of its
    line, None where that was taken apart."""

    n: int
    line: int
    offset: int
    data: bytes
    start: bytes | None


def number_of(raw: bytes) -> int:
    """Of a line of one of the files, without taking it apart."""
    return int(raw[len(_NUMBERED) : raw.index(b",")])


def decode_line(raw: bytes) -> NormalizedObject:
    """A line of one of the files, taken apart again."""
    head, _, data = raw.rstrip(b"\n").partition(b',"data":')
    numbers = json.loads(head + b"}")
    return NormalizedObject(
        n=numbers["n"],
        line=numbers["line"],
        offset=numbers["pos"],
        data=data[:-1],
        start=_BY_NUMBER[numbers["start"]] if "start" in numbers else None,
    )


def encode_line(n: int, line: int, offset: int, payload: bytes, owner: str | None = None) -> bytes:
    """:param owner: in a users export, the user in whose part of the file the object stands."""
    whose = b"" if owner is None else b'"owner":%b,' % msgspec.json.encode(owner)
    return b'{"n":%d,"line":%d,"pos":%d,%b"data":%b}\n' % (n, line, offset, whose, payload)


def encode_verbatim_line(n: int, line: int, offset: int, start: bytes, payload: bytes) -> bytes:
    """The same of an object whose line was not taken apart but cut off behind its beginning."""
    return b'{"n":%d,"line":%d,"pos":%d,"start":%d,"data":%b}\n' % (n, line, offset, _NUMBERS[start], payload)


# The database holds the notes of a file in memory while it reads the objects.
MAX_NOTES: Final = 300_000


@dataclass(slots=True, kw_only=True)
class NormalizedFile:
    """What a file was made of. ``lines`` counts those that are not blank (a v1 array's elements).

    ``in_place``: the file whose ``typed`` lines of messages are to be read as they stand, ``n_in_place`` of them; all
    else     is in files of its own. Of the reactions beside them it is not known then where their lines begin.

    ``channels``: what the objects after this number belong to by their place; None after a channel that is a reject
    or lost, and where an element ends or has none.
    ``keys``: the keys of each entity's objects that the registry does not read; None where no STRUCT can hold them.
    """

    folder: Path
    in_place: Path | None = None
    n_in_place: int = 0
    keys: dict[Entity, CustomKeys | None] = field(default_factory=dict)
    lines: int = 0
    entities: Counter[str] = field(default_factory=Counter)
    n_written: Counter[Entity] = field(default_factory=Counter)
    n_others: int = 0
    n_other_parts: int = 1
    rejected_lines: int = 0
    longest: int = 0
    last_n: int = 0
    channels: list[tuple[int, str | None]] = field(default_factory=list)
    n_user_exports: int = 0
    rejects: RejectFile = field(init=False)

    def __post_init__(self) -> None:
        self.rejects = RejectFile(self.folder / "rejects.ndjson")

    def path(self, entity: Entity) -> Path:
        return self.folder / f"{entity.value}.ndjson"

    def nulls_path(self, entity: Entity) -> Path:
        """Which objects have keys with null that the registry does not read."""
        return self.folder / f"{entity.value}.nulls"

    def others_path(self, part: int) -> Path:
        return self.folder / f"other-{part}.ndjson"

    @property
    def cids(self) -> set[str]:
        """The channels that the file names on lines of their own."""
        return {cid for _, cid in self.channels if cid is not None}

    def leave_channel(self) -> None:
        """The objects that come belong to no channel by their place."""
        if self.channels and self.channels[-1][1] is not None:
            self.last_n += 1
            self.channels.append((self.last_n, None))

    def cid_before(self, n: int) -> str | None:
        """The channel that an object with this number belongs to by its place in the file."""
        at = bisect.bisect_left(self.channels, n, key=itemgetter(0))
        return self.channels[at - 1][1] if at else None


@dataclass(slots=True, kw_only=True)
class EntityWriter:
    """Where the objects of an entity go. ``n_objects``: how many did. ``n_notes``: how many have keys with null."""

    entity: Entity
    objects: IO[bytes]
    nulls: IO[bytes]
    watch: KeyWatch
    n_objects: int = 0
    n_notes: int = 0

    def note(self, identity: int | str, nulls: list[str]) -> None:
        self.n_notes += 1
        if self.n_notes > MAX_NOTES:
            return
        told = {"null_in": identity, "nulls": ",".join(f'"{key}":null' for key in nulls)}
        self.nulls.write(msgspec.json.encode(told) + b"\n")

    @property
    def keys(self) -> CustomKeys | None:
        """None also where too many have keys with null."""
        keys = self.watch.keys if self.n_notes <= MAX_NOTES else None
        return keys and replace(keys, with_null=self.n_notes > 0)
