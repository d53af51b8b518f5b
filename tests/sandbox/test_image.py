"""The sandbox's image, as far as it can be checked without a container engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from airflow_stack import free_port
from sandbox_processes import running

from airflow_provider_chatexport.sandbox import SandboxControl

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "sandbox.Dockerfile").read_text().replace("\\\n", " ")
PINS = re.findall(r"^(\S+==\S+)", (ROOT / "docker" / "sandbox.txt").read_text(), re.MULTILINE)

# As in the image, where nothing else is installed.
WITH_THE_PINS_ONLY = """
import importlib.metadata, sys
installed = {pins!r} | {{"airflow-provider-chatexport"}}
others = {{
    module for module, names in importlib.metadata.packages_distributions().items()
    if installed.isdisjoint(name.lower().replace("_", "-") for name in names)
}}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in others:
            raise ModuleNotFoundError(f"not in the image: {{name}}", name=name)

sys.meta_path.insert(0, Absent())
from airflow_provider_chatexport.cli import main
main({arguments!r})
"""


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def test_the_image_has_what_the_sandbox_imports() -> None:
    """It starts under the command of the image, with the pinned packages and no others: no Airflow, no DuckDB."""
    (entry,) = instructions("ENTRYPOINT")
    program, *arguments = shlex.split(entry.strip("[]").replace(",", " "))
    assert "chatexport" == program
    pins = {pin.partition("==")[0] for pin in PINS}
    code = WITH_THE_PINS_ONLY.format(pins=pins, arguments=[*arguments, "--host", "127.0.0.1", "--port", "0"])
    with running([sys.executable, "-c", code]) as url, SandboxControl(url) as control:
        assert control.is_ready()


def test_the_image_is_built_from_what_the_repository_has() -> None:
    """The wheel needs every folder that it brings. The pins are those of everything else."""
    copied = {
        source.removeprefix("./")
        for line in instructions("COPY")
        if "--from" not in line
        for source in line.split()[:-1]
    }
    assert [] == [source for source in copied if not (ROOT / source).exists()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["packages"], *wheel["force-include"], "pyproject.toml", "hatch_build.py", "README.md"} <= copied
    constraints = (ROOT / "constraints.txt").read_text()
    assert [] == [pin for pin in PINS if f"\n{pin} " not in constraints]


@pytest.mark.long
def test_the_steps_of_the_dockerfile_make_a_sandbox(tmp_path: Path) -> None:
    """Each stage is an environment of Python, with folders in place of those of the image. pip reads from the index."""
    build, image = (re.split(r"^FROM .*$", DOCKERFILE, flags=re.MULTILINE))[1:]
    folders = {"/wheels": str(tmp_path / "wheels"), "/tmp/": f"{tmp_path}/"}
    source = tmp_path / "src"
    for copied in re.findall(r"^COPY (?!--from)(.*)$", build, re.MULTILINE):
        for each in copied.split()[:-1]:
            target = source / each
            if (ROOT / each).is_dir():
                shutil.copytree(ROOT / each, target, ignore=shutil.ignore_patterns("__pycache__", "target", "logs"))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / each, target)
    (pins, name) = re.findall(r"^COPY (docker/\S+) /tmp/(\S+)$", image, re.MULTILINE)[0]
    shutil.copy(ROOT / pins, tmp_path / name)
    for stage, text in (("build", build), ("image", image)):
        venv.create(tmp_path / stage, with_pip=True)
        (step,) = re.findall(r"^RUN (.*)$", text, re.MULTILINE)
        for folder, stand_in in folders.items():
            step = step.replace(folder, stand_in)
        step = re.sub(r"&& useradd .*", "", step)
        environment = {**os.environ, "PATH": f"{tmp_path / stage / 'bin'}:/usr/bin:/bin"}
        subprocess.run(["sh", "-c", step], cwd=source, env=environment, check=True)
    (entry,) = instructions("ENTRYPOINT")
    program, *arguments = json.loads(entry)
    port = str(free_port())
    arguments = [*arguments, "--host", "127.0.0.1", "--port", port]
    (_, *check) = json.loads(re.findall(r"CMD (\[.*\])", DOCKERFILE)[0])
    with running([str(tmp_path / "image" / "bin" / program), *arguments]):
        healthy = [sys.executable, *(each.replace("8900", port) for each in check)]
        assert 0 == subprocess.run(healthy, check=False).returncode
