"""Shapes of lines: which entities a line holds, in any of the five shapes of ``core.entities.Shape``.

A file may mix them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from airflow_provider_chatexport.core.entities import (
    ALIASES,
    ENVELOPE_NAME_KEYS,
    ENVELOPE_PAYLOAD_KEYS,
    OTHER_NAMES,
    Entity,
    Shape,
    infer_bare,
)
from airflow_provider_chatexport.lake.raw_json import (
    BLANK,
    NOTHING,
    Fields,
    NotAnObjectError,
    id_of,
    is_id,
    is_object,
    items_of,
    joined,
    members,
    text_of,
    time_fault,
)

# The keys of lists in a channel's element.
CHANNEL_LISTS: Final = {
    key: entity for key, entity in ALIASES.items() if key in ("messages", "members", "reads", "reactions", "users")
} | {"read": Entity.READ}
_USER_LISTS: Final = frozenset({"messages", "reactions"})
_OF_MESSAGES: Final = frozenset({"id", "cid"})  # a message has a key "user" as well
# How long the service took to answer. It belongs to the reply, not to the user.
REPLY_DURATION: Final = "duration"
_CHANNEL_KEYS: Final = frozenset({"cid", "channel_cid", "channel_type", "channel_id"})


def unwrap(fields: Fields, raw: bytes) -> Iterator[tuple[Shape, str, bytes]]:
    """Yield each entity in a line: the shape that it has there, its name and its object.

    :param fields: the members of the line.
    :param raw: the line.
    :raises NotAnObjectError: no entity can be recognised in the line.
    """
    shape, name, payload, others = _envelope(fields)
    if name is not None and payload is not None and (name in ALIASES or name in OTHER_NAMES):
        if others:
            payload = _with_others(payload, others) if name in ALIASES else raw
        yield shape, name, payload
        return
    if "channel" in fields and fields.keys() & CHANNEL_LISTS.keys() and not is_bare_message(fields):
        yield from _unwrap_lists(fields, Entity.CHANNEL)
        return
    if holds_a_user_export(fields):
        yield from _unwrap_lists(fields, Entity.USER)
        return
    if len(fields) == 1:
        (key, value), *_ = fields.items()
        if key in ALIASES or key in OTHER_NAMES or is_object(value):
            yield Shape.KEYED, key, value
            return
    entity = infer_bare(fields)
    if entity is not None:
        yield Shape.BARE, entity.value, raw
    elif name is not None and payload is not None:
        yield shape, name, raw if others else payload
    else:
        raise NotAnObjectError("no entity that this version knows can be recognised in it")


def is_bare_message(fields: Fields) -> bool:
    """Return whether this is a bare message whose custom fields happen to be named ``channel``, ``users``, etc."""
    return not fields.keys().isdisjoint(_OF_MESSAGES) and infer_bare(fields) is Entity.MESSAGE


def holds_a_user_export(fields: Fields) -> bool:
    """Return whether this is one user with their messages and reactions, as ``GET /users/{id}/export`` answers."""
    keys = fields.keys()
    return is_object(fields.get("user", b"")) and not keys.isdisjoint(_USER_LISTS) and keys.isdisjoint(_OF_MESSAGES)


def _unwrap_lists(fields: Fields, of: Entity) -> Iterator[tuple[Shape, str, bytes]]:
    """Yield the channel or user of an element, then the items of its lists."""
    yield Shape.CHANNEL, of.value, fields[of.value]
    for key, value in fields.items():
        if key == of.value or (of is Entity.USER and key == REPLY_DURATION):
            continue
        entity = CHANNEL_LISTS.get(key)
        if entity is not None and value[:1] == b"[":
            for item in items_of(value):
                yield Shape.CHANNEL, entity.value, item
        elif value not in NOTHING:
            yield Shape.CHANNEL, key, value


def _envelope(fields: Fields) -> tuple[Shape, str | None, bytes | None, Fields]:
    """Return the shape, the name, the payload and the other members of an envelope.

    A bare object has a ``type`` too, but an object without a payload object is not an envelope.
    """
    for key in ENVELOPE_NAME_KEYS:
        name = text_of(fields, key)
        if name is None:
            continue
        for payload_key in (*ENVELOPE_PAYLOAD_KEYS, name):
            value = fields.get(payload_key)
            if value is not None and is_object(value):
                others = {each: fields[each] for each in fields.keys() - {key, payload_key}}
                return Shape.ITEM if payload_key == "item" else Shape.TYPED, name, value, others
    return Shape.TYPED, None, None, {}


def _with_others(payload: bytes, others: Fields) -> bytes:
    """Return the object with the other members of its envelope.

    The envelope's channel becomes the object's, if the object names none. All else becomes custom, since a time or a
    user of the envelope need not be the object's.
    """
    _, fields = members(payload)
    channel = {key: others[key] for key in _CHANNEL_KEYS & others.keys() if fields.get(key, b"null") in BLANK}
    custom = {key: value for key, value in sorted(others.items()) if key not in channel and value != fields.get(key)}
    own = fields.get("custom", b"null")
    if is_object(own):
        custom |= members(own)[1]
    elif own != b"null":
        custom["custom"] = own
    return joined(fields | channel | {"custom": joined(custom)})


def own_channel(fields: Fields) -> str | None:
    """Return the channel that an object itself names."""
    if own := text_of(fields, "cid") or text_of(fields, "channel_cid"):
        return own
    channel_type, channel_id = text_of(fields, "channel_type"), id_of(fields, "channel_id")
    return f"{channel_type}:{channel_id}" if channel_type and channel_id else None


def with_cid(payload: bytes, fields: Fields, cid: str | None) -> bytes:
    """Return the object with its channel in it, if only the place in the file says the channel."""
    if cid is None or fields.get("cid", b"null") not in BLANK:
        return payload
    return joined({**fields, "cid": msgspec.json.encode(cid)})


_NEEDED: Final[dict[Entity, tuple[tuple[str, ...], ...]]] = {
    Entity.MESSAGE: (("id",),),
    Entity.REACTION: (("message_id",), ("user_id", "user"), ("type",)),
    Entity.CHANNEL: (),
    Entity.MEMBER: (("user_id", "user"),),
    Entity.READ: (("user_id", "user"),),
    Entity.USER: (("id",),),
}


# Where the object itself may stand in place of its id.
_HOLDS_OBJECT: Final = ("user", "user_id")


def _is_named(key: str, value: bytes) -> bool:
    """Return whether a value names something: by itself, or as an object by its id."""
    if is_object(value) and key in _HOLDS_OBJECT:
        value = members(value)[1].get("id", b"null")
    return value not in BLANK and is_id(value)


def missing_from(entity: Entity, fields: Fields, cid: str | None) -> str | None:
    """Return what an object lacks to become a row, in words; None if it lacks nothing.

    :param cid: the channel that the object belongs to.
    """
    for alternatives in _NEEDED[entity]:
        if not any(_is_named(key, fields.get(key, b"null")) for key in alternatives):
            return alternatives[0]
    if entity in (Entity.MESSAGE, Entity.REACTION):
        created_at = fields.get("created_at", b"null")
        if created_at in BLANK:
            return "a created_at that is a time"
        if fault := time_fault(created_at):
            return f"a created_at that is a time: {fault}"
    if entity not in (Entity.USER, Entity.REACTION) and cid is None and fields.get("cid", b"null") in BLANK:
        return "channel"
    return None
