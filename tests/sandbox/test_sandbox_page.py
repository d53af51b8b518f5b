"""docs/sandbox.md: every command and every block of Python on the page works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import httpx
import pytest

from airflow_provider_chatexport.sandbox import Sandbox, SandboxSettings, pytest_plugin
from airflow_provider_chatexport.sandbox.web.faults import Do

PAGE = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
ADDRESS = "http://127.0.0.1:8900"


def blocks(language: str) -> list[str]:
    """Return the page's code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_curl_commands_work(sandbox: Sandbox) -> None:
    """The test makes the same calls without curl, which is not installed everywhere."""
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("curl ")]
    for command in commands:
        method, content, url = "GET", None, ""
        words = iter(shlex.split(command)[1:])
        for word in words:
            match word:
                case "-X":
                    method = next(words)
                case "-d":
                    method, content = "POST", next(words)
                case _:
                    url = word
        reply = httpx.request(method, url.replace(ADDRESS, sandbox.url), content=content)
        assert reply.status_code == 200, command
    assert len(commands) == 10
    assert sandbox.control.faults() == sandbox.control.requests() == []
    assert sandbox.world.message("late") is None


@pytest.mark.parametrize("code", [block for block in blocks("python") if "my_dags" not in block])
def test_the_python_works(sandbox: Sandbox, code: str) -> None:
    """A reader copies it. ``test_pytest_plugin`` runs the test of a DAG."""
    subprocess.run([sys.executable, "-c", code.replace(ADDRESS, sandbox.url)], check=True)


def test_the_page_has_every_setting_fault_and_fixture() -> None:
    """Readers cannot use what the page does not mention."""
    names = [field.name for field in fields(SandboxSettings)]
    names += [name for name in vars(pytest_plugin) if name.startswith("chatexport_")]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
    assert [do.value for do in Do if not re.search(rf"^\| `{do.value}[:`]", PAGE, re.MULTILINE)] == []
    assert f"`{Sandbox.api_key}`" in PAGE
    assert f"`{Sandbox.api_secret}`" in PAGE
