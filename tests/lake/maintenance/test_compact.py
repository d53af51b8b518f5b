"""Compaction and vacuum: the same lake in fewer files, and nothing deleted that a reader needs."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from lakes import LakeProbe, at, load_file, write_export

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.maintenance.rewrite import Rewrite, commit_rewrite, number_of_next
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.parquet import TARGET_BYTES
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.storage.address import open_store

NOW = datetime(2026, 2, 1, tzinfo=UTC)


def exported(hour: int) -> str:
    return f"2026-01-02T{hour:02}:00:00Z"


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    """Three loads of hours of one day. The third overlaps the end of the first and the start of the second."""
    lake = LakeProbe(str(tmp_path / "lake"))
    load_file(lake, write_export(tmp_path / "one", {"a": (8, "a1"), "b": (9, "b1")}), 8, 10, exported(1))
    load_file(lake, write_export(tmp_path / "two", {"c": (10, "c1"), "d": (11, "d1")}), 10, 12, exported(2))
    load_file(lake, write_export(tmp_path / "three", {"b": (9, "b2")}), 9, 11, exported(3))
    return lake


def n_files(lake: LakeProbe, table: str = "messages") -> int:
    return len(list(Path(lake.uri).glob(f"{table}/*/*.parquet"))) - 1  # the empty file


def test_a_glob_equals_the_view_after_compaction(lake: LakeProbe) -> None:
    """The files no longer have the rows that a newer export hides, and each day of a table is one file."""
    shown = lake.texts()
    assert {"a": "a1", "b": "b2", "d": "d1"} == shown
    report = compact(open_store(lake.uri))
    assert (shown, 1) == (lake.texts(), n_files(lake))
    assert report.rows_hidden > 0
    lake.assert_glob_equals_view()
    lake.assert_tidy()
    assert verify(open_store(lake.uri), now=NOW).ok


def test_compacting_again_changes_nothing(lake: LakeProbe) -> None:
    """A nightly job costs nothing if the lake has not changed."""
    compact(open_store(lake.uri))
    files = lake.files()
    assert compact(open_store(lake.uri)).record_id is None
    assert files == lake.files()


def test_coverage_entries_keep_their_own_age(lake: LakeProbe, tmp_path: Path) -> None:
    """An export that arrives after a compaction is compared with each load that went into it, not with the newest."""
    compact(open_store(lake.uri))
    between = write_export(tmp_path / "late", {"a": (8, "a-late"), "b": (9, "b-late"), "d": (11, "d-late")})
    load_file(lake, between, 8, 12, "2026-01-02T02:30:00Z")
    assert {"a": "a-late", "b": "b2", "d": "d-late"} == lake.texts()
    compact(open_store(lake.uri))
    assert {"a": "a-late", "b": "b2", "d": "d-late"} == lake.texts()
    lake.assert_glob_equals_view()


def test_the_same_exports_loaded_again_after_compaction_change_nothing(lake: LakeProbe, tmp_path: Path) -> None:
    """A retried task must find its load, although the load's files were merged into others."""
    compact(open_store(lake.uri))
    files = lake.files()
    again = load_file(lake, write_export(tmp_path / "three", {"b": (9, "b2")}), 9, 11, exported(3))
    assert again.already_loaded
    assert files == lake.files()


def test_a_day_loaded_again_replaces_its_part_of_a_compaction_at_once(lake: LakeProbe, tmp_path: Path) -> None:
    """A load of a whole day supersedes that day's file. Files of other days of the compaction stay live."""
    compact(open_store(lake.uri))
    again = write_export(tmp_path / "again", {"a": (8, "a9"), "e": (11, "e9")})
    load_file(lake, again, 8, 12, exported(9))
    assert ({"a": "a9", "e": "e9"}, 1) == (lake.texts(), n_files(lake))


