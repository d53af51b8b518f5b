"""What importing costs, which no linter sees. ``lint-imports`` checks which module may import which."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import export_objects as made

PACKAGE = "airflow_provider_chatexport"


def test_the_command_line_loads_no_web_server_and_no_airflow() -> None:
    """``chatexport load`` is run every hour by cron jobs; its start must not pay for what it does not use."""
    code = (
        f"import sys; from {PACKAGE}.cli import cli; cli(['load', '--help'], standalone_mode=False); "
        f"print(sorted({{'airflow', 'uvicorn', 'starlette', 'pandas'}} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("[]\n"), ran.stdout


def test_a_load_imports_only_what_it_needs(tmp_path: Path) -> None:
    """A load of a small window is mostly its start. Each of these takes some 50 to 500 ms of an hourly load.

    pyarrow would import numpy, and pandas for the first list that it is given; ``cast`` imports its functions.
    """
    heavy = ("numpy", "pandas", "pyarrow.compute", "fsspec", "rich", "asyncio", "httpx")
    assert all(importlib.util.find_spec(module) for module in heavy)
    lines = [made.line("channel", made.channel()), made.line("message", made.message(attachments=[{"type": "image"}]))]
    path = made.write_lines(tmp_path / "export", lines)
    code = (
        f"import sys; from {PACKAGE}.cli import cli; cli(sys.argv[1:], standalone_mode=False); "
        f"print(sorted(set({heavy}) & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "load", str(path), "--lake", str(tmp_path / "lake")]
    # With COLUMNS, the table of rows would be broken to that width, which is Rich's work.
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.endswith("[]\n"), ran.stdout
