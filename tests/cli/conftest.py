"""The console script, run in this process or in one of its own, and a service that it finds."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import CHATEXPORT, Ran, Run
from export_objects import channel, line, message, write_lines

from airflow_provider_chatexport.cli import main
from airflow_provider_chatexport.sandbox import Sandbox


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the console script within this process: a new interpreter for each call would cost a second."""

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        code: Any = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
        out, err = capfd.readouterr()
        return Ran(code or 0, out, err)

    return run


@pytest.fixture
def service(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A sandbox that the variables of the official SDKs lead to."""
    monkeypatch.setenv("STREAM_API_KEY", sandbox.api_key)
    monkeypatch.setenv("STREAM_API_SECRET", sandbox.api_secret)
    monkeypatch.setenv("STREAM_BASE_URL", sandbox.url)
    return sandbox


def _let_ctrl_c_through() -> None:
    """A suite that a shell runs in the background ignores SIGINT, and so would every process that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes, by default of the console script, that end with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, program: Sequence[str] = (CHATEXPORT,), **options: Any) -> subprocess.Popen[str]:
        command = [*program, *arguments]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_let_ctrl_c_through,  # noqa: PLW1509 - it takes no lock
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def export_file(tmp_path: Path) -> Path:
    """Write an export of one message."""
    return _write_one_message(tmp_path)


@pytest.fixture(scope="module")
def small_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Load one message into a lake, for tests that only read it."""
    folder = tmp_path_factory.mktemp("small")
    main(["load", str(_write_one_message(folder)), "--lake", str(folder / "lake")])
    return folder / "lake"


def _write_one_message(folder: Path) -> Path:
    return write_lines(folder / "export.ndjson", [line("channel", channel()), line("message", message())])
