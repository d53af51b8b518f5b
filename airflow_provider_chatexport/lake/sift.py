"""Export file -> one clean file per entity, each line ``{"n":..,"line":..,"pos":..,"data":{..}}``, and rejects.

Whatever shape a line comes in, past this point there is one. Objects are passed on as the bytes that they are: no
number, key or escape is touched.

Most lines of most files are ``typed`` messages and reactions. They are told by their first bytes, and where a file has
no others but those of channels and the like, its messages and reactions are not written anew: the reader behind takes
them from the file itself (``sift``). If it refuses one of them, the file is sifted line by line (``rewrite``); what the
reader refuses then comes to ``mend``, which brings it into a form that it takes, or says what is wrong.
"""

from __future__ import annotations

import base64
import bisect
import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from airflow_provider_chatexport.core.entities import (
    ALIASES,
    ENVELOPE_NAME_KEYS,
    ENVELOPE_PAYLOAD_KEYS,
    OTHER_NAMES,
    Entity,
    infer_bare,
)
from airflow_provider_chatexport.core.times import parse_instant
from airflow_provider_chatexport.lake.source import Block, ExportFile, Line

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
MAX_REJECT_BYTES: Final = 64 * 1024
# The reader's own limit of an object is twice this; no line within a block can be longer than the block.
MAX_BLOCK_BYTES: Final = 8 * 1024 * 1024
# DuckDB's JSON reader takes more, but a table of chat has no use for deeper values, and other readers recurse.
MAX_DEPTH: Final = 500

_Fields = dict[str, bytes]  # an object's keys, and each value as the bytes that it is
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode

_NOTHING: Final = (b"[]", b"{}", b"null")
_BLANK: Final = (b"null", b'""')

_PASSED_BY: Final = {
    b'{"type":"message","data":{': Entity.MESSAGE,
    b'{"type":"reaction","data":{': Entity.REACTION,
}
_PASSED_BY_START: Final = re.compile(b"|".join(re.escape(start) for start in _PASSED_BY))

