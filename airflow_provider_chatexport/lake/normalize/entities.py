"""Units to objects and rejects: the decisions of normalizing, without a file and without a counter.

``entities`` decides about one unit. What it has to remember of the units before it, above all which channel came last,
is in its ``Context``: there is one for exports of channels (here) and one for exports of users (``user_exports``).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import msgspec

from airflow_provider_chatexport.core.entities import ALIASES, OTHER_NAMES, Entity, Shape
from airflow_provider_chatexport.lake.normalize.custom_keys import CustomKeys, KeyWatch
from airflow_provider_chatexport.lake.normalize.doubled_keys import InsideCheck, check_channel, doubled
from airflow_provider_chatexport.lake.normalize.elements import (
    BrokenLine,
    Element,
    ElementEnd,
    ElementStart,
    Part,
    Unit,
)
from airflow_provider_chatexport.lake.normalize.export_file import Line
from airflow_provider_chatexport.lake.normalize.rejects import Reject, starts_as
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
    REPLACED,
    DoubledKeyError,
    Fields,
    NotAnObjectError,
    checked_value,
    id_of,
    is_object,
    items_of,
    members,
    read_object,
    text_of,
)
from airflow_provider_chatexport.lake.schema.tables import TABLE_BY_ENTITY

# The starts of most lines of most files. Their objects are recognised without splitting the line into members.
STARTS: Final[dict[bytes, tuple[Entity, Shape]]] = {
    b'{"type":"message","item":{': (Entity.MESSAGE, Shape.ITEM),
    b'{"type":"reaction","item":{': (Entity.REACTION, Shape.ITEM),
    b'{"type":"message","data":{': (Entity.MESSAGE, Shape.TYPED),
    b'{"type":"reaction","data":{': (Entity.REACTION, Shape.TYPED),
    b'{"message":{': (Entity.MESSAGE, Shape.KEYED),
    b'{"reaction":{': (Entity.REACTION, Shape.KEYED),
}
_ANY_START: Final = re.compile(b"|".join(re.escape(start) for start in STARTS))
_INSIDE: Final = {entity: InsideCheck(table) for entity, table in TABLE_BY_ENTITY.items()}
_NO_NULLS: Final[list[str]] = []


class NormalizedObject(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An object that becomes a row, unless DuckDB refuses it.

    :ivar line: the number of its line.
    :ivar offset: the byte at which that line starts.
    :ivar data: the object as raw bytes.
    :ivar start: the start of its line, if the line was not split into members.
    :ivar channel: the channel that the object belongs to by its place in the file.
    :ivar owner: in an export of users, the user in whose part of the file the object stands.
    :ivar nulls: which of its custom keys are null.
    """

    entity: Entity
    line: int
    offset: int
    data: bytes
    start: bytes | None = None
    channel: str | None = None
    owner: str | None = None
    nulls: list[str] = _NO_NULLS


class OtherEntity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A well-formed object of an entity without a table of its own. It is kept whole."""

    name: str
    cid: str | None
    line: int
    data: bytes


class Missing(msgspec.Struct, frozen=True, gc=False):
    """What an object lacks to become a row, in words."""

    what: str


Decision = NormalizedObject | OtherEntity | Reject


class Context(Protocol):
    """What is known at a place in a file, and what an object needs there to become a row.

    :ivar head: what the lists of an element belong to, and the objects on the lines behind it.
    :ivar kept: the entities whose objects become rows of a table of their own.
    :ivar cid: the channel that came last, if objects belong to it by their place.
    :ivar met_user_export: some line held a whole user with messages or reactions.
    :ivar shapes: those that entities have had so far.
    """

    head: Entity
    kept: tuple[Entity, ...]
    max_line_bytes: int
    cid: str | None
    met_user_export: bool
    shapes: set[Shape]

    def leave(self) -> None:
        """Forget the channel or user that came last: what comes next does not belong to it."""

    def usual(self, line: Line) -> NormalizedObject | None:
        """Return the object of a line that looks as most lines do, without splitting the line; else None."""

    def place(self, entity: Entity, line: Line, payload: bytes, fields: Fields) -> NormalizedObject | Missing:
        """Return an object with its place, or what it lacks. A head becomes the one that came last.

        :param payload: the object, whose members are ``fields``.
        """

    def custom_keys(self, entity: Entity) -> CustomKeys | None:
        """Return the custom keys of an entity's objects so far; None if DuckDB has to read the objects as JSON."""


