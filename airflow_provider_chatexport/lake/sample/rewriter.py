"""An export file rewritten token by token: structure, names and line ends stay, and every value is replaced.

The output is safe by construction, whatever the input is. Each byte of it is a mark of JSON (``{}[],:`` and space),
part of a name of ``names``, or made by ``Replacements``. So a broken line, or a file of an unknown shape, gives nothing
away. No object is built: a string is a key if a colon follows it.

Memory is bounded, because a string that is longer than a limit becomes as many ``x``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from airflow_provider_chatexport.errors import InputError
from airflow_provider_chatexport.lake.normalize.export_file import BOM, ExportReader
from airflow_provider_chatexport.lake.sample.names import Role, role_of, role_of_keys
from airflow_provider_chatexport.lake.sample.values import Replacements, decoded

MAX_STRING_BYTES: Final = 1024 * 1024
# Objects that are nested deeper have values, and no keys that are kept.
MAX_DEPTH: Final = 1000
_CHUNK_BYTES: Final = 256 * 1024
_UNLIMITED: Final = 2**63

_ATOMS: Final = frozenset({b"true", b"false", b"null", b"NaN", b"Infinity", b"-Infinity"})
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_SPACE: Final = re.compile(rb"\s*+")
_CUT_ESCAPE: Final = re.compile(rb"\\?")


def _patterns(*, of_lines: bool) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return the patterns of a token and of a string's content. In a file of lines, no string goes past its line."""
    content = rb'(?:[^"\\\n]++|\\[^\n])*+' if of_lines else rb'(?:[^"\\]++|\\.)*+'
    before_colon = rb'"[ \t\r]*+:' if of_lines else rb'"\s*+:'
    token = rb'"(%b)(?:(%b)|("?+,?+))|([{}\[\]])|([^\s{}\[\],:"]++)|([,:\s]++)' % (content, before_colon)
    return re.compile(token, re.DOTALL), re.compile(content, re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a sample was made of. ``n_custom_keys``: names of an app's own that became ``custom_key_1`` and so on."""

    bytes_in: int
    bytes_out: int
    n_values: int
    n_custom_keys: int


def write_sample(source: Path, target: BinaryIO, *, progress: Callable[[int], None] | None = None) -> Sample:
    """Write an export file, of any shape, plain or gzip, with every value replaced.

    :param progress: called with the number of bytes of the file that have been read.
    :raises InputError: the file is not an export, or its gzip stream is damaged.
    """
    # What is unpacked is written on at once, so there is nothing that a bomb could fill.
    reader = ExportReader(source, max_unpacked_bytes=_UNLIMITED, on_read=progress)
    if reader.is_empty:
        raise InputError(f"{source} holds nothing, so there is nothing to sample; give an export file with lines in it")
    rewriter = Rewriter(of_lines=not (reader.is_array or reader.is_spread))
    bytes_in = bytes_out = 0
    for chunk in reader.chunks(_CHUNK_BYTES):
        if not bytes_in and reader.bom_bytes:
            bytes_out += target.write(BOM)
        bytes_in += len(chunk)
        bytes_out += target.write(rewriter.feed(chunk))
    bytes_out += target.write(rewriter.end())
    return Sample(
        bytes_in=bytes_in + reader.bom_bytes,
        bytes_out=bytes_out,
        n_values=rewriter.n_values,
        n_custom_keys=rewriter.replacements.n_custom_keys,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """What a value is, by the key that it stands under. ``of_keys``: the role of its keys, if they are values."""

    key: str
    role: Role
    of_keys: Role | None


_NOWHERE: Final = _Place("", Role.ANY, None)


class Rewriter:
    """A rewriter of one file. Give it the file's bytes in any pieces; each call returns what is ready.

    :param of_lines: each line is a value of its own, as in a v2 export, so a broken line ends at its end.
    """

    def __init__(self, *, of_lines: bool, replacements: Replacements | None = None) -> None:
        self.replacements = replacements or Replacements()
        self.n_values = 0
        self._of_lines = of_lines
        self._token, self._content = _patterns(of_lines=of_lines)
        self._rest = b""
        self._in_long_string = False
        self._keys: dict[bytes, tuple[bytes, _Place]] = {}
        self._start_line()

    def feed(self, chunk: bytes) -> bytes:
        """Return the replacement of the tokens that are complete with this chunk."""
        return self._rewrite(self._rest + chunk, is_last=False)

    def end(self) -> bytes:
        """Return the replacement of what is left."""
        return self._rewrite(self._rest, is_last=True)

    def _start_line(self) -> None:
        self._place = _NOWHERE
        self._of_keys: Role | None = None
        self._above: list[tuple[_Place, Role | None]] = []
        self._n_too_deep = 0

    def _rewrite(self, text: bytes, *, is_last: bool) -> bytes:
        out: list[bytes] = []
        at = self._end_long_string(text, 0, out) if self._in_long_string else 0
        if not self._in_long_string:
            # No string and no atom goes past the end of its line.
            n_complete = len(text) if is_last else text.rfind(b"\n") + 1 if self._of_lines else 0
            for match in self._token.finditer(text, at):
                if match.end() > n_complete and not is_last and _may_go_on(text, match):
                    at = self._leave_for_later(text, match, out)
                    break
                content, colon, quote, bracket, atom, marks = match.groups()
                if colon is not None:
                    out.append(self._key(content))
                    out.append(colon)
                elif content is not None:
                    self.n_values += 1
                    place = self._place
                    out.append(b'"%b%b' % (self.replacements.string(content, place.role, place.key), quote))
                elif bracket is not None:
                    out.append(bracket)
                    self._step(bracket)
                elif atom is not None:
                    self.n_values += 1
                    out.append(self._atom(atom))
                else:
                    out.append(marks)
                    if self._of_lines and b"\n" in marks:
                        self._start_line()
                at = match.end()
        self._rest = text[at:]
        return b"".join(out)

    def _leave_for_later(self, text: bytes, match: re.Match[bytes], out: list[bytes]) -> int:
        """Return where the next chunk continues: at the token, unless it is too long to be held."""
        if match.end() - match.start() <= MAX_STRING_BYTES:
            return match.start()
        if match[1] is None:
            out.append(b"x")  # an atom of a megabyte is no JSON
            return match.end()
        out.append(b'"')
        return self._end_long_string(text, match.start() + 1, out)

    def _end_long_string(self, text: bytes, at: int, out: list[bytes]) -> int:
        """Pass over what there is of a string that is too long, and return where it ends."""
        content = self._content.match(text, at)
        end = content.end() if content else at
        out.append(b"x" * (end - at))
        if text[end : end + 1] == b'"':
            out.append(b'"')
            self._in_long_string = False
            return end + 1
        # Else the text ends here, perhaps within an escape, or the line does.
        self._in_long_string = end == len(text) or text[end:] == b"\\"
        return end

    def _key(self, raw: bytes) -> bytes:
        """Return a quotation mark and the replacement of a key, and note the key as the place of what follows."""
        if self._n_too_deep:
            return b'"' + self.replacements.string(raw, Role.ID, "")
        if self._of_keys is not None:
            self._place = _NOWHERE
            return b'"' + self.replacements.string(raw, self._of_keys, "type")
        if (known := self._keys.get(raw)) is None:
            key = decoded(raw)
            known = b'"' + self.replacements.key(raw), _Place(key, role_of(key), role_of_keys(key))
            if len(self._keys) < 10_000 and len(raw) < 256:
                self._keys[raw] = known
        replacement, self._place = known
        return replacement

    def _step(self, bracket: bytes) -> None:
        """Go into an object or a list, or out of it."""
        if bracket in b"}]":
            if self._n_too_deep:
                self._n_too_deep -= 1
            elif self._above:
                self._place, self._of_keys = self._above.pop()
        elif len(self._above) >= MAX_DEPTH:
            self._n_too_deep += 1
        else:
            self._above.append((self._place, self._of_keys))
            if bracket == b"{":
                self._place, self._of_keys = _NOWHERE, self._place.of_keys
            elif self._place.of_keys is not None:  # the items of a list are values of its key, but no maps
                self._place = _Place(self._place.key, self._place.role, None)

    def _atom(self, atom: bytes) -> bytes:
        """Return the replacement of what is outside of strings and no mark."""
        if atom in _ATOMS:
            return atom
        if _NUMBER.fullmatch(atom):
            return self.replacements.number(atom.decode(), self._place.role).encode()
        return b"x"


def _may_go_on(text: bytes, match: re.Match[bytes]) -> bool:
    """Return whether the next chunk may continue this string or atom, or say that the string is a key."""
    content, colon, quote, _, atom, _ = match.groups()
    if atom is not None:
        return match.end() == len(text)
    if content is None or colon is not None or quote == b'",':
        return False
    # At its end the text may be cut within an escape.
    behind = _SPACE if quote else _CUT_ESCAPE
    return behind.fullmatch(text, match.end()) is not None
