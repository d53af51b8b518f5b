"""The model of a backfill: its arithmetic, what it warns of, and what was measured."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_chatexport.core.estimate import (
    Backfill,
    Estimate,
    estimate,
    memory_of_a_load,
    status_requests,
)
from airflow_provider_chatexport.errors import CallError


def planned(*, channels: int = 1, messages: int = 0, windows: int = 1, **others: Any) -> Estimate:
    return estimate(Backfill(channels=channels, messages=messages, windows=windows, **others))


A_MONTH = planned(channels=6, messages=50_295, windows=33)


@pytest.mark.parametrize(
    ("channels", "windows", "exports"), [(1, 1, 1), (25, 1, 1), (26, 1, 2), (400, 365, 16 * 365), (100_000, 24, 96_000)]
)
def test_exports_are_batches_by_windows(channels: int, windows: int, exports: int) -> None:
    """The service takes 25 channels and one window per export."""
    backfill = planned(channels=channels, windows=windows)
    assert (exports, exports / 3600) == (backfill.exports, backfill.hours)


def test_small_tasks_make_more_loads_and_half_empty_exports() -> None:
    """A task of 30 channels has two exports; four of them could have had five."""
    few, many = (planned(channels=120, channels_per_task=size) for size in (250, 30))
    assert (1, 5) == (few.loads, few.exports)
    assert (4, 8) == (many.loads, many.exports)


def test_a_load_needs_room_for_its_own_window_only() -> None:
    """More windows make more files, but each load needs less disk."""
    one, ten = (planned(messages=1_000_000, windows=windows) for windows in (1, 10))
    assert one.work_bytes == 10 * ten.work_bytes
    assert 10 * one.files_written == ten.files_written
    assert one.download_bytes == ten.download_bytes
    assert one.memory_bytes > ten.memory_bytes


def test_files_stay_few_however_many_loads_wrote_them() -> None:
    """Loads merge small files: years of hours leave a file for each month and table, and some more."""
    hours = planned(windows=3 * 8_760, window_length=timedelta(hours=1))
    assert 7 * 3 * 8_760 == hours.files_written
    assert 3 * 36 < hours.files < 200
    assert 4_000 < planned(messages=5_000_000_000, windows=365).files < 5_000


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"windows": 0}, {"messages": -1}])
def test_a_plan_without_channels_windows_or_messages_is_refused(wrong: dict[str, int]) -> None:
    """The estimate divides by the number of windows."""
    with pytest.raises(CallError, match="nothing to plan"):
        planned(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"channels_per_task": 0}, {"window_length": timedelta(0)}, {"export_time": timedelta(seconds=-1)}]
)
def test_a_plan_with_empty_tasks_or_windows_is_refused(wrong: dict[str, Any]) -> None:
    """As with windows, the estimate divides by them."""
    with pytest.raises(CallError, match="give at least one channel per task"):
        planned(**wrong)


@pytest.mark.parametrize(
    ("choice", "warning"),
    [
        ({"channels": 100_000, "windows": 24, "window_length": timedelta(hours=1)}, "runs will fall behind"),
        ({"channels": 50_000, "windows": 365}, 'window="all" takes 2,000 in all'),
        ({"channels": 50_000, "channels_per_task": 25}, "raise channels_per_task, or [core] max_map_length"),
        ({"channels": 50_000, "channels_per_task": 25}, "raise [triggerer] capacity"),
        ({"channels": 10_000}, "give the export tasks a pool"),
        ({"channels": 10_000, "channels_per_task": 10_000}, "whose receipts cross XCom"),
        ({"channels": 10_000, "windows": 600}, "24,000 records"),
        ({"messages": 20_000_000}, "121 GB of disk"),
    ],
)
def test_a_choice_that_does_not_scale_is_named(choice: dict[str, Any], warning: str) -> None:
    """Each warning says what is too much, and what to do."""
    assert 1 == sum(warning in each for each in planned(**choice).warnings)


def test_an_ordinary_backfill_has_no_warning() -> None:
    """A warning that everybody gets is one that people stop reading."""
    assert () == planned(channels=400, messages=3_000_000, windows=365).warnings


@pytest.mark.parametrize(
    ("what", "measured", "model"),
    [
        # benchmarks/README.md, "Loading": peak MB by MB of the export.
        ("memory, 3.4 MB", 229e6, memory_of_a_load(3_400_000)),
        ("memory, 290 MB", 579e6, memory_of_a_load(290_000_000)),
        ("memory, 963 MB", 755e6, memory_of_a_load(963_000_000)),
        ("memory, 2.9 GB", 770e6, memory_of_a_load(2_886_000_000)),
        # docs/scaling.md: 33 daily loads of the sandbox's chat, six channels, by id; and 60 loads on an object store.
        ("files that stay", 24, A_MONTH.files),
        ("files that loads write", 198, A_MONTH.files_written),
        ("size of a lake", 8.53e6, A_MONTH.lake_bytes),
        ("requests of 60 loads", 60 * 23.7, planned(windows=60).store_requests),
        # docs/scaling.md: 20 exports and loads of an earlier version, on a quiet machine.
        (
            "CPU seconds of 20 batches",
            53,
            3_600 * planned(channels=500, messages=4_000, channels_per_task=25).cpu_hours,
        ),
        # benchmarks/README.md, "Waiting exports": requests a minute, for the 60 exports that start in one.
        ("status requests in 1.7 minutes", 1_555 / 60, status_requests(102)),
        ("status requests in 17 minutes", 2_872 / 60, status_requests(1_020)),
        ("status requests in 2.8 hours", 4_778 / 60, status_requests(10_080)),
    ],
)
def test_the_model_is_within_twice_of_what_was_measured(what: str, measured: float, model: float) -> None:
    """People plan weeks by these figures."""
    assert 0.5 < model / measured < 2, what
