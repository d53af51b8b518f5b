"""What normalizing makes of a file: entity files in one form, rejects, and the counts of everything.

A line of an entity file is ``{"n":7,"line":3,"pos":120,"data":{..}}``: the number of the object in the export file, the
number of its line, the byte at which that line starts, and the object as it came. ``"start":2`` is the number of the
start of a line that was not split. ``"owner":"u1"`` is the user in whose part of an export of users the object stands.
"""

from __future__ import annotations

import bisect
import json
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import IO, Final, Self

import msgspec

from airflow_provider_chatexport.core.entities import ALIASES, OTHER_NAMES, Entity, Shape
from airflow_provider_chatexport.lake.normalize.custom_keys import CustomKeys
from airflow_provider_chatexport.lake.normalize.entities import (
    STARTS,
    Context,
    Decision,
    NormalizedObject,
    OtherEntity,
)
from airflow_provider_chatexport.lake.normalize.rejects import Reject, RejectFile

# DuckDB holds the notes of a file in memory while it reads the objects.
MAX_NOTES: Final = 300_000
# Names of entities that this version has no table for, and how many of them are counted each by itself.
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
MAX_NAMES: Final = 50
OTHER: Final = "other"
# How much of such entities goes into a file: DuckDB reads thousands of objects at a time, and these may be large.
OTHERS_BYTES: Final = 32_000_000

# Most objects are a quarter of the usual buffer.
WRITE_BUFFER_BYTES: Final = 256 * 1024

_BY_NUMBER: Final = tuple(STARTS)
_NUMBERS: Final = {start: number for number, start in enumerate(_BY_NUMBER)}
_NUMBERED: Final = b'{"n":'


def encode_line(n: int, obj: NormalizedObject) -> bytes:
    """Return the line of an object in its entity file.

    :param n: the number of the object in the export file.
    """
    data = obj.data
    if obj.start is not None:
        start = _NUMBERS[obj.start]
        return b'{"n":%d,"line":%d,"pos":%d,"start":%d,"data":%b}\n' % (n, obj.line, obj.offset, start, data)
    if b"\n" in data:  # legal between the tokens of an array's objects, never inside a string
        data = data.replace(b"\n", b" ").replace(b"\r", b" ")
    owner = b"" if obj.owner is None else b'"owner":%b,' % msgspec.json.encode(obj.owner)
    return b'{"n":%d,"line":%d,"pos":%d,%b"data":%b}\n' % (n, obj.line, obj.offset, owner, data)


def decode_line(entity: Entity, raw: bytes) -> NormalizedObject:
    """Return the object of a line of an entity file, without its channel and owner."""
    head, _, data = raw.rstrip(b"\n").partition(b',"data":')
    numbers = json.loads(head + b"}")
    return NormalizedObject(
        entity=entity,
        line=numbers["line"],
        offset=numbers["pos"],
        data=data[:-1],
        start=_BY_NUMBER[numbers["start"]] if "start" in numbers else None,
    )


def number_of(raw: bytes) -> int:
    """Return the number of the object of a line of an entity file, without decoding the line."""
    return int(raw[len(_NUMBERED) : raw.index(b",")])


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityFile:
    """The objects of one entity, and where DuckDB reads them.

    :param nulls: the file that says which objects have custom keys with null.
    :param keys: the custom keys of the objects. None: the objects have to be read as JSON.
    :param longest_bytes: the length of the longest object.
    :param in_place: the key of the objects in their lines, if they are the messages in the export file itself.
    :param has_places: the line of each object is known, so that one that DuckDB refuses can be repaired or rejected.
    """

    entity: Entity
    path: Path
    nulls: Path
    n_objects: int
    keys: CustomKeys | None = None
    longest_bytes: int = 0
    in_place: str | None = None
    has_places: bool = True


@dataclass(slots=True, kw_only=True)
class NormalizedFile:
    """One export file, normalized.

    :ivar lines: lines that are not blank, or elements of an array.
    :ivar entities: how often each entity came, by name, whatever became of it.
    :ivar others: files of entities without a table of their own, of ``n_others`` objects.
    :ivar rejected_lines: rejects in which no entity could be recognised.
    :ivar channels: (n, cid): objects with a number above n belong to this channel by their place, up to the next
        entry; cid None: to no channel.
    :ivar has_user_export: some line holds a whole user with messages or reactions.
    :ivar shapes: those that entities have in the file.
    """

    files: list[EntityFile]
    others: list[Path]
    rejects: RejectFile
    lines: int
    entities: Counter[str]
    n_others: int
    longest_other_bytes: int
    rejected_lines: int
    channels: list[tuple[int, str | None]]
    has_user_export: bool
    shapes: set[Shape]

    @property
    def cids(self) -> set[str]:
        """The channels that the file names in objects of their own."""
        return {cid for _, cid in self.channels if cid is not None}

    def cid_before(self, n: int) -> str | None:
        """Return the channel that the object with this number belongs to by its place."""
        at = bisect.bisect_left(self.channels, n, key=itemgetter(0))
        return self.channels[at - 1][1] if at else None


