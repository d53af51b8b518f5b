"""Compaction after a load: how many files and records a lake has after years, and what a load may touch."""

from __future__ import annotations

import errno
import functools
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from export_objects import channel, line, message, reaction, write_lines
from fsspec.implementations.memory import MemoryFileSystem
from lakes import LakeProbe, at, load_file, write_export

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import coverage_entry
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord, SourceFile
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.maintenance.auto_compact import (
    compact_behind,
    live_files,
    merges_of,
    portion_behind,
    rewrite_of,
)
from airflow_provider_chatexport.lake.maintenance.merge import Merge, Merged
from airflow_provider_chatexport.lake.maintenance.rewrite import Rewrite, number_of_next, record_of
from airflow_provider_chatexport.lake.parquet import TARGET_BYTES
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, REJECTS, TABLE_BY_NAME, USERS
from airflow_provider_chatexport.lake.storage.address import open_store

FIRST_DAY = date(2023, 1, 1)
ROW_BYTES = 150


def file_of(table: str, first: str, last: str, rows: int, name: str) -> DataFile:
    folder = TABLE_BY_NAME[table].folder_of(last)
    size_bytes = 8_000 + ROW_BYTES * rows
    return DataFile(
        path=f"{folder}/{name}",
        table=table,
        first_day=first,
        last_day=last,
        rows=rows,
        size_bytes=size_bytes,
        sha256="",
    )


def load_of(number: int, lookback: int) -> LoadRecord:
    """Return the record of the load of one day, with so many days before it."""
    day = FIRST_DAY + timedelta(days=number)
    since, until = (datetime.combine(each, datetime.min.time(), UTC) for each in (day, day + timedelta(days=1)))
    exported_at = until + timedelta(minutes=5)
    load_id = f"{number:024}"
    days = [str(day - timedelta(days=back)) for back in range(lookback, -1, -1)]
    files = [file_of(MESSAGES.name, each, each, 70, load_id + each) for each in days]
    export_day = str(until.date())
    files += [
        file_of(table, export_day, export_day, rows, load_id) for table, rows in ((USERS.name, 40), (REJECTS.name, 1))
    ]
    entry = coverage_entry(
        channels=ChannelSet.of(["a:1"]),
        since=since - timedelta(days=lookback),
        until=until,
        exported_at=exported_at,
        load_id=load_id,
    )
    assert entry is not None
    return LoadRecord(
        load_id=load_id,
        exported_at=exported_at,
        committed_at=exported_at,
        since=entry.since,
        until=entry.until,
        flags={},
        sources=(SourceFile(name=load_id, task_id=None, sha256="", size_bytes=1),),
        coverage=(entry,),
        files=tuple(files),
        counts={},
    )


def written(merge: Merge, name: str) -> DataFile:
    """Return the file that a merge would write."""
    files, table = merge.data_files, merge.table
    rows = 40 if table is USERS else sum(file.rows for file in files)
    first, last = min(file.first_day for file in files), max(file.last_day for file in files)
    return file_of(table.name, first, last, rows, name)


def rewrite_behind(snapshot: Snapshot, portion: list[LoadRecord]) -> tuple[list[Merge], Rewrite]:
    """Return the merges of a portion, and the rewrite that they would be."""
    live = live_files(snapshot, portion)
    merges = merges_of(snapshot, live)
    before = [file for merge in merges for file in merge.data_files]
    stem = number_of_next(snapshot)
    merged = Merged(files={written(merge, f"{stem}-{n}"): Path() for n, merge in enumerate(merges)}, rewritten={})
    return merges, rewrite_of(portion, live, before, merged)


