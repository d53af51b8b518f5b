"""Estimates of a backfill: the arithmetic. A test of real exports checks the figures."""

from __future__ import annotations

import pytest

from airflow_provider_chatexport.core.estimate import estimate
from airflow_provider_chatexport.errors import CallError


@pytest.mark.parametrize(
    ("channels", "windows", "exports"), [(1, 1, 1), (25, 1, 1), (26, 1, 2), (400, 365, 16 * 365), (100_000, 24, 96_000)]
)
def test_exports_are_batches_by_windows(channels: int, windows: int, exports: int) -> None:
    """The service takes 25 channels and one window per export."""
    backfill = estimate(channels=channels, messages=0, windows=windows)
    assert (exports, exports / 3600) == (backfill.exports, backfill.hours)


def test_a_load_needs_room_for_its_own_window_only() -> None:
    """More windows make more files, but each load needs less disk."""
    one, ten = (estimate(channels=1, messages=1_000_000, windows=windows) for windows in (1, 10))
    assert one.work_bytes == 10 * ten.work_bytes
    assert 10 * one.files == ten.files
    assert one.download_bytes == ten.download_bytes


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"windows": 0}, {"messages": -1}])
def test_a_plan_without_channels_windows_or_messages_is_refused(wrong: dict[str, int]) -> None:
    """The estimate divides by the number of windows."""
    with pytest.raises(CallError, match="nothing to plan"):
        estimate(**{"channels": 1, "messages": 1, "windows": 1, **wrong})


@pytest.mark.parametrize(("windows", "files"), [(1, 7), (15, 105), (16, 112), (365, 145), (3 * 365, 217)])
def test_old_windows_share_a_file_per_month(windows: int, files: int) -> None:
    """Regression: the plan of three years said 7,665 files, and loads merge them."""
    assert files == estimate(channels=1, messages=1, windows=windows).files
