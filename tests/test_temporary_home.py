"""The folder of a run with many processes: nothing of it is left, whatever ends the script."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from temporary_home import temporary_home

SCRIPTS = Path(__file__).parents[1] / "scripts"
# A script with a process that ignores SIGINT and has a session of its own, as a component of Airflow may.
SCRIPT = """
import signal, subprocess, sys, time
from temporary_home import temporary_home
with temporary_home("chatexport-test-") as home:
    child = subprocess.Popen(
        [sys.executable, "-c", "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(60)"],
        cwd=home, start_new_session=True,
    )
    print(home, child.pid, flush=True)
    time.sleep(60)
"""


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        pass


@pytest.mark.timeout(60)
def test_a_script_that_is_killed_leaves_no_process_and_no_folder() -> None:
    """People stop an end-to-end run in any way, and do not look for its servers."""
    script = subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=SCRIPTS, stdout=subprocess.PIPE, text=True)
    with script:
        assert script.stdout
        folder, child = script.stdout.readline().split()
        script.kill()
    wait_until(lambda: not Path(folder).exists())
    assert not psutil.pid_exists(int(child)) or psutil.Process(int(child)).status() == psutil.STATUS_ZOMBIE


def test_the_folder_goes_with_its_context() -> None:
    """Other processes are left alone: only those that work in the folder end."""
    elsewhere = subprocess.Popen(["sleep", "60"])
    with temporary_home("chatexport-test-") as home:
        inside = subprocess.Popen(["sleep", "60"], cwd=home)
    assert inside.wait(timeout=30) == -signal.SIGINT
    assert elsewhere.poll() is None
    assert not home.exists()
    elsewhere.kill()
    elsewhere.wait()
