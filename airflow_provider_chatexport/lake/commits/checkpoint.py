"""The checkpoint: all records in one object, so that a load does not read each of them from its own file.

How it works
------------
A load needs little of a record that a rewrite replaced: that it exists, what replaces it, what it covers. So the
checkpoint has a record in two parts. Its head has what every load asks for. Its body has the files, the counts, the
sources and what else only ``verify``, history, a removal or a rebuilt catalog reads. All heads are one JSON array.
Bodies lie in blocks, which are unpacked when something asks for one of their bodies (``_Block``)::

    {"v":3,"blocks":[...]}                              where the blocks lie, and a checksum
    {"channels":[...],"writers":[...],"heads":[...]}    the lists of channels, and the head of each record
    one line per body                                   a block
    one line per body                                   a block

Each line of this drawing is compressed by itself, so the object is a gzip file of several members, and people can read
it as lines of JSON. A record never changes, so a block is written again as it is: a new checkpoint packs the heads and
the bodies of new records.

Pure: ``log`` reads and writes the object.
"""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

import msgspec
import orjson

from airflow_provider_chatexport.core.garbage import no_collection
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.commits import record_json
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import BEGINNING, CoverageEntry
from airflow_provider_chatexport.lake.commits.lost_coverage import LostSpan
from airflow_provider_chatexport.lake.commits.read_later import MappingReadLater, ReadLater
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord, SourceFile

_VERSION: Final = 3
# In version 2, there was one line for each record.
_VERSION_OF_LINES: Final = 2
# So many bodies are in a block, so that a block is unpacked in milliseconds.
_BLOCK_BODIES: Final = 512
# Facts that only people ask for.
_FACTS_LATER: Final = frozenset({"inputs", "options"})
_GZIP: Final = 31


class UnreadableError(ValueError):
    """The content is no checkpoint that this version reads."""


def read(content: bytes, where: str) -> dict[str, LoadRecord]:
    """Return the records of a checkpoint by their paths.

    :param where: its address, for errors.
    :raises UnreadableError: it is damaged, or another version wrote it.
    """
    try:
        # Records have no cycles. With 20,000 of them, it took half of the time to find that out.
        with no_collection():
            first, rest = _unpacked(content)
            header = orjson.loads(first.partition(b"\n")[0])
            if header["v"] == _VERSION_OF_LINES:
                return _of_lines(first, where)
            if header["v"] != _VERSION or zlib.crc32(rest) != header["crc32"]:
                raise UnreadableError(where)
            return _Reader(header["blocks"], rest, where).records()
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, zlib.error, LakeError) as error:
        raise UnreadableError(where) from error


def write(records: Iterable[LoadRecord]) -> bytes:
    """Return a checkpoint of records."""
    writer = _Writer()
    with no_collection():
        blocks = [*writer.blocks(records)]
    heads = gzip.compress(writer.heads() + b"\n", compresslevel=1, mtime=0)
    rest = heads + b"".join(block.packed for block in blocks)
    sizes = [[len(heads), 0], *([len(block.packed), block.n_bodies] for block in blocks)]
    header = {"v": _VERSION, "crc32": zlib.crc32(rest), "blocks": sizes}
    return gzip.compress(orjson.dumps(header, option=orjson.OPT_APPEND_NEWLINE), mtime=0) + rest


def _unpacked(content: bytes) -> tuple[bytes, bytes]:
    """Return the first member of a gzip file, unpacked, and the rest of the file.

    :raises EOFError: the member has no end.
    """
    unpacker = zlib.decompressobj(_GZIP)
    first = unpacker.decompress(content)
    if not unpacker.eof:
        raise EOFError
    return first, unpacker.unused_data


def _of_lines(content: bytes, where: str) -> dict[str, LoadRecord]:
    header, *lines = content.splitlines()
    sets = [ChannelSet.from_json(each) for each in orjson.loads(header)["channels"]]
    records = (record_json.from_json(orjson.loads(line), where, sets) for line in lines)
    return {record.path: record for record in records}


class _Block:
    """Bodies that are compressed together.

    :ivar packed: a member of a gzip file with a line for each of them.
    """

    __slots__ = ("_lines", "n_bodies", "packed")

    def __init__(self, packed: bytes, n_bodies: int) -> None:
        self.packed = packed
        self.n_bodies = n_bodies
        self._lines: list[bytes] | None = None

    @classmethod
    def of(cls, lines: Sequence[bytes]) -> _Block:
        """Return a block of some bodies."""
        return cls(gzip.compress(b"".join(line + b"\n" for line in lines), compresslevel=1, mtime=0), len(lines))

    def lines(self) -> list[bytes]:
        """Return the bodies."""
        if self._lines is None:
            self._lines = gzip.decompress(self.packed).splitlines()
        return self._lines


class _BodyValue(msgspec.Struct):
    """The fields of a body."""

    sources: tuple[SourceFile, ...]
    counts: dict[str, Any]
    files: tuple[DataFile, ...]
    history: tuple[DataFile, ...]
    facts: dict[str, Any]


