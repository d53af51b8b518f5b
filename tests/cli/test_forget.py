"""``chatexport forget-user``: what it refuses, shows and asks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from command_line import COMMAND, answer_on_a_terminal
from lakes import LakeProbe, load_file, write_export


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    lake = LakeProbe(str(tmp_path / "lake"))
    path = write_export(tmp_path / "one", {"m": (8, "x")}, user={"id": "ann-17", "name": "Ann Miller"})
    load_file(lake, path, 8, 10, "2026-01-02T01:00:00Z")
    return lake


def on_terminal(lake: LakeProbe, answer: str, *options: str) -> tuple[int, str, str]:
    return answer_on_a_terminal(["forget-user", "ann-17", "--lake", lake.uri, *options], answer)


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
        command = [*COMMAND, "forget-user", *arguments, "--lake", lake.uri]
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
