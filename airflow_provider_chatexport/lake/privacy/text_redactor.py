"""Texts and JSON without some people: words that name them, and JSON objects that are about them.

In JSON, an id is a value of its own, so it is found in any string. An id that is an ordinary word is found where its
key says that a user is meant: ``{"assigned_to": "may"}``, and not ``{"month": "may"}``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from airflow_provider_chatexport.lake.privacy.matching import Words, folded, pattern
from airflow_provider_chatexport.lake.privacy.people import Person
from airflow_provider_chatexport.lake.raw_json import (
    Fields,
    NotAnObjectError,
    id_of,
    is_object,
    items_of,
    read_object,
)
from airflow_provider_chatexport.lake.schema.types import Column, Kind, PersonalData

BLANK: Final = "[forgotten]"
_BLANK_OBJECT: Final = b'{"id":"%b"}' % BLANK.encode()
_STRINGS: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_ESCAPES: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
# The parts of a key whose value is a user, or the id of one.
_OF_USER: Final = frozenset(
    {"user", "users", "uid", "uids", "userid", "userids", "member", "members", "author", "authors", "owner", "owners"}
    | {"sender", "senders", "creator", "creators", "participant", "participants", "mention", "mentions", "mentioned"}
    | {"assignee", "assignees", "assigned", "by", "person", "people", "contact", "contacts"}
)
_PARTS: Final = re.compile(r"[^\W\d_]+")
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
# What an object with the id of a user has if it is one. Other objects have ids and names, too.
_OF_WHOLE_USER: Final = ("role", "online", "banned", "last_active", "teams")


def names_user(key: str) -> bool:
    """Return whether a key in JSON says that its value is a user, or the id of one."""
    return not _OF_USER.isdisjoint(_PARTS.findall(_CAMEL.sub("_", key).lower().replace("_", " ")))


class TextRedactor:
    """Takes people out of what others wrote."""

    def __init__(self, people: Sequence[Person]) -> None:
        self.words = Words(
            [each for person in people for each in person.ids],
            [name for person in people for name in person.names],
            [each for person in people if person.any_word for each in (*person.ids, *person.names)],
        )
        self._ids = frozenset(person.user_id for person in people if person.user_id is not None)
        # An ordinary word is an id only where its key says so.
        self._ordinary = frozenset(map(folded, self.words.mentions))
        self._sure_ids = frozenset(each for each in self._ids if folded(each) not in self._ordinary)
        self._is_in_line = _pattern_of_broken_json(self.words.mentions)

    def for_column(self, column: Column) -> Callable[[str], str]:
        """Return the method that redacts the values of a column."""
        match column.personal:
            case PersonalData.RAW_LINE:
                return self.raw_line
            case PersonalData.WHOLE_OBJECT:
                return self.whole_object
            case PersonalData.JSON_BY_USER_ID:
                return self.json_by_user_id
            case _ if column.kind is Kind.JSON:
                return self.json
            case _:
                return self.text

    def text(self, text: str) -> str:
        """Return what people wrote, without the people."""
        return self.words.regex.sub(BLANK, text)

    def json(self, text: str) -> str:
        """Return JSON without the people."""
        return self._json(text, key="")

    def json_by_user_id(self, text: str) -> str:
        """Return a JSON object whose keys are user ids, without the people."""
        return self._json(text, key="users")

    def whole_object(self, text: str) -> str:
        """Return an object of an unknown entity as it is, or nothing of it: all of it may be about them."""
        return text if self.json(text) == text else '{"forgotten":true}'

    def raw_line(self, text: str) -> str:
        """Return a rejected line as it is, or nothing of it. It may be in base64, and need not be whole JSON."""
        lines = [text]
        with contextlib.suppress(ValueError):
            lines.append(base64.b64decode(text, validate=True).decode("utf-8", "replace").replace("\0", ""))
        return "" if any(map(self._is_named_in, lines)) else text

    def _is_named_in(self, line: str) -> bool:
        if self.words.regex.search(line) or self._is_in_line.search(line):
            return True
        if "\\" in line and self.words.regex.search(_ESCAPES.sub(_unescaped, line)):
            return True
        return line[:1] in ("{", "[") and self.json(line) != line

    def _json(self, text: str, key: str) -> str:
        raw = text.encode()
        # Where this is not JSON, or too deep, its strings are redacted all the same.
        with contextlib.suppress(NotAnObjectError, ValueError):
            raw = self._without_theirs(raw.strip(), of_user=names_user(key), by_user_id=names_user(key))
        return _STRINGS.sub(self._string, raw.decode())

    def _string(self, found: re.Match[str]) -> str:
        """Return a string in JSON without the people, or as it is written."""
        written = found.group()
        try:
            text = json.loads(written, strict=False)
        except ValueError:
            text = written[1:-1]
        redacted = self.words.regex.sub(BLANK, text)
        return written if redacted == text else json.dumps(redacted, ensure_ascii=False)

    def _without_theirs(self, raw: bytes, *, of_user: bool, by_user_id: bool = False) -> bytes:
        """Return a JSON value without objects and keys that are theirs. Everything else keeps its bytes.

        :param of_user: the value's key says that it is a user, or an id of one.
        :param by_user_id: the value is an object whose keys are user ids.
        """
        if is_object(raw):
            _, fields = read_object(raw)
            if self._is_theirs(fields, of_user=of_user):
                return _BLANK_OBJECT
            kept = {
                key: self._without_theirs(value, of_user=names_user(key))
                for key, value in fields.items()
                if key not in (self._ids if by_user_id else self._sure_ids)
            }
            return raw if kept == fields else _joined(kept)
        if raw[:1] == b"[":
            items = items_of(raw)
            redacted = [self._without_theirs(item, of_user=of_user) for item in items]
            return raw if redacted == items else b"[" + b",".join(redacted) + b"]"
        if raw[:1] == b'"' and of_user and self._ordinary and folded(json.loads(raw, strict=False)) in self._ordinary:
            return json.dumps(BLANK).encode()
        return raw

    def _is_theirs(self, fields: Fields, *, of_user: bool) -> bool:
        """Return whether an object is one of the people, or says that it is of one: a vote, or a quoted message."""
        user = fields.get("user", b"null")
        of = id_of(read_object(user)[1], "id") if is_object(user) else id_of(fields, "user")
        if not self._ids.isdisjoint((id_of(fields, "user_id"), of)):
            return True
        own_id = id_of(fields, "id")
        is_user = of_user or any(key in fields for key in _OF_WHOLE_USER)
        return own_id in (self._ids if is_user else self._sure_ids)


def _joined(fields: Fields) -> bytes:
    return (
        b"{"
        + b",".join(json.dumps(key, ensure_ascii=False).encode() + b":" + raw for key, raw in fields.items())
        + b"}"
    )


def _unescaped(found: re.Match[str]) -> str:
    code = found.group(1)
    return chr(int(code, 16)) if code else " "


def _pattern_of_broken_json(ids: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern that finds ids under the key of a user, in JSON that may be cut off."""
    either = "|".join(map(pattern, ids))
    if not either:
        return re.compile(r"(?!)")
    user_key = r'"[^"\\]*(?:user|member|author|owner|sender|creator|participant|mention|by)[^"\\]*"\s*:\s*'
    before = r'(?:[\[{\s]|"id"\s*:|"[^"\\]*"\s*,)*'
    return re.compile(f'{user_key}{before}"(?:{either})"', re.IGNORECASE)
