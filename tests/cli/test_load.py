"""``chatexport load``: what it says about the files."""

from __future__ import annotations

from pathlib import Path

from command_line import Run, assert_one_sentence
from export_objects import channel, encoded, line, message, user, write_lines

from airflow_provider_chatexport.core.entities import Shape


def test_load_says_what_it_took_each_file_for(run: Run, tmp_path: Path) -> None:
    """A file by hand names no kind: who loads it has to see that it counts as an export of users, and why."""
    by_id = {key: value for key, value in message().items() if key != "cid"}
    by_id |= {"user": "u1", "channel_type": "messaging", "channel_id": "general"}
    channels = write_lines(tmp_path / "channels.ndjson", [line("channel", channel()), line("message", message())])
    users = write_lines(
        tmp_path / "users.ndjson", [line(*each, Shape.ITEM) for each in (("user", user()), ("message", by_id))]
    )
    array = tmp_path / "array.json"
    array.write_bytes(encoded([{"channel": channel(), "messages": [message(user=None)], "members": []}]))
    loaded = run("load", channels, users, array, "--lake", tmp_path / "lake")
    assert 0 == loaded.code
    assert [
        "channels.ndjson: an export of channels, lines of the shape typed, users as whole objects",
        "users.ndjson: an export of users (it has users and what they wrote, and no channel line; if it is one of "
        "channels, load it with --kind channels), lines of the shape item, users named by id",
        "array.json: an export of channels, one JSON array, as v1 is",
    ] == loaded.out.splitlines()[:3]
    again = run("load", channels, users, array, "--lake", tmp_path / "lake", "--json").json
    assert [
        {
            "name": "channels.ndjson",
            "kind": "channels",
            "evidence": None,
            "array": False,
            "shapes": ["typed"],
            "references": ["object"],
        },
        ("users", "it has users and what they wrote, and no channel line", ["item"], ["id"]),
        ("channels", True, ["channel"], []),
    ] == [
        again["inputs"][0],
        tuple(again["inputs"][1][key] for key in ("kind", "evidence", "shapes", "references")),
        tuple(again["inputs"][2][key] for key in ("kind", "array", "shapes", "references")),
    ]


def test_files_alike_share_a_line(run: Run, tmp_path: Path) -> None:
    """A load may have hundreds of files."""
    files = [
        write_lines(tmp_path / f"{n}", [line("channel", channel()), line("message", message(f"m{n}"))]) for n in "ab"
    ]
    first, *_ = run("load", *files, "--lake", tmp_path / "lake").out.splitlines()
    assert "2 files: an export of channels, lines of the shape typed, users as whole objects" == first


def test_load_states_the_channels_of_an_empty_export(run: Run, tmp_path: Path) -> None:
    """The file of a quiet window has no line that could name them."""
    (quiet := tmp_path / "quiet").write_bytes(b"")
    window = ["--since", "2026-01-01", "--until", "2026-01-02"]
    exported_at = ["--exported-at", "2026-01-03T00:00:00Z"]
    run("load", quiet, *window, *exported_at, "--channel", "a:b,c:d", "--lake", tmp_path / "lake")
    covered = run("coverage", "--lake", tmp_path / "lake", "--json").json
    assert ["a:b", "c:d"] == sorted(each["cid"] for each in covered["coverage"])
    assert_one_sentence(run("load", quiet, "--channel", "a:b", "--lake", tmp_path / "lake"), 2, "give --since and --un")
