"""The package as users have it: a wheel, in an environment that knows nothing of the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Programs of the pinned packages. Their own scripts start the Python of the checkout.
_PROGRAMS = {"airflow": "airflow.__main__:main", "pytest": "pytest:console_main"}


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel.

    :param scripts: the folder of its programs, for ``PATH``.
    """

    scripts: Path

    @property
    def python(self) -> str:
        return str(self.scripts / "python")

    @property
    def chatexport(self) -> str:
        return str(self.scripts / "chatexport")


def build(folder: Path) -> Path:
    """Build the wheel in a folder, which takes a second, and return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def install(wheel: Path, folder: Path) -> Installed:
    """Make an environment with the wheel, and with the pinned packages as they are in this one.

    The checkout is installed there as well, by a file that Python reads only in the folder of the environment itself.
    """
    venv.EnvBuilder(symlinks=True).create(folder)
    installed = Installed(folder / "bin")
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "pinned.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python"]
    subprocess.run([*command, installed.python, wheel], check=True)
    for name, entry_point in _PROGRAMS.items():
        module, _, function = entry_point.partition(":")
        program = installed.scripts / name
        program.write_text(
            f"#!{installed.python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        )
        program.chmod(0o755)
    return installed
