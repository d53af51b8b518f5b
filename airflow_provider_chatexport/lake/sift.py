"""Export file -> one clean file per entity, each line ``{"n":..,"line":..,"pos":..,"data":{..}}``, and rejects.

Whatever shape a line comes in, past this point there is one. Objects are passed on as the bytes that they are: no
number, key or escape is touched.

Most lines of most files are ``typed`` messages and reactions. They are told by their first bytes, and where a file has
no others but those of channels and the like, its messages and reactions are not written anew: the reader behind takes
them from the file itself (``sift``). If it refuses one of them, the file is sifted line by line (``rewrite``); what the
reader refuses then comes to ``objects.mend``.
"""

from __future__ import annotations

import bisect
import contextlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from airflow_provider_chatexport.core.entities import ALIASES, Entity
from airflow_provider_chatexport.core.options import MAX_LINE_BYTES
from airflow_provider_chatexport.lake.objects import PASSED_BY, PASSED_BY_START, missing_from, one_form, with_cid
from airflow_provider_chatexport.lake.rawjson import (
    MAX_DEPTH,
    NO_JSON,
    NOTHING,
    Fields,
    NotAnObjectError,
    checked_value,
    items_of,
    joined,
    read_object,
    text_of,
)
from airflow_provider_chatexport.lake.rejects import MAX_REJECT_BYTES, Reject, reject
from airflow_provider_chatexport.lake.shapes import CHANNEL_LISTS, holds_a_user_export, unwrap
from airflow_provider_chatexport.lake.source import MAX_BLOCK_BYTES, Block, ExportFile, Line

_MESSAGE, _REACTION = PASSED_BY


@dataclass(slots=True, kw_only=True)
class Sifted:
    """What a file was made of. ``lines`` counts those that are not blank (a v1 array's elements).

    ``passed``: the files whose ``typed`` lines of messages and reactions are to be read as they stand, ``n_passed`` of
    each; all else is in files of its own.
    """

    folder: Path
    passed: dict[Entity, Path] = field(default_factory=dict)
    n_passed: Counter[Entity] = field(default_factory=Counter)
    lines: int = 0
    entities: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)
    n_written: Counter[Entity] = field(default_factory=Counter)
    n_others: int = 0
    rejected_lines: int = 0
    longest: int = 0
    last_n: int = 0
    channels: list[tuple[int, str]] = field(default_factory=list)
    n_user_exports: int = 0

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


