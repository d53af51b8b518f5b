"""The layout of the coverage picture; how it looks was looked at, with 1, 5, 50 and 500 channels."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from matplotlib.dates import date2num

from airflow_provider_chatexport.cli.charts import MAX_LABELS, layout
from airflow_provider_chatexport.lake.commits.coverage import BEGINNING, CoverageRun

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def stretch(since: int, until: int, n_claims: int) -> CoverageRun:
    return CoverageRun(since=DAY + timedelta(days=since), until=DAY + timedelta(days=until), n_claims=n_claims)


def test_bars_say_how_often_each_stretch_was_loaded() -> None:
    """Days are the unit of width; once, again, and missing are three colours."""
    (row,) = layout({"a:1": [stretch(0, 1, 1), stretch(1, 3, 0), stretch(3, 4, 2)]}).rows
    first = date2num(DAY)
    assert ((first, 1, "loaded"), (first + 1, 2, "missing"), (first + 3, 1, "loaded again")) == row.bars


def test_channels_with_gaps_stand_on_top() -> None:
    """The longest gap first: that is what one looks for."""
    found = {
        "a:whole": [stretch(0, 9, 1)],
        "b:short": [stretch(0, 1, 1), stretch(1, 2, 0), stretch(2, 9, 1)],
        "c:long": [stretch(0, 1, 1), stretch(1, 8, 0), stretch(8, 9, 1)],
    }
    drawn = layout(found)
    assert ["c:long", "b:short", "a:whole"] == [row.label for row in drawn.rows]
    assert (2, 2) == (drawn.n_gaps, drawn.n_with_gaps)


def test_hundreds_of_channels_have_labels_that_do_not_overlap() -> None:
    """All are drawn, and as many are named as there is room for."""
    drawn = layout({f"a:{number}": [stretch(0, 1, 1)] for number in range(500)})
    assert 500 == len(drawn.rows)
    assert MAX_LABELS - 5 < sum(bool(row.label) for row in drawn.rows) <= MAX_LABELS


def test_an_export_without_a_begin_is_drawn_from_where_others_begin() -> None:
    """The beginning of time is no date to draw an axis from."""
    open_begin = CoverageRun(since=BEGINNING, until=DAY + timedelta(days=5), n_claims=1)
    drawn = layout({"a:1": [open_begin], "a:2": [stretch(2, 5, 1)]})
    assert (DAY + timedelta(days=2), DAY + timedelta(days=5)) == (drawn.begin, drawn.end)
    assert all(left >= date2num(drawn.begin) and width > 0 for row in drawn.rows for left, width, _ in row.bars)
    assert layout({"a:1": [open_begin]}).begin == DAY + timedelta(days=4)


def test_a_lake_without_loads_is_an_empty_picture() -> None:
    """A cron job over a new lake must not fail."""
    drawn = layout({})
    assert ((), None, 0) == (drawn.rows, drawn.begin, drawn.n_gaps)
