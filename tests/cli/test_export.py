"""``chatexport export`` over a real sandbox: channels and users, a window or the whole history."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import REPORT_KEYS, UBUNTU, WINDOW, Run, assert_one_sentence

from airflow_provider_chatexport.sandbox import Sandbox


def test_export_loads_a_window_of_the_service(run: Run, service: Sandbox, tmp_path: Path) -> None:
    """Submit, wait, download and load one window without Airflow."""
    ran = run("export", "--channel", UBUNTU, *WINDOW, "--lake", tmp_path / "lake", "--json")
    assert (0, "") == (ran.code, ran.err)
    assert REPORT_KEYS <= ran.json.keys()
    assert 161 == ran.json["rows"]["messages"]


def test_a_lookback_starts_the_window_earlier(run: Run, service: Sandbox, tmp_path: Path) -> None:
    """The report has the window that was exported."""
    lake = tmp_path / "lake"
    report = run("export", "--channel", UBUNTU, *WINDOW, "--lake", lake, "--lookback", "1h", "--json").json
    assert "2025-01-01T08:00:00.000000Z" == report["window"]["since"]


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


EXPORT_FAILURES: dict[str, tuple[list[str], int, str]] = {
    "a wrong key": (["--api-key", "another"], 1, "api_key"),
    "a wrong secret": (["--api-secret", "not-the-secret-of-this-sandbox-at-all"], 1, "signature"),
    "an unknown channel": (["--channel", "messaging:nobody-knows-it"], 1, "nobody-knows-it"),
    "an empty key": (["--api-key", ""], 2, "the API key is missing"),
    "an empty secret": (["--api-secret", ""], 2, "the API secret is missing"),
    "an empty address": (["--base-url", ""], 2, "write scheme and host"),
    "a malformed address": (["--base-url", "sandbox"], 2, "write scheme and host"),
    "a zero-length window": (["--until", "2025-01-01T09:00:00Z"], 2, "zero length"),
    "a reversed window": (["--until", "2024-01-01T09:00:00Z"], 2, "is reversed"),
}


@pytest.mark.parametrize("failure", EXPORT_FAILURES)
def test_an_export_that_cannot_be_made_is_one_sentence(
    failure: str, run: Run, service: Sandbox, tmp_path: Path
) -> None:
    """Nothing is half-written, and no message contains the secret."""
    arguments, code, part = EXPORT_FAILURES[failure]
    ran = run("export", "--channel", UBUNTU, *WINDOW, "--lake", tmp_path / "lake", *arguments)
    assert (code, "", 1) == (ran.code, ran.out, ran.err.count("\n")), ran.err
    assert part.lower() in ran.err.lower()
    assert service.api_secret not in ran.err
    assert "not-the-secret" not in ran.err
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_service_that_cannot_be_reached_is_one_sentence(
    run: Run, service: Sandbox, unused_port: int, tmp_path: Path
) -> None:
    """The sentence names the host, because mostly it is mistyped."""
    address = f"http://127.0.0.1:{unused_port}"
    ran = run("export", "--channel", UBUNTU, *WINDOW, "--lake", tmp_path / "lake", "--base-url", address)
    assert_one_sentence(ran, 1, f"127.0.0.1:{unused_port} cannot be reached", "check the address")


def test_a_lake_that_cannot_be_written_is_found_before_an_export_is_spent(
    run: Run, service: Sandbox, export_file: Path
) -> None:
    """Exports are limited to 60 a minute, and may take hours."""
    ran = run("export", "--channel", UBUNTU, *WINDOW, "--lake", f"{export_file}/lake")
    assert_one_sentence(ran, 1, "cannot write the lake at")
    assert [] == service.control.requests()


def test_an_export_that_takes_too_long_is_one_sentence(run: Run, start_sandbox: Any, tmp_path: Path) -> None:
    """The person sets the deadline; the sentence names the exports that go on at the service."""
    slow = start_sandbox(task_s=3600.0)
    ran = run(
        "export", "--channel", UBUNTU, *WINDOW, "--lake", tmp_path / "lake", "--wait-timeout", "0.2s",
        "--base-url", slow.url, "--api-key", slow.api_key, "--api-secret", slow.api_secret,
    )  # fmt: skip
    assert_one_sentence(ran, 1, "are not done")


@pytest.mark.parametrize("fault", ["status:429", "status:503", "slow:60"])
def test_the_deadline_of_an_export_holds_for_asking_for_it(
    fault: str, start: Callable[..., subprocess.Popen[str]], service: Sandbox, tmp_path: Path
) -> None:
    """Without a deadline, the client would ask a service that refuses or hangs again and again for minutes."""
    service.control.fault(fault, "/api/v2/chat/export_channels", method="POST", times=1000)
    lake = ("--lake", str(tmp_path / "lake"))
    process = start("export", "--channel", UBUNTU, *WINDOW, *lake, "--wait-timeout", "0.5s")
    out, err = process.communicate(timeout=60)
    assert (1, "", False) == (process.returncode, out, "Traceback" in err)
    assert "chatexport: " in err
