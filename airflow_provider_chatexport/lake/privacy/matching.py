"""Words that name a person, and how they are found in what other people wrote.

Upper and lower case, composed and decomposed characters (NFC and NFD), and the widths of East Asian typography make no
difference. A word is found only as a whole: ``ann-17`` is not in ``ann-170``.

An id that is an ordinary word, such as ``a``, ``may`` or ``42``, says nothing about a person by itself. It is found in
a mention (``@may``) and at the start of a message id. A name of one word is not looked for at all. Both are looked for
everywhere if the caller asks for it (``names``).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from airflow_provider_chatexport.lake.privacy.message_ids import RANDOM_PART, SURE_RANDOM_PART
from airflow_provider_chatexport.lake.schema import sql

# Full-width and half-width forms, and the full-width space.
_WIDE: Final = {code: unicodedata.normalize("NFKC", chr(code)) for code in (0x3000, *range(0xFF01, 0xFFEF))}
_WIDE_FORMS: Final[dict[str, str]] = {narrow: chr(code) for code, narrow in _WIDE.items() if len(narrow) == 1}
# The spaces of Unicode, for engines in which \s means those of ASCII.
_SPACE: Final = "[\\s\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+"
# Scripts that put no space between words: Thai to Lao, Myanmar, Khmer, kana and Han.
_UNSPACED: Final = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
# Where a word starts, for DuckDB, which has no look-behind: it lets through more than Python finds.
_START: Final = r"(?:^|[^0-9A-Za-z_-]|\\[bfnrt])"
# In JSON text: an escape of something that can be part of a word. Go escapes other signs, such as <, too.
_ESCAPED_LETTER: Final = (
    r"\\u(?:00(?:2[0-57-9a-f]|3[0-9abdf]|[4-9a-f][0-9a-f])|0[1-9a-f]|1|20(?:[013-9a-f]|2[0-7a-f])|2[1-9a-f]"
    r"|[3-9abcef]|d[0-7])"
)
_SHORTEST_ID: Final = 4
_LONGEST_NUMBER: Final = 7  # dates and prices are shorter than ids
_LONGEST_WORD: Final = 19


def narrow(text: str) -> str:
    """Return text in the usual width, and composed (NFC)."""
    return unicodedata.normalize("NFC", text.translate(_WIDE))


def folded(text: str) -> str:
    """Return text as it is compared: in the usual width, composed, and without upper case."""
    return unicodedata.normalize("NFC", narrow(text).casefold())


def is_ordinary(user_id: str) -> bool:
    """Return whether an id could be a word of a language, or a number: in a text, it says nothing about a person."""
    plain = narrow(user_id)
    if len(plain) < _SHORTEST_ID:
        return True
    if any(map(str.isdigit, plain)):
        return len(plain) <= _LONGEST_NUMBER and not any(map(str.isalpha, plain))
    # Letters alone, or with the signs that words and first names have.
    has_words_signs = re.fullmatch(rf"(?:[^\W_]|[\s'\u2019{marks()}-])+", plain)
    return bool(_UNSPACED.search(plain)) or (len(plain) <= _LONGEST_WORD and has_words_signs is not None)


def is_full_name(name: str) -> bool:
    """Return whether a name has two words or more."""
    return len(name.split()) > 1


@functools.cache
def marks() -> str:
    """Return the combining marks of Unicode's first plane, as the inside of a class of a regular expression.

    The word characters of Python do not include them, and many scripts write vowels with them.
    """
    codes = {code for code in range(0x300, 0x10000) if unicodedata.category(chr(code)).startswith("M")}
    starts = sorted(code for code in codes if code - 1 not in codes)
    ends = sorted(code for code in codes if code + 1 not in codes)
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))


@functools.cache
def word() -> re.Pattern[str]:
    """Return the pattern of a word, or of an id that has the characters of words only."""
    return re.compile(rf"[\w{marks()}-]+")


def pattern(text: str) -> str:
    """Return a regular expression, for Python and for DuckDB, that finds text in any spelling.

    It has to be used with the option to ignore case.
    """
    parts = re.split(r"(\s+)", narrow(text).strip())
    return "".join(_SPACE if part.isspace() else "".join(map(_any_form, part)) for part in parts)


def _pattern_of_ascii(text: str) -> str:
    """Return a regular expression that finds text that is ASCII in a text that is ASCII, in any spelling."""
    return "".join(r"\s+" if part.isspace() else re.escape(part) for part in re.split(r"(\s+)", text.strip()))


def _any_form(character: str) -> str:
    forms = dict.fromkeys(_forms(character))
    single = [form for form in forms if len(form) == 1]
    several = ["".join(map(re.escape, form)) for form in forms if len(form) > 1]
    one = re.escape(single[0]) if len(single) == 1 else f"[{''.join(map(re.escape, single))}]"
    return f"(?:{'|'.join([one, *several])})" if several else one


def _forms(character: str) -> Iterator[str]:
    yield character
    if character in _WIDE_FORMS:
        yield _WIDE_FORMS[character]
    if len(full := character.casefold()) > 1:
        yield full  # such as ß and ss
    decomposed = unicodedata.decomposition(character)
    if decomposed and not decomposed.startswith("<"):
        base, *others = (chr(int(code, 16)) for code in decomposed.split())
        yield from (form + "".join(others) for form in _forms(base))


class Words:
    """The words that name some people: one pattern for Python, and conditions for DuckDB that let no match pass.

    :param ids: in any spelling that texts may have.
    :param names: full names, and names of one word.
    :param anywhere: those of the words that are looked for everywhere, although they are ordinary.
    """

    def __init__(self, ids: Iterable[str], names: Iterable[str], anywhere: Iterable[str] = ()) -> None:
        anywhere, ids = frozenset(anywhere), set(ids)
        mentions = {each for each in ids if is_ordinary(each) and each not in anywhere}
        chosen = {name for name in names if name.strip() and (is_full_name(name) or name in anywhere)}
        # The longest comes first, so that a name is found as a whole.
        self.everywhere = sorted((ids - mentions) | chosen, key=len, reverse=True)
        self.mentions = sorted(mentions, key=len, reverse=True)

    @functools.cached_property
    def regex(self) -> re.Pattern[str]:
        """The pattern that finds the words as whole words."""
        inside = rf"[\w{marks()}-]"
        spaced = "|".join(pattern(each) for each in self.everywhere if not _UNSPACED.search(each))
        parts = [pattern(each) for each in self.everywhere if _UNSPACED.search(each)]
        if spaced:
            # The look-behind comes first: where no word can start, none is tried. A message id may follow its author.
            parts.append(f"(?<!{inside})(?:{spaced})(?=(?:{RANDOM_PART})?(?!{inside}))")
        if self.mentions:
            ids = "|".join(map(pattern, self.mentions))
            # An address such as ann@may.org mentions no one.
            parts.append(rf"(?<=[@\uff20])(?<![\w.+-][@\uff20])(?:{ids})(?!{inside})(?!\.\w)")
            parts.append(f"(?<!{inside})(?:{ids})(?={SURE_RANDOM_PART}(?!{inside}))")
        if unspaced := "|".join(pattern(each) for each in self.mentions if _UNSPACED.search(each)):
            parts.append(f"(?<=[@\uff20])(?:{unspaced})")
        return re.compile("|".join(parts) or r"(?!)", re.IGNORECASE)

    def may_be_in(self, text: str) -> str:
        """Return a condition in SQL that holds wherever the pattern finds something in a text."""
        plain, spelled = self._conditions(_pattern_of_ascii), self._conditions(pattern)
        return _any_of(text, plain, spelled)

    def may_be_in_json(self, json: str) -> str:
        """Return a condition in SQL that holds wherever a string in JSON names the people."""
        plain = [
            *self._conditions(_pattern_of_ascii),
            *(f'"{_pattern_of_ascii(each)}"' for each in _ascii(self.mentions)),
        ]
        spelled = [*self._conditions(pattern), *(f'"{pattern(each)}"' for each in self.mentions)]
        return f"({_any_of(json, plain, spelled)} OR regexp_matches({json}, {sql.quoted(_ESCAPED_LETTER)}, 'i'))"

    def _conditions(self, pattern_of: Callable[[str], str]) -> list[str]:
        choose = _ascii if pattern_of is _pattern_of_ascii else list
        mentions = [pattern_of(each) for each in choose(self.mentions)]
        return [
            *(pattern_of(each) for each in choose(self.everywhere)),
            *(f"[@\uff20]{each}" for each in mentions),
            *(f"{_START}{each}{RANDOM_PART}" for each in mentions),
        ]


def _ascii(words: Iterable[str]) -> list[str]:
    return [each for each in words if each.isascii()]


def _any_of(text: str, plain: Sequence[str], spelled: Sequence[str]) -> str:
    """Return a condition in SQL: one of the patterns is in the text.

    :param plain: patterns that suffice for a text that is ASCII. They are found four times as fast.
    """
    if not spelled:
        return "false"
    any_spelling = f"strlen({text}) <> length({text}) AND regexp_matches({text}, {sql.quoted('|'.join(spelled))}, 'i')"
    return f"({_matches(text, plain)}({any_spelling}))"


def _matches(text: str, patterns: Sequence[str]) -> str:
    return f"regexp_matches({text}, {sql.quoted('|'.join(patterns))}, 'i') OR " if patterns else ""
