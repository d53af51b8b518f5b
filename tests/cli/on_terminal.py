"""A command as a person runs it who answers its questions."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

MAIN: Final = "from airflow_provider_chatexport.cli import main; main()"


def run_on_terminal(arguments: Sequence[str], answer: str) -> tuple[int, str, str]:
    """Run a command with a terminal as stdin and stderr; return exit code, stdout, and what the terminal shows."""
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    command = [sys.executable, "-c", MAIN, *arguments]
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
