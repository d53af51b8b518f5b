"""Attempts in processes of their own, each a fork of one that has imported all it needs.

Tests kill dozens of processes, one at each of its steps. An interpreter that starts and imports takes longer than what
is to be killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


class Forks:
    """The process that forks, from a script that calls ``serve``; started by the first run, with the environment of
    then."""

    def __init__(self, script: Path) -> None:
        self._command = [sys.executable, str(script)]
        self._process: subprocess.Popen[str] | None = None

    def run(self, output: Path, *arguments: str) -> int:
        """The return code of one attempt; as with ``subprocess``, that of a killed one is the signal's, negative.

        :param output: what it prints, errors as well.
        """
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(output), *arguments]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        if self._process is not None:
            with self._process as process:
                process.kill()


def serve(attempt: Callable[[list[str]], None]) -> None:
    """Forks for each line of arguments that comes in."""
    while line := sys.stdin.readline():
        output, *arguments = json.loads(line)
        child = os.fork()
        if not child:
            _run(attempt, arguments, output)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(attempt: Callable[[list[str]], None], arguments: list[str], output: str) -> None:
    told = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(told, 1)
    os.dup2(told, 2)
    code: object = 0
    try:
        attempt(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - whatever it is, it must not get into the loop of the one that forks
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
