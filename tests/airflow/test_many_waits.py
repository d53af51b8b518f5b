"""Thousands of waits in one triggerer, over real sockets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import many_waits

N_WAITS = 1_500
MAX_DESCRIPTORS = 192


def test_thousands_of_waits_need_few_descriptors(start_sandbox) -> None:
    """Regression: each trigger kept a socket of its own, so a thousand waits ended for lack of descriptors.

    No wait may have a single failure here. Afterwards no connection is left open, and no warning is printed.
    """
    sandboxes = [start_sandbox(frozen_clock=True, task_s=60.0) for _ in range(3)]
    run = subprocess.run(
        [
            *(sys.executable, "-W", "always::ResourceWarning", many_waits.__file__),
            *(str(N_WAITS), str(MAX_DESCRIPTORS), *(sandbox.url for sandbox in sandboxes)),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(many_waits.__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    result = json.loads(run.stdout.splitlines()[-1])
    assert {"completed": N_WAITS} == result["ends"]
    assert result["most"] <= MAX_DESCRIPTORS
    assert result["after"] <= result["before"]
    assert "ResourceWarning" not in run.stderr