@pytest.mark.parametrize(("n_loads", "lookback"), [(3 * 365, 0), (120, 7)])
def test_three_years_of_daily_loads_are_less_than_a_hundred_files_per_table(n_loads: int, lookback: int) -> None:
    """Loads merge what earlier ones left, in a logarithmic number of rewrites, so no person has to run a compaction."""
    records: list[LoadRecord] = []  # those of the working set
    n_rewritten: Counter[str] = Counter()
    n_months = n_loads // 30
    for number in range(n_loads):
        load = load_of(number, lookback)
        records.append(load)
        if portion := portion_behind(snapshot := Snapshot(records), load):
            merges, rewrite = rewrite_behind(snapshot, portion)
            n_rewritten += Counter({file.table: file.rows for merge in merges for file in merge.data_files})
            record = record_of(snapshot, rewrite, seconds=0)
            replaced = set(record.replaces)
            # Rewrites are numbered, so the last one stays to be counted from.
            records = [each for each in records if each.load_id not in replaced]
            records.append(record)
    snapshot = Snapshot(records)
    n_files = Counter(each.file.table for each in snapshot.file_states if each.is_live)
    # A month is in one file, or in two where it is in two records. The others are of the last loads.
    assert n_months <= n_files[MESSAGES.name] <= n_months + 20 + lookback < 100
    assert max(n_files[USERS.name], n_files[REJECTS.name], len(snapshot.current)) <= 15 + lookback
    assert n_loads == sum(record.n_loads for record in snapshot.current)
    n_rows = sum(each.file.rows for each in snapshot.live_files_of(MESSAGES))
    assert 70 * (n_loads + lookback) == n_rows
    assert n_rewritten[MESSAGES.name] <= 6 * n_rows


def test_a_portion_is_behind_the_load_and_within_its_budget() -> None:
    """What the next load will look at again is not merged, and no load pays for years of others."""
    records = [load_of(number, 0) for number in range(40)]
    snapshot = Snapshot(records)
    assert [f"{number:024}" for number in range(39)] == [each.load_id for each in portion_behind(snapshot, records[-1])]
    looks_back = replace(records[-1], coverage=(replace(records[-1].coverage[0], since=records[30].coverage[0].since),))
    snapshot = Snapshot([*records[:-1], looks_back])
    live = live_files(snapshot, portion_behind(snapshot, looks_back))
    assert [f"{number:024}" for number in range(30)] == sorted(
        each.record.load_id for each in live if each.file.table == MESSAGES.name
    )
    large = [
        replace(each, files=tuple(replace(file, size_bytes=10_000_000) for file in each.files if file.rows == 70))
        for each in records
    ]
    portion = portion_behind(Snapshot(large), large[-1])
    assert 2 == len(portion)  # 20 MB, twice what the load wrote
    assert [] == portion_behind(Snapshot(records[:8]), records[7])


def test_loads_that_keep_what_is_superseded_are_merged_with_their_like() -> None:
    """Else a rewrite would keep the versions of loads that did not ask for it, or drop those of loads that did."""
    records = [replace(load_of(number, 0), keep_superseded=number % 2 == 0) for number in range(40)]
    portion = portion_behind(Snapshot(records), records[-1])
    assert [f"{number:024}" for number in range(1, 39, 2)] == [each.load_id for each in portion]


@pytest.mark.parametrize("size_bytes", [1, TARGET_BYTES])
def test_files_that_were_not_compared_are_not_recorded_as_compared(size_bytes: int) -> None:
    """A message that moved may be in a file that is too large to be merged, and in one that is merged."""
    records = [
        replace(load, coverage=tuple(replace(each, channels=ChannelSet.of([f"a:{number}"])) for each in load.coverage))
        for number, load in enumerate(load_of(number, 1) for number in range(20))
    ]
    first = records[5].files
    large = replace(records[5], files=(replace(first[0], size_bytes=size_bytes), *first[1:]))
    records[5] = large
    snapshot = Snapshot(records)
    portion = portion_behind(snapshot, records[-1])
    assert large in portion
    _, rewrite = rewrite_behind(snapshot, portion)
    assert (size_bytes == 1) is rewrite.has_unique_keys


def test_a_reaction_to_an_older_message_stops_no_merge(tmp_path: Path) -> None:
    """Regression: the file of such a reaction is compared with all days, and a merge failed if it was not in it."""
    lake = LakeProbe(str(tmp_path / "lake"))
    alone = LoadOptions(auto_compact=False)
    for day in range(1, 5):
        at = f"2026-01-0{day}T10:00:00Z"
        lines = [
            line("channel", channel("a:1")),
            line("message", message(f"m{day}", cid="a:1", latest_reactions=[reaction(created_at=at)], created_at=at)),
            *([line("reaction", reaction("m2", created_at=at, score=7))] if day == 4 else []),
        ]
        report = Lake(lake.uri).load(
            write_lines(tmp_path / f"{day}", lines),
            since=f"2026-01-0{day}",
            until=f"2026-01-0{day + 1}",
            exported_at=f"2026-01-0{day + 1}T01:00:00Z",
            options=alone,
        )
    merged = compact_behind(open_store(lake.uri), report.record, least_records=2)
    assert merged is not None
    assert 3 == len(merged.replaces)
    assert [["m1", 1], ["m2", 7], ["m3", 1], ["m4", 1]] == lake.rows(
        "SELECT message_id, score FROM reactions ORDER BY message_id"
    )


