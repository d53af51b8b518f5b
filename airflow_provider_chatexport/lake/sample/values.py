"""Replacements of keys, strings and numbers, each in the form of what it replaces.

Equal ids and equal single words get equal replacements within a file, so that references still match and rows have the
same keys. A replacement is a keyed hash. So no table of replacements is needed, and without the key, which is random
and ends with the process, none can be made. What people wrote becomes words of a fixed list, and others every time.

All times move into the past by one random span. So their order and distances stay, and with them which window a message
is in and which of two versions is newer.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import random
import re
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from airflow_provider_chatexport.core.times import LATEST, UNSET_NUMBERS, to_unix_ns
from airflow_provider_chatexport.lake.sample.names import (
    CHANNEL_TYPES,
    END_PARAMETERS,
    FILE_ENDINGS,
    FLAGS,
    KEYS,
    LIFETIME_PARAMETERS,
    LINK_PARAMETERS,
    SCHEMES,
    TAGS,
    VALUES,
    WORDS,
    Role,
)

# Further keys get no number, because they may be ids, of which there may be millions.
MAX_NUMBERED_KEYS: Final = 10_000
_SHORTEST_TOKEN: Final = 13  # 65 bits: among a billion ids, two of the same token are unlikely
_MAX_PARTS: Final = 8
_MAX_ID_CHARS: Final = 256
_N_CACHED: Final = 50_000
_MAX_CACHED_BYTES: Final = 128

_DAY_S: Final = 86_400
_SECOND_NS: Final = 1_000_000_000
# From September 2001 to 2100: whole numbers of this size are times in nanoseconds.
_FIRST_NS: Final = 1_000_000_000 * _SECOND_NS
_LAST_NS: Final = 4_102_444_800 * _SECOND_NS
_MAX_INT64: Final = 2**63 - 1

_HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)([Tt ])(\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
_SHORT_TIME: Final = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_EXPONENT: Final = re.compile("[eE]")
_WHOLE_NUMBER: Final = re.compile(r"-?\d+", re.ASCII)
_UUID: Final = re.compile(r"(?:(.+)-)?([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})", re.ASCII | re.DOTALL)
_LINK: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s<>]+", re.ASCII)
_DISTINCT: Final = "!members-"  # how ids of channels begin that are named by their members alone

_BAD_ESCAPE: Final = re.compile(rb'(?:[^\\]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+(\\)?', re.DOTALL)
_CONTROLS: Final = re.compile(rb"[\x00-\x1f]")
_ESCAPE_OF_OTHERS: Final = re.compile(rb"\\u(?!00[0-7])[0-9a-fA-F]{4}")
_NEEDS_WORDS: Final = re.compile(rb"[\s\\<>]")
# What separates words, and stays: spaces, quotes, marks of HTML, all of them as they are written.
_MARK: Final = rb'\\u(?:00[01][0-9a-fA-F]|003[cCeE]|0026|202[89])|\\["\\/bf]|[<>&]'
_PIECE: Final = re.compile(
    rb"((?:[ \t\r\n]|\\[nrt])+)|(%b)|((?:[^\s\\<>&]++|\\u(?!00[01]|003[cCeE]|0026|202[89])[0-9a-fA-F]{4})+)|(.)"
    % _MARK,
    re.DOTALL,
)
_SPACE: Final = re.compile(rb"\\?.", re.DOTALL)
_ANGLES: Final = frozenset({b"<", b"\\u003c", b"\\u003C"})


class Replacements:
    """The replacements of one file.

    :param key: 32 bytes from which all of them follow, for tests; by default random ones, which are stored nowhere.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)
        self._moved_s = 400 * _DAY_S + int.from_bytes(self._digest("how far times move"), "big") % (1400 * _DAY_S)
        # It chooses only what does not depend on the file, so its state, which a reader could compute, says nothing.
        self._random = random.Random(self._digest("which words"))  # noqa: S311
        self._custom_keys: dict[str, str] = {}
        # Authors are in every message, so most values of a file come again soon.
        self._by_form = functools.lru_cache(_N_CACHED)(self._form_of_string)

    @property
    def n_custom_keys(self) -> int:
        """How many different keys were replaced, as far as they are numbered."""
        return len(self._custom_keys)

    def key(self, raw: bytes) -> bytes:
        """Return the replacement of a key.

        :param raw: what is between the quotes; so is what is returned.
        """
        text = decoded(raw)
        if text in KEYS:
            return raw
        number = self._custom_keys.get(text)
        if number is None:
            if len(self._custom_keys) >= MAX_NUMBERED_KEYS:
                return b"custom_key_" + self._token(text).encode() + _faults(raw)
            number = self._custom_keys[text] = f"custom_key_{len(self._custom_keys) + 1}"
        return number.encode() + _faults(raw)

    def string(self, raw: bytes, role: Role, key: str) -> bytes:
        """Return the replacement of a string.

        :param raw: what is between the quotes; so is what is returned.
        :param key: the key that it is a value of.
        """
        if role is Role.TEXT:
            return self._words(raw, self._random.randbytes(32))
        by_form = self._by_form if len(raw) <= _MAX_CACHED_BYTES else self._form_of_string
        return by_form(raw, role, key if role is Role.TYPE else "")

    def number(self, text: str, role: Role) -> str:
        """Return the replacement of a JSON number."""
        if role in (Role.ID, Role.TYPE):
            return self._number_of_id(text)
        if role is Role.TIME and (moved := self._time_number(text)):
            return moved
        return _other_digits(text, self._random.randrange)

    def _form_of_string(self, raw: bytes, role: Role, key: str) -> bytes:  # noqa: PLR0911 - a decision list
        text = decoded(raw)
        if role is Role.ID or (role is Role.TYPE and text not in VALUES[key]):
            return self._identifier(text, raw)
        if role is Role.TYPE or text.lower() in FLAGS:
            return raw
        if match := _TIME.fullmatch(text):
            if moved := self._time(match):
                return moved.encode()
        elif _NUMBER.fullmatch(text):
            return self._number_text(text, role).encode()
        elif _LINK.fullmatch(text):
            return self._link(text, raw).encode()
        if _NEEDS_WORDS.search(raw):
            return self._words(raw, self._digest(text))
        return self._identifier(text, raw)

    # Ids

    def _identifier(self, text: str, raw: bytes) -> bytes:
        """Return an id's replacement; ``type:id`` part by part, so that it matches where the parts stand alone."""
        *heads, last = text.split(":") if text.count(":") < _MAX_PARTS else [text]
        parts = [*(head if head in CHANNEL_TYPES else self._part(head) for head in heads), self._part(last)]
        is_escaped = _ESCAPE_OF_OTHERS.search(raw) is not None
        return _encoded(":".join(parts), is_escaped=is_escaped) + _faults(raw)

    def _part(self, text: str) -> str:
        if not text:
            return ""
        if len(text) > _MAX_ID_CHARS:
            return self._token(text) + _others_of(text)
        if _WHOLE_NUMBER.fullmatch(text):
            return self._number_of_id(text)
        if text.startswith(_DISTINCT):
            return _DISTINCT + self._token(text)
        if match := _UUID.fullmatch(text):
            # The service puts the author's id in front of some message ids.
            digits = self._digest(match[2]).hex()
            uuid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))
            return f"{self._part(match[1])}-{uuid}" if match[1] else uuid
        return self._token(text) + _others_of(text)

    def _token(self, text: str) -> str:
        """Return letters and digits, of about the length of a text."""
        digest = self._digest(text)
        letters = base64.b32encode(digest).decode().rstrip("=").lower()
        first = "abcdefghijklmnopqrstuvwxyz"[digest[0] % 26]  # a digit could begin a number, or end a name
        n_chars = _SHORTEST_TOKEN if len(text) <= 16 else -(-len(text) // 8) * 8
        return (first + letters * (n_chars // len(letters) + 1))[:n_chars]

    def _number_of_id(self, text: str) -> str:
        """Return a number of 18 digits, the same for ``42`` and ``"42"``."""
        if not _WHOLE_NUMBER.fullmatch(text):
            return self._digits_for(text)
        sign = "-" if text.startswith("-") else ""
        return f"{sign}{10**17 + int.from_bytes(self._digest(text)[:8], 'big') % (9 * 10**17)}"

    # Times and numbers

    def _time(self, match: re.Match[str]) -> str | None:
        """Return a time in the same form, or None if the calendar does not have it."""
        day, between, clock, fraction, zone = match.groups()
        try:
            moment = datetime.fromisoformat(f"{day}T{clock}")
        except ValueError:
            return None
        # The first and last days of a calendar, and the first second of Unix, mean "never", and no column takes a day
        # before or after them.
        is_moved = 10 < moment.year < 9000 and moment != datetime(1970, 1, 1)  # noqa: DTZ001 - has no zone yet
        if is_moved:
            moment -= timedelta(seconds=self._moved_s)
        digits = "." + self._fraction(fraction[1:], match[0]) if fraction else ""
        # With another offset, Go's zero time would be another moment.
        offset = "+01:00" if is_moved and zone not in "Zz" else zone
        return f"{moment.isoformat()[:10]}{between}{moment.isoformat()[11:19]}{digits}{offset}"

    def _fraction(self, digits: str, text: str) -> str:
        """Return other digits of a second; zeros at the end stay, because the service cuts them."""
        significant = digits.rstrip("0")
        if not significant:
            return digits
        drawn = int.from_bytes(self._digest(text)[:8], "big")
        last = 1 + drawn % 9
        others = str(drawn // 9).zfill(9)[-len(significant) : -1] if len(significant) > 1 else ""
        return f"{others[: len(significant) - 1]}{last}{digits[len(significant) :]}"

    def _time_number(self, text: str) -> str | None:
        """Return a time as a number: nanoseconds moved, and an unset time as it is; None if it is neither."""
        if _is_nanoseconds(text):
            seconds, fraction = divmod(int(text), _SECOND_NS)
            return f"{seconds - self._moved_s}{self._fraction(f'{fraction:09}', text)}"
        return text if _WHOLE_NUMBER.fullmatch(text) and int(text) in UNSET_NUMBERS else None

    def _number_text(self, text: str, role: Role) -> str:
        """Return the replacement of a number in quotes: there are writers that put all large integers in some."""
        if role is Role.TIME:  # how many digits it has decides whether it can be a time
            return self._time_number(text) or self._digits_for(text)
        return self._number_of_id(text) if len(text) <= 18 else self._digits_for(text)

    def _digits_for(self, text: str) -> str:
        digits = iter(self._digest(text) * (len(text) // 32 + 1))
        return _other_digits(text, lambda n: next(digits) % n)

    # Text and links

    def _words(self, raw: bytes, source: bytes) -> bytes:
        """Return about as many words, with the same marks and line ends between them.

        :param source: bytes that choose the words.
        """
        chosen = _Chooser(source)
        out = bytearray()
        after_angle = False
        for match in _PIECE.finditer(raw):
            space, mark, word, _ = match.groups()
            if space:
                out += b"".join(_SPACE.findall(space)[:4])
            elif mark:
                out += mark
            elif word:
                is_tag = after_angle and word.removeprefix(b"/").decode("latin-1").lower() in TAGS
                out += word if is_tag else self._word(word, chosen)
            after_angle = mark in _ANGLES or (after_angle and mark == rb"\/")
        return bytes(out) + _faults(raw)

    def _word(self, raw: bytes, chosen: _Chooser) -> bytes:
        text = decoded(raw)
        is_escaped = _ESCAPE_OF_OTHERS.search(raw) is not None
        if _LINK.fullmatch(text):
            return self._link(text, raw).encode()
        n_ascii = sum(map(str.isascii, text)) if not text.isascii() else len(text)
        words = "".join(chosen.word() for _ in range(-(-n_ascii // 12)))
        return _encoded(words + _others_of(text), is_escaped=is_escaped)

    def _link(self, text: str, raw: bytes) -> str:
        """Return a link of the same shape: as many parts of a path, and the names of parameters that all apps have."""
        try:
            parts = urlsplit(text)
        except ValueError:  # brackets that hold no address
            return f"https://{self._token(text)}.example"
        scheme = parts.scheme if parts.scheme in SCHEMES else self._token(parts.scheme)
        path = "/".join(map(self._path_part, parts.path.split("/")))
        query = "&".join(map(self._parameter, parts.query.split("&"))) if parts.query else ""
        link = f"{scheme}://{self._token(parts.netloc)[:_SHORTEST_TOKEN]}.example{path}"
        link += f"?{query}" if query else ""
        link += f"#{self._token(parts.fragment)}" if parts.fragment else ""
        if rb"\u0026" in raw:
            link = link.replace("&", r"\u0026")
        return link.replace("/", r"\/") if rb"\/" in raw else link

    def _path_part(self, part: str) -> str:
        if not part:
            return ""
        stem, dot, ending = part.rpartition(".")
        return self._token(stem) + dot + ending if ending.lower() in FILE_ENDINGS else self._token(part)

    def _parameter(self, parameter: str) -> str:
        name, equals, value = parameter.partition("=")
        known = name.lower() in LINK_PARAMETERS
        return (name if known else self._token(name) if name else "") + equals + self._parameter_value(name, value)

    def _parameter_value(self, name: str, value: str) -> str:
        """Return the value of a parameter of a link: what says when the link ends moves as all times do."""
        is_number = value.isascii() and value.isdecimal()
        if not value or (name.lower() in LIFETIME_PARAMETERS and is_number and len(value) < 8):
            return value
        if is_number:
            is_end = name.lower() in END_PARAMETERS and len(value) == 10
            return str(int(value) - self._moved_s) if is_end else self._number_text(value, Role.ANY)
        if _SHORT_TIME.fullmatch(value):
            try:
                moment = datetime.fromisoformat(value) - timedelta(seconds=self._moved_s)
            except (ValueError, OverflowError):
                return self._token(value)
            return f"{moment:%Y%m%dT%H%M%SZ}"
        return self._token(value)

    def _digest(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=32).digest()


class _Chooser:
    """Chooses words of the list, one after another, by the bytes of a source."""

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._n_chosen = 0

    def word(self) -> str:
        at = self._n_chosen
        self._n_chosen += 1
        # After the last byte, the same bytes choose other words.
        return WORDS[(self._source[at % len(self._source)] + at // len(self._source)) % len(WORDS)]


def decoded(raw: bytes) -> str:
    """Return the text of a JSON string. A string that is not well formed gets a text that no other string has."""
    if b"\\" not in raw:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw.decode("latin-1")
    try:
        return str(json.loads(f'"{raw.decode()}"', strict=False))
    except ValueError:  # UnicodeDecodeError is one
        return raw.decode("latin-1")


def _faults(raw: bytes) -> bytes:
    """Return what makes a string malformed, without what it says: the line must stay a reject, for the same reason."""
    faults = b""
    try:
        raw.decode()
    except UnicodeDecodeError:
        faults += b"\xff"
    if b"\\" in raw and _BAD_ESCAPE.match(raw)[1]:  # type: ignore[index] # it matches anything
        faults += rb"\x"
    if rb"\u" in raw and _HALF_CHARACTER.search(decoded(raw)):
        faults += rb"\ud800"  # no id can have it
    return faults + b"".join(sorted(set(_CONTROLS.findall(raw))))


def _is_nanoseconds(text: str) -> bool:
    return len(text) == 19 and text.isdecimal() and _FIRST_NS <= int(text) < _LAST_NS


def _others_of(text: str) -> str:
    """Return about as many characters outside ASCII as a text has, with as many bytes each in UTF-8."""
    if text.isascii():
        return ""
    n_two = sum("\x7f" < char <= "\u07ff" for char in text)
    n_four = sum(char > "\uffff" for char in text)
    n_three = sum(char > "\x7f" for char in text) - n_two - n_four
    return "é" * _about(n_two) + "漢" * _about(n_three) + "😀" * _about(n_four)


def _about(n: int) -> int:
    """Return the largest power of two that is not above a number."""
    return 1 << (n.bit_length() - 1) if n else 0


def _encoded(text: str, *, is_escaped: bool) -> bytes:
    """Return our own text as a part of a JSON string."""
    return json.dumps(text)[1:-1].encode() if is_escaped else text.encode()


def _limits_passed(number: int) -> int:
    """Return how many limits of columns a number of 19 digits is above: that of times, and that of integers."""
    return (number >= to_unix_ns(LATEST)) + (number > _MAX_INT64)


def _other_digits(text: str, draw: Callable[[int], int]) -> str:
    """Return a number of the same form: sign, digits before and after the point, exponent.

    0 and 1 stay. So does what decides whether a column can hold the number: a fraction of zeros, an exponent, the first
    two digits of very large ones, and on which side it is of the last nanosecond that a lake can hold, and of the
    largest 64-bit integer.

    :param draw: returns a number from 0 to below its argument.
    """
    mantissa = _EXPONENT.split(text)[0]
    whole, point, fraction = mantissa.lstrip("-").partition(".")
    sign = mantissa[: len(mantissa) - len(whole) - len(point) - len(fraction)]
    if len(whole) > 1 or fraction:
        n_kept = 2 if len(whole) > 18 or mantissa != text else 0
        others = whole[:n_kept] + "".join(
            digit if at == 0 and digit == "0" else str(draw(10) if at else 1 + draw(9))
            for at, digit in enumerate(whole[n_kept:], n_kept)
        )
    else:
        others = whole if whole in ("0", "1") else str(2 + draw(8))
    if len(whole) == 19 and _limits_passed(int(whole)) != _limits_passed(int(others)):
        others = others[:2] + ("0" * 17, "2" + "0" * 16, "9" * 17)[_limits_passed(int(whole))]
    significant = fraction.rstrip("0")
    if significant:
        drawn = "".join(str(draw(10)) for _ in significant[1:])
        fraction = f"{drawn}{1 + draw(9)}{fraction[len(significant) :]}"
    return f"{sign}{others}{point}{fraction}{text[len(mantissa) :]}"