# Lists in a channel's element, beside the channel itself.
_CHANNEL_LISTS: Final = {
    key: entity for key, entity in ALIASES.items() if key in ("messages", "members", "reads", "reactions", "users")
} | {"read": Entity.READ}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A row of ``rejects``; the columns are described in the registry."""

    line_number: int
    byte_offset: int
    reason: str
    raw: str
    raw_encoding: str
    raw_size_bytes: int

    def to_row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class Sifted:
    """What a file was made of. ``lines`` counts those that are not blank (a v1 array's elements).

    ``passed``: the file whose ``typed`` lines of messages and reactions are to be read as they stand, ``n_passed`` of
    each; all else is in files of its own.
    """

    folder: Path
    passed: Path | None = None
    n_passed: Counter[Entity] = field(default_factory=Counter)
    lines: int = 0
    entities: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)
    n_written: Counter[Entity] = field(default_factory=Counter)
    n_others: int = 0
    longest: int = 0
    last_n: int = 0
    channels: list[tuple[int, str]] = field(default_factory=list)

    def path(self, entity: Entity) -> Path:
        return self.folder / f"{entity.value}.ndjson"

    @property
    def others_path(self) -> Path:
        return self.folder / "other.ndjson"

    @property
    def cids(self) -> set[str]:
        """The channels that the file names on lines of their own."""
        return {cid for _, cid in self.channels}

    def cid_before(self, n: int) -> str | None:
        """The channel that an object with this number belongs to by its place in the file."""
        at = bisect.bisect_left(self.channels, (n, ""))
        return self.channels[at - 1][1] if at else None

    def parse(self, objects: Iterable[bytes]) -> Iterator[SiftedObject]:
        """The lines of one of the files, taken apart again."""
        for raw in objects:
            head, _, data = raw.rstrip(b"\n").partition(b',"data":')
            numbers = json.loads(head + b"}")
            yield SiftedObject(
                n=numbers["n"],
                line=numbers["line"],
                offset=numbers["pos"],
                data=data[:-1],
                parsed=numbers.get("parsed", False),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiftedObject:
    """An object as it was passed on: its number, its line and that line's offset, its bytes, and whether its line was
    taken apart before or passed by as a whole."""

    n: int
    line: int
    offset: int
    data: bytes
    parsed: bool


class Sifter:
    """Sifts one file into ``folder``."""

    def __init__(self, source: ExportFile, folder: Path, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._source = source
        self._max_line_bytes = max_line_bytes
        self._cid: str | None = None
        self._outputs: dict[Entity, IO[bytes]] = {}
        self._others: IO[bytes]
        self.sifted = Sifted(folder=folder)

    def sift(self) -> Sifted:
        """The file's messages and reactions left where they are, if they can be; else all of it written anew.

        :raises InputError: the file breaks off, or its array is not well formed.
        """
        if not self._source.is_array:
            with self._outputs_open():
                if self._pass_by():
                    return self.sifted
        return self.rewrite()

    def rewrite(self) -> Sifted:
        """Every object into the file of its entity.

        :raises InputError: the file breaks off, or its array is not well formed.
        """
        with self._outputs_open():
            if self._source.is_array:
                self._sift_array()
            else:
                self._sift_lines()
        return self.sifted

    @contextlib.contextmanager
    def _outputs_open(self) -> Iterator[None]:
        self._cid = None
        self.sifted = Sifted(folder=self.sifted.folder)
        self.sifted.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            for entity in Entity:
                self._outputs[entity] = stack.enter_context(self.sifted.path(entity).open("wb"))
            self._others = stack.enter_context(self.sifted.others_path.open("wb"))
            yield

    def _pass_by(self) -> bool:
        """Looks at each line's first and last bytes only, and takes apart those that are no message or reaction.

        False where that will not do: a message in another shape, a line of unusual length, other line ends.
        """
        sifted = self.sifted
        blocks = self._source.plain_blocks(sifted.folder / "plain.ndjson")
        for block in blocks:
            if len(block.raw) > MAX_BLOCK_BYTES or len(block.raw) > self._max_line_bytes:
                return False
            n_by_entity = {
                entity: block.raw.count(b"\n" + start) + block.raw.startswith(start)
                for start, entity in _PASSED_BY.items()
            }
            n_lines = block.raw.count(b"\n")
            if sum(n_by_entity.values()) == n_lines == block.raw.count(b"}}\n"):
                sifted.n_passed.update(n_by_entity)
                sifted.lines += n_lines
            elif not self._pass_by_lines(block):
                return False
        sifted.passed = blocks.path
        for entity, count in sifted.n_passed.items():
            if sifted.n_written[entity]:
                return False
            if count:
                sifted.entities[entity.value] += count
        return True

    def _pass_by_lines(self, block: Block) -> bool:
        offset = block.offset
        for number, raw in enumerate(block.raw.split(b"\n"), block.first_line):
            start = _PASSED_BY_START.match(raw)
            if start is not None:
                if not raw.endswith(b"}}"):
                    return False
                self.sifted.n_passed[_PASSED_BY[start.group()]] += 1
                self.sifted.lines += 1
            elif raw and not raw.isspace():
                self.sifted.lines += 1
                self._take_line(Line(number, offset, raw, len(raw)))
            offset += len(raw) + 1
        return not (self.sifted.n_written[Entity.MESSAGE] or self.sifted.n_written[Entity.REACTION])

    def _sift_lines(self) -> None:
        sifted, starts = self.sifted, _PASSED_BY_START.match
        counts = dict.fromkeys(_PASSED_BY.values(), 0)
        for line in self._source.lines(self._max_line_bytes):
            sifted.lines += 1
            raw = line.raw
            found = starts(raw)
            if (
                found is not None
                and raw.endswith(b"}}")
                and not line.too_long
                and raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH
            ):
                start = found.group()
                entity = _PASSED_BY[start]
                sifted.last_n += 1
                counts[entity] += 1
                sifted.longest = max(sifted.longest, len(raw))
                self._outputs[entity].write(
                    b'{"n":%d,"line":%d,"pos":%d,"data":{%b\n'
                    % (sifted.last_n, line.number, line.offset, raw[len(start) :])
                )
            else:
                self._take_line(line)
        for entity, count in counts.items():
            if count:
                sifted.entities[entity.value] += count
                sifted.n_written[entity] += count

    def _take_line(self, line: Line) -> None:
        if line.too_long:
            limit = self._max_line_bytes
            self._reject(line, f"the line is longer than the limit of {limit} bytes")
            return
        try:
            self._take_object(line, line.raw)
        except _NotAnObjectError as error:
            self._reject(line, str(error))

    def _take_object(self, line: Line, raw: bytes) -> None:
        raw, fields = _read(raw)
        for name, payload in self._unwrap(fields, raw):
            self._take_entity(line, name, payload)

    def _unwrap(self, fields: _Fields, raw: bytes) -> Iterator[tuple[str, bytes]]:
        """(entity name, object) of each entity in a line, whichever of the five shapes it has."""
        name, payload = _envelope(fields)
        if name is not None and payload is not None and (name in ALIASES or name in OTHER_NAMES):
            yield name, payload
            return
        if "channel" in fields and fields.keys() & _CHANNEL_LISTS.keys():
            yield from self._unwrap_channel(fields)
            return
        if len(fields) == 1:
            (key, value), *_ = fields.items()
            if key in ALIASES or key in OTHER_NAMES or _is_object(value):
                yield key, value
                return
        entity = infer_bare(fields)
        if entity is not None:
            yield entity.value, raw
        elif name is not None and payload is not None:
            yield name, payload
        else:
            raise _NotAnObjectError("no entity that this version knows can be recognised in it")

    def _unwrap_channel(self, fields: _Fields) -> Iterator[tuple[str, bytes]]:
        yield Entity.CHANNEL.value, fields["channel"]
        for key, value in fields.items():
            if key == "channel":
                continue
            entity = _CHANNEL_LISTS.get(key)
            if entity is not None and value[:1] == b"[":
                for item in _decode_list(value):
                    yield entity.value, bytes(item)
            elif value not in _NOTHING:
                yield key, value

    def _sift_array(self) -> None:
        """A v1 array: an element's channel is held, its lists are taken item by item."""
        held: dict[str, bytes] = {}
        streamed = False
        for piece in self._source.pieces():
            line = Line(piece.element, piece.offset, piece.raw, len(piece.raw))
            if piece.key is None:
                self.sifted.lines += 1
                self._take_element_rest(line, held, streamed=streamed)
                held, streamed = {}, False
            elif piece.item:
                streamed = True
                self._take_piece(line, _CHANNEL_LISTS[piece.key].value)
            elif piece.key == "channel":
                streamed = True
                self._take_piece(line, Entity.CHANNEL.value)
            else:
                held[piece.key] = piece.raw

    def _take_element_rest(self, line: Line, held: dict[str, bytes], *, streamed: bool) -> None:
        if streamed:
            for key, raw in held.items():
                if raw not in _NOTHING:
                    self._take_held(Line(line.number, line.offset, raw, len(raw)), key)
            self._cid = None
            return
        raw = line.raw or _join(held)  # an element that is no object comes whole
        self._take_line(Line(line.number, line.offset, raw[: self._max_line_bytes], len(raw)))

    def _take_held(self, line: Line, key: str) -> None:
        """A member of a channel's element; its lists may have come before the channel that they belong to."""
        entity = _CHANNEL_LISTS.get(key)
        if entity is None or line.raw[:1] != b"[":
            self._take_piece(line, key)
            return
        try:
            items = _decode_list(line.raw)
        except (msgspec.DecodeError, RecursionError):
            self._reject(line, f"{key}: {_json_fault(line.raw)}")
            return
        for item in map(bytes, items):
            self._take_piece(Line(line.number, line.offset, item, len(item)), entity.value)

    def _take_piece(self, line: Line, name: str) -> None:
        if line.size > self._max_line_bytes:
            self._count_rejected_entity(name)
            head = Line(line.number, line.offset, line.raw[:MAX_REJECT_BYTES], line.size)
            self._reject(head, f"the object is longer than the limit of {self._max_line_bytes} bytes")
            return
        self._take_entity(line, name, line.raw)

    def _take_entity(self, line: Line, name: str, payload: bytes) -> None:
        entity = ALIASES.get(name)
        try:
            if entity is None:
                self._write_other(line, name, _checked(payload))
                return
            payload, fields = _read(payload)
        except _NotAnObjectError as error:
            name = entity.value if entity else name
            self._count_rejected_entity(name)
            self._reject(line, f"{name}: {error}")
            return
        cid = self._channel_of(entity, fields)
        if missing := _missing(entity, fields, cid):
            self._count_rejected_entity(entity.value)
            self._reject(line, f"{entity.value} without {missing}")
            return
        self._write(entity, line, _with_cid(payload, fields, cid))

    def _write(self, entity: Entity, line: Line, payload: bytes) -> None:
        sifted = self.sifted
        sifted.last_n += 1
        sifted.entities[entity.value] += 1
        sifted.n_written[entity] += 1
        sifted.longest = max(sifted.longest, len(payload))
        if b"\n" in payload:  # legal between the tokens of a v1 array's objects, never inside a string
            payload = payload.replace(b"\n", b" ").replace(b"\r", b" ")
        if entity is Entity.CHANNEL and self._cid is not None:
            sifted.channels.append((sifted.last_n, self._cid))
        self._outputs[entity].write(_one_form(sifted.last_n, line.number, line.offset, payload))

    def _channel_of(self, entity: Entity, fields: _Fields) -> str | None:
        """An object's channel: its own word, else the channel that its element or the line before names."""
        if entity is Entity.USER:
            return None
        own = _text(fields, "cid") or _text(fields, "channel_cid")
        channel_type, channel_id = _text(fields, "channel_type"), _text(fields, "channel_id")
        if own is None and channel_type and channel_id:
            own = f"{channel_type}:{channel_id}"
        if entity is Entity.CHANNEL:
            channel_type, channel_id = _text(fields, "type"), _text(fields, "id")
            self._cid = own = own or (f"{channel_type}:{channel_id}" if channel_type and channel_id else None)
        elif entity is Entity.REACTION:
            return own
        return own or self._cid

    def _write_other(self, line: Line, name: str, payload: bytes) -> None:
        record = {"entity": name, "cid": self._cid, "line_number": line.number}
        self.sifted.entities[name] += 1
        self.sifted.n_others += 1
        self.sifted.longest = max(self.sifted.longest, len(payload))
        data = payload.replace(b"\n", b" ").replace(b"\r", b" ")
        self._others.write(msgspec.json.encode(record)[:-1] + b',"data":' + data + b"}\n")

    def _count_rejected_entity(self, name: str) -> None:
        self.sifted.entities[name] += 1

    def _reject(self, line: Line, reason: str) -> None:
        self.sifted.rejects.append(reject(line, reason))


class _NotAnObjectError(Exception):
    """A line that is no JSON object of a known kind. ``mendable``: Python's reader may yet take it."""

    def __init__(self, reason: str, *, mendable: bool = False) -> None:
        super().__init__(reason)
        self.mendable = mendable


def reject(line: Line, reason: str) -> Reject:
    """A row of ``rejects``; the raw bytes are cut at a limit, and base64 where they are not UTF-8."""
    head = line.raw[:MAX_REJECT_BYTES]
    try:
        raw, encoding = head.decode(), "utf-8"
    except UnicodeDecodeError:
        raw, encoding = base64.b64encode(head).decode(), "base64"
    return Reject(
        line_number=line.number,
        byte_offset=line.offset,
        reason=reason,
        raw=raw,
        raw_encoding=encoding,
        raw_size_bytes=line.size,
    )


def mend(entity: Entity, found: SiftedObject, cid: str | None) -> bytes | Reject:
    """An object that the JSON reader refused or left incomplete: in a form that it takes, or the reason for a reject.

    :param cid: the channel that the object belongs to by its place in the file.
    """
    try:
        payload, fields = _read(found.data)
    except _NotAnObjectError as error:
        return unreadable(entity, found, str(error))
    if missing := _missing(entity, fields, cid):
        return unreadable(entity, found, f"{entity.value} without {missing}")
    in_channel = cid if entity is not Entity.REACTION else None
    return _one_form(found.n, found.line, found.offset, _with_cid(payload, fields, in_channel))


def unreadable(entity: Entity, found: SiftedObject, reason: str) -> Reject:
    """A reject of an object that was passed on, with its line as it stood where that is known."""
    raw = found.data
    if not found.parsed:
        start = next(start for start, passed in _PASSED_BY.items() if passed is entity)
        raw = start[:-1] + raw + b"}"
    return reject(Line(found.line, found.offset, raw, len(raw)), reason)


def _one_form(n: int, line: int, offset: int, payload: bytes) -> bytes:
    return b'{"n":%d,"line":%d,"pos":%d,"parsed":true,"data":%b}\n' % (n, line, offset, payload)


def _with_cid(payload: bytes, fields: _Fields, cid: str | None) -> bytes:
    """The object with its channel in it, where the place in the file alone says it."""
    if cid is None or fields.get("cid", b"null") not in _BLANK:
        return payload
    return _join({**fields, "cid": msgspec.json.encode(cid)})


def _fields_of(raw: bytes) -> _Fields:
    """An object's members as raw bytes.

    :raises _NotAnObjectError: the bytes are no UTF-8, no JSON, or no object.
    """
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise _NotAnObjectError(f"not UTF-8 at byte {error.start} of the line") from None
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
        raise _NotAnObjectError(f"nested deeper than {MAX_DEPTH} levels")
    try:
        return {key: bytes(value) for key, value in _decode_fields(raw).items()}
    except msgspec.ValidationError:
        raise _NotAnObjectError("not a JSON object") from None
    except (msgspec.DecodeError, RecursionError):
        raise _NotAnObjectError(_json_fault(raw), mendable=True) from None


def _read(raw: bytes) -> tuple[bytes, _Fields]:
    """An object in a form that the JSON reader takes, and its members.

    :raises _NotAnObjectError: the bytes are no UTF-8, no JSON, or no object.
    """
    try:
        return raw, _fields_of(raw)
    except _NotAnObjectError as error:
        if not error.mendable:
            raise
        mended = _without_lone_surrogates(raw)
        return mended, _fields_of(mended)


def _checked(raw: bytes) -> bytes:
    """Any JSON value in a form that the JSON reader takes.

    :raises _NotAnObjectError: the bytes are no UTF-8 or no JSON.
    """
    return _read(b'{"value":%b}' % raw)[0][len(b'{"value":') : -1]


_BRACKETS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|([\[{])|([\]}])', re.DOTALL)


def _depth(raw: bytes) -> int:
    depth = deepest = 0
    for bracket in _BRACKETS.finditer(raw):
        if bracket.group(1):
            depth += 1
            deepest = max(deepest, depth)
        elif bracket.group(2):
            depth -= 1
    return deepest


def _json_fault(raw: bytes) -> str:
    try:
        json.loads(raw)
    except ValueError as error:
        # json's own message names the fault and never quotes the text; a JSONDecodeError has a position as well.
        return f"not JSON: {error.args[0] if error.args else 'malformed'}"
    except RecursionError:
        return "nested too deep"
    return "not JSON that the reader takes"


_SURROGATES: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair, which is well formed
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # one without the other
    rb"|\\.",
    re.DOTALL,
)


