"""A try that is killed at any of its steps, and the one after it: each export is asked for once."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from forks import Forks
from killed_try import FolderStore
from test_export_operators import exporting, run
from test_reattach import n_exports

from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.sandbox.server import Sandbox

DAY = timedelta(days=1)
N_EXPORTS = 3
WINDOW = Window.parse("2025-01-01", "2025-01-04")
# The service has accepted an export, and nobody has written down which one: the next try asks for one more.
NOT_YET_KNOWN = {
    "return ChatExportClient.submit_channels",
    "call KnownExports.remember",
}


def three_exports(store: Any) -> Any:
    """Three days, an export for each."""
    days = {"since": WINDOW.since, "until": WINDOW.until, "max_window": DAY}
    return run(exporting(deferrable=True, **days), {"task_state_store": store})


def worth_killing_at(steps: list[str]) -> list[tuple[str, int]]:
    """The first and the last step of each kind; of the trigger, which looks as often as it takes, the first."""
    counts = Counter(steps)
    lasts = [(step, n) for step, n in counts.items() if n > 1 and "Trigger" not in step]
    return [*((step, 1) for step in counts), *lasts]


@pytest.fixture
def forks(connection: Sandbox) -> Iterator[Forks]:
    """Started with the connection in their environment."""
    with contextlib.closing(Forks(Path(__file__).with_name("killed_try.py"))) as forks:
        yield forks


@pytest.mark.timeout(600)
def test_a_try_killed_at_any_step_is_taken_up_by_the_next(connection: Sandbox, forks: Forks, tmp_path: Path) -> None:
    """With the store, an export is asked for once more only where its id was lost with the process."""
    output = tmp_path / "output"

    def in_a_process(folder: Path, *kill_at: str) -> int:
        folder.mkdir()
        return forks.run(output, str(folder), *kill_at)

    assert 0 == in_a_process(tmp_path / "whole"), output.read_text()[-2000:]
    points = worth_killing_at(output.read_text().partition("\nSTEPS\n")[2].splitlines())
    assert len(points) > 12
    asked = n_exports(connection)
    assert N_EXPORTS == asked
    for step, number in points:
        folder = tmp_path / f"{step} {number}"
        assert -signal.SIGKILL == in_a_process(folder, step, str(number)), step
        returned = three_exports(FolderStore(folder))
        assert [*WINDOW.split(DAY)] == [Window.from_json(each["request"]["window"]) for each in returned]
        before, asked = asked, n_exports(connection)
        assert asked - before == N_EXPORTS + (step in NOT_YET_KNOWN), f"killed at {step}"
