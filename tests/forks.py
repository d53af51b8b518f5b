"""Runs attempts in processes of their own, each a fork of a process that has imported everything.

Tests kill dozens of processes, one at each step. Starting an interpreter and importing takes longer than the attempt
itself.
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
    """The process that forks.

    The first run starts it, with the environment of that moment.

    :param script: a script that calls ``serve``.
    :param python: the interpreter; by default this one.
    """

    def __init__(self, script: Path, python: Path | str = sys.executable) -> None:
        self._command = [str(python), str(script)]
        self._process: subprocess.Popen[str] | None = None

    def run(self, output: Path, *arguments: str) -> int:
        """Run one attempt, and return its return code: the negative signal for a killed one, as in ``subprocess``.

        :param output: a file for everything that the attempt prints, errors included.
        """
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(output), *arguments]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """Kill the process that forks."""
        if self._process is not None:
            with self._process as process:
                process.kill()


def serve(attempt: Callable[[list[str]], None]) -> None:
    """Fork for each line of arguments on stdin, and print the return code of the fork."""
    while line := sys.stdin.readline():
        output, *arguments = json.loads(line)
        child = os.fork()
        if not child:
            _run(attempt, arguments, output)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(attempt: Callable[[list[str]], None], arguments: list[str], output: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code: object = 0
    try:
        attempt(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - no exception may reach the loop of the process that forks
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
