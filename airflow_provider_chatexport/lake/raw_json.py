"""JSON objects as raw bytes: split into members without decoding, so that no number, key or escape changes."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from airflow_provider_chatexport.core.times import read_time

# DuckDB's JSON reader takes deeper values, but a table of chat has no use for them, and other readers recurse.
MAX_DEPTH: Final = 500

Fields = dict[str, bytes]  # an object's keys, and each value as raw bytes
NOTHING: Final = (b"[]", b"{}", b"null")
BLANK: Final = (b"null", b'""')

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class NotAnObjectError(Exception):
    """Bytes that are not a JSON object of a known kind. ``is_repairable``: a bad escape may be the only fault."""

    def __init__(self, reason: str, *, is_repairable: bool = False) -> None:
        super().__init__(reason)
        self.is_repairable = is_repairable


class DoubledKeyError(NotAnObjectError):
    """A key stands twice in an object. ``key`` is the key, and ``fields`` has the last of its values."""

    def __init__(self, key: str, fields: Fields) -> None:
        super().__init__("a key stands twice")
        self.key = key
        self.fields = fields


def _members(raw: bytes) -> Fields:
    """Return an object's members as raw bytes.

    :raises DoubledKeyError: a key stands twice.
    :raises NotAnObjectError: the bytes are not UTF-8, not JSON, or not an object.
    """
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise NotAnObjectError(f"not UTF-8 at byte {error.start} of the line") from None
    try:
        decoded = _decode_members(raw)
    except msgspec.ValidationError:
        raise NotAnObjectError("not a JSON object") from None
    except (msgspec.DecodeError, RecursionError):
        _check_depth(raw)
        raise NotAnObjectError(_fault(raw), is_repairable=rb"\u" in raw) from None
    fields = {key: bytes(value) for key, value in decoded.items()}
    # Members that make up all of the object have no other members between them. Nearly all objects are written so.
    if len(_encode(decoded)) != len(raw) and _spaced(fields) != raw and (key := _doubled_key(raw)) is not None:
        raise DoubledKeyError(key, fields)
    return fields


def refuse_doubled_key(raw: bytes) -> None:
    """Refuse an object in which a key stands twice, without splitting it where that can be seen.

    :raises DoubledKeyError: a key stands twice.
    :raises NotAnObjectError: the bytes are not UTF-8, not JSON, or not an object.
    """
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if len(_encode(_decode_members(raw))) == len(raw):
            return
    members(raw)


def _spaced(fields: Fields) -> bytes:
    """Return the object that these members make, with the spaces that Python's ``json`` writes."""
    return b"{%b}" % b", ".join(b"%b: %b" % (_encode(key), value) for key, value in fields.items())


def _doubled_key(raw: bytes) -> str | None:
    """Return a key that stands twice in an object, or None."""
    keys: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> None:
        keys[:] = [key for key, _ in pairs]  # the outermost object comes last

    with contextlib.suppress(RecursionError):  # an object that deep is refused for its depth
        json.loads(raw, object_pairs_hook=note, parse_int=str, parse_float=str)
    return next((key for key, n in Counter(keys).items() if n > 1), None)


def members(raw: bytes) -> tuple[bytes, Fields]:
    """Return an object in a form that the JSON reader takes, and its members, however deep those are.

    :raises DoubledKeyError: a key stands twice.
    :raises NotAnObjectError: the bytes are not UTF-8, not JSON, or not an object.
    """
    try:
        return raw, _members(raw)
    except NotAnObjectError as error:
        if not error.is_repairable:
            raise
        repaired = _without_lone_surrogates(raw)
        return repaired, _members(repaired)


def read_object(raw: bytes, fields: Fields | None = None) -> tuple[bytes, Fields]:
    """Return an object that is not too deep in a form that the JSON reader takes, and its members.

    :param fields: the members, if the object was split already.
    :raises NotAnObjectError: the bytes are not UTF-8, not JSON, not an object, or nested too deep.
    """
    _check_depth(raw)
    return members(raw) if fields is None else (raw, fields)


def _check_depth(raw: bytes) -> None:
    """Refuse values that are nested too deep.

    :raises NotAnObjectError: one is.
    """
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
        raise NotAnObjectError(f"nested deeper than {MAX_DEPTH} levels")


