"""An object on its way from an export file to a row: the one form that it travels in, what it needs, its mending."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

import msgspec

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.lake.rawjson import (
    BLANK,
    Fields,
    NotAnObjectError,
    id_of,
    is_time,
    joined,
    read_object,
    text_of,
)
from airflow_provider_chatexport.lake.rejects import Reject, reject
from airflow_provider_chatexport.lake.source import Line

TYPED_MESSAGE: Final = b'{"type":"message","data":{'
TYPED_REACTION: Final = b'{"type":"reaction","data":{'
# How most lines of most files begin: their objects are known without taking the line apart.
STARTS: Final = {
    TYPED_MESSAGE: Entity.MESSAGE,
    TYPED_REACTION: Entity.REACTION,
    b'{"message":{': Entity.MESSAGE,
    b'{"reaction":{': Entity.REACTION,
    b'{"type":"message","item":{': Entity.MESSAGE,
    b'{"type":"reaction","item":{': Entity.REACTION,
}
ANY_START: Final = re.compile(b"|".join(re.escape(start) for start in STARTS))
_BY_NUMBER: Final = tuple(STARTS)
_NUMBERED: Final = b'{"n":'
_NUMBERS: Final = {start: number for number, start in enumerate(_BY_NUMBER)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SiftedObject:
    """An object as it was passed on: its number, its line and that line's offset, its bytes, and the beginning of its
    line, None where that was taken apart."""

    n: int
    line: int
    offset: int
    data: bytes
    start: bytes | None


def number_of(raw: bytes) -> int:
    """Of a line of one of the files, without taking it apart."""
    return int(raw[len(_NUMBERED) : raw.index(b",")])


def parse(raw: bytes) -> SiftedObject:
    """A line of one of the files, taken apart again."""
    head, _, data = raw.rstrip(b"\n").partition(b',"data":')
    numbers = json.loads(head + b"}")
    return SiftedObject(
        n=numbers["n"],
        line=numbers["line"],
        offset=numbers["pos"],
        data=data[:-1],
        start=_BY_NUMBER[numbers["start"]] if "start" in numbers else None,
    )


def mend(entity: Entity, found: SiftedObject, cid: str | None) -> bytes | Reject:
    """An object that the JSON reader refused or left incomplete: in a form that it takes, or the reason for a reject.

    :param cid: the channel that the object belongs to by its place in the file.
    """
    try:
        payload, fields = read_object(found.data)
    except NotAnObjectError as error:
        return unreadable(found, str(error))
    in_channel = own_channel(fields) or (cid if entity is not Entity.REACTION else None)
    if missing := missing_from(entity, fields, in_channel):
        return unreadable(found, f"{entity.value} without {missing}")
    return one_form(found.n, found.line, found.offset, with_cid(payload, fields, in_channel))


def unreadable(found: SiftedObject, reason: str) -> Reject:
    """A reject of an object that was passed on, with its line as it stood where that is known."""
    raw = found.data if found.start is None else found.start[:-1] + found.data + b"}"
    return reject(Line(found.line, found.offset, raw, len(raw)), reason)


def one_form(n: int, line: int, offset: int, payload: bytes, owner: str | None = None) -> bytes:
    """:param owner: in a users export, the user in whose part of the file the object stands."""
    whose = b"" if owner is None else b'"owner":%b,' % msgspec.json.encode(owner)
    return b'{"n":%d,"line":%d,"pos":%d,%b"data":%b}\n' % (n, line, offset, whose, payload)


def as_it_stood(n: int, line: int, offset: int, start: bytes, payload: bytes) -> bytes:
    """The same of an object whose line was not taken apart but cut off behind its beginning."""
    return b'{"n":%d,"line":%d,"pos":%d,"start":%d,"data":%b}\n' % (n, line, offset, _NUMBERS[start], payload)


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
