"""Reads the corpus format: JSON lines of chat, plain or gzip (``data/README.md`` describes its keys)."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, cast

import orjson

from airflow_provider_chatexport.core.plan import parse_cid
from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.errors import CallError, InputError
from airflow_provider_chatexport.sandbox.chat.timestamps import to_us

SHIPPED: Final = Path(__file__).parents[1] / "data" / "irc-messages.ndjson.gz"

_GZIP_MAGIC: Final = b"\x1f\x8b"


class CorpusLine(NamedTuple):
    """One message of a corpus; ``reply_to`` is the id of the message that it answers."""

    cid: str
    id: str
    at_us: int
    author: str
    kind: str
    text: str
    reply_to: str | None


def read_corpus(path: Path) -> Iterator[CorpusLine]:
    """Yield the lines of a corpus file in their order, without blank ones.

    :raises CallError: there is no such file, or it is a folder.
    :raises InputError: a line is not in the corpus format (the error has its number, not its text), or the file is cut
        off.
    """
    # Channels and authors recur thousands of times: one string each, instead of one a line, halves the memory.
    shared: dict[str, str] = {}
    number = 0
    try:
        with _open(path) as lines:
            for raw in lines:
                number += 1
                if raw.strip():
                    yield _line(orjson.loads(raw), shared)
    except (FileNotFoundError, IsADirectoryError):
        raise CallError(f"there is no corpus file {path}; give --data the path of a file that exists") from None
    except (ValueError, TypeError, KeyError, CallError) as problem:
        raise InputError(
            f"line {number} of {path} is not in the corpus format ({type(problem).__name__}); each line is a JSON "
            "object with cid, id, at, author, kind, text and reply_to"
        ) from None
    except (OSError, EOFError) as problem:
        raise InputError(f"the corpus file {path} cannot be read past line {number}: {problem}") from None


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as head:
        is_gzip = head.read(2) == _GZIP_MAGIC
    return cast("BinaryIO", gzip.open(path, "rb")) if is_gzip else path.open("rb")


def _line(fields: Any, shared: dict[str, str]) -> CorpusLine:
    if not isinstance(fields, dict):
        raise TypeError("not an object")
    kind = fields.get("kind", "regular")
    reply_to = fields.get("reply_to")
    texts = (fields["id"], fields["author"], kind, fields["text"], reply_to or "")
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a value is not a string")
    cid = parse_cid(fields["cid"])
    return CorpusLine(
        cid=shared.setdefault(cid, cid),
        id=fields["id"],
        at_us=to_us(parse_rfc3339(fields["at"])),
        author=shared.setdefault(fields["author"], fields["author"]),
        kind="system" if kind == "system" else "regular",
        text=fields["text"],
        reply_to=reply_to,
    )