_BODY: Final = msgspec.json.Decoder(_BodyValue)


class _Body:
    """The part of a record in a block."""

    __slots__ = ("_value", "block", "number")

    def __init__(self, block: _Block, number: int) -> None:
        self.block = block
        self.number = number
        self._value: _BodyValue | None = None

    @property
    def value(self) -> _BodyValue:
        """Its fields, read when something asks for them."""
        if self._value is None:
            self._value = _BODY.decode(self.block.lines()[self.number])
        return self._value


# What a record reads of its body.
_SOURCES: Final = attrgetter("value.sources")
_FILES: Final = attrgetter("value.files")
_HISTORY: Final = attrgetter("value.history")
_COUNTS: Final = attrgetter("value.counts")
_FACTS: Final = attrgetter("value.facts")


class _Head(msgspec.Struct, array_like=True):
    """What every load asks for of a record.

    :param writer: its number.
    :param extent: how many entries and how many channels of entries its coverage has.
    :param facts: a copy of those that loads ask for.
    :param files: a name for each field of its files that one of them has, ``path`` included; none if it has no files.
    :param history: the same of its files of history.
    :param others: fields that have their defaults in most records.
    """

    load_id: str
    schema_version: int
    writer: int
    exported_at: datetime
    committed_at: datetime
    since: datetime | None
    until: datetime | None
    seconds: float
    is_load: bool
    extent: tuple[int, int]
    coverage: msgspec.Raw
    facts: msgspec.Raw
    files: msgspec.Raw
    history: msgspec.Raw
    replaces: tuple[str, ...]
    others: dict[str, Any]


class _Heads(msgspec.Struct):
    channels: list[dict[str, list[str]]]
    writers: list[str]
    heads: list[_Head]


class _Entry(msgspec.Struct, array_like=True):
    """A coverage entry: the number of its channels, its span, its export and its load."""

    channels: int
    since: datetime | None
    until: datetime
    exported_at: datetime
    load_id: str | None


_HEADS: Final = msgspec.json.Decoder(_Heads)
_ENTRIES: Final = msgspec.json.Decoder(tuple[_Entry, ...])
_NAMES: Final = msgspec.json.Decoder(frozenset[str])
_JSON: Final = msgspec.json.Encoder()
# Of a record, the fields that most records have the defaults of.
_OTHERS: Final = {
    "flags": {},
    "keep_superseded": False,
    "late_changes": (),
    "taken": {},
    "has_unique_keys": True,
    "purged": (),
}


class _Coverage(msgspec.Struct, gc=False):
    """The coverage of a record in a checkpoint: its text, the record's id, and the checkpoint's sets of channels."""

    raw: bytes
    load_id: str
    sets: Sequence[ChannelSet]


def _entries(coverage: _Coverage) -> tuple[CoverageEntry, ...]:
    return tuple(
        CoverageEntry(
            channels=coverage.sets[each.channels],
            since=each.since or BEGINNING,
            until=each.until,
            exported_at=each.exported_at,
            load_id=each.load_id or coverage.load_id,
        )
        for each in _ENTRIES.decode(coverage.raw)
    )


class _Reader:
    """Reads a checkpoint of this version."""

    def __init__(self, sizes: Sequence[Sequence[int]], content: bytes, where: str) -> None:
        ends = itertools.accumulate(size for size, _ in sizes)
        packed = [content[end - size : end] for end, (size, _) in zip(ends, sizes, strict=True)]
        self._heads = _HEADS.decode(gzip.decompress(packed[0]))
        self._blocks = [_Block(each, n_bodies) for each, (_, n_bodies) in zip(packed[1:], sizes[1:], strict=True)]
        self._sets = [ChannelSet.from_json(each) for each in self._heads.channels]
        self._where = where
        # Most records have the same, and share it.
        self._facts: dict[bytes, dict[str, Any]] = {}
        self._names: dict[bytes, frozenset[str]] = {}

    def records(self) -> dict[str, LoadRecord]:
        """Return the records by their paths."""
        bodies = (_Body(block, number) for block in self._blocks for number in range(block.n_bodies))
        records = (self._record(head, body) for head, body in zip(self._heads.heads, bodies, strict=True))
        return {record.path: record for record in records}

    def _record(self, head: _Head, body: _Body) -> LoadRecord:
        record_json.check_version(record_json.RECORD_VERSION, head.schema_version, self._where)
        coverage = _Coverage(bytes(head.coverage), head.load_id, self._sets)
        facts = bytes(head.facts)
        if facts not in self._facts:
            self._facts[facts] = orjson.loads(facts)
        others = head.others
        return LoadRecord(
            load_id=head.load_id,
            schema_version=head.schema_version,
            writer=self._heads.writers[head.writer],
            exported_at=head.exported_at,
            committed_at=head.committed_at,
            since=head.since,
            until=head.until,
            flags=others.get("flags", {}),
            sources=ReadLater(_SOURCES, body) if head.is_load else (),
            coverage=ReadLater(_entries, coverage, head.extent) if coverage.raw != b"[]" else (),
            counts=MappingReadLater({}, None, _COUNTS, body),
            files=self._later(head.files, _FILES, body),
            seconds=head.seconds,
            keep_superseded=others.get("keep_superseded", False),
            late_changes=tuple(others.get("late_changes", ())),
            replaces=head.replaces,
            taken={load_id: tuple(paths) for load_id, paths in others.get("taken", {}).items()},
            has_unique_keys=others.get("has_unique_keys", True),
            history=self._later(head.history, _HISTORY, body),
            purged=tuple(others.get("purged", ())),
            lost=tuple(map(LostSpan.from_json, others.get("lost", ()))),
            facts=MappingReadLater(self._facts[facts], _FACTS_LATER, _FACTS, body),
        )

    def _later(
        self, names: msgspec.Raw, read_files: Callable[[_Body], tuple[DataFile, ...]], body: _Body
    ) -> Sequence[DataFile]:
        raw = bytes(names)
        if raw == b"[]":
            return ()
        if raw not in self._names:
            self._names[raw] = _NAMES.decode(raw)
        return ReadLater(read_files, body, self._names[raw])


