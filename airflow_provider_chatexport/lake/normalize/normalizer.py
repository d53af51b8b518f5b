"""Export file -> one clean file per entity, each line ``{"n":..,"line":..,"pos":..,"data":{..}}``, and rejects.

Whatever shape a line comes in, past this point there is one. Objects are in_place on as the bytes that they are: no
number, key or escape is touched.

Most lines of most files are messages and reactions, told by their first bytes in three of the shapes. Where all
messages are ``typed``, they are not written anew (``fast_path``): the reader behind takes them from the file itself. If
it refuses one of them, the file is normalized line by line (``write_all``); what the reader refuses then comes to
``objects.mend``.

On the way the keys are gathered that the registry does not read (``custom``), and each object is held to be JSON.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final

import msgspec

from airflow_provider_chatexport.core.entities import ALIASES, OTHER_NAMES, Entity
from airflow_provider_chatexport.core.options import MAX_LINE_BYTES
from airflow_provider_chatexport.lake.normalize.custom_keys import KeyWatch
from airflow_provider_chatexport.lake.normalize.elements import ElementBuffer, SpillFile
from airflow_provider_chatexport.lake.normalize.export_file import MAX_BLOCK_BYTES, ExportReader, Line, LongLine
from airflow_provider_chatexport.lake.normalize.fast_path import FallBackError, TypedLinesFastPath
from airflow_provider_chatexport.lake.normalize.json_slicer import BrokenJsonError, JsonFragment
from airflow_provider_chatexport.lake.normalize.output import (
    ANY_START,
    STARTS,
    TYPED_REACTION,
    EntityWriter,
    NormalizedFile,
    encode_line,
    encode_verbatim_line,
)
from airflow_provider_chatexport.lake.normalize.rejects import MAX_REJECT_BYTES, begins_a_part, reject
from airflow_provider_chatexport.lake.normalize.shapes import (
    CHANNEL_LISTS,
    holds_a_user_export,
    missing_from,
    own_channel,
    unwrap,
    with_cid,
)
from airflow_provider_chatexport.lake.raw_json import (
    MAX_DEPTH,
    NOTHING,
    Fields,
    NotAnObjectError,
    checked_value,
    has_duplicate_key,
    id_of,
    is_object,
    items_of,
    members,
    read_object,
    text_of,
)
from airflow_provider_chatexport.lake.schema.tables import TABLE_BY_ENTITY

# Names of entities that this version has no table for, and how many of them are told apart.
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
MAX_NAMES: Final = 50
# How much of them goes into a file: the database reads thousands of objects at a time, and these may be large ones.
OTHERS_BYTES: Final = 32_000_000
OTHER: Final = "other"


class Normalizer:
    """Sifts one file into ``folder``."""

    # What the lists of an element belong to, and what follows a line of its own.
    _head = Entity.CHANNEL

    def __init__(self, source: ExportReader, folder: Path, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.source = source
        self._max_line_bytes = max_line_bytes
        self._cid: str | None = None
        self._owner: str | None = None
        self._outputs: dict[Entity, EntityWriter] = {}
        self._others: IO[bytes]
        self.normalized = NormalizedFile(folder=folder)

    @property
    def _in_fragments(self) -> bool:
        return self.source.is_array or self.source.is_spread

    def normalize(self) -> NormalizedFile:
        """The file's messages left where they are, if they can be; else all of it written anew.

        :raises InputError: the file breaks off, or its array is not well formed.
        """
        if not self._in_fragments:
            with contextlib.suppress(FallBackError), self._outputs_open():
                self._pass_by()
                return self.normalized
        return self.write_all()

    def write_all(self) -> NormalizedFile:
        """Every object into the file of its entity.

        :raises InputError: the file breaks off, or its array is not well formed.
        """
        with self._outputs_open():
            if self._in_fragments:
                self._take_fragments(self.source.fragments(self._max_line_bytes))
            else:
                self._normalize_lines()
        return self.normalized

    @contextlib.contextmanager
    def _outputs_open(self) -> Iterator[None]:
        self._cid = None
        self.normalized = NormalizedFile(folder=self.normalized.folder)
        self.normalized.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.callback(self.normalized.rejects.close)
            for entity in Entity:
                self._outputs[entity] = EntityWriter(
                    entity=entity,
                    objects=stack.enter_context(self.normalized.path(entity).open("wb")),
                    nulls=stack.enter_context(self.normalized.nulls_path(entity).open("wb")),
                    watch=KeyWatch(TABLE_BY_ENTITY[entity]),
                )
            self._others = self.normalized.others_path(0).open("wb")
            stack.callback(self._close_others)
            yield
            for entity, output in self._outputs.items():
                self.normalized.keys[entity] = output.keys
                self.normalized.n_written[entity] = output.n_objects
                if output.n_objects:
                    self.normalized.entities[entity.value] += output.n_objects

    def _pass_by(self) -> None:
        """Leaves the messages where they are, and takes all other lines.

        :raises UnusualError: a message is in another shape or not JSON, a line of unusual length.
        """
        messages = self._outputs[Entity.MESSAGE]
        fast_path = TypedLinesFastPath(messages, self._take_counted, self._take_reaction)
        blocks = self.source.plain_blocks(self.normalized.folder / "plain.ndjson")
        longest = min(MAX_BLOCK_BYTES, self._max_line_bytes)
        for block in blocks:
            if len(block.text) > longest:
                raise FallBackError
            fast_path.look(block)
            if messages.n_objects:
                raise FallBackError
        self.normalized.in_place, self.normalized.n_in_place = blocks.path, fast_path.n_in_place
        self.normalized.lines += fast_path.n_in_place
        if fast_path.n_in_place:
            self.normalized.entities[Entity.MESSAGE.value] += fast_path.n_in_place

    def _take_reaction(self, line_number: int, reaction: bytes) -> None:
        """:raises NotAnObjectError: it is no JSON, or no object."""
        self.normalized.lines += 1
        # Where in the block it begins is not known; whatever is refused has the file normalized line by line.
        self._write_as_it_stood(line_number, 0, TYPED_REACTION, reaction)

    def _normalize_lines(self) -> None:
        for line in self.source.lines(self._max_line_bytes):
            if isinstance(line, LongLine):
                self._take_long_line(line)
            else:
                self._take_counted(line)

    def _take_counted(self, line: Line) -> None:
        self.normalized.lines += 1
        self._take_any(line)

    def _take_long_line(self, line: LongLine) -> None:
        """A channel or user with all that is theirs, fragment by fragment; a fault costs what comes after it."""
        before = self.normalized.last_n
        try:
            self._take_fragments(line.fragments(self._max_line_bytes))
        except BrokenJsonError:
            line.pass_over()
            self.normalized.lines += 1
            found = Line(line.number, line.offset, line.begin[:MAX_REJECT_BYTES], line.size)
            if self.normalized.last_n == before:
                self._lose(found)
            self._reject_line(found, "the line is no whole object; what it holds before the fault was taken")

    def _take_any(self, line: Line) -> None:
        if not self._take_usual(line):
            self._take_line(line)

    def _take_usual(self, line: Line) -> bool:
        """A message or reaction that looks like what it should be, without taking it apart; else False."""
        raw = line.raw
        found = ANY_START.match(raw)
        if found is None or not raw.endswith(b"}}") or line.too_long or _may_be_deep(raw):
            return False
        try:
            self._write_as_it_stood(line.number, line.offset, found.group(), raw[found.end() - 1 : -1])
        except NotAnObjectError:
            return False
        return True

    def _write_as_it_stood(self, number: int, offset: int, start: bytes, payload: bytes) -> None:
        """:raises NotAnObjectError: it is no JSON, or no object."""
        output, normalized = self._outputs[STARTS[start]], self.normalized
        nulls = output.watch.saw(payload)
        normalized.last_n += 1
        normalized.longest = max(normalized.longest, len(payload))
        output.n_objects += 1
        output.objects.write(encode_verbatim_line(normalized.last_n, number, offset, start, payload))
        if nulls:
            output.note(normalized.last_n, nulls)

    def _take_line(self, line: Line) -> None:
        if line.too_long:
            limit = self._max_line_bytes
            self._lose(line)
            self._reject_line(line, f"the line is longer than the limit of {limit} bytes")
            return
        before = self.normalized.last_n
        try:
            self._take_object(line, line.raw)
        except NotAnObjectError as error:
            if self.normalized.last_n == before:
                self._lose(line)
            self._reject_line(line, str(error))

    def _lose(self, line: Line) -> None:
        """Nothing of a line can be taken: if a channel was, what follows is not of the one before."""
        if begins_a_part(line.raw, self._head):
            self._leave()

    def _take_object(self, line: Line, raw: bytes) -> None:
        raw, fields = members(raw)
        of_user = holds_a_user_export(fields)
        self.normalized.n_user_exports += of_user
        is_part = of_user or ("channel" in fields and not fields.keys().isdisjoint(CHANNEL_LISTS))
        for at, (name, payload) in enumerate(unwrap(fields, raw)):
            if at == 0 and payload is not raw and has_duplicate_key(raw, fields):
                raise NotAnObjectError("a key stands twice in the line")
            self._take_entity(line, name, payload, fields if payload is raw else None, is_part=is_part)

    def _take_fragments(self, fragments: Iterator[JsonFragment]) -> None:
        """Of an element of a v1 array the lists are taken item by item, once it is known what they belong to; until
        then they are held, and what else is in it too."""
        with SpillFile(self.normalized.folder) as spill:
            element = self._new_element(spill)
            try:
                for fragment in fragments:
                    line = Line(fragment.element, fragment.offset, fragment.raw, fragment.size)
                    if fragment.key is None:
                        self.normalized.lines += 1
                        self._end_element(element, line)
                        element = self._new_element(spill)
                    elif element.is_open:
                        self._take_part(fragment.key, line, is_item=fragment.item)
                    else:
                        element.hold(fragment.key, line, is_item=fragment.item)
                        if element.has_items and element.head is not None:
                            self._open(element)
            except BrokenJsonError:
                if not element.is_open and (element.has_items or element.head is not None):
                    self._open(element)
                raise

    def _new_element(self, spill: SpillFile) -> ElementBuffer:
        spill.empty()
        return ElementBuffer(of=self._head, spill=spill, max_bytes=self._max_line_bytes)

    def _open(self, element: ElementBuffer) -> None:
        """Takes what is held: first what the rest belongs to, wherever it stood."""
        element.is_open = True
        self._leave()
        if element.head is not None:
            self._take_part(self._head.value, element.head, is_item=False)
        for key, is_item, line in element.taken_out():
            self._take_part(key, line, is_item=is_item)

    def _end_element(self, element: ElementBuffer, line: Line) -> None:
        """:param line: the element, if it is no object."""
        if not element.is_open and element.is_whose_lists_are:
            self._open(element)
        if element.is_open:
            if self._in_fragments:
                self._leave()
            return
        raw = line.raw or element.whole()
        size = max(line.size, len(raw), element.n_bytes)
        self._take_line(Line(line.number, line.offset, raw[: self._max_line_bytes], size))

    def _leave(self) -> None:
        """What comes next belongs to no channel that was met."""
        self._cid = None
        self.normalized.leave_channel()

    def _take_part(self, key: str, line: Line, *, is_item: bool) -> None:
        """Of a channel's element: an item, or a member; one that is a list may have come before the channel."""
        entity = CHANNEL_LISTS.get(key)
        if line.raw in NOTHING and not is_item and key != Entity.CHANNEL.value:
            return
        if entity is None or is_item or line.raw[:1] != b"[" or line.too_long:
            self._take_fragment(line, entity.value if entity is not None and is_item else key)
            return
        try:
            items = items_of(line.raw)
        except NotAnObjectError as error:
            self._reject_line(line, f"{key}: {error}")
            return
        for item in items:
            self._take_fragment(Line(line.number, line.offset, item, len(item)), entity.value)

    def _take_fragment(self, line: Line, name: str) -> None:
        if line.size > self._max_line_bytes:
            head = Line(line.number, line.offset, line.raw[:MAX_REJECT_BYTES], line.size)
            self._reject_entity(head, name, f"the object is longer than the limit of {self._max_line_bytes} bytes")
            return
        self._take_entity(line, name, line.raw)

    def _take_entity(
        self, line: Line, name: str, payload: bytes, fields: Fields | None = None, *, is_part: bool = False
    ) -> None:
        """:param fields: of an object that was taken apart already. :param is_part: there are more on its line."""
        entity = ALIASES.get(name)
        given = payload if is_part else None
        if entity is Entity.CHANNEL:  # what follows is of this one, or, where it is a reject, of none
            self._cid = None
            self.normalized.last_n += 1
            self.normalized.channels.append((self.normalized.last_n, None))
        try:
            if entity is None:
                self._write_other(line, name, checked_value(payload))
                return
            payload, fields = read_object(payload, fields)
        except NotAnObjectError as error:
            name = entity.value if entity else name
            self._reject_entity(line, name, f"{name}: {error}", given)
            return
        cid = self._channel_of(entity, fields)
        if missing := missing_from(entity, fields, cid):
            self._reject_entity(line, entity.value, f"{entity.value} without {missing}", given)
            return
        nulls = self._outputs[entity].watch.saw_members(fields)
        self._write(entity, line, with_cid(payload, fields, cid))
        if nulls:
            self._outputs[entity].note(self.normalized.last_n, nulls)

    def _write(self, entity: Entity, line: Line, payload: bytes) -> None:
        normalized, output = self.normalized, self._outputs[entity]
        normalized.last_n += 1
        normalized.longest = max(normalized.longest, len(payload))
        output.n_objects += 1
        if b"\n" in payload:  # legal between the tokens of a v1 array's objects, never inside a string
            payload = payload.replace(b"\n", b" ").replace(b"\r", b" ")
        if entity is Entity.CHANNEL and self._cid is not None:
            normalized.channels.append((normalized.last_n, self._cid))
        output.objects.write(encode_line(normalized.last_n, line.number, line.offset, payload, self._owner))

    def _channel_of(self, entity: Entity, fields: Fields) -> str | None:
        """An object's channel: its own word, else the channel that its element or the line before names."""
        if entity is Entity.USER:
            return None
        own = own_channel(fields)
        if entity is Entity.CHANNEL:
            channel_type, channel_id = text_of(fields, "type"), id_of(fields, "id")
            self._cid = own = own or (f"{channel_type}:{channel_id}" if channel_type and channel_id else None)
        elif entity is Entity.REACTION:
            return own
        return own or self._cid

    def _write_other(self, line: Line, name: str, payload: bytes) -> None:
        own = own_channel(read_object(payload)[1]) if is_object(payload) else None
        record = {"entity": name, "cid": own or self._cid, "line_number": line.number}
        self._count(name)
        self.normalized.n_others += 1
        self.normalized.longest = max(self.normalized.longest, len(payload))
        data = payload.replace(b"\n", b" ").replace(b"\r", b" ")
        if self._others.tell() > OTHERS_BYTES:
            self._close_others()
            self._others = self.normalized.others_path(self.normalized.n_other_parts).open("wb")
            self.normalized.n_other_parts += 1
        self._others.write(msgspec.json.encode(record)[:-1] + b',"data":' + data + b"}\n")

    def _close_others(self) -> None:
        self._others.close()

    def _count(self, name: str) -> None:
        """Names come from lines, and counts go to places where no text may: what hardly is a name counts as other."""
        counted = self.normalized.entities
        is_known = name in ALIASES or name in OTHER_NAMES or name in counted
        is_name = is_known or (len(counted) < MAX_NAMES and _NAME.fullmatch(name) is not None)
        counted[name if is_name else OTHER] += 1

    def _reject_entity(self, line: Line, name: str, reason: str, payload: bytes | None = None) -> None:
        """:param payload: all that is kept of the line: thousands of objects on one would keep it as many times."""
        self._count(name)
        if payload is not None:
            line = Line(line.number, line.offset, payload, len(payload))
        self.normalized.rejects.append(reject(line, reason))

    def _reject_line(self, line: Line, reason: str) -> None:
        """A line, or a part of one, of which no entity can be told."""
        self.normalized.rejected_lines += 1
        self.normalized.rejects.append(reject(line, reason))


def _may_be_deep(raw: bytes) -> bool:
    return raw.count(b"{") + raw.count(b"[") > MAX_DEPTH
