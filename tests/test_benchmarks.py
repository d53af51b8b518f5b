"""The benchmarks, made small: they run seldom, and would be found broken only then. Speeds are not looked at."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import costs
import history
import pytest
import reading

pytestmark = pytest.mark.slow


def test_the_lake_that_reading_is_measured_on_has_the_rows_that_plain_copy_wrote(tmp_path: Path) -> None:
    """Each question is asked of both, and answers that differ end the measurement."""
    export = costs.export_file(tmp_path, datetime(2025, 1, 1, tzinfo=UTC), "messaging:c0", 50)
    history.main(export, 60, 5_000, tmp_path)
    answers = reading.ask(tmp_path, 1)
    assert list(reading.QUESTIONS) == [each.question for each in answers]
    assert all(each.rows for each in answers)
    assert {"ours", "plain"} == {name for name, mb in reading.sizes_mb(tmp_path).items() if mb}


def test_a_lake_of_many_loads_is_loaded_into_opened_and_compacted(tmp_path: Path) -> None:
    """What a lake's age costs, of a young one."""
    assert 3 == costs.cost(tmp_path, 3).loads
    (days := tmp_path / "days").mkdir()
    assert all(per_s > 0 for per_s in costs.compaction(days, n_days=1, n_messages=20))
