"""Cut the part of the chat corpus that ships with the sandbox: whole days from the first on, up to a packed size.

    python scripts/cut_corpus.py INPUT OUTPUT [--max-bytes 3000000]

INPUT is a file in the corpus format (gzipped JSON lines ordered by time, see sandbox/data/README.md); OUTPUT gets as
many whole consecutive UTC days from its first day on as fit, packed so that the same input always gives the same bytes.
Prints what it kept: days, messages, messages per channel, bytes.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path


def days(path: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Each UTC day of the file with its lines, in order."""
    with gzip.open(path, "rb") as lines:
        for day, of_day in itertools.groupby(lines, key=lambda line: json.loads(line)["at"][:10]):
            yield day, list(of_day)


def packed(lines: list[bytes]) -> bytes:
    """Gzip without a name or a time in its header, so that equal lines give equal bytes."""
    return gzip.compress(b"".join(lines), compresslevel=9, mtime=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--max-bytes", type=int, default=3_000_000)
    arguments = parser.parse_args()

    kept: list[bytes] = []
    kept_days: list[str] = []
    best = b""
    for day, lines in days(arguments.input):
        candidate = packed(kept + lines)
        if len(candidate) > arguments.max_bytes:
            break
        best = candidate
        kept += lines
        kept_days.append(day)
    if not kept:
        print(f"not even the first day fits into {arguments.max_bytes} bytes; raise --max-bytes", file=sys.stderr)
        return 1

    arguments.output.write_bytes(best)
    per_channel = collections.Counter(json.loads(line)["cid"] for line in kept)
    print(f"{kept_days[0]} to {kept_days[-1]}: {len(kept_days)} days, {len(kept)} messages, {len(best)} bytes")
    for cid, n_messages in per_channel.most_common():
        print(f"{n_messages:8d}  {cid}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
