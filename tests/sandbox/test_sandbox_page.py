"""docs/sandbox.md: every command and every block of Python on the page works."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from dataclasses import fields
from pathlib import Path

import httpx
import pytest
import yaml
from airflow_stack import free_port
from pages import commands
from sandbox_processes import running
from wheels import Installed

from airflow_provider_chatexport.sandbox import Sandbox, SandboxControl, SandboxSettings, pytest_plugin
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
    assert len(commands) == 11
    assert sandbox.control.faults() == sandbox.control.requests() == []
    assert sandbox.world.message("late") is None


@pytest.mark.parametrize("code", [block for block in blocks("python") if "my_dags" not in block])
def test_the_python_works(sandbox: Sandbox, code: str, installed: Installed, tmp_path: Path) -> None:
    """A reader copies it. ``test_pytest_plugin`` runs the test of a DAG."""
    subprocess.run([installed.python, "-c", code.replace(ADDRESS, sandbox.url)], cwd=tmp_path, check=True)


def test_the_page_has_every_setting_fault_and_fixture() -> None:
    """Readers cannot use what the page does not mention."""
    names = [field.name for field in fields(SandboxSettings)]
    names += [name for name in vars(pytest_plugin) if name.startswith("chatexport_")]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
    assert [do.value for do in Do if not re.search(rf"^\| `{do.value}[:`]", PAGE, re.MULTILINE)] == []
    assert f"`{Sandbox.api_key}`" in PAGE
    assert f"`{Sandbox.api_secret}`" in PAGE


def test_the_sandboxes_of_the_pages_start(installed: Installed) -> None:
    """The test starts them on free ports, and counts the faults that they have from the start."""
    texts = [
        each.text for each in commands("docs/sandbox.md", "docs/cli.md") if each.text.startswith("chatexport sand")
    ]
    faults = []
    for text in texts:
        command = [installed.chatexport, *shlex.split(text)[1:], "--port", "0"]
        with running(command) as url, SandboxControl(url) as control:
            faults += [fault.do for fault in control.faults()]
    assert ["status:429", "fail-task"] == faults
    assert 3 == len(texts)


def test_the_workflow_of_the_page_runs(tmp_path: Path, installed: Installed) -> None:
    """Its steps, in their order, as a runner executes them; all but the installation and Airflow's database."""
    (workflow,) = map(yaml.safe_load, blocks("yaml"))
    (job,) = workflow["jobs"].values()
    connection = json.loads(job["env"]["AIRFLOW_CONN_CHATEXPORT_DEFAULT"])
    assert (Sandbox.api_key, Sandbox.api_secret) == (connection["login"], connection["password"])
    port = free_port()
    (tmp_path / "test_client.py").write_text(CLIENT_TEST.format(url=f"http://127.0.0.1:{port}"))
    steps = [step["run"] for step in job["steps"] if "run" in step]
    skipped = [step for step in steps if step.startswith(("pip install", "airflow db"))]
    assert 2 == len(skipped)
    script = "\n".join(step for step in steps if step not in skipped).replace("8900", str(port))
    script = f"set -eo pipefail\ntrap 'kill $!' EXIT\n{script}"
    path = f"{installed.scripts}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == ran.returncode, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


CLIENT_TEST = """
from airflow_provider_chatexport.sandbox import SandboxControl

def test_client():
    with SandboxControl("{url}") as control:
        control.reset()
        assert control.requests() == []
"""
