"""A disk that fills up at any step: one clear error, the lake as it was, and the next run succeeds."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lakes import LakeProbe, at, load_file, write_export

from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store

pytestmark = pytest.mark.slow

EXPORTED = "2026-01-02T03:00:00Z"
# Limits the size of a file, which the system enforces for every library alike: the write fails as on a full disk.
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from airflow_provider_chatexport.cli import main
main(sys.argv[2:])
"""


def run(size_bytes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITED, str(size_bytes), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    lake = LakeProbe(str(tmp_path / "lake"))
    load_file(lake, write_export(tmp_path / "one", {"a": (8, "a1"), "b": (9, "b1")}), 8, 10, "2026-01-02T01:00:00Z")
    load_file(
        lake, write_export(tmp_path / "two", {"c": (10, "c1")}), 9, 12, "2026-01-02T02:00:00Z", accept_shrink=True
    )
    return lake


# What is written grows from the sifted lines over data files and the record to the catalog.
@pytest.mark.parametrize("size_bytes", [200, 2_000, 6_000, 400_000])
@pytest.mark.parametrize("command", ["load", "compact", "forget-user"])
def test_nothing_half_done_is_left(lake: LakeProbe, tmp_path: Path, command: str, size_bytes: int) -> None:
    """Whatever could not be written, views show all of before or all of after."""
    newer = write_export(tmp_path / "three", {f"n{number}": (8, "x" * 40) for number in range(50)})
    before, after = {"a": "a1", "c": "c1"}, {f"n{number}": "x" * 40 for number in range(50)}
    window = ("--since", at(8), "--until", at(12), "--exported-at", EXPORTED)
    arguments = {"load": ("load", str(newer), *window), "compact": ("compact",), "forget-user": ("forget-user", "u1")}[
        command
    ]
    after = {"load": after, "compact": before, "forget-user": {}}[command]
    done = run(size_bytes, *arguments, "--lake", lake.uri)
    assert 1 == done.returncode, done
    # A load that was committed warns of messages that vanished, before its catalog cannot be written.
    *warnings, sentence = done.stderr.splitlines()
    assert all("vanished" in each for each in warnings), done.stderr
    assert sentence.startswith("chatexport: ")
    assert "Traceback" not in done.stderr
    assert lake.texts() in (before, after)
    again = run(2**40, *arguments, "--lake", lake.uri)
    assert 0 == again.returncode, again.stderr
    assert after == lake.texts()
    lake.assert_tidy()
    findings = verify(open_store(lake.uri), now=datetime.now(UTC)).findings
    assert [] == [each for each in findings if each.is_fault and each.kind != "gap"]


@pytest.mark.parametrize("write", ["replace", "put_new"])
def test_half_an_object_does_not_take_the_room_of_the_next(tmp_path: Path, write: str) -> None:
    """A temporary file that does not fit goes at once, and not with the next clean-up."""
    code = LIMITED.split("from airflow", maxsplit=1)[0] + (
        "from airflow_provider_chatexport.errors import LakeError\n"
        "from airflow_provider_chatexport.lake.storage.address import open_store\n"
        "try:\n"
        f"    open_store(sys.argv[2]).{write}('_loads/a.json', b'x' * 100_000)\n"
        "except LakeError as error:\n"
        "    print(error.message)\n"
    )
    command = [sys.executable, "-c", code, "4096", str(tmp_path / "lake")]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert output.startswith("cannot write the lake at ")
    assert [] == [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
