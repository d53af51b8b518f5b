"""What tests of the command line share: how a command ended, what an error looks like, and a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-c", "import sys; from airflow_provider_chatexport.cli import main; main(sys.argv[1:])"]
CHATEXPORT = str(Path(sys.executable).with_name("chatexport"))
UBUNTU = "livestream:ubuntu"
WINDOW = ["--since", "2025-01-01T09:00:00Z", "--until", "2025-01-01T10:00:00Z"]
REPORT_KEYS = {
    "load_id", "window", "lines", "rows", "rejected", "out_of_window", "other_entities", "duplicates", "entities",
    "files", "bytes_in", "seconds",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert 1 == self.out.count("\n"), "one JSON object on one line, and nothing else"
        return json.loads(self.out)


Run = Callable[..., Ran]


def assert_one_sentence(ran: Ran, code: int, *parts: str) -> None:
    """Check that an error is one line on stderr that contains these parts, and that stdout is empty."""
    assert (code, "", 1) == (ran.code, ran.out, ran.err.count("\n")), ran.err
    assert ran.err.startswith("chatexport: ")
    for part in parts:
        assert part in ran.err
    assert "Traceback" not in ran.err
    assert "error inside" not in ran.err


def on_a_terminal(*arguments: str, columns: int, stream: str = "stderr", **environment: str) -> str:
    """Run the command line, and return everything that it writes to a terminal of this width on one stream."""
    ours, theirs = pty.openpty()
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs}
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": "24", **environment},
        **streams,
    )
    os.close(theirs)
    shown = _all_shown(ours)
    assert process.wait(timeout=60) == 0
    return shown


def answer_on_a_terminal(arguments: Sequence[str], answer: str) -> tuple[int, str, str]:
    """Run a command whose stdin and stderr are a terminal, and type an answer to what it asks.

    Return exit code, stdout, and what the terminal shows.
    """
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    done = subprocess.run([*COMMAND, *arguments], stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, check=False)
    os.close(theirs)
    return done.returncode, done.stdout.decode(), _all_shown(ours)


def _all_shown(terminal: int) -> str:
    """Read what a terminal shows until every program has closed its other end, and close it."""
    shown = b""
    try:
        while piece := os.read(terminal, 65536):
            shown += piece
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(terminal)
    return shown.decode()
