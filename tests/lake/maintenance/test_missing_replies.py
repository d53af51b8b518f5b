"""How many replies a lake lacks, over all of its loads: the macro ``missing_replies``, and the note of verify."""

from __future__ import annotations

from pathlib import Path

from export_objects import channel, line, message, write_lines
from lakes import LakeProbe, load_file

from airflow_provider_chatexport.lake import Lake


def test_replies_of_another_window_are_not_missing(lake: LakeProbe, tmp_path: Path) -> None:
    """The column counts within a load, so over the lake only the macro is right; verify has its sum as a note."""

    def load(hour: int, *messages: dict[str, object]) -> None:
        lines = [line("channel", channel("a:1")), *(line("message", each) for each in messages)]
        load_file(lake, write_lines(tmp_path / f"{hour}", lines), hour, hour + 1, "2026-01-02T00:00:00Z")

    at = "2026-01-01T{:02}:30:00Z".format
    first = {"cid": "a:1", "created_at": at(1)}
    load(1, message("q", reply_count=2, **first), message("p", reply_count=3, **first), message("no", **first))
    assert [["a:1", 2, 5, 5]] == lake.rows("FROM missing_replies()")
    second = {"cid": "a:1", "created_at": at(2)}
    replies = [message(f"q{n}", parent_id="q", **second) for n in range(2)]
    load(2, *replies, message("p1", parent_id="p", **second), message("p2", parent_id="p", deleted_at=at(2), **second))
    assert [["a:1", 1, 3, 2]] == lake.rows("FROM missing_replies()")
    assert [["no", None], ["p", 3], ["q", 2]] == lake.rows(
        "SELECT id, replies_missing FROM messages WHERE parent_id IS NULL ORDER BY id"
    )
    report = Lake(lake.uri).verify()
    assert (True, ["replies"]) == (report.ok, [finding.kind for finding in report.findings])
    assert "2 replies in 1 channels are not in the lake" in report.findings[0].what
