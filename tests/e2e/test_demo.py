"""`make demo`: the first command of the README."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from airflow_stack import ROOT


@pytest.mark.long
def test_the_demo_runs_and_may_be_repeated(tmp_path: Path) -> None:
    """It exports three days with Airflow. The second run exports the same and changes no row."""
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--home", str(tmp_path / "demo")]
    first, second = (subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(2))
    assert 3 == first.count("export success, load success")
    assert "livestream:ubuntu" in first.partition("most active people")[0]
    assert "loading a window again changes no row" not in first
    (sentence,) = [row for row in second.splitlines() if "loading a window again changes no row" in row]
    before, after = (int(word) for word in sentence.split() if word.isdigit())
    assert before == after > 0
