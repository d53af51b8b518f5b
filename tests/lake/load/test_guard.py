"""What a load would hide, and what it found changed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from export_objects import channel, line, message, write_lines
from lakes import LakeProbe, load_file, write_export

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.errors import ShrinkError
from airflow_provider_chatexport.lake import Lake


def exported(hour: int) -> str:
    return f"2026-01-04T{hour:02}:00:00Z"


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    """Ten messages of one channel, and one of another."""
    lake = LakeProbe(str(tmp_path / "lake"))
    ten = write_export(tmp_path / "ten", {f"m{n}": (8, "x") for n in range(10)})
    other = write_export(tmp_path / "other", {"o": (8, "x")}, cid="a:2")
    load_file(lake, write_lines(tmp_path / "both", [*lines_of(ten), *lines_of(other)]), 8, 10, exported(1))
    return lake


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def test_an_export_in_which_a_channel_is_suddenly_empty_is_refused(lake: LakeProbe, tmp_path: Path) -> None:
    """A hiccup of the service must not hide what is there; nothing is written, and the sentence says what to do."""
    empty = write_lines(tmp_path / "empty", [line("channel", channel("a:1"))])
    before = lake.files()
    with pytest.raises(ShrinkError, match=r"no message of a:1 where the lake shows 10.*--accept-shrink") as refused:
        load_file(lake, empty, 8, 10, exported(2))
    assert refused.value.cids == ("a:1",)
    assert (11, before) == (len(lake.texts()), lake.files())


def test_all_channels_that_would_be_emptied_are_counted(lake: LakeProbe, tmp_path: Path) -> None:
    """One look at the service for all of them."""
    empty = write_lines(tmp_path / "empty", [line("channel", channel(cid)) for cid in ("a:1", "a:2")])
    with pytest.raises(ShrinkError, match="and all of 1 other channels"):
        load_file(lake, empty, 8, 10, exported(2))


def test_what_is_really_gone_can_be_accepted(lake: LakeProbe, tmp_path: Path) -> None:
    """A channel that was truncated is empty from then on."""
    empty = write_lines(tmp_path / "empty", [line("channel", channel("a:1"))])
    load_file(lake, empty, 8, 10, exported(2), accept_shrink=True)
    assert {"o": "x"} == lake.texts()


def test_an_older_export_hides_nothing_and_is_never_refused(lake: LakeProbe, tmp_path: Path) -> None:
    """What arrives late is judged by its own age."""
    empty = write_lines(tmp_path / "empty", [line("channel", channel("a:1"))])
    load_file(lake, empty, 8, 10, exported(0))
    assert 11 == len(lake.texts())


def test_a_window_beside_what_is_loaded_is_no_shrink(lake: LakeProbe, tmp_path: Path) -> None:
    """An empty hour after a full one is an empty hour."""
    empty = write_lines(tmp_path / "empty", [line("channel", channel("a:1"))])
    load_file(lake, empty, 10, 12, exported(2))
    assert 11 == len(lake.texts())


@pytest.mark.parametrize(("n_left", "warns"), [(4, True), (5, False)])
def test_a_load_that_hides_more_than_half_warns(
    lake: LakeProbe, tmp_path: Path, caplog: pytest.LogCaptureFixture, n_left: int, warns: bool
) -> None:
    """It may be right, and a person should look."""
    left = write_export(tmp_path / "left", {f"m{n}": (8, "x") for n in range(n_left)})
    with caplog.at_level(logging.WARNING):
        load_file(lake, left, 8, 10, exported(2))
    assert warns == ("hides more than half" in caplog.text)
    assert n_left + 1 == len(lake.texts())


def test_late_changes_are_counted_by_age(tmp_path: Path) -> None:
    """People choose their lookback from how old messages were when they changed."""
    lake = LakeProbe(str(tmp_path / "lake"))
    first = {"same": (8, "x"), "edited": (8, "x"), "gone": (8, "x")}
    load_file(lake, write_export(tmp_path / "one", first), 8, 10, "2026-01-02T00:00:00Z")
    same = lines_of(write_export(tmp_path / "same", {"same": (8, "x"), "new": (9, "x")}))
    edited = lines_of(write_export(tmp_path / "edited", {"edited": (8, "y")}, updated_at="2026-01-04T10:00:00Z"))
    load_file(lake, write_lines(tmp_path / "two", [*same, *edited]), 8, 10, "2026-01-06T12:00:00Z")
    assert [[3, 1, 0, 0, 0], [5, 0, 0, 1, 1]] == lake.rows(
        "SELECT age_days, edited, deleted, vanished, appeared FROM late_changes ORDER BY age_days"
    )
    deleted = lines_of(
        write_export(tmp_path / "del", {"same": (8, "x")}, deleted_at="2026-01-01T12:00:00Z", type="deleted")
    )
    load_file(lake, write_lines(tmp_path / "three", [*deleted, *edited]), 8, 10, "2026-01-07T00:00:00Z")
    assert [1] == lake.rows("SELECT deleted FROM late_changes WHERE age_days = 0")[0]


def test_a_loose_row_on_another_day_of_a_month_stops_no_load(tmp_path: Path) -> None:
    """Regression: the load compared its day with a month's file, which is contested by the row, but without the row."""
    lake = LakeProbe(str(tmp_path / "lake"))

    def load(cid: str, days: range, since: str, until: str, exported_at: str) -> None:
        messages = [message(f"{cid} {day}", cid=cid, created_at=f"2026-01-{day:02}T10:00:00Z") for day in days]
        lines = [line("channel", channel(cid)), *(line("message", each) for each in messages)]
        path = write_lines(tmp_path / f"{cid}{exported_at}", lines)
        Lake(lake.uri).load(
            path, since=since, until=until, exported_at=exported_at, options=LoadOptions(auto_compact=False)
        )

    load("a:month", range(1, 32), "2026-01-01", "2026-02-01", "2026-02-01T00:00:00Z")
    load("a:loose", range(20, 21), "2026-01-20", "2026-01-21", "2026-01-20T09:00:00Z")
    for hour in (1, 2):
        load("a:day", range(3, 4), "2026-01-03", "2026-01-04", f"2026-02-02T0{hour}:00:00Z")
    assert 33 == len(lake.texts())