def checked_value(raw: bytes) -> bytes:
    """Return any JSON value in a form that the JSON reader takes.

    :raises NotAnObjectError: the bytes are not UTF-8, not JSON, or nested too deep.
    """
    return read_object(b'{"value":%b}' % raw)[0][len(b'{"value":') : -1]


_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BUT_BRACKETS: Final = bytes(set(range(256)) - set(b"{[]}"))
_STEPS: Final = {ord("{"): 1, ord("["): 1, ord("]"): -1, ord("}"): -1}


def _depth(raw: bytes) -> int:
    """Return how deep values are nested. There may be thousands of brackets, so no step is taken in Python."""
    brackets = _STRINGS.sub(b"", raw).translate(None, _BUT_BRACKETS)
    return max(itertools.accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def _fault(raw: bytes) -> str:
    """Return why bytes are not JSON, in words that quote none of them."""
    try:
        json.loads(raw)
    except ValueError as error:
        # The message of json names the fault and never quotes the text. A JSONDecodeError has a position as well.
        return f"not JSON: {error.args[0] if error.args else 'malformed'}"
    except RecursionError:
        return "nested too deep"
    return "not JSON that the reader takes"


_SURROGATES: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair, which is well formed
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # one without the other
    rb"|\\.",
    re.DOTALL,
)


# U+FFFD, as no writer of JSON spells it: what stood here may not pass for an id.
REPLACED: Final = rb"\uFfFd"


def _without_lone_surrogates(raw: bytes) -> bytes:
    """Replace escapes that Unicode cannot hold by U+FFFD; no other byte changes, and none moves."""
    return _SURROGATES.sub(lambda found: REPLACED if found.group(1) else found.group(), raw)


def with_surrogates(raw: bytes) -> Any:
    """Return a JSON value as Python has it, with a lone surrogate wherever one was replaced."""
    return json.loads(raw.replace(REPLACED, rb"\udfff"), parse_int=str, parse_float=str)


def items_of(raw: bytes) -> list[bytes]:
    """Return a list's items as raw bytes.

    :raises NotAnObjectError: the bytes are not a JSON list.
    """
    try:
        return [bytes(item) for item in _decode_items(raw)]
    except (msgspec.DecodeError, RecursionError):
        # The list may have an escape that Unicode cannot hold.
        listed = checked_value(raw)
    try:
        return [bytes(item) for item in _decode_items(listed)]
    except (msgspec.DecodeError, RecursionError):
        raise NotAnObjectError(_fault(raw)) from None


def text_of(fields: Fields, key: str) -> str | None:
    """Return a member that is text; None if it is absent or of another kind."""
    value = fields.get(key)
    if value is None or value[:1] != b'"':
        return None
    try:
        return _decode_text(value)
    except msgspec.DecodeError:
        return None


_WHOLE_NUMBER: Final = re.compile(rb"-?\d+", re.ASCII)


def is_id(value: bytes) -> bool:
    """Return whether a value can be an id, or is absent in one of the ways in which JSON says so."""
    return value[:1] <= b"9" or value == b"null"  # of the values of JSON, text and numbers come first in ASCII


def id_of(fields: Fields, key: str) -> str | None:
    """Return a member that is text or a whole number, as ids are read into rows."""
    value = fields.get(key, b"null")
    return value.decode() if _WHOLE_NUMBER.fullmatch(value) else text_of(fields, key)


# The usual time, with a day that every month has.
_USUAL_TIME: Final = re.compile(
    rb'"(19\d\d|2[01]\d\d|22[0-5]\d|226[01])-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])'
    rb'T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?Z"'
)


def time_fault(value: bytes) -> str | None:
    """Return why a value is not a time, in words that quote nothing; None if it is one."""
    if _USUAL_TIME.fullmatch(value):
        return None
    try:
        decoded = json.loads(value)
    except ValueError:
        return "it is a number that is too long"  # the bytes are JSON, so this is the one fault that is left
    try:
        return "it is an unset time" if read_time(decoded) is None else None
    except ValueError as fault:
        return str(fault)


def is_object(value: bytes) -> bool:
    """Return whether a JSON value is an object, judged by its first byte."""
    return value[:1] == b"{"


def joined(members: Fields | Iterable[tuple[str, bytes]]) -> bytes:
    """Return the object that these members make."""
    pairs = members.items() if isinstance(members, dict) else members
    return b"{" + b",".join(json.dumps(key).encode() + b":" + raw for key, raw in pairs) + b"}"
