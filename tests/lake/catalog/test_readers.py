"""Readers that run while the lake is loaded and compacted never see a wrong sum; and what table folders show."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from effort import examples
from lakes import LakeProbe, load_file, write_export

from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.workdir import work_folder

ROUNDS = examples(8)
NOON = "2026-01-02T12:00:00Z"
# One reader keeps a connection open, one opens the catalog for every query, and one uses a glob.
READER = """
import json, sys
import duckdb

lake, how = sys.argv[1:]
answers, errors = {}, {}
ask = "SELECT count(*), sum(length(text)), count(DISTINCT id) FROM "
kept = duckdb.connect(f"{lake}/catalog.duckdb", read_only=True) if how == "kept" else None
print("reading", flush=True)
import threading
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
while not ended.is_set():
    try:
        if how == "kept":
            answer = kept.execute(ask + "messages").fetchone()
        elif how == "view":
            with duckdb.connect(f"{lake}/catalog.duckdb", read_only=True) as con:
                answer = con.execute(ask + "messages").fetchone()
        else:
            answer = duckdb.execute(ask + f"'{lake}/messages/*/*.parquet'").fetchone()
        answers[str(answer)] = answers.get(str(answer), 0) + 1
    except duckdb.Error as error:
        name = type(error).__name__
        errors[name] = errors.get(name, 0) + 1
print(json.dumps({"answers": answers, "errors": errors}))
"""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("hours_a_load", "hows"),
    # A load of a part of a compacted day leaves duplicates to a glob until the next compaction. Views do not show them.
    [(4, ("kept", "view", "glob")), (1, ("kept", "view"))],
    ids=["whole", "in parts"],
)
def test_no_reader_ever_sees_a_wrong_sum(tmp_path: Path, hours_a_load: int, hows: tuple[str, ...]) -> None:
    """A day is loaded again and again with other texts of the same length, and compacted in between.

    Readers of views see no error either. A reader with a glob may find that a file is gone, which is an error. If it
    listed the day just before the folder was replaced, it leaves the day out. That can happen once per replacement.
    """
    lake = LakeProbe(str(tmp_path / "lake"))
    first_hours = range(8, 12, hours_a_load)

    def load(first: int, version: int) -> None:
        hours = range(first, first + hours_a_load)
        texts = {f"{hour}-{number}": (hour, f"{version:05}") for hour in hours for number in range(20)}
        moment = f"2026-01-02T{version // 60:02}:{version % 60:02}:00Z"
        load_file(lake, write_export(tmp_path / f"from-{first}", texts), first, first + hours_a_load, moment)

    for first in first_hours:
        load(first, 0)
    Lake(lake.uri).compact()
    readers = {
        how: subprocess.Popen(
            [sys.executable, "-c", READER, lake.uri, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for how in hows
    }
    for reader in readers.values():
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
    for version in range(1, ROUNDS + 1):
        load(first_hours[version % len(first_hours)], version)
        if version % 4 == 0:
            Lake(lake.uri).compact()
    results = {how: json.loads(reader.communicate("")[0].splitlines()[-1]) for how, reader in readers.items()}
    n_missed = results.get("glob", {"answers": {}})["answers"].pop(str((0, None, 0)), 0)
    assert n_missed <= ROUNDS
    for each in results.values():
        assert [str((80, 80 * 5, 80))] == list(each["answers"])
    assert {} == results["kept"]["errors"] | results["view"]["errors"]
    assert {"IOException"} >= {name for each in results.values() for name in each["errors"]}


def test_other_files_in_a_table_folder_stay(tmp_path: Path) -> None:
    """A note that a person put next to the data files is still there after the folder was replaced."""
    lake = LakeProbe(str(tmp_path / "lake"))
    load_file(lake, write_export(tmp_path / "from", {"a": (8, "old")}), 8, 12, "2026-01-02T00:00:00Z")
    month = next(Path(lake.uri).glob("messages/event_month=2*"))
    (month / "notes.txt").write_text("mine")
    load_file(lake, write_export(tmp_path / "from", {"a": (8, "new")}), 8, 12, "2026-01-03T00:00:00Z")
    (month / "drafts").mkdir()
    (live,) = month.glob("*.parquet")
    load_file(lake, write_export(tmp_path / "from", {"a": (8, "newest")}), 8, 12, "2026-01-04T00:00:00Z")
    assert {"a": "newest"} == lake.texts()
    assert live not in month.glob("*.parquet")
    assert ("mine", True) == ((month / "notes.txt").read_text(), (month / "drafts").is_dir())


def test_a_file_that_two_records_superseded_together_is_not_shown(tmp_path: Path) -> None:
    """Two loads together hide a third, and the load that is committed last has the earlier clock."""
    lake = LakeProbe(str(tmp_path / "lake"))
    load_file(lake, write_export(tmp_path / "a", {"a": (8, "old"), "b": (20, "old")}), 0, 23, "2026-01-02T01:00:00Z")
    load_id = load_file(
        lake, write_export(tmp_path / "b", {"a": (8, "new")}), 0, 12, "2026-01-02T02:00:00Z"
    ).record.load_id
    record = Path(lake.uri) / "_loads" / f"{load_id}.json"
    ahead = {**json.loads(record.read_bytes()), "committed_at": "2099-01-01T00:00:00Z"}
    record.write_text(json.dumps(ahead))
    commit_log.write_checkpoint(open_store(lake.uri), lake.snapshot().records)
    load_file(lake, write_export(tmp_path / "c", {}), 12, 23, "2026-01-02T03:00:00Z", accept_shrink=True)
    assert {"a": "new"} == lake.texts()
    lake.assert_tidy()


def test_a_system_that_cannot_exchange_folders_shows_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    lake = LakeProbe(str(tmp_path / "lake"))
    for hour in range(4):
        load_file(lake, write_export(tmp_path / "from", {str(hour): (hour, "old")}), hour, hour + 1, NOON)
    load_file(lake, write_export(tmp_path / "from", {"1": (1, "new")}), 0, 3, "2026-01-02T13:00:00Z")
    assert {"1": "new", "3": "old"} == lake.texts()
    lake.assert_tidy()
    Lake(lake.uri).compact()
    lake.assert_tidy()
    lake.assert_glob_equals_view()


def test_a_work_folder_is_deleted_although_a_process_still_adds_to_it(tmp_path: Path) -> None:
    """A process may have opened the day folder before another folder took its place."""
    lake, data = open_store(tmp_path / "lake"), tmp_path / "data"
    data.write_text("x")
    for _ in range(20):
        with work_folder(lake) as folder:
            day = folder / "day"
            day.mkdir()
            opened = os.open(day, os.O_RDONLY)

            def add(day: int = opened) -> None:
                with contextlib.suppress(FileNotFoundError):  # once the folder is gone
                    for number in range(200):
                        os.link(data, f"{number}", dst_dir_fd=day)

            adding = threading.Thread(target=add)
            adding.start()
        adding.join()
        os.close(opened)
        assert not folder.exists()