def test_only_months_worth_it_are_rewritten(lake: LakeProbe, tmp_path: Path) -> None:
    """Compaction of a large lake costs what has changed: files of other months are taken over as they are."""
    next_month = write_export(tmp_path / "next", {"z": (8, "z1")})
    next_month.write_text(next_month.read_text().replace("2026-01-01T08", "2026-02-03T08"))
    load_file(lake, next_month, None, None, "2026-02-04T00:00:00Z")
    (before,) = (path for path in lake.files() if "event_month=2026-02" in path)
    assert compact(open_store(lake.uri)).merges > 0
    assert [before] == [path for path in lake.files() if "event_month=2026-02" in path]
    assert {"a": "a1", "b": "b2", "d": "d1", "z": "z1"} == lake.texts()


def test_the_newest_snapshot_of_a_key_remains(lake: LakeProbe) -> None:
    """Channels and users come with every export. After compaction, each is one row in the files, too."""
    assert lake.value(f"SELECT count(*) FROM read_parquet('{lake.uri}/channels/*/*.parquet')") == 3
    compact(open_store(lake.uri))
    assert lake.value(f"SELECT count(*) FROM read_parquet('{lake.uri}/channels/*/*.parquet')") == 1


def test_a_catalog_opened_before_goes_on_answering(lake: LakeProbe, tmp_path: Path) -> None:
    """A compaction or a newer load must not take files from an analyst's open connection."""
    with duckdb.connect(f"{lake.uri}/catalog.duckdb", read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        compact(open_store(lake.uri))
        load_file(lake, write_export(tmp_path / "again", {"a": (8, "a9")}), 8, 12, exported(9))
        vacuum(open_store(lake.uri), keep=timedelta(days=1), now=datetime.now(UTC))
        assert [("a", "a1"), ("b", "b2"), ("d", "d1")] == con.execute(
            "SELECT id, text FROM messages ORDER BY id"
        ).fetchall()
    assert {"a": "a9"} == lake.texts()


def test_vacuum_deletes_dead_files_and_nothing_else(lake: LakeProbe) -> None:
    """Superseded files go once no reader can have an old catalog open. Live files stay, however old they are."""
    compact(open_store(lake.uri))
    store = open_store(lake.uri)
    dead = {each.file.path for each in Snapshot(lake.snapshot().records).file_states if not each.is_live}
    assert set() == set(vacuum(store, keep=timedelta(days=1), now=datetime.now(UTC)).superseded)
    assert dead == set(vacuum(store, keep=timedelta(0), now=datetime.now(UTC)).superseded)
    assert {each.file.path for each in lake.snapshot().file_states if each.is_live} == lake.data_files()
    assert {"a": "a1", "b": "b2", "d": "d1"} == lake.texts()
    assert verify(store, now=NOW).ok


def test_vacuum_deletes_leftovers_of_broken_off_work(lake: LakeProbe) -> None:
    """A killed load leaves files that are in no record. So does a load under way: only old ones go."""
    store = open_store(lake.uri)
    stray = Path(lake.uri, store.data_path("messages/event_month=2026-01/stray-0.parquet"))
    stray.write_bytes(b"half")
    left = Path(lake.uri, "_staging", "left")
    left.mkdir(parents=True)
    now = datetime.now(UTC)
    assert ((), 0) == (vacuum(store, keep=timedelta(0), now=now).unknown, 0)
    days_ago = (now - timedelta(days=3)).timestamp()
    os.utime(stray, (days_ago, days_ago))
    os.utime(left, (days_ago, days_ago))
    report = vacuum(store, keep=timedelta(0), now=now)
    assert (("messages/event_month=2026-01/stray-0.parquet",), 1) == (report.unknown, report.n_leftovers)
    assert not stray.exists()
    assert not left.exists()


def test_vacuum_leaves_files_of_others_alone(lake: LakeProbe) -> None:
    """A lake may share its folder with other files."""
    others = [Path(lake.uri, name) for name in (".eslintrc.json", "src/.env.local", "src/.cache.d/x", "src/a/.b.c")]
    days_ago = (datetime.now(UTC) - timedelta(days=9)).timestamp()
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
        os.utime(path, (days_ago, days_ago))
        os.utime(path.parent, (days_ago, days_ago))
    ours = Path(lake.uri, "_loads", f".x.json.{'0' * 32}")
    ours.write_text("broken off")
    os.utime(ours, (days_ago, days_ago))
    assert 1 == vacuum(open_store(lake.uri), keep=timedelta(0), now=datetime.now(UTC)).n_leftovers
    assert all(path.exists() for path in others)


def test_parquet_files_of_others_are_not_data_files_of_the_lake(tmp_path: Path) -> None:
    """A lake at the root of a bucket has other Parquet files next to it."""
    lake = LakeProbe("memory://bucket-of-many-things")
    load_file(lake, write_export(tmp_path / "one", {"a": (8, "a1")}), 8, 10, exported(1))
    load_file(lake, write_export(tmp_path / "two", {"b": (11, "b1")}), 11, 12, exported(2))
    store = open_store(lake.uri)
    assert compact(store).record_id
    store.replace("sales/year=2025/orders.parquet", b"theirs")
    store.replace("messages/event_date=2025-01-01/mine.parquet", b"theirs")
    assert {each.file.path for each in lake.snapshot().file_states} == lake.data_files()


def test_a_file_is_dead_since_newer_loads_first_hid_all_of_it(lake: LakeProbe, tmp_path: Path) -> None:
    """If later loads of the same hours made it younger, it would never be old enough to go."""
    first = load_file(lake, write_export(tmp_path / "four", {"a": (8, "a2")}), 8, 12, exported(4))
    load_file(lake, write_export(tmp_path / "five", {"a": (8, "a3")}), 8, 12, exported(5))
    dead_since = {
        each.dead_since
        for each in lake.snapshot().files_of(MESSAGES)
        if not each.is_live and each.record.load_id != first.record.load_id
    }
    assert {first.record.committed_at} == dead_since


def record_as_large(lake: LakeProbe, path: str) -> None:
    """Let the record of a file say that it is too large to be worth merging."""
    for record in Path(lake.uri, "_loads").glob("*.json"):
        value = json.loads(record.read_bytes())
        for file in value["files"]:
            if file["path"] == path:
                file["size_bytes"] = TARGET_BYTES
        record.write_bytes(json.dumps(value).encode())


def test_a_large_snapshot_file_is_merged_with_the_others(lake: LakeProbe) -> None:
    """The newest row of a key may be in any file: without the large one, a channel would be there twice."""
    record_as_large(lake, next(path for path in lake.files() if path.startswith("channels/")))
    compact(open_store(lake.uri))
    lake.assert_glob_equals_view()


def test_a_large_event_file_is_left_alone(tmp_path: Path) -> None:
    """Merging it would cost much and make no scan faster."""
    lake = LakeProbe(str(tmp_path / "lake"))
    load_file(lake, write_export(tmp_path / "one", {"a": (8, "a1")}), 8, 9, exported(1))
    (large,) = {path for path in lake.files() if path.startswith("messages/")}
    for hour in (9, 10):
        load_file(lake, write_export(tmp_path / f"{hour}", {f"m{hour}": (hour, "b1")}), hour, hour + 1, exported(hour))
    record_as_large(lake, large)
    compact(open_store(lake.uri))
    assert large in lake.files()
    assert 2 == n_files(lake)


def test_of_two_compactions_at_once_one_is_refused(lake: LakeProbe) -> None:
    """If two rewrites of the same files were committed, their rows would be there twice."""
    store = open_store(lake.uri)
    stale = lake.snapshot()
    first = compact(store)
    late = Rewrite(gone=lake.data_files(), written={}, facts={})
    assert first.record_id == number_of_next(stale)
    assert commit_rewrite(store, stale, late, seconds=0.0) is None
    assert {"a": "a1", "b": "b2", "d": "d1"} == lake.texts()


def test_the_checkpoint_forgets_the_load_whose_record_was_moved_out(lake: LakeProbe, tmp_path: Path) -> None:
    """The next load of its exports takes its name, and must not be mistaken for it."""
    commit_log.write_checkpoint(open_store(lake.uri), lake.snapshot().records)
    moved = lake.snapshot().records[-1]
    Path(lake.uri, moved.path).rename(tmp_path / "moved")
    store = open_store(lake.uri)
    refresh(store, full=True)
    assert not store.exists(commit_log.CHECKPOINT)
    assert moved.load_id not in {record.load_id for record in lake.snapshot().records}
    assert {record.path for record in commit_log.all_records(store)} == set(commit_log.record_paths(store))
    assert commit_log.all_records(store) == commit_log.all_records(store, afresh=True)


def test_work_is_repeated_if_another_process_committed_meanwhile(lake: LakeProbe, tmp_path: Path) -> None:
    """A file of its snapshot may be gone, and that is not a fault of the lake."""
    store = open_store(lake.uri)
    seen: list[int] = []

    def work() -> int:
        seen.append(len(commit_log.record_paths(store)))
        if len(seen) == 1:
            load_file(lake, write_export(tmp_path / "four", {"e": (12, "e1")}), 12, 13, exported(4))
            raise LakeError("a file is gone")
        return seen[-1]

    assert commit_log.on_latest(store, work) == 4
    assert seen == [3, 4]


def test_work_that_fails_in_an_unchanged_lake_fails(lake: LakeProbe) -> None:
    def work() -> None:
        raise LakeError("a file is gone")

    with pytest.raises(LakeError, match="a file is gone"):
        commit_log.on_latest(open_store(lake.uri), work)


def test_history_has_each_version_with_its_time(tmp_path: Path) -> None:
    """With keep_superseded, people can still read what was edited or deleted, and when it was the truth."""
    lake = LakeProbe(str(tmp_path / "lake"))
    first = write_export(tmp_path / "one", {"m": (8, "old"), "gone": (8, "x")}, updated_at=at(8, 30))
    second = write_export(tmp_path / "two", {"m": (8, "new")}, updated_at="2026-01-02T05:00:00Z")
    for path, hour in ((first, 1), (second, 9)):
        load_file(lake, path, 8, 10, exported(hour), keep_superseded=True)
    expected = [
        ["gone", "x", "2026-01-01T08:30:00.000000Z", "2026-01-02T09:00:00.000000Z"],
        ["m", "old", "2026-01-01T08:30:00.000000Z", "2026-01-02T05:00:00.000000Z"],
        ["m", "new", "2026-01-02T05:00:00.000000Z", None],
    ]
    query = "SELECT id, text, valid_from, valid_to FROM messages_history ORDER BY id, valid_from"
    assert expected == lake.rows(query)
    compact(open_store(lake.uri))
    vacuum(open_store(lake.uri), keep=timedelta(0), now=datetime.now(UTC))
    assert expected == lake.rows(query)
    lake.assert_glob_equals_view()
    vacuum(open_store(lake.uri), keep=timedelta(0), now=datetime.now(UTC), history=True)
    assert [["m", "new"]] == lake.rows("SELECT id, text FROM messages_history")


def test_uncovered_rows_are_compacted_once(lake: LakeProbe, tmp_path: Path) -> None:
    """A file that a person loaded may have rows that it does not cover. They must not be rewritten every night."""
    ahead = write_export(tmp_path / "ahead", {"z": (8, "z1")}, day=3)  # after its own export
    load_file(lake, ahead, None, None, exported(4))
    compact(open_store(lake.uri))
    assert {"a": "a1", "b": "b2", "d": "d1", "z": "z1"} == lake.texts()
    assert compact(open_store(lake.uri)).record_id is None
