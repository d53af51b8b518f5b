"""What importing costs, which no linter sees. ``lint-imports`` checks which module may import which."""

from __future__ import annotations

import importlib.util
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


def test_a_load_imports_no_pandas(tmp_path: Path) -> None:
    """Where it is installed, pyarrow would import it for the first list that it is given: half a second an hour."""
    assert importlib.util.find_spec("pandas") is not None
    lines = [made.line("channel", made.channel()), made.line("message", made.message())]
    path = made.write_lines(tmp_path / "export", lines)
    code = (
        f"import sys; from {PACKAGE}.cli import cli; cli(sys.argv[1:], standalone_mode=False); "
        "print('pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "load", str(path), "--lake", str(tmp_path / "lake")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("False\n"), ran.stdout