class _Writer:
    """Writes a checkpoint.

    Parts of the last checkpoint are taken over as they are: bodies by the block, and the text of coverage.
    """

    def __init__(self) -> None:
        self._records: list[LoadRecord] = []
        self._sets: dict[ChannelSet, int] = {}
        self._last_sets: Sequence[ChannelSet] | None = None
        self._writers: dict[str, int] = {}

    def blocks(self, records: Iterable[LoadRecord]) -> Iterator[_Block]:
        """Yield the blocks with the bodies of records. The heads have the same order."""
        of_block: dict[_Block, list[tuple[int, LoadRecord]]] = defaultdict(list)
        loose: list[tuple[bytes, LoadRecord]] = []
        for record in records:
            if isinstance(record.counts, MappingReadLater) and isinstance(body := record.counts.source, _Body):
                of_block[body.block].append((body.number, record))
            else:
                loose.append((_body_line(record), record))
        for block, numbered in of_block.items():
            if len(numbered) == block.n_bodies and block.n_bodies >= _BLOCK_BODIES // 2:
                self._records += (record for _, record in sorted(numbered, key=lambda each: each[0]))
                yield block
            else:
                loose += ((block.lines()[number], record) for number, record in numbered)
        for first in range(0, len(loose), _BLOCK_BODIES):
            part = loose[first : first + _BLOCK_BODIES]
            self._records += (record for _, record in part)
            yield _Block.of([line for line, _ in part])

    def heads(self) -> bytes:
        """Return the heads of all records whose blocks were taken, and what they refer to."""
        heads = [self._head(record) for record in self._records]
        channels = [each.to_json() for each in self._sets]
        return _JSON.encode(_Heads(channels=channels, writers=list(self._writers), heads=heads))

    def _head(self, record: LoadRecord) -> _Head:
        facts = record.facts.known if isinstance(record.facts, MappingReadLater) else _without(record.facts)
        others: dict[str, Any] = {
            name: value for name, default in _OTHERS.items() if (value := getattr(record, name)) != default
        }
        if record.lost:
            others["lost"] = [span.to_json() for span in record.lost]
        return _Head(
            load_id=record.load_id,
            schema_version=record.schema_version,
            writer=self._writers.setdefault(record.writer, len(self._writers)),
            exported_at=record.exported_at,
            committed_at=record.committed_at,
            since=record.since,
            until=record.until,
            seconds=round(record.seconds, 3),
            is_load=record.is_load,
            extent=record.extent,
            coverage=msgspec.Raw(self._coverage(record)),
            facts=msgspec.Raw(orjson.dumps(facts)),
            files=msgspec.Raw(orjson.dumps(sorted(record_json.names_in(record.files)))),
            history=msgspec.Raw(orjson.dumps(sorted(record_json.names_in(record.history)))),
            replaces=record.replaces,
            others=others,
        )

    def _coverage(self, record: LoadRecord) -> bytes:
        if isinstance(record.coverage, ReadLater) and isinstance(last := record.coverage.source, _Coverage):
            if not self._sets:
                self._last_sets = last.sets
                self._sets = {channels: number for number, channels in enumerate(last.sets)}
            if last.sets is self._last_sets:
                return last.raw
        return _JSON.encode(
            [
                _Entry(
                    channels=self._sets.setdefault(each.channels, len(self._sets)),
                    since=None if each.since == BEGINNING else each.since,
                    until=each.until,
                    exported_at=each.exported_at,
                    load_id=None if each.load_id == record.load_id else each.load_id,
                )
                for each in record.coverage
            ]
        )


def _without(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in _FACTS_LATER}


def _body_line(record: LoadRecord) -> bytes:
    value = record_json.to_json(record, {})
    return orjson.dumps({name: value[name] for name in _BodyValue.__struct_fields__})