@dataclass(slots=True, kw_only=True)
class EntityWriter:
    """The entity file of one entity while it is written. ``n_notes``: objects that have custom keys with null."""

    entity: Entity
    path: Path
    objects: IO[bytes]
    nulls: IO[bytes]
    n_objects: int = 0
    n_notes: int = 0
    longest_bytes: int = 0

    def write(self, n: int, obj: NormalizedObject) -> None:
        """Append an object."""
        self.n_objects += 1
        self.longest_bytes = max(self.longest_bytes, len(obj.data))
        self.objects.write(encode_line(n, obj))
        if obj.nulls:
            self.note(n, obj.nulls)

    def note(self, identity: int | str, nulls: Iterable[str]) -> None:
        """Note which custom keys of an object are null."""
        self.n_notes += 1
        if self.n_notes <= MAX_NOTES:
            row = {"null_in": identity, "nulls": ",".join(f'"{key}":null' for key in nulls)}
            self.nulls.write(msgspec.json.encode(row) + b"\n")

    def file(self, keys: CustomKeys | None) -> EntityFile:
        """Return the entity file.

        :param keys: the custom keys of its objects, if a STRUCT can hold them.
        """
        if keys is not None:
            keys = replace(keys, with_null=self.n_notes > 0) if self.n_notes <= MAX_NOTES else None
        return EntityFile(
            entity=self.entity,
            path=self.path,
            nulls=_nulls_path(self.path),
            n_objects=self.n_objects,
            keys=keys,
            longest_bytes=self.longest_bytes,
        )


class Output:
    """The one place that counts, numbers, writes and rejects what ``entities`` decides about an export file.

    :param folder: where the files go; created if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines = 0
        self._rejects = RejectFile(folder / "rejects.ndjson")
        self._writers: dict[Entity, EntityWriter] = {}
        self._last_n = 0
        self._cid: str | None = None
        self._channels: list[tuple[int, str | None]] = []
        self._entities: Counter[str] = Counter()
        self._rejected_lines = 0
        self._others: list[Path] = []
        self._others_stream: IO[bytes] | None = None
        self._n_others = 0
        self._longest_other_bytes = 0
        self._open_files = ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open_files.callback(self._rejects.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._open_files.close()

    def write(self, decision: Decision) -> None:
        """Write, count and number what was decided about an object or a line."""
        if isinstance(decision, NormalizedObject):
            if decision.channel != self._cid:
                self._cid = decision.channel
                self._channels.append((self._last_n, self._cid))
            self._last_n += 1
            self.writer(decision.entity).write(self._last_n, decision)
        elif isinstance(decision, Reject):
            if decision.entity is None:
                self._rejected_lines += 1
            else:
                self._count(decision.entity)
            self._rejects.append(decision)
        else:
            self._write_other(decision)

    def writer(self, entity: Entity) -> EntityWriter:
        """Return the writer of an entity's file, which is created with its first use."""
        writer = self._writers.get(entity)
        if writer is None:
            path = self.folder / f"{entity.value}.ndjson"
            writer = self._writers[entity] = EntityWriter(
                entity=entity,
                path=path,
                objects=self._open_files.enter_context(path.open("wb", buffering=WRITE_BUFFER_BYTES)),
                nulls=self._open_files.enter_context(_nulls_path(path).open("wb")),
            )
        return writer

    def _write_other(self, other: OtherEntity) -> None:
        self._count(other.name)
        self._n_others += 1
        self._longest_other_bytes = max(self._longest_other_bytes, len(other.data))
        if self._others_stream is not None and self._others_stream.tell() > OTHERS_BYTES:
            self._others_stream.close()
            self._others_stream = None
        if self._others_stream is None:
            self._others.append(self.folder / f"other-{len(self._others)}.ndjson")
            self._others_stream = self._open_files.enter_context(self._others[-1].open("wb"))
        head = msgspec.json.encode({"entity": other.name, "cid": other.cid, "line_number": other.line})
        data = other.data.replace(b"\n", b" ").replace(b"\r", b" ")
        self._others_stream.write(head[:-1] + b',"data":' + data + b"}\n")

    def _count(self, name: str) -> None:
        """Count an entity by its name. What is hardly a name counts as ``other``.

        Names come from lines, and counts go to records and logs, where no text of a person may go.
        """
        is_known = name in ALIASES or name in OTHER_NAMES or name in self._entities
        is_name = is_known or (len(self._entities) < MAX_NAMES and _NAME.fullmatch(name) is not None)
        self._entities[name if is_name else OTHER] += 1

    def normalized(self, context: Context) -> NormalizedFile:
        """Return what was written. The files are complete once the output is closed.

        :param context: what ``entities`` decided with; it says which custom keys there are.
        """
        # The head first: in an export of users, staging needs the users before the objects that may be theirs.
        order = sorted(Entity, key=lambda entity: entity is not context.head)
        written = [writer for entity in order if (writer := self._writers.get(entity)) and writer.n_objects]
        return NormalizedFile(
            files=[writer.file(context.custom_keys(writer.entity)) for writer in written],
            others=self._others,
            rejects=self._rejects,
            lines=self.lines,
            entities=self._entities + Counter({writer.entity.value: writer.n_objects for writer in written}),
            n_others=self._n_others,
            longest_other_bytes=self._longest_other_bytes,
            rejected_lines=self._rejected_lines,
            channels=self._channels,
            has_user_export=context.met_user_export,
            shapes=context.shapes,
        )


def _nulls_path(path: Path) -> Path:
    return path.with_suffix(".nulls")
