"""What a file is that is not an export, by its first bytes: so that an error names the cause. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_UNPACK: Final = "unpack it first"
_GIVE: Final = "give the file that an export's link leads to"


@dataclass(frozen=True, slots=True)
class ForeignFormat:
    """``what`` a file is, for a sentence, and ``remedy``: what to do with it."""

    what: str
    remedy: str


# Where a format has its mark, and what that is.
_MAGICS: Final[tuple[tuple[int, bytes, ForeignFormat], ...]] = (
    (0, b"PK\x03\x04", ForeignFormat("a zip archive", _UNPACK)),
    (0, b"PK\x05\x06", ForeignFormat("a zip archive without a file", _GIVE)),
    (257, b"ustar", ForeignFormat("a tar archive", _UNPACK)),
    (0, b"BZh", ForeignFormat("packed with bzip2", _UNPACK)),
    (0, b"\xfd7zXZ\x00", ForeignFormat("packed with xz", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", ForeignFormat("packed with zstd", _UNPACK)),
    (0, b"\x04\x22\x4d\x18", ForeignFormat("packed with lz4", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", ForeignFormat("a 7z archive", _UNPACK)),
    (0, b"Rar!\x1a\x07", ForeignFormat("a rar archive", _UNPACK)),
    (0, b"\x1f\x8b", ForeignFormat("packed with gzip twice", f"{_UNPACK}, once")),
    (0, b"PAR1", ForeignFormat("a Parquet file", _GIVE)),
    (0, b"ARROW1", ForeignFormat("an Arrow file", _GIVE)),
    (0, b"Obj\x01", ForeignFormat("an Avro file", _GIVE)),
    (0, b"ORC", ForeignFormat("an ORC file", _GIVE)),
    (8, b"DUCK", ForeignFormat("a DuckDB database, such as the catalog of a lake", f"query it, or {_GIVE}")),
    (0, b"SQLite format 3\x00", ForeignFormat("an SQLite database", _GIVE)),
    (0, b"%PDF-", ForeignFormat("a PDF document", _GIVE)),
)
# The longer marks first: that of UTF-32 begins as that of UTF-16 does.
_ENCODINGS: Final = (
    ("UTF-32", "utf-32-le", b"\xff\xfe\x00\x00"),
    ("UTF-32", "utf-32-be", b"\x00\x00\xfe\xff"),
    ("UTF-16", "utf-16-le", b"\xff\xfe"),
    ("UTF-16", "utf-16-be", b"\xfe\xff"),
)
_TEXT_START: Final = re.compile(r'\ufeff?\s*[{\["<]')
_HTML: Final = re.compile(rb"<(?:!doctype\s+html|html|head|body|script|title)\b", re.IGNORECASE)
_ERROR_PAGE: Final = "an error or a login page may have come in the place of the export: fetch it again"
# A line of names, with a mark between each and the next.
_TABLE_HEAD: Final = re.compile(rb'"?[\w.$-]+"?(?:[,;\t]"?[\w.$-]*"?)+\r?(?:\n|\Z)')


def foreign_format(start: bytes) -> ForeignFormat | None:
    """Return what a file is that begins with these bytes; None if it may be an export.

    :param start: the first bytes as they stand, unpacked if the file is gzip; 300 or more if it has them.
    """
    is_binary = b"\x00" in start
    for offset, magic, found in _MAGICS:
        # Within a line of an export, such letters may be text. No text in UTF-8 has a zero byte.
        if start.startswith(magic, offset) and (is_binary or not offset):
            return found
    for name, codec, mark in _ENCODINGS:
        # The zero bytes next to the characters of ASCII say it too. Without one, such a mark is a damaged line; and one
        # zero byte without a mark is a damaged byte.
        is_marked = is_binary and start.startswith(mark)
        if is_marked or (start[:8].count(0) > 1 and _TEXT_START.match(start.decode(codec, "replace"))):
            return ForeignFormat(f"text in {name}", "save it as UTF-8 first")
    text = start.lstrip()
    if _HTML.match(text):
        return ForeignFormat("an HTML page", _ERROR_PAGE)
    if text.startswith(b"<"):
        return ForeignFormat("an XML document", _ERROR_PAGE)
    return None


def foreign_text(start: bytes) -> ForeignFormat | None:
    """Return what a text without a JSON object in its first lines is; None if that is not known."""
    if _TABLE_HEAD.match(start.lstrip()):
        return ForeignFormat("CSV or a similar table", "the loader reads exports as JSON: export with the format json")
    return None
