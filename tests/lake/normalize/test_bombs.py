"""Files made to hurt: each ends in a reject or a sentence, in a process that stays within its memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from export_objects import channel, encoded, line, message

from airflow_provider_chatexport.lake.normalize.output import MAX_NOTES

MEGABYTE = 1024 * 1024
MAX_RSS_KB = 1_000_000
# The process prints how much memory it had at most, whatever becomes of the load. VmHWM belongs to the program;
# getrusage's ru_maxrss survives exec, so it would report the size of the test runner that forked the process.
CODE = """
import sys
from pathlib import Path
from airflow_provider_chatexport.cli import main
try:
    main(sys.argv[1:])
finally:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(status["VmHWM"].split()[0], file=sys.stderr)
"""
GOOD = line("message", message("good"))


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    errors: str
    max_rss_kb: int

    @property
    def report(self) -> Any:
        return json.loads(self.out)


def load(path: Path, *arguments: str) -> Ended:
    command = [sys.executable, "-c", CODE, "load", str(path), "--lake", str(path.parent / "lake"), "--json", *arguments]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    *errors, max_rss_kb = ran.stderr.splitlines()
    return Ended(ran.returncode, ran.stdout, "\n".join(errors), int(max_rss_kb))


def packed(path: Path, parts: Iterable[bytes]) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for part in parts:
            stream.write(part)
    return path


def endless_line(n_megabytes: int) -> Iterator[bytes]:
    yield GOOD + b'\n{"type":"message","data":{"text":"'
    for _ in range(n_megabytes):
        yield b"x" * MEGABYTE
    yield b'"}}\n' + line("message", message("last")) + b"\n"


def endless_value(n_megabytes: int) -> Iterator[bytes]:
    element = encoded([{"channel": channel(), "messages": [message("good"), "@", message("last")]}])
    before, after = element.split(b'"@"')
    yield before + b'{"text":"'
    for _ in range(n_megabytes):
        yield b'\\"[' * (MEGABYTE // 3)
    yield b'"}' + after


def test_a_packed_file_that_expands_without_end_is_refused(tmp_path: Path) -> None:
    """A few megabytes that unpack to more than any disk has: refused before the disk is full."""
    ended = load(packed(tmp_path / "export", [GOOD, b"\n", *[b" " * MEGABYTE] * 1100]))
    assert (1, True) == (ended.code, "unpacks to more than 1073741824 bytes; nothing was loaded" in ended.errors)
    assert ended.max_rss_kb < MAX_RSS_KB


def test_keys_with_null_in_very_many_messages_do_not_fill_the_memory(tmp_path: Path) -> None:
    """A STRUCT has no difference between null and absent, so it is noted which messages have nulls: up to so many."""
    before, after = line("message", message("@", own=None)).split(b"@", 1)
    with (path := tmp_path / "export").open("wb") as export:
        export.writelines(b"%b%d%b\n" % (before, number, after.replace(b"@", b"")) for number in range(MAX_NOTES + 1))
    ended = load(path)
    assert (0, MAX_NOTES + 1) == (ended.code, ended.report["rows"]["messages"])
    assert ended.max_rss_kb < MAX_RSS_KB
    with duckdb.connect(str(tmp_path / "lake" / "catalog.duckdb"), read_only=True) as catalog:
        found = catalog.sql(
            "SELECT count(DISTINCT id), count(*) FROM messages WHERE custom = '{\"own\":null}'"
        ).fetchall()
    assert [(MAX_NOTES + 1, MAX_NOTES + 1)] == found


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_line_without_end_is_one_reject(is_packed: bool, tmp_path: Path) -> None:
    """A line of a gigabyte is never held; the lines around it are rows."""
    path = tmp_path / "export"
    if is_packed:
        packed(path, endless_line(900))
    else:
        with path.open("wb") as stream:
            stream.writelines(endless_line(300))
    ended = load(path)
    assert 0 == ended.code, ended.errors
    assert (2, 1, 3) == (ended.report["rows"]["messages"], ended.report["rejected"], ended.report["lines"])
    assert ended.max_rss_kb < MAX_RSS_KB


def test_a_value_without_end_in_an_array_is_one_reject(tmp_path: Path) -> None:
    """The array is read on behind it; what is full of brackets and quotes does not lead astray."""
    ended = load(packed(tmp_path / "export", endless_value(300)))
    assert (0, 2, 1) == (ended.code, ended.report["rows"]["messages"], ended.report["rejected"])
    assert {"channel": 1, "message": 3} == ended.report["entities"]
    assert ended.max_rss_kb < MAX_RSS_KB


def test_a_hundred_thousand_keys_on_a_line_are_kept(tmp_path: Path) -> None:
    """Every one of them is a custom field of its message."""
    path = tmp_path / "export"
    keys = {f"key {number}": number for number in range(100_000)}
    path.write_bytes(GOOD + b"\n" + line("message", message("many", **keys)) + b"\n")
    ended = load(path, "--promote", "messages.key 77=BIGINT")
    assert (0, 2, 0) == (ended.code, ended.report["rows"]["messages"], ended.report["rejected"])
    assert ended.max_rss_kb < MAX_RSS_KB


def test_many_files_worth_of_nesting_are_rejects(tmp_path: Path) -> None:
    """Deep values by the thousand, in lines and in arrays."""
    deep = b'{"a":' * 5000 + b"1" + b"}" * 5000
    path = tmp_path / "export"
    path.write_bytes(b"\n".join([GOOD, *[line("message", message(own="@")).replace(b'"@"', deep)] * 200]))
    ended = load(path, "--max-rejected", "100%")
    assert (0, 1, 200) == (ended.code, ended.report["rows"]["messages"], ended.report["rejected"])
    assert ended.max_rss_kb < MAX_RSS_KB
