"""The sandbox's image, as far as it can be checked without a container engine."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

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
