"""``chatexport redact``: a sample on stdout or in a file, and the calls that cannot work."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from command_line import Run, assert_one_sentence
from export_objects import line, message, write_lines


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Return a packed export with a name and a key that identify a company."""
    path = tmp_path / "export.ndjson.gz"
    secret = message(text="the password is swordfish", user={"id": "ann-17"}, acme_order=4711)
    path.write_bytes(gzip.compress(line("message", secret) + b"\n"))
    return path


def assert_is_sample(text: str) -> None:
    """Check that a text is the export of ``packed`` with nothing of it left."""
    fields = json.loads(text)["data"]
    assert ["id", "cid", "type", "text", "user", "created_at", "updated_at", "custom_key_1"] == list(fields)
    assert not any(word in text for word in ("swordfish", "ann-17", "acme", "4711", "general"))


def test_a_sample_goes_to_stdout(run: Run, packed: Path) -> None:
    """Nothing but the sample may be there, so that head, grep and gzip can follow."""
    ran = run("redact", packed)
    assert (0, "") == (ran.code, ran.err)
    assert_is_sample(ran.out)


def test_a_sample_goes_to_a_file(run: Run, packed: Path, tmp_path: Path) -> None:
    """People look at it before they send it: the output says where it is, and how many keys were their own."""
    for option, name in (("-o", "a.ndjson"), ("--output", "b.ndjson")):
        ran = run("redact", packed, option, tmp_path / name)
        assert f"{name}; values replaced: 9, different keys of your own replaced: 1. Look at the file" in ran.out
        assert_is_sample((tmp_path / name).read_text())
    report = run("redact", packed, "-o", tmp_path / "a.ndjson", "--json").json
    size_bytes = (tmp_path / "a.ndjson").stat().st_size
    assert {"file": str(tmp_path / "a.ndjson"), "bytes_out": size_bytes, "values": 9, "custom_keys": 1} == {
        key: value for key, value in report.items() if key != "bytes_in"
    }
    assert {"a.ndjson", "b.ndjson", "export.ndjson.gz"} == {path.name for path in tmp_path.iterdir()}


def test_a_pipe_stays_a_pipe(run: Run, packed: Path, tmp_path: Path) -> None:
    """Regression: a file took the place of the pipe, and for root that of /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    both_ends = os.open(pipe, os.O_RDWR)  # so that nothing waits for the other end
    assert 0 == run("redact", packed, "-o", pipe).code
    assert pipe.is_fifo()
    assert_is_sample(os.read(both_ends, 10_000).decode())
    os.close(both_ends)
    assert {"pipe", "export.ndjson.gz"} == {path.name for path in tmp_path.iterdir()}


def test_what_is_no_export_leaves_no_file(run: Run, packed: Path, tmp_path: Path) -> None:
    """The sentence names the file and what it should be, and quotes nothing of it."""
    page = write_lines(tmp_path / "page", [b"<html>swordfish</html>"])
    cut = tmp_path / "cut.gz"
    cut.write_bytes(packed.read_bytes()[:-9])
    missing = tmp_path / "missing"
    for path, words in ((page, "not an export file"), (cut, "breaks off or is damaged"), (missing, "No such file")):
        ran = run("redact", path, "-o", tmp_path / "sample")
        assert_one_sentence(ran, 1, str(path), words)
        assert "swordfish" not in ran.err
        assert not list(tmp_path.glob("sample*"))


def test_calls_that_cannot_work_say_what_to_do(run: Run, packed: Path, tmp_path: Path) -> None:
    """The export must not be overwritten, and JSON and sample cannot both be on stdout."""
    content = packed.read_bytes()
    assert_one_sentence(run("redact", packed, "-o", packed), 2, "names the export itself", "another file")
    assert_one_sentence(run("redact", packed, "--json"), 2, "--output")
    assert_one_sentence(run("redact", packed, "-o", tmp_path / "no" / "sample"), 2, "cannot write", "can be written")
    assert content == packed.read_bytes()
