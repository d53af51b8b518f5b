"""Custom keys: the keys of objects that the registry does not read, gathered so that DuckDB can ask for each by name.

It is also noted which keys of the registry the objects have, so that DuckDB is not asked for the others.

Reading one STRUCT of all keys is several times faster than stripping the known ones off every object. The slower way
remains for files whose keys no STRUCT can hold: they differ only in case, they need escapes, or they are too many.

A STRUCT cannot tell a key with null from an absent one either, so it is noted which objects have such keys.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Self

import msgspec

from airflow_provider_chatexport.lake.normalize.doubled_keys import InsideCheck
from airflow_provider_chatexport.lake.raw_json import NotAnObjectError, is_id, members
from airflow_provider_chatexport.lake.schema.types import Column, Kind, Table

MAX_KEYS: Final = 200

_ABSENT: Final = msgspec.Raw(b"")
_NONE: Final[list[str]] = []
_ID: Final = str | int | float | None
# What decoding raises for bytes that are not JSON, or JSON of another kind.
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomKeys:
    """The custom keys of a file's objects.

    :param with_null: some object has one of them with null.
    :param known: the keys of the registry that the objects have; no object has another one.
    """

    names: tuple[str, ...]
    with_null: bool
    known: frozenset[str]

    @classmethod
    def of(cls, table: Table, found: Iterable[str], *, known: Iterable[str], with_null: bool = False) -> Self | None:
        """Return the keys in order, or None if a STRUCT cannot hold them."""
        names = tuple(sorted(found))
        spellings = Counter(key.casefold() for key in (*table.known_keys, *names))
        odd = any(not key or json.dumps(key, ensure_ascii=False) != f'"{key}"' for key in names)
        if odd or max(spellings.values()) > 1 or len(names) > MAX_KEYS:
            return None
        return cls(names=names, with_null=with_null, known=frozenset(known))


class KeyWatch:
    """A watch over the objects of one table that learns their custom keys as they pass.

    :ivar kind: the type to decode an object as: a struct of all keys that were met so far, its values left as bytes.
        Nothing is faster, and decoding fails if the object is not JSON, has a new key, or has an id that is not one.
        A new key of the registry is one, too.
    """

    kind: Any

    def __init__(self, table: Table) -> None:
        self._table = table
        self._read = {key: number for number, key in enumerate(table.known_keys)}
        self._met: dict[str, None] = {}
        self._own: dict[str, None] = {}
        self._ids = tuple(column.field for column in table if column.field and _is_text_of_key(table, column))
        self.inside = InsideCheck(table)
        self._expect()

    @property
    def keys(self) -> CustomKeys | None:
        """The custom keys so far; None if a STRUCT cannot hold them."""
        return CustomKeys.of(self._table, self._own, known=self._met)

    def saw(self, raw: bytes) -> list[str]:
        """Return which custom keys of an object are null.

        :raises NotAnObjectError: the bytes are not JSON, not an object, a key stands twice, or its id is not one.
        """
        try:
            known = self._decode(raw)
        except msgspec.ValidationError:
            pass
        except UNDECODABLE:
            raise NotAnObjectError("not JSON that the reader takes") from None
        else:
            if not self._given_up and len(encode(known)) == len(raw):
                values = ((key, getattr(known, member)) for member, key in self._members_inside)
                self.inside.check({key: bytes(value) for key, value in values if value is not _ABSENT})
                return self.saw_decoded(known)
        repaired, fields = members(raw)
        if repaired is not raw:
            raise NotAnObjectError("not JSON that the reader takes")
        self.inside.check(fields)
        if not all(is_id(fields[key]) for key in self._ids if key in fields):
            raise NotAnObjectError("an id is neither text nor a number")
        return self.saw_members(fields)

    def saw_decoded(self, known: Any) -> list[str]:
        """Return which custom keys are null of an object that was decoded as ``kind``."""
        if (values := self._values(known)) == self._absent:
            return _NONE
        pairs = zip(self._own, values, strict=False)
        return [key for key, value in pairs if value is not _ABSENT and bytes(value) == b"null"]

    def saw_members(self, members: Mapping[str, bytes]) -> list[str]:
        """Return which custom keys are null of an object that was split into members already."""
        if self._given_up:
            return _NONE
        if not self._known >= members.keys():
            for key in members:
                if key not in self._known:
                    (self._met if key in self._read else self._own)[key] = None
            self._expect()
        return [key for key in self._own if members.get(key) == b"null"]

    def _expect(self) -> None:
        """Expect the keys so far from now on; expect any key once there are some that no STRUCT can hold."""
        self._given_up = self.keys is None
        expected = [(_member(self._read[key]), key) for key in self._met]
        expected += [(_member(number), key) for number, key in enumerate(self._own, len(self._read))]
        self._known = frozenset(key for _, key in expected)
        self._members_inside = [(_member(self._read[key]), key) for key in self.inside.keys if key in self._met]
        self._values: Callable[[Any], tuple[msgspec.Raw, ...]] = lambda _: ()
        self._absent: tuple[msgspec.Raw, ...] = ()
        self.kind = dict[str, msgspec.Raw]
        if not self._given_up:
            members = [
                (member, _ID if key in self._ids else msgspec.Raw, msgspec.field(default=_ABSENT, name=key))
                for member, key in expected
            ]
            self.kind = msgspec.defstruct("Expected", members, forbid_unknown_fields=True, omit_defaults=True, gc=False)
            if self._own:
                own = [member for member, _ in expected[len(self._met) :]]
                # The last one twice, so that ``attrgetter`` always returns a tuple.
                self._values = attrgetter(*own, own[-1])
                self._absent = (_ABSENT,) * (len(own) + 1)
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(self.kind).decode

    def id_of(self, known: Any) -> str | None:
        """Return the ``id`` of an object that was decoded as ``kind``, if it is text."""
        value = getattr(known, _member(self._read["id"]), None)
        return value if isinstance(value, str) else None


def _is_text_of_key(table: Table, column: Column) -> bool:
    """Return whether a column identifies rows, and is read from a field as text of whatever JSON that holds."""
    return column.name in table.key and column.kind is Kind.TEXT and column.field not in (None, "cid")


def _member(number: int) -> str:
    return f"key_{number}"