def _without_lone_surrogates(raw: bytes) -> bytes:
    """The same JSON with escapes that Unicode cannot hold replaced by U+FFFD; no other byte is touched."""
    return _SURROGATES.sub(lambda found: rb"\ufffd" if found.group(1) else found.group(), raw)


def _envelope(fields: _Fields) -> tuple[str | None, bytes | None]:
    """(name, payload) of an envelope. A bare object has a ``type`` as well: without a payload object it is none."""
    for key in ENVELOPE_NAME_KEYS:
        name = _text(fields, key)
        if name is None:
            continue
        for payload_key in (*ENVELOPE_PAYLOAD_KEYS, name):
            value = fields.get(payload_key)
            if value is not None and _is_object(value):
                return name, value
    return None, None


def _is_time(value: bytes | None) -> bool:
    try:
        return value is not None and parse_instant(json.loads(value)) is not None
    except (ValueError, OverflowError):
        return False


def _is_object(value: bytes) -> bool:
    return value[:1] == b"{"


def _text(fields: _Fields, key: str) -> str | None:
    value = fields.get(key)
    if value is None or value[:1] != b'"':
        return None
    try:
        return _decode_text(value)
    except msgspec.DecodeError:
        return None


_NEEDED: Final[dict[Entity, tuple[tuple[str, ...], ...]]] = {
    Entity.MESSAGE: (("id",),),
    Entity.REACTION: (("message_id",), ("user_id", "user"), ("type",)),
    Entity.CHANNEL: (),
    Entity.MEMBER: (("user_id", "user"),),
    Entity.READ: (("user_id", "user"),),
    Entity.USER: (("id",),),
}


def _missing(entity: Entity, fields: _Fields, cid: str | None) -> str | None:
    """What an object lacks to become a row, in words; None when it has all."""
    for alternatives in _NEEDED[entity]:
        if all(fields.get(key, b"null") in _BLANK for key in alternatives):
            return alternatives[0]
    if entity in (Entity.MESSAGE, Entity.REACTION) and not _is_time(fields.get("created_at")):
        return "a created_at that is a time"
    if entity not in (Entity.USER, Entity.REACTION) and cid is None and fields.get("cid", b"null") in _BLANK:
        return "channel"
    return None


def _join(members: dict[str, bytes]) -> bytes:
    """The object that these members make."""
    return b"{" + b",".join(json.dumps(key).encode() + b":" + raw for key, raw in members.items()) + b"}"
