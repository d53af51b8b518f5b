"""What may not be read from an object, because readers of JSON would differ: keys that stand twice, and broken ids.

Of two values under one key, one reader takes the first and another the last. So an object is a reject if a key stands
twice in it, or in an object inside it that becomes a row or names something: a user, an attachment, a reaction, a
member, a quoted message. Anything else inside is kept as JSON text, with both values.

An id with half a character (a lone surrogate) cannot be stored. Replaced, it would be equal to other ids. So it is a
reject as well, while a text only loses that half character.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from airflow_provider_chatexport.core.entities import (
    ALIASES,
    ENVELOPE_NAME_KEYS,
    ENVELOPE_PAYLOAD_KEYS,
    OTHER_NAMES,
)
from airflow_provider_chatexport.lake.raw_json import (
    REPLACED,
    DoubledKeyError,
    Fields,
    NotAnObjectError,
    items_of,
    members,
    refuse_doubled_key,
    with_surrogates,
)
from airflow_provider_chatexport.lake.schema.tables import (
    ATTACHMENTS,
    CHANNELS,
    MEMBERS,
    REACTIONS,
    TABLES,
)
from airflow_provider_chatexport.lake.schema.types import Column, Table

Buffer = bytes | msgspec.Raw

_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_encode: Final = msgspec.json.Encoder().encode

# The tables of the items of lists inside objects.
_ITEMS: Final[dict[str, Table]] = {"attachments": ATTACHMENTS, "latest_reactions": REACTIONS, "members": MEMBERS}
_QUOTED: Final = "quoted_message"
_CHANNEL_KEYS: Final = frozenset({"cid", "channel_cid", "channel_type", "channel_id"})
# The shortest object with a key twice is longer.
_TRIVIAL_BYTES: Final = len(b'{"":1,"":')

# How many values that were checked already are remembered, and how long they may be: 4 MB at most for a table.
_MOST_CHECKED: Final = 4_000
_MOST_CHECKED_BYTES: Final = 1_000


class UnreadableError(NotAnObjectError):
    """An object, or one inside it, has a key twice or a broken id."""


_KNOWN: Final = frozenset(
    {
        *(key for table in TABLES for key in table.known_keys),
        *ALIASES,
        *OTHER_NAMES,
        *ENVELOPE_NAME_KEYS,
        *ENVELOPE_PAYLOAD_KEYS,
    }
)


def doubled(key: str, inside: str | None = None) -> str:
    """Return the reason for a reject whose object has a key twice.

    A key that is not the API's may hold anything that people wrote, and reasons go where that may not.

    :param inside: the key of the object inside that has it.
    """
    what = f'the key "{key}"' if key in _KNOWN else "a key of the app's own"
    return f"{what} stands twice" + (f' in "{inside}"' if inside is not None else "")


@dataclass(frozen=True, slots=True)
class _Inside:
    """The objects under a key of an object: one, or those in a list.

    :ivar is_read: they become rows, or name something.
    :ivar paths: where users are in them, each as keys.
    """

    key: str
    is_read: bool
    paths: tuple[tuple[str, ...], ...]


def _insides(table: Table) -> tuple[_Inside, ...]:
    paths: dict[str, list[tuple[str, ...]]] = {}
    for path in (*table.user_paths, *table.user_list_paths):
        key, *rest = path.replace("[*]", "").split(".")
        paths.setdefault(key, []).append(tuple(rest))
    read = {key for key, ends in paths.items() if () in ends}
    for key in table.nested_lists:
        read.add(key)
        paths.setdefault(key, []).extend([(), *((each,) for each in _ITEMS[key].user_paths)])
    if _QUOTED in paths:
        read.add(_QUOTED)
    return tuple(_Inside(key, key in read, tuple(end for end in paths[key] if end)) for key in sorted(paths))


class InsideCheck:
    """A check of what is inside the objects of one table.

    :ivar keys: the keys that may hold objects that are read.
    """

    def __init__(self, table: Table) -> None:
        self._insides = _insides(table)
        self.keys = tuple(inside.key for inside in self._insides)
        self._id_keys = _id_keys(table)
        # The same few users are in most objects.
        self._checked: set[bytes] = set()

    def check(self, fields: Mapping[str, bytes]) -> None:
        """Refuse an object with a key twice in an object inside it.

        :raises UnreadableError: there is one.
        """
        for inside in self._insides:
            value = fields.get(inside.key)
            if value is None or len(value) <= _TRIVIAL_BYTES or value[:1] not in b"{[" or value in self._checked:
                continue
            try:
                _check(value, inside)
            except DoubledKeyError as error:
                raise UnreadableError(doubled(error.key, inside.key)) from None
            if inside.is_read and len(value) <= _MOST_CHECKED_BYTES:
                if len(self._checked) >= _MOST_CHECKED:
                    self._checked.clear()
                self._checked.add(value)

    def check_ids(self, payload: bytes) -> None:
        """Refuse an object with half a character in an id, in what its row is found by, or in an id inside it.

        :raises UnreadableError: there is one.
        """
        if REPLACED in payload:
            _check_ids(payload, self._id_keys, frozenset(self.keys))


def _check(value: bytes, inside: _Inside) -> None:
    """Split the objects that are read, which refuses keys that stand twice."""
    fields = _plain(value) if inside.is_read else None
    if fields is None:
        fields = [members(each)[1] if inside.is_read else _lenient(each) for each in _objects(value)]
    for each in fields if inside.paths else ():
        for path in inside.paths:
            _check_users(each, path)


def _plain(value: bytes) -> Sequence[Mapping[str, Buffer]] | None:
    """Return the members of an object, or of those in a list, if nothing but these stands in it; else None."""
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        decoded = _decode_list(value) if value[:1] == b"[" else [_decode(value)]
        if len(_encode(decoded)) - 2 * (value[:1] == b"{") == len(value):
            return decoded
    return None


def _check_users(fields: Mapping[str, Buffer], path: tuple[str, ...]) -> None:
    key, *rest = path
    values: Iterable[Buffer] = fields.values() if key == "*" else [fields[key]] if key in fields else []
    for value in values:
        for each in _objects(bytes(value)):
            if rest:
                _check_users(_lenient(each), tuple(rest))
            else:
                refuse_doubled_key(each)


def _lenient(raw: bytes) -> Fields:
    """Return the members of an object that is kept as JSON text, whether or not a key stands twice."""
    try:
        return members(raw)[1]
    except DoubledKeyError as error:
        return error.fields


def _objects(value: bytes) -> Iterator[bytes]:
    """Yield the object that a value is, or those in the list that it is."""
    if value[:1] == b"{":
        yield value
    elif value[:1] == b"[":
        yield from (item for item in items_of(value) if item[:1] == b"{")


def check_channel(payload: bytes) -> None:
    """Refuse an object without a table of its own that has half a character in the name of its channel.

    :raises UnreadableError: it has.
    """
    if REPLACED in payload:
        _check_ids(payload, _CHANNEL_KEYS, frozenset())


def _check_ids(payload: bytes, names: frozenset[str], inside: frozenset[str]) -> None:
    value = with_surrogates(payload)
    for key, each in value.items() if isinstance(value, dict) else ():
        if (key in names and _is_broken(each)) or (key in inside and _has_broken_id(each)):
            raise UnreadableError(f'"{key}" has half a character (a lone surrogate), which no id can have')


def _id_keys(table: Table) -> frozenset[str]:
    """Return the keys that hold ids, or parts of what identifies a row."""
    columns = [column for column in table if _is_id(column.name) or column.name in table.key]
    keys = {key for column in columns for key in _read_by(column)}
    return frozenset(keys | {"restricted_visibility", "deleted_messages"} | ({"type"} if table is CHANNELS else set()))


def _read_by(column: Column) -> tuple[str, ...]:
    return (*((column.field,) if column.field is not None else ()), *column.reads, *column.reads_text)


def _is_id(name: str) -> bool:
    return name in ("id", "cid") or name.endswith(("_id", "_ids", "_cid"))


def _is_broken(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return any(isinstance(text, str) and any("\ud800" <= mark <= "\udfff" for mark in text) for text in texts)


def _has_broken_id(value: Any) -> bool:
    """Return whether an object inside, at any depth, has a broken id."""
    if isinstance(value, list):
        return any(map(_has_broken_id, value))
    if isinstance(value, dict):
        own = [(key, each) for key, each in value.items() if key != "custom"]
        return any((_is_id(key) and _is_broken(each)) or _has_broken_id(each) for key, each in own)
    return False
