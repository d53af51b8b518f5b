"""Which entities a line holds, whichever of the five shapes it has (``core.entities.Shape``), also mixed in a file."""

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
    infer_bare,
)
from airflow_provider_chatexport.lake.raw_json import (
    BLANK,
    NOTHING,
    Fields,
    NotAnObjectError,
    id_of,
    is_object,
    is_time,
    items_of,
    joined,
    members,
    text_of,
)

# Lists in a channel's element, beside the channel itself.
CHANNEL_LISTS: Final = {
    key: entity for key, entity in ALIASES.items() if key in ("messages", "members", "reads", "reactions", "users")
} | {"read": Entity.READ}
_USER_LISTS: Final = frozenset({"messages", "reactions"})
_OF_MESSAGES: Final = frozenset({"id", "cid"})  # a message has a user as well
# How long the service took to answer: of the reply, not of the user.
REPLY_TOOK: Final = "duration"
_CHANNEL_KEYS: Final = frozenset({"cid", "channel_cid", "channel_type", "channel_id"})


def unwrap(fields: Fields, raw: bytes) -> Iterator[tuple[str, bytes]]:
    """(entity name, object) of each entity in a line.

    :param raw: the line, of which ``fields`` are the members.
    :raises NotAnObjectError: no entity can be recognised in it.
    """
    name, payload, beside = _envelope(fields)
    if name is not None and payload is not None and (name in ALIASES or name in OTHER_NAMES):
        if beside:
            payload = _with_beside(payload, beside) if name in ALIASES else raw
        yield name, payload
        return
    if "channel" in fields and fields.keys() & CHANNEL_LISTS.keys() and not _is_bare_message(fields):
        yield from _unwrap_lists(fields, Entity.CHANNEL)
        return
    if holds_a_user_export(fields):
        yield from _unwrap_lists(fields, Entity.USER)
        return
    if len(fields) == 1:
        (key, value), *_ = fields.items()
        if key in ALIASES or key in OTHER_NAMES or is_object(value):
            yield key, value
            return
    entity = infer_bare(fields)
    if entity is not None:
        yield entity.value, raw
    elif name is not None and payload is not None:
        yield name, raw if beside else payload
    else:
        raise NotAnObjectError("no entity that this version knows can be recognised in it")


def _is_bare_message(fields: Fields) -> bool:
    """Of which those keys are custom ones."""
    return not fields.keys().isdisjoint(_OF_MESSAGES) and infer_bare(fields) is Entity.MESSAGE


def holds_a_user_export(fields: Fields) -> bool:
    """One user with what they wrote and how they reacted, as ``GET /users/{id}/export`` answers."""
    keys = fields.keys()
    return is_object(fields.get("user", b"")) and not keys.isdisjoint(_USER_LISTS) and keys.isdisjoint(_OF_MESSAGES)


def _unwrap_lists(fields: Fields, of: Entity) -> Iterator[tuple[str, bytes]]:
    """The channel or user whose element it is, then the items of its lists."""
    yield of.value, fields[of.value]
    for key, value in fields.items():
        if key == of.value or (of is Entity.USER and key == REPLY_TOOK):
            continue
        entity = CHANNEL_LISTS.get(key)
        if entity is not None and value[:1] == b"[":
            for item in items_of(value):
                yield entity.value, item
        elif value not in NOTHING:
            yield key, value


def _envelope(fields: Fields) -> tuple[str | None, bytes | None, Fields]:
    """(name, payload, what else is in it) of an envelope. A bare object has a ``type`` as well: without a payload
    object it is none."""
    for key in ENVELOPE_NAME_KEYS:
        name = text_of(fields, key)
        if name is None:
            continue
        for payload_key in (*ENVELOPE_PAYLOAD_KEYS, name):
            value = fields.get(payload_key)
            if value is not None and is_object(value):
                return name, value, {each: fields[each] for each in fields.keys() - {key, payload_key}}
    return None, None, {}


def _with_beside(payload: bytes, beside: Fields) -> bytes:
    """The object with what stands beside it in its envelope: its channel, if it names none, and all else as custom,
    since a time or a user of the line need not be the object's."""
    _, fields = members(payload)
    named = {key: beside[key] for key in _CHANNEL_KEYS & beside.keys() if fields.get(key, b"null") in BLANK}
    custom = {key: value for key, value in sorted(beside.items()) if key not in named and value != fields.get(key)}
    own = fields.get("custom", b"null")
    if is_object(own):
        custom |= members(own)[1]
    elif own != b"null":
        custom["custom"] = own
    return joined(fields | named | {"custom": joined(custom)})


def own_channel(fields: Fields) -> str | None:
    """The channel that an object names itself."""
    channel_type, channel_id = text_of(fields, "channel_type"), id_of(fields, "channel_id")
    own = text_of(fields, "cid") or text_of(fields, "channel_cid")
    return own or (f"{channel_type}:{channel_id}" if channel_type and channel_id else None)


def with_cid(payload: bytes, fields: Fields, cid: str | None) -> bytes:
    """The object with its channel in it, where the place in the file alone says it."""
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


def missing_from(entity: Entity, fields: Fields, cid: str | None) -> str | None:
    """What an object lacks to become a row, in words; None when it has all."""
    for alternatives in _NEEDED[entity]:
        if all(fields.get(key, b"null") in BLANK for key in alternatives):
            return alternatives[0]
    if entity in (Entity.MESSAGE, Entity.REACTION) and not is_time(fields.get("created_at")):
        return "a created_at that is a time"
    if entity not in (Entity.USER, Entity.REACTION) and cid is None and fields.get("cid", b"null") in BLANK:
        return "channel"
    return None
