"""The progress of long work, as lines of a log."""

from __future__ import annotations

import pytest

from airflow_provider_chatexport.core.progress import CONVERT, DOWNLOAD, WRITE, LoggedProgress, format_amount


@pytest.mark.parametrize(
    ("text", "stage", "done", "total", "per_second"),
    [
        ("999 bytes", DOWNLOAD, 999, None, None),
        ("1.0 kB of 1.0 MB, 2.5 MB/s", DOWNLOAD, 1000, 1_000_000, 2_500_000.0),
        ("1.2 GB of 3,000.0 TB", DOWNLOAD, 1_200_000_000, 3_000_000_000_000_000, None),
        ("1,000 of 2,000 rows, 500 rows/s", WRITE, 1000, 2000, 500.0),
        ("", CONVERT, 5, 7, 1.0),
    ],
)
def test_amounts_have_units(text: str, stage: str, done: int, total: int | None, per_second: float | None) -> None:
    """Bytes get a prefix such as kB; everything else is counted."""
    assert text == format_amount(stage, done, total, per_second)


def test_a_long_stage_is_logged_every_ten_seconds_and_at_its_end() -> None:
    """A log of hours must stay short, and a stage that failed must not be logged as done."""
    lines: list[str] = []
    clock = iter((0, 9, 10, 10, 19, 20, 20, 21))
    with pytest.raises(ValueError, match="broken"), LoggedProgress(lines.append, lambda: next(clock)) as progress:  # noqa: PT012
        for n_rows in (0, 90, 100, 190):
            progress.stage(WRITE, n_rows, 200)
        progress.stage(CONVERT, 0, None)
        raise ValueError("broken")
    assert ["write: 100 of 200 rows, 10 rows/s, 10.0 s", "write is done: 190 of 200 rows, 9 rows/s, 20.0 s"] == lines
