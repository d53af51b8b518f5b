"""Keys that the registry does not read: found as the objects pass, so that the reader can ask for each by name.

Reading one STRUCT of all keys is several times faster than stripping the known ones off every object. That remains for
files whose keys no STRUCT can hold: they differ by case only, they need escapes, or they are very many.

A STRUCT does not tell a key with null from one that is absent either, so it is noted which objects have one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Self

import msgspec

from airflow_provider_chatexport.lake.raw_json import NotAnObjectError, text_of
from airflow_provider_chatexport.lake.schema.sql import name, quoted
from airflow_provider_chatexport.lake.schema.types import Table

MAX_KEYS: Final = 200

_ABSENT: Final = msgspec.Raw(b"")
_NONE: Final[list[str]] = []
# What decoding raises where there is no JSON, or none of the kind.
NO_OBJECT: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_decode_any: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomKeys:
    """The keys that the objects of a file have beside those that the registry reads."""

    names: tuple[str, ...]
    with_null: bool

    @classmethod
    def of(cls, table: Table, found: Iterable[str], *, with_null: bool = False) -> Self | None:
        """None where a STRUCT cannot hold them."""
        names = tuple(sorted(found))
        spellings = Counter(key.casefold() for key in (*table.known_keys, *names))
        odd = any(not key or json.dumps(key, ensure_ascii=False) != f'"{key}"' for key in names)
        if odd or max(spellings.values()) > 1 or len(names) > MAX_KEYS:
            return None
        return cls(names=names, with_null=with_null)

    @property
    def joined(self) -> str:
        """The JSON object of those keys that an object ``d`` has; null where it has none. ``nulls``: its keys with
        null, as the members of an object."""
        if not self.names:
            return "NULL::JSON"
        parts = [quoted(f'"{key}":') + f" || d.{name(key)}" for key in self.names]
        members = ", ".join(["nulls", *parts] if self.with_null else parts)
        return f"('{{' || nullif(concat_ws(',', {members}), '') || '}}')::JSON"


class KeyWatch:
    """Looks at the objects of one table as they pass.

    :ivar kind: what to decode an object as: a struct of all keys that have been met, its values left as bytes. Nothing
        is faster, and an object that is no JSON, or has a key not met before, makes itself heard.
    """

    kind: Any

    def __init__(self, table: Table) -> None:
        self._table = table
        self._read = table.known_keys
        self._own: dict[str, None] = {}
        self._expect()

    @property
    def keys(self) -> CustomKeys | None:
        """What has been met; None where a STRUCT cannot hold it."""
        return CustomKeys.of(self._table, self._own)

    def saw(self, raw: bytes) -> list[str]:
        """Which of an object's own keys are null.

        :raises NotAnObjectError: it is no JSON, or no object.
        """
        try:
            try:
                return self.saw_decoded(self._decode(raw))
            except msgspec.ValidationError:
                return self.saw_members({key: bytes(value) for key, value in _decode_any(raw).items()})
        except NO_OBJECT:
            raise NotAnObjectError("not JSON that the reader takes") from None

    def saw_decoded(self, known: Any) -> list[str]:
        """The same of an object that was decoded as ``kind``."""
        if (values := self._values(known)) == self._absent:
            return _NONE
        told = zip(self._own, values, strict=False)
        return [key for key, value in told if value is not _ABSENT and bytes(value) == b"null"]

    def saw_members(self, members: Mapping[str, bytes]) -> list[str]:
        """The same of an object that was taken apart already."""
        if self._given_up:
            return _NONE
        if not self._known >= members.keys():
            self._own |= dict.fromkeys(key for key in members if key not in self._known)
            self._expect()
        return [key for key in self._own if members.get(key) == b"null"]

    def _expect(self) -> None:
        """From now on these keys are known; all are, once there are some that no STRUCT can hold."""
        self._given_up = self.keys is None
        expected = (*self._read, *self._own)
        self._known = frozenset(expected)
        self._values: Callable[[Any], tuple[msgspec.Raw, ...]] = lambda _: ()
        self._absent: tuple[msgspec.Raw, ...] = ()
        self.kind = dict[str, msgspec.Raw]
        if not self._given_up:
            members = [
                (_member(number), msgspec.Raw, msgspec.field(default=_ABSENT, name=key))
                for number, key in enumerate(expected)
            ]
            self.kind = msgspec.defstruct("Expected", members, forbid_unknown_fields=True, gc=False)
            if self._own:
                own = [_member(number) for number in range(len(self._read), len(expected))]
                # One more than there are, so that they are always a tuple.
                self._values = attrgetter(*own, own[-1])
                self._absent = (_ABSENT,) * (len(own) + 1)
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(self.kind).decode

    def text_of(self, known: Any, key: str) -> str | None:
        """A member of an object that was decoded as ``kind``, if it is text."""
        raw = getattr(known, _member(self._read.index(key)))
        return text_of({key: bytes(raw)}, key)


def _member(number: int) -> str:
    return f"key_{number}"
