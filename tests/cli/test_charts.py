"""The layout of the coverage picture. A person has looked at pictures of 1, 5, 50 and 500 channels."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from matplotlib.dates import date2num

from airflow_provider_chatexport.cli.charts import MAX_LABELS, layout
from airflow_provider_chatexport.lake.commits.coverage import BEGINNING, CoverageRun

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def run(since: int, until: int, n_entries: int) -> CoverageRun:
    return CoverageRun(since=DAY + timedelta(days=since), until=DAY + timedelta(days=until), n_entries=n_entries)


def test_bars_show_how_often_each_run_was_loaded() -> None:
    """Days are the unit of width; once, again, and missing are three colours."""
    (row,) = layout({"a:1": [run(0, 1, 1), run(1, 3, 0), run(3, 4, 2)]}).rows
    first = date2num(DAY)
    assert ((first, 1, "loaded"), (first + 1, 2, "missing"), (first + 3, 1, "loaded again")) == row.bars


def test_channels_with_gaps_stand_on_top() -> None:
    """The longest gap comes first, because gaps are what people look for."""
    runs = {
        "a:whole": [run(0, 9, 1)],
        "b:short": [run(0, 1, 1), run(1, 2, 0), run(2, 9, 1)],
        "c:long": [run(0, 1, 1), run(1, 8, 0), run(8, 9, 1)],
    }
    picture = layout(runs)
    assert ["c:long", "b:short", "a:whole"] == [row.label for row in picture.rows]
    assert (2, 2) == (picture.n_gaps, picture.n_with_gaps)


def test_hundreds_of_channels_have_labels_that_do_not_overlap() -> None:
    """All channels are drawn, and as many are named as there is room for."""
    picture = layout({f"a:{number}": [run(0, 1, 1)] for number in range(500)})
    assert 500 == len(picture.rows)
    assert MAX_LABELS - 5 < sum(bool(row.label) for row in picture.rows) <= MAX_LABELS


def test_an_export_without_a_start_is_drawn_from_where_others_start() -> None:
    """An axis cannot start at the beginning of time."""
    open_start = CoverageRun(since=BEGINNING, until=DAY + timedelta(days=5), n_entries=1)
    picture = layout({"a:1": [open_start], "a:2": [run(2, 5, 1)]})
    assert (DAY + timedelta(days=2), DAY + timedelta(days=5)) == (picture.start, picture.end)
    assert all(left >= date2num(picture.start) and width > 0 for row in picture.rows for left, width, _ in row.bars)
    assert layout({"a:1": [open_start]}).start == DAY + timedelta(days=4)


def test_a_lake_without_loads_is_an_empty_picture() -> None:
    """A cron job over a new lake must not fail."""
    picture = layout({})
    assert ((), None, 0) == (picture.rows, picture.start, picture.n_gaps)
