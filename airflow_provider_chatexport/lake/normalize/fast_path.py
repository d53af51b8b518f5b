"""The fast path: messages in ``item`` or ``typed`` lines stay in the file, and only its other lines are normalized.

The first line says whether objects stand under ``item`` or ``data`` in this file. Whole blocks of lines are decoded at
once. That checks that each object is JSON, and finds the custom keys. A message in any other form, or one that is not
JSON, ends the fast path, and the whole file is normalized line by line.

To delete the fast path: this module, ``payload_key``, ``likely_embeds_users`` and ``is_wrapped`` of ``ExportReader``,
``in_place`` and ``has_places`` of ``EntityFile``, and what asks for them in ``staging``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.lake.normalize.custom_keys import UNDECODABLE
from airflow_provider_chatexport.lake.normalize.entities import STARTS, ChannelContext, entities
from airflow_provider_chatexport.lake.normalize.export_file import ExportReader, Line
from airflow_provider_chatexport.lake.normalize.output import NormalizedFile, Output
from airflow_provider_chatexport.lake.raw_json import (
    MAX_DEPTH,
    NotAnObjectError,
    members,
    read_object,
    refuse_doubled_key,
    text_of,
)

# A block is scanned several times, so it should fit into the processor's cache.
BLOCK_BYTES: Final = 128 * 1024
# No line within a block can be longer than the block. DuckDB's own limit of an object is twice this.
MAX_BLOCK_BYTES: Final = 8 * 1024 * 1024

_ALL_BUT_OPENINGS: Final = bytes(set(range(256)) - set(b"{[\n"))


class FallBackError(Exception):
    """Some message of the file cannot be left in place."""


def normalize_in_place(reader: ExportReader, folder: Path, context: ChannelContext) -> NormalizedFile | None:
    """Leave the messages of an export of channels in its file, and normalize all other lines.

    :return: None if some message cannot be left in the file.
    :raises InputError: the file breaks off.
    """
    if reader.is_cut_into_fragments or reader.payload_key is None:
        return None
    with Output(folder) as output:
        fast_path = EnvelopeFastPath(context, output, reader.payload_key)
        blocks = PlainBlocks(reader, folder / "plain.ndjson")
        try:
            for block in blocks:
                fast_path.take(block)
        except FallBackError:
            return None
    normalized = output.normalized(context)
    # A reaction that was decoded with its block has no offset.
    normalized.files = [replace(file, has_places=file.entity is not Entity.REACTION) for file in normalized.files]
    if fast_path.n_in_place:
        normalized.shapes.add(STARTS[fast_path.message_start][1])
        messages = output.writer(Entity.MESSAGE).file(context.custom_keys(Entity.MESSAGE))
        in_place = replace(
            messages, path=blocks.path, n_objects=fast_path.n_in_place, in_place=reader.payload_key, has_places=False
        )
        normalized.files.insert(0, in_place)
        normalized.entities[Entity.MESSAGE.value] += fast_path.n_in_place
    return normalized


class EnvelopeFastPath:
    """The blocks of one file as they pass. ``n_in_place``: the messages that stay.

    :param payload_key: the key of the object in a line.
    """

    def __init__(self, context: ChannelContext, output: Output, payload_key: str) -> None:
        self.n_in_place = 0
        self._context = context
        self._output = output
        self._payload_key = payload_key
        self.message_start = b'{"type":"message","%b":{' % payload_key.encode()
        self._reaction_start = b'{"type":"reaction","%b":{' % payload_key.encode()
        self._messages = output.writer(Entity.MESSAGE)
        self._watch = context.watches[Entity.MESSAGE]
        self._longest_bytes = min(MAX_BLOCK_BYTES, context.max_line_bytes)
        self._reaction = _line_type("reaction", payload_key, msgspec.Raw)
        self._encode = msgspec.json.Encoder().encode_lines
        self._decoder: tuple[Any, Callable[[bytes], list[Any]]] | None = None

    def take(self, block: Block) -> None:
        """Leave the messages of a block in place, and write its other lines.

        :raises FallBackError: a message is in another shape, too deep or not JSON, or a line is unusually long.
        """
        if len(block.text) > self._longest_bytes or block.most_openings() > MAX_DEPTH:
            raise FallBackError
        if not self._take_at_once(block):
            for line in block.lines():
                self._take_line(line)
        if self._messages.n_objects:
            raise FallBackError

    def _take_at_once(self, block: Block) -> bool:
        """Take a block that has only messages and reactions, with keys that came before; else return False."""
        watch = self._watch
        if self._decoder is None or self._decoder[0] is not watch.kind:
            message = _line_type("message", self._payload_key, watch.kind)
            self._decoder = (watch.kind, msgspec.json.Decoder(message | self._reaction).decode_lines)
        try:
            lines = self._decoder[1](block.text)
        except UNDECODABLE:
            return False
        if len(lines) != block.n_lines:  # blank lines, or lines that hold more
            return False
        # If what was decoded makes up all of the block, no key stands twice in a line, or in its object.
        if len(self._encode(lines)) != block.size_without_ends and self._may_have_doubled_key(block):
            return False
        n_reactions = 0
        try:
            for number, line in enumerate(lines, block.first_line):
                if type(line) is self._reaction:
                    n_reactions += 1
                    # The offset is not known, and not needed: if DuckDB refuses the reaction, the file is normalized
                    # line by line.
                    self._output.write(self._context.verbatim(number, 0, self._reaction_start, bytes(line.data)))
                elif nulls := watch.saw_decoded(line.data):
                    self._messages.note(_require_id(watch.id_of(line.data)), nulls)
        except NotAnObjectError:  # a reaction, and some of the block has been written
            raise FallBackError from None
        self._output.lines += len(lines)
        self.n_in_place += len(lines) - n_reactions
        return True

    def _may_have_doubled_key(self, block: Block) -> bool:
        try:
            for line in block.lines():
                refuse_doubled_key(members(line.raw)[1][self._payload_key])
        except NotAnObjectError:
            return True
        return False

    def _take_line(self, line: Line) -> None:
        self._output.lines += 1
        if not line.raw.startswith(self.message_start):
            for decision in entities(line, self._context):
                self._output.write(decision)
            return
        message = line.raw[len(self.message_start) - 1 : -1]
        try:
            if nulls := self._watch.saw(message):
                self._messages.note(_require_id(text_of(read_object(message)[1], "id")), nulls)
        except NotAnObjectError:
            raise FallBackError from None
        if not line.raw.endswith(b"}}"):
            raise FallBackError
        self.n_in_place += 1


def _line_type(name: str, payload_key: str, kind: Any) -> Any:
    """Return the type of a line that holds an object of this kind as ``data``, under the envelope's key."""
    return msgspec.defstruct(
        "_Line",
        [("data", kind, msgspec.field(name=payload_key))],
        tag_field="type",
        tag=name,
        forbid_unknown_fields=True,
        omit_defaults=True,
        gc=False,
    )


