"""A try that is killed at any of its steps, and the try after it: each export is requested once."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Forks
from killed_try import CALLS, DAY, WINDOW, FolderStore, three_exports
from support import n_exports

from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.sandbox import Sandbox

N_EXPORTS = 3
# The service has accepted an export, and the id is not stored yet: the next try requests one export more.
BEFORE_THE_ID_IS_STORED = {
    "return ChatExportClient.submit_channels",
    "call SubmittedExports.remember",
}


def worth_killing_at(steps: list[str]) -> list[tuple[str, int]]:
    """Return the first and the last step of each kind; of the trigger's, the first: their number varies."""
    counts = Counter(steps)
    lasts = [(step, n) for step, n in counts.items() if n > 1 and "Trigger" not in step]
    return [*((step, 1) for step in counts), *lasts]


@pytest.fixture
def forks(connection: Sandbox) -> Iterator[Forks]:
    """A process that forks; it starts with the connection in its environment."""
    with contextlib.closing(Forks(Path(__file__).with_name("killed_try.py"))) as forks:
        yield forks


@pytest.mark.timeout(1800)
def test_the_next_try_continues_one_that_was_killed_at_any_step(
    connection: Sandbox, forks: Forks, tmp_path: Path
) -> None:
    """With the store, an export is requested again only if its id was lost with the process."""
    output = tmp_path / "output"

    def in_a_process(folder: Path, *kill_at: str) -> int:
        folder.mkdir()
        return forks.run(output, str(folder), *kill_at)

    assert 0 == in_a_process(tmp_path / "whole"), output.read_text()[-2000:]
    points = worth_killing_at(output.read_text().partition("\nSTEPS\n")[2].splitlines())
    assert CALLS == {step.partition(" ")[2] for step, _ in points}
    requested = n_exports(connection)
    assert N_EXPORTS == requested
    for step, number in points:
        folder = tmp_path / f"{step} {number}"
        assert -signal.SIGKILL == in_a_process(folder, step, str(number)), step
        receipts = three_exports(FolderStore(folder))
        assert [*WINDOW.split(DAY)] == [Window.from_json(each["request"]["window"]) for each in receipts]
        before, requested = requested, n_exports(connection)
        assert requested - before == N_EXPORTS + (step in BEFORE_THE_ID_IS_STORED), f"killed at {step}"