class Sifter:
    """Sifts one file into ``folder``."""

    def __init__(self, source: ExportFile, folder: Path, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.source = source
        self._max_line_bytes = max_line_bytes
        self._cid: str | None = None
        self._owner: str | None = None
        self._outputs: dict[Entity, IO[bytes]] = {}
        self._others: IO[bytes]
        self.sifted = Sifted(folder=folder)

    @property
    def _in_pieces(self) -> bool:
        return self.source.is_array or self.source.is_spread

    def sift(self) -> Sifted:
        """The file's messages and reactions left where they are, if they can be; else all of it written anew.

        :raises InputError: the file breaks off, or its array is not well formed.
        """
        if not self._in_pieces:
            with self._outputs_open():
                if self._pass_by():
                    return self.sifted
        return self.rewrite()

    def rewrite(self) -> Sifted:
        """Every object into the file of its entity.

        :raises InputError: the file breaks off, or its array is not well formed.
        """
        with self._outputs_open():
            if self._in_pieces:
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

        Reactions are copied out: they are few, and the file of all lines is then read for messages only. False where
        that will not do: a message in another shape, a line of unusual length, other line ends.
        """
        sifted = self.sifted
        reactions_path = sifted.folder / "reactions.ndjson"
        blocks = self.source.plain_blocks(sifted.folder / "plain.ndjson")
        n_messages = n_reactions = 0
        with reactions_path.open("wb") as target:
            for block in blocks:
                if block.size_bytes > min(MAX_BLOCK_BYTES, self._max_line_bytes):
                    return False
                if block.most_brackets > 2 * MAX_DEPTH:  # as many open as close
                    return False
                reactions = [line for line in block.lines if line.startswith(_REACTION)]
                if reactions:
                    target.write(b"\n".join(reactions) + b"\n")
                n_whole = sum([line.endswith(b"}}") for line in block.lines])
                n_of_block = sum([line.startswith(_MESSAGE) for line in block.lines])
                n_messages += n_of_block
                n_reactions += len(reactions)
                sifted.lines += n_of_block + len(reactions)
                if n_of_block + len(reactions) == n_whole == len(block.lines):
                    continue
                if not self._take_others(block):
                    return False
        sifted.passed = {Entity.MESSAGE: blocks.path, Entity.REACTION: reactions_path}
        sifted.n_passed.update({Entity.MESSAGE: n_messages, Entity.REACTION: n_reactions})
        sifted.entities.update({entity.value: count for entity, count in sifted.n_passed.items() if count})
        return True

    def _take_others(self, block: Block) -> bool:
        """The lines of a block that are no message or reaction; False where those that are cannot pass by."""
        offset = block.offset
        for number, raw in enumerate(block.lines, block.first_line):
            if raw.startswith((_MESSAGE, _REACTION)):
                if not raw.endswith(b"}}"):
                    return False
            elif raw and not raw.isspace():
                self.sifted.lines += 1
                self._take_line(Line(number, offset, raw, len(raw)))
            offset += len(raw) + 1
        return not (self.sifted.n_written[Entity.MESSAGE] or self.sifted.n_written[Entity.REACTION])

    def _sift_lines(self) -> None:
        sifted, starts = self.sifted, PASSED_BY_START.match
        counts = dict.fromkeys(PASSED_BY.values(), 0)
        for line in self.source.lines(self._max_line_bytes):
            sifted.lines += 1
            raw = line.raw
            found = starts(raw)
            if (
                found is not None
                and raw.endswith(b"}}")
                and not line.too_long
                and raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH
                and not any(word in raw for word in NO_JSON)
            ):
                start = found.group()
                entity = PASSED_BY[start]
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
            self._reject_line(line, f"the line is longer than the limit of {limit} bytes")
            return
        try:
            self._take_object(line, line.raw)
        except NotAnObjectError as error:
            self._reject_line(line, str(error))

    def _take_object(self, line: Line, raw: bytes) -> None:
        raw, fields = read_object(raw)
        self.sifted.n_user_exports += holds_a_user_export(fields)
        for name, payload in unwrap(fields, raw):
            self._take_entity(line, name, payload)

    def _sift_array(self) -> None:
        """A v1 array: an element's channel is held, its lists are taken item by item."""
        held: dict[str, bytes] = {}
        too_long: list[tuple[str, Line]] = []
        streamed, n_held = False, 0
        for piece in self.source.pieces(self._max_line_bytes):
            line = Line(piece.element, piece.offset, piece.raw, piece.size)
            if piece.key is None:
                self.sifted.lines += 1
                if streamed:
                    for key, member in too_long:
                        self._take_piece(member, key)
                elif too_long:
                    line = Line(line.number, line.offset, joined(held), n_held)
                self._take_element_rest(line, held, streamed=streamed)
                held, too_long, streamed, n_held = {}, [], False, 0
            elif piece.item:
                streamed = True
                self._about_to_stream(held)
                self._take_piece(line, CHANNEL_LISTS[piece.key].value)
            elif piece.key == "channel":
                streamed = True
                self._take_piece(line, Entity.CHANNEL.value)
            else:
                n_held += line.size
                if n_held > self._max_line_bytes:
                    too_long.append((piece.key, Line(line.number, line.offset, line.raw[:MAX_REJECT_BYTES], n_held)))
                else:
                    held[piece.key] = piece.raw

    def _about_to_stream(self, held: Fields) -> None:
        """An item of a list comes next; ``held`` are the members of its element that came before."""

    def _take_element_rest(self, line: Line, held: dict[str, bytes], *, streamed: bool) -> None:
        if streamed:
            for key, raw in held.items():
                if raw not in NOTHING:
                    self._take_held(Line(line.number, line.offset, raw, len(raw)), key)
            self._cid = None
            return
        raw = line.raw or joined(held)  # an element that is no object comes whole
        self._take_line(Line(line.number, line.offset, raw[: self._max_line_bytes], max(line.size, len(raw))))

    def _take_held(self, line: Line, key: str) -> None:
        """A member of a channel's element; its lists may have come before the channel that they belong to."""
        entity = CHANNEL_LISTS.get(key)
        if entity is None or line.raw[:1] != b"[":
            self._take_piece(line, key)
            return
        try:
            items = items_of(line.raw)
        except NotAnObjectError as error:
            self._reject_line(line, f"{key}: {error}")
            return
        for item in items:
            self._take_piece(Line(line.number, line.offset, item, len(item)), entity.value)

    def _take_piece(self, line: Line, name: str) -> None:
        if line.size > self._max_line_bytes:
            head = Line(line.number, line.offset, line.raw[:MAX_REJECT_BYTES], line.size)
            self._reject_entity(head, name, f"the object is longer than the limit of {self._max_line_bytes} bytes")
            return
        self._take_entity(line, name, line.raw)

    def _take_entity(self, line: Line, name: str, payload: bytes) -> None:
        entity = ALIASES.get(name)
        try:
            if entity is None:
                self._write_other(line, name, checked_value(payload))
                return
            payload, fields = read_object(payload)
        except NotAnObjectError as error:
            name = entity.value if entity else name
            self._reject_entity(line, name, f"{name}: {error}")
            return
        cid = self._channel_of(entity, fields)
        if missing := missing_from(entity, fields, cid):
            self._reject_entity(line, entity.value, f"{entity.value} without {missing}")
            return
        self._write(entity, line, with_cid(payload, fields, cid))

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
        self._outputs[entity].write(one_form(sifted.last_n, line.number, line.offset, payload, self._owner))

    def _channel_of(self, entity: Entity, fields: Fields) -> str | None:
        """An object's channel: its own word, else the channel that its element or the line before names."""
        if entity is Entity.USER:
            return None
        own = text_of(fields, "cid") or text_of(fields, "channel_cid")
        channel_type, channel_id = text_of(fields, "channel_type"), text_of(fields, "channel_id")
        if own is None and channel_type and channel_id:
            own = f"{channel_type}:{channel_id}"
        if entity is Entity.CHANNEL:
            channel_type, channel_id = text_of(fields, "type"), text_of(fields, "id")
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

    def _reject_entity(self, line: Line, name: str, reason: str) -> None:
        self.sifted.entities[name] += 1
        self.sifted.rejects.append(reject(line, reason))

    def _reject_line(self, line: Line, reason: str) -> None:
        """A line, or a part of one, of which no entity can be told."""
        self.sifted.rejected_lines += 1
        self.sifted.rejects.append(reject(line, reason))
