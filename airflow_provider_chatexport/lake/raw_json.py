"""JSON objects as the bytes that they are: members without decoding, so that no number, key or escape is touched."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from airflow_provider_chatexport.core.times import LATEST, parse_instant

# DuckDB's JSON reader takes more, but a table of chat has no use for deeper values, and other readers recurse.
MAX_DEPTH: Final = 500

Fields = dict[str, bytes]  # an object's keys, and each value as the bytes that it is
NOTHING: Final = (b"[]", b"{}", b"null")
BLANK: Final = (b"null", b'""')

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


class NotAnObjectError(Exception):
    """A line that is no JSON object of a known kind. ``mendable``: Python's reader may yet take it."""

    def __init__(self, reason: str, *, mendable: bool = False) -> None:
        super().__init__(reason)
        self.mendable = mendable


def _members(raw: bytes) -> Fields:
    """An object's members as raw bytes.

    :raises NotAnObjectError: the bytes are no UTF-8, no JSON, or no object.
    """
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise NotAnObjectError(f"not UTF-8 at byte {error.start} of the line") from None
    try:
        return {key: bytes(value) for key, value in _decode_members(raw).items()}
    except msgspec.ValidationError:
        raise NotAnObjectError("not a JSON object") from None
    except (msgspec.DecodeError, RecursionError):
        _check_depth(raw)
        raise NotAnObjectError(_fault(raw), mendable=True) from None


def members(raw: bytes) -> tuple[bytes, Fields]:
    """An object in a form that the JSON reader takes, and its members, however deep those are.

    :raises NotAnObjectError: the bytes are no UTF-8, no JSON, or no object.
    """
    try:
        return raw, _members(raw)
    except NotAnObjectError as error:
        if not error.mendable:
            raise
        mended = _without_lone_surrogates(raw)
        return mended, _members(mended)


def read_object(raw: bytes, fields: Fields | None = None) -> tuple[bytes, Fields]:
    """The same of one that is not too deep.

    :param fields: its members, if it was taken apart already.
    :raises NotAnObjectError: it is too deep as well.
    """
    _check_depth(raw)
    return members(raw) if fields is None else (raw, fields)


def _check_depth(raw: bytes) -> None:
    """:raises NotAnObjectError: a value is nested too deep."""
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
        raise NotAnObjectError(f"nested deeper than {MAX_DEPTH} levels")


def checked_value(raw: bytes) -> bytes:
    """Any JSON value in a form that the JSON reader takes.

    :raises NotAnObjectError: the bytes are no UTF-8 or no JSON.
    """
    return read_object(b'{"value":%b}' % raw)[0][len(b'{"value":') : -1]


_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BUT_BRACKETS: Final = bytes(set(range(256)) - set(b"{[]}"))
_STEPS: Final = {ord("{"): 1, ord("["): 1, ord("]"): -1, ord("}"): -1}


def _depth(raw: bytes) -> int:
    """How deep values are nested. There may be thousands of brackets, so no step is taken in Python."""
    brackets = _STRINGS.sub(b"", raw).translate(None, _BUT_BRACKETS)
    return max(itertools.accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def _fault(raw: bytes) -> str:
    try:
        json.loads(raw)
    except ValueError as error:
        # json's own message names the fault and never quotes the text; a JSONDecodeError has a position as well.
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


def _without_lone_surrogates(raw: bytes) -> bytes:
    """The same JSON with escapes that Unicode cannot hold replaced by U+FFFD; no other byte is touched."""
    return _SURROGATES.sub(lambda found: rb"\ufffd" if found.group(1) else found.group(), raw)


def has_duplicate_key(raw: bytes, fields: Fields) -> bool:
    """Whether a key stands twice in the object that has these members: what it told first is lost in them."""
    # Nearly always the members make up all of the object, with a space or none after each mark.
    n_told = sum(map(len, fields)) + sum(map(len, fields.values())) + 4 * len(fields) + 1
    if len(raw) - n_told <= 2 * len(fields):
        return False
    keys: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> None:
        keys[:] = [key for key, _ in pairs]  # of the outermost object at last

    with contextlib.suppress(RecursionError):  # what is as deep is refused for that
        json.loads(raw, object_pairs_hook=note)
    return len(keys) > len(set(keys))


def items_of(raw: bytes) -> list[bytes]:
    """A list's items as raw bytes.

    :raises NotAnObjectError: it is no JSON list.
    """
    try:
        return [bytes(item) for item in _decode_items(raw)]
    except (msgspec.DecodeError, RecursionError):
        # As the value of a member it is mended, where it can be.
        listed = checked_value(raw)
    try:
        return [bytes(item) for item in _decode_items(listed)]
    except (msgspec.DecodeError, RecursionError):
        raise NotAnObjectError(_fault(raw)) from None


def text_of(fields: Fields, key: str) -> str | None:
    """A member that is text; None where it is absent or of another kind."""
    value = fields.get(key)
    if value is None or value[:1] != b'"':
        return None
    try:
        return _decode_text(value)
    except msgspec.DecodeError:
        return None


_WHOLE_NUMBER: Final = re.compile(rb"-?\d+", re.ASCII)


def id_of(fields: Fields, key: str) -> str | None:
    """A member that is text or a whole number, as which the reader of rows takes an id as well."""
    value = fields.get(key, b"null")
    return value.decode() if _WHOLE_NUMBER.fullmatch(value) else text_of(fields, key)


_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?([eE]\+?\d+)?", re.ASCII)
# The usual time, with a day that every month has.
_USUAL_TIME: Final = re.compile(
    rb'"[12]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?Z"'
)


def is_time(value: bytes | None) -> bool:
    """A value is a time in either of the service's spellings, with a day after it. Nanoseconds may stand in quotes:
    there are writers of JSON that put all integers of 64 bits in some."""
    if value is not None and _USUAL_TIME.fullmatch(value):
        return True
    try:
        told = json.loads(value) if value is not None else None
        if isinstance(told, str) and _NUMBER.fullmatch(told):
            told = int(told) if told.lstrip("-").isdigit() else float(told)
        moment = parse_instant(told)
    except (ValueError, OverflowError):
        return False
    return moment is not None and moment < LATEST


def is_object(value: bytes) -> bool:
    """By its first byte."""
    return value[:1] == b"{"


def joined(members: Fields | Iterable[tuple[str, bytes]]) -> bytes:
    """The object that these members make."""
    pairs = members.items() if isinstance(members, dict) else members
    return b"{" + b",".join(json.dumps(key).encode() + b":" + raw for key, raw in pairs) + b"}"