def _require_id(message_id: str | None) -> str:
    """Return the id of a message in place. Notes name the message by its id, since it has no number.

    :raises FallBackError: the id is not text.
    """
    if message_id is None:
        raise FallBackError
    return message_id


class Block(msgspec.Struct, frozen=True, gc=False):
    """Whole lines, as they stand. A line that is longer than a block can be is cut, and is the last block."""

    first_line: int
    n_lines: int
    offset: int
    text: bytes

    def lines(self) -> Iterator[Line]:
        """Yield the lines that are not blank."""
        offset = self.offset
        for number, raw in enumerate(self.text.split(b"\n"), self.first_line):
            if raw and not raw.isspace():
                yield Line.of(number, offset, raw)
            offset += len(raw) + 1

    @property
    def size_without_ends(self) -> int:
        """How long the lines are if each ends with one byte. A carriage return is never inside a string of JSON."""
        return len(self.text) - self.text.count(b"\r") + (not self.text.endswith(b"\n"))

    def most_openings(self) -> int:
        """Return how many brackets a line opens at most, those in strings too. No value is nested deeper."""
        # One pass that drops nearly all bytes is several times cheaper than counting line by line.
        return max(map(len, self.text.translate(None, _ALL_BUT_OPENINGS).split(b"\n")))


class PlainBlocks:
    """A file in blocks of whole lines, and ``path``, where DuckDB can read its bytes.

    :param unpacked: where to write the plain bytes if the file is packed.
    """

    def __init__(self, reader: ExportReader, unpacked: Path) -> None:
        self._reader = reader
        self._unpacked = unpacked
        self.path = unpacked if reader.is_wrapped else reader.path

    def __iter__(self) -> Iterator[Block]:
        """Yield the blocks.

        :raises InputError: a gzip stream is damaged or breaks off.
        """
        if not self._reader.is_wrapped:
            yield from self._blocks(None)
            return
        with self._unpacked.open("wb") as target:
            yield from self._blocks(target)

    def _blocks(self, target: BinaryIO | None) -> Iterator[Block]:
        line, offset, rest = 1, self._reader.bom_bytes, b""
        for chunk in self._reader.chunks(BLOCK_BYTES):
            if target is not None:
                target.write(chunk)
            end = chunk.rfind(b"\n") + 1
            if not end:
                rest += chunk
            else:
                text, rest = rest + chunk[:end], chunk[end:]
                n_lines = text.count(b"\n")
                yield Block(line, n_lines, offset, text)
                line += n_lines
                offset += len(text)
            if len(rest) > MAX_BLOCK_BYTES:
                break
        if rest:
            yield Block(line, 1, offset, rest)
