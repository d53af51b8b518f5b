"""A disk that fills up at any step: one clear error, the lake as it was, and the next run succeeds."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from forks import Forks
from lakes import LakeProbe, at, load_file, write_export

from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store

EXPORTED = "2026-01-02T03:00:00Z"
LIMITED = Path(__file__).with_name("limited.py")


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with contextlib.closing(Forks(LIMITED)) as forks:
        yield forks


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    lake = LakeProbe(str(tmp_path / "lake"))
    load_file(lake, write_export(tmp_path / "one", {"a": (8, "a1"), "b": (9, "b1")}), 8, 10, "2026-01-02T01:00:00Z")
    load_file(
        lake, write_export(tmp_path / "two", {"c": (10, "c1")}), 9, 12, "2026-01-02T02:00:00Z", accept_shrink=True
    )
    return lake


# What is written grows from the sifted lines over data files and the record to the catalog. The command's output is
# limited, too.
@pytest.mark.parametrize("size_bytes", [800, 2_000, 6_000, 400_000])
@pytest.mark.parametrize("command", ["load", "compact", "forget-user"])
def test_nothing_half_done_is_left(
    lake: LakeProbe, tmp_path: Path, forks: Forks, command: str, size_bytes: int
) -> None:
    """Whatever could not be written, views show all of before or all of after."""
    newer = write_export(tmp_path / "three", {f"n{number}": (8, "x" * 40) for number in range(50)})
    before, after = {"a": "a1", "c": "c1"}, {f"n{number}": "x" * 40 for number in range(50)}
    window = ("--since", at(8), "--until", at(12), "--exported-at", EXPORTED)
    arguments = {"load": ("load", str(newer), *window), "compact": ("compact",), "forget-user": ("forget-user", "u1")}[
        command
    ]
    after = {"load": after, "compact": before, "forget-user": {}}[command]
    output = tmp_path / "output"
    assert 1 == forks.run(output, str(size_bytes), *arguments, "--lake", lake.uri), output.read_text()
    # A load that was committed warns of messages that vanished, before its catalog cannot be written.
    *warnings, sentence = output.read_text().splitlines()
    assert all("vanished" in each for each in warnings), warnings
    assert sentence.startswith("chatexport: ")
    assert "room" in sentence or "space" in sentence
    assert lake.texts() in (before, after)
    assert 0 == forks.run(output, str(2**40), *arguments, "--lake", lake.uri), output.read_text()
    assert after == lake.texts()
    lake.assert_tidy()
    findings = verify(open_store(lake.uri), now=datetime.now(UTC)).findings
    assert [] == [each for each in findings if each.is_fault and each.kind != "gap"]


@pytest.mark.parametrize("write", ["replace", "put_new"])
def test_half_an_object_does_not_take_the_room_of_the_next(tmp_path: Path, write: str) -> None:
    """A temporary file that does not fit goes at once, and not with the next clean-up."""
    code = (
        "import resource, signal, sys\n"
        "from airflow_provider_chatexport.errors import LakeError\n"
        "from airflow_provider_chatexport.lake.storage.address import open_store\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        f"    open_store(sys.argv[1]).{write}('_loads/a.json', b'x' * 100_000)\n"
        "except LakeError as error:\n"
        "    print(error.message)\n"
    )
    command = [sys.executable, "-B", "-c", code, str(tmp_path / "lake")]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert output.startswith("cannot write the lake at ")
    assert [] == [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