class ChannelContext:
    """An export of channels: an object belongs to the channel that it names, else to the one that it stands behind.

    :ivar watches: which custom keys each entity's objects have had so far.
    """

    head = Entity.CHANNEL
    kept = tuple(Entity)

    def __init__(self, max_line_bytes: int) -> None:
        self.max_line_bytes = max_line_bytes
        self.cid: str | None = None
        self.met_user_export = False
        self.shapes: set[Shape] = set()
        self.watches = {entity: KeyWatch(TABLE_BY_ENTITY[entity]) for entity in Entity}
        self._by_start = {start: (entity, shape, self.watches[entity]) for start, (entity, shape) in STARTS.items()}

    def leave(self) -> None:
        """Forget the channel that came last."""
        self.cid = None

    def usual(self, line: Line) -> NormalizedObject | None:
        """Return the object of a message or reaction line in one of three shapes."""
        raw = line.raw
        match = _ANY_START.match(raw)
        if match is None or not raw.endswith(b"}}") or line.too_long or _may_be_deep(raw):
            return None
        try:
            if not raw.isascii():
                raw.decode()  # decoding an object leaves the bytes of its strings as they are
            return self.verbatim(line.number, line.offset, match.group(), raw[match.end() - 1 : -1])
        except (NotAnObjectError, UnicodeDecodeError):
            return None

    def verbatim(self, number: int, offset: int, start: bytes, payload: bytes) -> NormalizedObject:
        """Return the object behind the start of a line. DuckDB will find what the object lacks.

        :raises NotAnObjectError: the payload is not JSON, or not an object.
        """
        entity, shape, watch = self._by_start[start]
        self.shapes.add(shape)
        return NormalizedObject(
            entity=entity,
            line=number,
            offset=offset,
            data=payload,
            start=start,
            channel=self.cid,
            nulls=watch.saw(payload),
        )

    def place(self, entity: Entity, line: Line, payload: bytes, fields: Fields) -> NormalizedObject | Missing:
        """Return an object with its channel in it."""
        cid = self._channel_of(entity, fields)
        if missing := missing_from(entity, fields, cid):
            return Missing(missing)
        return NormalizedObject(
            entity=entity,
            line=line.number,
            offset=line.offset,
            data=with_cid(payload, fields, cid),
            channel=self.cid,
            nulls=self.watches[entity].saw_members(fields),
        )

    def _channel_of(self, entity: Entity, fields: Fields) -> str | None:
        """Return the channel that an object names, else the one that its element or the line before names."""
        if entity is Entity.USER:
            return None
        own = own_channel(fields)
        if entity is Entity.CHANNEL:
            channel_type, channel_id = text_of(fields, "type"), id_of(fields, "id")
            self.cid = own = own or (f"{channel_type}:{channel_id}" if channel_type and channel_id else None)
        elif entity is Entity.REACTION:  # the channel of its message goes before its place
            return own
        return own or self.cid

    def custom_keys(self, entity: Entity) -> CustomKeys | None:
        """Return the custom keys of an entity's objects so far; None if a STRUCT cannot hold them."""
        return self.watches[entity].keys


def entities(unit: Unit, context: Context) -> Iterable[Decision]:
    """Return every object that a unit holds, in order, each as it is or with the reason why it cannot be a row.

    :param context: what came before the unit; it learns from the unit.
    """
    if isinstance(unit, Line):
        usual = context.usual(unit)
        return _in_line(unit, context) if usual is None else (usual,)
    match unit:
        case Part():
            return _in_part(unit, context)
        case Element():
            return _in_line(unit.line, context)
        case BrokenLine():
            return (Reject(unit.line, "the line is not one whole object; what came before the fault was taken"),)
        case ElementStart() | ElementEnd(in_array=True):
            context.leave()
    return ()


