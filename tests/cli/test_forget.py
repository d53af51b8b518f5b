"""``chatexport forget-user``: what it refuses, shows and asks."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from lakes import LakeProbe, load_file, write_export

MAIN: Final = "from airflow_provider_chatexport.cli import main; main()"


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    lake = LakeProbe(str(tmp_path / "lake"))
    path = write_export(tmp_path / "one", {"m": (8, "x")}, user={"id": "ann-17", "name": "Ann Miller"})
    load_file(lake, path, 8, 10, "2026-01-02T01:00:00Z")
    return lake


def on_terminal(lake: LakeProbe, answer: str, *options: str) -> tuple[int, str, str]:
    """Run the command with a terminal as stdin and stderr; return exit code, stdout, and what the terminal shows."""
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    command = [sys.executable, "-c", MAIN, "forget-user", "ann-17", "--lake", lake.uri, *options]
    done = subprocess.run(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, check=False)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # Linux says so at the end of what the terminal shows
        pass
    os.close(ours)
    return done.returncode, done.stdout.decode(), shown.decode()


def test_on_a_terminal_it_shows_what_would_change_and_asks(lake: LakeProbe) -> None:
    code, out, shown = on_terminal(lake, "n\n")
    assert (1, "") == (code, out)
    assert "would be removed" in shown
    assert "This cannot be undone" in shown
    assert "Ann Miller" not in shown
    assert 1 == lake.value("SELECT count(*) FROM messages")
    code, out, shown = on_terminal(lake, "y\n", "--json")
    assert 0 == code
    assert out.startswith('{"removed": {')
    assert 0 == lake.value("SELECT count(*) FROM messages")


def test_with_yes_it_does_not_ask(lake: LakeProbe) -> None:
    code, out, shown = on_terminal(lake, "", "--yes")
    assert 0 == code
    assert "later loads leave the person out" in out
    assert "This cannot be undone" not in shown


def test_without_a_terminal_it_does_not_ask_and_refuses_unknown_ids(lake: LakeProbe) -> None:
    """Scripts cannot answer. An id that the lake does not know stops them."""

    def run(*arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, "-c", MAIN, "forget-user", *arguments, "--lake", lake.uri]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    code, out, err = run("ann-71")
    assert (1, "") == (code, out)
    assert "does not know this user id" in err
    assert "--even-if-unknown" in err
    assert "Traceback" not in err
    code, out, err = run("ann-17", "--dry-run")
    assert 0 == code
    assert "would be removed" in out
    assert 1 == lake.value("SELECT count(*) FROM messages")
    assert 0 == run("ann-17")[0]
    assert 0 == lake.value("SELECT count(*) FROM messages")
