"""Messages that stay where they are: of a file of ``typed`` lines all else is written anew, and read beside them.

Whole blocks of lines are decoded at once, which holds each object to be JSON and finds the keys that the registry does
not read. A message in any other form, or one that is no JSON, ends that: then the file is normalized line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from airflow_provider_chatexport.lake.normalize.custom_keys import NO_OBJECT
from airflow_provider_chatexport.lake.normalize.export_file import Block, Line
from airflow_provider_chatexport.lake.normalize.output import TYPED_MESSAGE, EntityWriter
from airflow_provider_chatexport.lake.raw_json import (
    MAX_DEPTH,
    NotAnObjectError,
    has_duplicate_key,
    members,
    read_object,
    text_of,
)

_DATA_KEY: Final = b'"data":'


class FallBackError(Exception):
    """The messages of a file cannot be left where they are."""


class _Reaction(msgspec.Struct, tag_field="type", tag="reaction", forbid_unknown_fields=True, gc=False):
    data: msgspec.Raw


class TypedLinesFastPath:
    """Looks at a file's lines, and leaves its messages. ``n_in_place``: how many.

    :param messages: where it is noted which of them have keys with null; none is written there.
    :param take: is given each line that is no typed message.
    :param take_reaction: is given the object of a reaction, with the number of its line.
    """

    def __init__(
        self, messages: EntityWriter, take: Callable[[Line], None], take_reaction: Callable[[int, bytes], None]
    ) -> None:
        self.n_in_place = 0
        self._messages = messages
        self._take = take
        self._take_reaction = take_reaction
        self._decoder: tuple[Any, Callable[[bytes], list[Any]]] | None = None

    def look(self, block: Block) -> None:
        """:raises UnusualError: a message is in another shape, too deep or not JSON."""
        if block.most_openings() > MAX_DEPTH:
            raise FallBackError
        if not self._passes_at_once(block):
            for line in block.lines():
                self._look_at(line)

    def _passes_at_once(self, block: Block) -> bool:
        """Takes a block whose lines are messages and reactions of keys that were met before; else False."""
        watch = self._messages.watch
        if self._decoder is None or self._decoder[0] is not watch.kind:
            self._decoder = (watch.kind, _line_decoder(watch.kind))
        try:
            lines = self._decoder[1](block.text)
        except NO_OBJECT:
            return False
        if len(lines) != block.n_lines or _has_doubled(block):  # some are blank, or hold more than was decoded
            return False
        n_reactions = 0
        try:
            for number, line in enumerate(lines, block.first_line):
                if type(line) is _Reaction:
                    n_reactions += 1
                    self._take_reaction(number, bytes(line.data))
                elif nulls := watch.saw_decoded(line.data):
                    self._messages.note(_named(watch.text_of(line.data, "id")), nulls)
        except NotAnObjectError:  # a reaction, and some of the block has been taken
            raise FallBackError from None
        self.n_in_place += len(lines) - n_reactions
        return True

    def _look_at(self, line: Line) -> None:
        if not line.raw.startswith(TYPED_MESSAGE):
            self._take(line)
            return
        message = line.raw[len(TYPED_MESSAGE) - 1 : -1]
        try:
            if nulls := self._messages.watch.saw(message):
                self._messages.note(_named(text_of(read_object(message)[1], "id")), nulls)
        except NotAnObjectError:
            raise FallBackError from None
        if not line.raw.endswith(b"}}"):
            raise FallBackError
        self.n_in_place += 1


def _line_decoder(kind: Any) -> Callable[[bytes], list[Any]]:
    """For lines of typed messages, decoded as this kind, and of reactions."""
    message = msgspec.defstruct(
        "_Message", [("data", kind)], tag_field="type", tag="message", forbid_unknown_fields=True, gc=False
    )
    return msgspec.json.Decoder(message | _Reaction).decode_lines


def _named(message_id: str | None) -> str:
    """An object that has no number is told by its id. :raises UnusualError: it has none that is text."""
    if message_id is None:
        raise FallBackError
    return message_id


def _has_doubled(block: Block) -> bool:
    """Whether some line tells its object twice, of lines that are well formed."""
    if block.text.count(_DATA_KEY) <= block.n_lines:
        return False
    suspects = (line.raw for line in block.lines() if line.raw.count(_DATA_KEY) > 1)
    return any(has_duplicate_key(*members(raw)) for raw in suspects)
