"""Export files to measure on, made by the sandbox from generated messages. ``exports.py WHICH`` prints a path.

WHICH: ``whole:MB``, ``plain:MB`` or ``window``. The same bytes every time; kept in ``.cache/bench`` until the sandbox's
generator changes.

A process of its own, because the peak memory of a child is at least that of the process that starts it (Linux carries
the high-water mark over exec), and the generator needs more than what is to be measured.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_provider_chatexport.core.plan import ExportFlags
from airflow_provider_chatexport.sandbox.made import FIRST_DAY_US
from airflow_provider_chatexport.sandbox.render import ExportJob, render_channels_export
from airflow_provider_chatexport.sandbox.world import World

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "bench"

# What pandas, pyarrow and DuckDB's structs stop at: an integer beyond 64 bits, a key that is a number here and an
# object there, objects without members. The plain file has none of them, so that there is something to compare with.
PEERS_STOP_AT = ("sequence", "priority")

# Measured: members and channels, then each message with its reactions.
FIXED_BYTES = 1_400_000
BYTES_PER_MESSAGE = 2_005

# Of a day with 20,000 messages. With the members, which every window brings along, this makes 2 MB.
WINDOW_SINCE = datetime.fromtimestamp(FIRST_DAY_US / 1e6, UTC) + timedelta(days=2, hours=12)
WINDOW_UNTIL = WINDOW_SINCE + timedelta(minutes=20)


def main(which: str) -> None:
    kind, _, size = which.partition(":")
    path = CACHE / f"{which.replace(':', '-')}-{_generator()}.ndjson"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for stale in CACHE.glob(f"{which.replace(':', '-')}-*.ndjson"):
            stale.unlink()
        part = path.with_suffix(".part")
        with part.open("wb") as target:
            target.writelines(_window() if kind == "window" else _export(kind, int(size)))
        part.rename(path)
    print(path)


def _export(kind: str, size_mb: int) -> Iterable[bytes]:
    n_messages = max(100, (size_mb * 1_000_000 - FIXED_BYTES) // BYTES_PER_MESSAGE)
    chunks = _rendered(n_messages)
    return chunks if kind == "whole" else map(_plain, _lines(chunks))


def _window() -> Iterable[bytes]:
    return _rendered(150_000, WINDOW_SINCE, WINDOW_UNTIL)


def _rendered(n_messages: int, since: datetime | None = None, until: datetime | None = None) -> Iterator[bytes]:
    world = World.load(messages=n_messages)
    cids = tuple(cid for cid in world.cids if not world.channel_is_deleted(cid))
    flags = ExportFlags(include_truncated_messages=True)
    return render_channels_export(world, ExportJob(cids=cids, windows=((since, until),) * len(cids), flags=flags))


def _generator() -> str:
    """A fingerprint of what the generator makes today: of a small export."""
    sample = b"".join(_rendered(300))
    return hashlib.sha256(sample + repr((PEERS_STOP_AT, FIXED_BYTES, BYTES_PER_MESSAGE)).encode()).hexdigest()[:8]


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _plain(line: bytes) -> bytes:
    def kept(fields: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in fields.items() if key not in PEERS_STOP_AT and value != {}}

    value = json.loads(line, object_hook=kept)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


if __name__ == "__main__":
    main(sys.argv[1])