def test_loads_merge_what_earlier_loads_left_and_show_the_same(tmp_path: Path) -> None:
    """A lake stays small although nothing but loads is run, and its views, folders and digests stay right."""
    lake = LakeProbe(str(tmp_path / "lake"))
    # The loads of one day overlap, so that half of each is hidden. They cover parts of their day, so nothing is behind.
    for hour in range(8):
        texts = {f"m{each}": (each, f"of load {hour}") for each in (hour, hour + 1)}
        exported = f"2026-01-02T{hour:02}:00:00Z"
        load_file(lake, write_export(tmp_path / f"{hour}", texts), hour, hour + 2, exported)
    assert 8 == len(lake.records())
    later = write_export(tmp_path / "later", {"n": (8, "n")}, day=5)
    load = functools.partial(Lake(lake.uri).load, later, since="2026-01-05", until="2026-01-06")
    load(exported_at="2026-01-06T00:00:00Z", options=LoadOptions(auto_compact=False))
    assert 9 == len(lake.records())
    shown = lake.texts()
    assert {**{f"m{hour}": f"of load {min(hour, 7)}" for hour in range(9)}, "n": "n"} == shown
    load(exported_at="2026-01-06T01:00:00Z")
    assert ["compaction after a load"] == [each["facts"]["kind"] for each in lake.records() if each["replaces"]]
    assert shown == lake.texts()
    live = Counter(each.file.table for each in lake.snapshot().file_states if each.is_live)
    # Those of the day, and the last load's; the load before it has a newer one of the same window.
    assert (2, 2) == (live["messages"], live["channels"])
    assert sorted(shown) == sorted(lake.value(f"SELECT list(id) FROM '{lake.uri}/messages/*/*.parquet'"))
    lake.assert_tidy()
    assert {"gap"} == {finding.kind for finding in Lake(lake.uri).verify().findings if finding.is_fault}


def test_a_load_stands_although_files_behind_it_are_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged file of last year must not stop tonight's load."""
    lake = LakeProbe(str(tmp_path / "lake"))

    def load(day: int) -> None:
        path = write_export(tmp_path / f"{day}", {f"m{day}": (8, "1")}, day=day)
        window = {"since": at(0, day=day), "until": at(0, day=day + 1)}
        Lake(lake.uri).load(path, **window, exported_at=at(1, day=day + 1))

    for day in range(1, 9):
        load(day)
    store = open_store(lake.uri)
    for each in lake.snapshot().live_files_of(MESSAGES):
        Path(lake.uri, store.data_path(each.file.path)).write_bytes(b"PAR1 damaged PAR1")
    load(9)
    assert 9 == len(lake.records())  # what is lost stays with its record until it is repaired
    assert 1 == lake.value(f"SELECT count(*) FROM '{lake.uri}/messages/*/*2026-01-09-0.parquet'")
    assert "going on without 8 lost files" in caplog.text


class Refusing(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store that has no room for records of rewrites."""

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **others: object) -> None:
        if "/rewrite-" in path and path.endswith(".json"):
            raise OSError(errno.ENOSPC, "no room")
        super().pipe_file(path, value, mode=mode, **others)


def test_a_load_succeeds_although_the_merge_after_it_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The export is in the lake: a retry of the task would be for nothing, and a failure would hide the next window."""
    lake = Lake(f"memory://{tmp_path.name}/lake", filesystem=Refusing())
    for day in range(1, 10):
        report = lake.load(
            write_export(tmp_path / f"{day}", {f"m{day}": (8, "1")}, day=day),
            since=at(0, day=day),
            until=at(0, day=day + 1),
            exported_at=at(1, day=day + 1),
        )
        assert not report.already_loaded
    assert f"small files were not merged after load {report.record.load_id}" in caplog.text
    assert [(9,)] == lake.sql("SELECT count(*) FROM messages").fetchall()