def _in_line(line: Line, context: Context) -> Iterator[Decision]:
    if line.too_long:
        _lose(line, context)
        yield Reject(line, f"the line is longer than the limit of {context.max_line_bytes} bytes")
        return
    any_came = False
    try:
        # An array that lost its brackets has a comma behind each element.
        try:
            raw, fields = members(line.raw[:-1] if line.raw.endswith(b"},") else line.raw)
        except DoubledKeyError as error:
            yield _doubled(line, error, context)
            return
        is_user_export = holds_a_user_export(fields)
        context.met_user_export = context.met_user_export or is_user_export
        is_part = is_user_export or ("channel" in fields and not fields.keys().isdisjoint(CHANNEL_LISTS))
        at = 0
        for shape, name, payload in unwrap(fields, raw):
            any_came = True
            context.shapes.add(shape)
            decision = _decide(line, name, payload, context, fields if payload is raw else None, is_part=is_part)
            if is_part and isinstance(decision, Reject) and REPLACED in payload:
                # The reject keeps the object as it stands in the line: replacing half characters moved no byte.
                at = max(raw.find(payload, at), raw.find(payload) if at == 0 else at)
                own = line.raw[at : at + len(payload)]
                at += len(payload)
                decision = Reject(Line(line.number, line.offset, own, len(own)), decision.reason, decision.entity)
            yield decision
    except NotAnObjectError as error:
        if not any_came:
            _lose(line, context)
        yield Reject(line, str(error))


def _doubled(line: Line, error: DoubledKeyError, context: Context) -> Reject:
    """Reject a line in which a key stands twice. The keys say what it was, whatever their order and their values."""
    with contextlib.suppress(NotAnObjectError):
        found = list(unwrap(error.fields, line.raw))
        if any(ALIASES.get(name) is context.head for _, name, _ in found):
            context.leave()
        (_, name, payload), *more = found
        if not more and payload is line.raw:  # without an envelope, the line is the object
            entity = ALIASES.get(name)
            return Reject(line, f"{name}: {doubled(error.key)}", None if entity is None else entity.value)
    return Reject(line, doubled(error.key))


def _lose(line: Line, context: Context) -> None:
    """Note that a line is lost: if it was a channel, what follows does not belong to the channel before."""
    if starts_as(context.head, line.raw):
        context.leave()


def _in_part(part: Part, context: Context) -> Iterable[Decision]:
    line, entity = part.line, CHANNEL_LISTS.get(part.key)
    context.shapes.add(Shape.CHANNEL)
    if line.raw in NOTHING and not part.is_item and part.key != Entity.CHANNEL.value:
        return ()
    if part.is_doubled:
        return (Reject(line, doubled(part.key), entity.value if entity is not None else part.key),)
    if entity is None or part.is_item or line.raw[:1] != b"[" or line.too_long:
        name = entity.value if entity is not None and part.is_item else part.key
        if line.too_long:
            return (Reject(line, f"the object is longer than the limit of {context.max_line_bytes} bytes", name),)
        return (_decide(line, name, line.raw, context),)
    try:
        items = items_of(line.raw)  # a list that stood before its channel comes whole
    except NotAnObjectError as error:
        return (Reject(line, f"{part.key}: {error}"),)
    return [_decide(Line(line.number, line.offset, item, len(item)), entity.value, item, context) for item in items]


def _decide(
    line: Line, name: str, payload: bytes, context: Context, fields: Fields | None = None, *, is_part: bool = False
) -> Decision:
    """Decide about one object.

    :param fields: its members, if it was split already.
    :param is_part: the line has more objects. A reject keeps the object alone, or a line of a thousand rejects would be
        kept a thousand times.
    """
    entity = ALIASES.get(name)
    if entity is context.head:  # what follows belongs to this one, or, if it is a reject, to none
        context.leave()
    try:
        if entity is None or entity not in context.kept:
            return _other(line, name, checked_value(payload), context)
        read, fields = read_object(payload, fields)
        check = _INSIDE[entity]
        check.check(fields)
        check.check_ids(read)
        placed = context.place(entity, line, read, fields)
    except NotAnObjectError as error:
        fault = doubled(error.key) if isinstance(error, DoubledKeyError) else error
        name = name if entity is None else entity.value
        # A name that is not known may be anything that stands in the line, and reasons go where lines may not.
        reason = f"{name if entity is not None or name in OTHER_NAMES else 'other entity'}: {fault}"
    else:
        if isinstance(placed, NormalizedObject):
            return placed
        name, reason = entity.value, f"{entity.value} without {placed.what}"
    return Reject(Line(line.number, line.offset, payload, len(payload)) if is_part else line, reason, name)


def _other(line: Line, name: str, payload: bytes, context: Context) -> OtherEntity:
    own = own_channel(read_object(payload)[1]) if is_object(payload) else None
    check_channel(payload)
    return OtherEntity(name=name, cid=own or context.cid, line=line.number, data=payload)


def _may_be_deep(raw: bytes) -> bool:
    return raw.count(b"{") + raw.count(b"[") > MAX_DEPTH
