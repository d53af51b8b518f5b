"""The states of files, worked out from records alone."""

from __future__ import annotations

import gzip
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from coverages import START, lakes
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_chatexport.lake.commits import checkpoint, log, record_json
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry, coverage_entry, without_superseded
from airflow_provider_chatexport.lake.commits.file_state import FileStatus
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord, SourceFile
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.maintenance.rewrite import Rewrite, record_of
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.storage.address import open_store

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
TUESDAY, WEDNESDAY, THURSDAY, FRIDAY = (MONDAY + timedelta(days=days) for days in range(1, 5))
NOON = MONDAY + timedelta(hours=12)
WHOLE, PARTLY, DEAD, HISTORY = FileStatus.WHOLE, FileStatus.PARTLY_HIDDEN, FileStatus.DEAD, FileStatus.HISTORY


def covered(since: datetime, until: datetime, exported_at: datetime, load_id: str) -> CoverageEntry:
    entry = coverage_entry(
        channels=ChannelSet.of(["a:1"]), since=since, until=until, exported_at=exported_at, load_id=load_id
    )
    assert entry is not None
    return entry


def file(name: str) -> DataFile:
    """Return a file of messages, such as ``A.mon``."""
    day = f"{MONDAY if name.endswith('.mon') else TUESDAY:%Y-%m-%d}"
    return DataFile(path=name, table=MESSAGES.name, first_day=day, last_day=day, rows=1, size_bytes=1, sha256="")


def record(load_id: str, coverage: list[CoverageEntry], files: list[str], committed_at: datetime) -> LoadRecord:
    return LoadRecord(
        load_id=load_id,
        exported_at=coverage[-1].exported_at,
        committed_at=committed_at,
        since=None,
        until=None,
        flags={},
        sources=(SourceFile(name=load_id, task_id=None, sha256="", size_bytes=1),),
        coverage=tuple(coverage),
        files=tuple(map(file, files)),
        counts={},
    )


A = record("A", [covered(MONDAY, TUESDAY, TUESDAY, "A")], ["A.mon"], TUESDAY)
B = record("B", [covered(NOON, WEDNESDAY, WEDNESDAY, "B")], ["B.mon", "B.tue"], WEDNESDAY)
R = replace(record("R", [*A.coverage, *B.coverage], ["R.mon", "B.tue"], THURSDAY), sources=(), replaces=("A", "B"))
C = record("C", [covered(MONDAY, TUESDAY, THURSDAY, "C")], ["C.mon"], FRIDAY)


def statuses(*records: LoadRecord) -> dict[str, FileStatus]:
    return {each.file.path: each.status for each in Snapshot(records).file_states}


def test_the_example_in_the_module_is_right() -> None:
    """A maintainer reads there how files get their states."""
    a_b = {"A.mon": PARTLY, "B.mon": WHOLE, "B.tue": WHOLE}
    a_b_r = {"A.mon": DEAD, "B.mon": DEAD, "B.tue": WHOLE, "R.mon": WHOLE}
    assert {"A.mon": WHOLE} == statuses(A)
    assert a_b == statuses(A, B)
    assert a_b_r == statuses(A, B, R)
    assert a_b_r | {"R.mon": DEAD, "C.mon": WHOLE} == statuses(A, B, R, C)


def test_a_file_is_dead_since_the_commit_that_ended_it() -> None:
    """Vacuum spares a file for a day after that: a reader may have opened the catalog just before."""
    dead_since = {each.file.path: each.dead_since for each in Snapshot([A, B, R, C]).file_states}
    expected = {"A.mon": THURSDAY, "B.mon": THURSDAY, "R.mon": FRIDAY, "B.tue": None, "C.mon": None}
    assert expected == dead_since


def test_the_order_of_records_does_not_matter() -> None:
    """A load of an old window may be committed last."""
    assert statuses(A, B, R, C) == statuses(C, R, B, A) == statuses(B, C, A, R)


def test_a_dead_file_of_messages_is_kept_for_history_if_its_load_says_so() -> None:
    """What keep_superseded promised holds after the file is superseded."""
    kept = replace(A, keep_superseded=True)
    assert {"A.mon": HISTORY, "C.mon": WHOLE} == statuses(kept, C)


def test_the_records_of_one_rewrite_do_not_hide_each_others_rows() -> None:
    """The rewrite left hidden rows out: to filter its files again would cost every query."""
    assert PARTLY is statuses(A, B)["A.mon"]
    assert WHOLE is statuses(A, B, R)["R.mon"]
    assert set() == Snapshot([A, B, R]).masking_coverage


def test_of_two_rewrites_of_the_same_records_the_later_one_counts() -> None:
    """The record of the first was damaged while the second was made, and was restored later."""
    first, second = (
        replace(
            record(f"rewrite-00000{number}", [*A.coverage, *B.coverage], files, THURSDAY), sources=(), replaces=replaced
        )
        for number, files, replaced in ((1, ["first.mon", "B.tue"], ("A", "B")), (2, ["second.mon"], ("A",)))
    )
    found = statuses(A, B, first, second)
    assert (DEAD, DEAD, WHOLE) == (found["A.mon"], found["first.mon"], found["second.mon"])
    assert (WHOLE, "B") == next(
        (each.status, each.record.load_id)
        for each in Snapshot([A, B, first, second]).file_states
        if each.file.path == "B.tue"
    )
    third = replace(second, load_id="rewrite-000003", replaces=("rewrite-000002", "B"), files=(file("third.mon"),))
    found = statuses(A, B, first, second, third)
    assert {"third.mon"} == {path for path, status in found.items() if status in (WHOLE, PARTLY)}


def test_a_lost_file_that_a_rewrite_took_over_shows_no_hidden_rows_once_it_is_restored(tmp_path: Path) -> None:
    """Regression: the removal of a person took it over, and the rows that a newer export hides came back with it."""
    lake = Snapshot([A, B]).without({"A.mon"})
    rewrite = Rewrite(gone={"B.tue"}, records={"A"}, written={file("R.tue"): tmp_path}, facts={"kind": "removal"})
    removal = record_of(lake, rewrite, seconds=0.0)
    assert ("A", "B") == removal.replaces
    records = [A, B, record_json.from_bytes(record_json.to_bytes(removal), "removal")]
    restored = Snapshot(records)
    expected = {"A.mon": PARTLY, "B.mon": WHOLE, "R.tue": WHOLE}
    assert expected == {each.file.path: each.status for each in restored.readable_states}
    assert {entry.load_id for entry in restored.masking_coverage} == {"B"}
    assert {"A.mon"} == {each.file.path for each in restored.readable_states if each.is_masked}


def test_a_load_reads_neither_files_nor_coverage_of_replaced_records() -> None:
    """Regression: each load read what tens of thousands of records list that a compaction had replaced years ago."""
    store = open_store("memory://replaced-records")
    log.write_checkpoint(store, [A, B, R, C])
    records = log.read_checkpoint(store, [each.path for each in (A, B, R, C)])
    of_id = {each.load_id: each for each in records.values()}
    snapshot = Snapshot([*records.values()])
    assert {"B.tue", "C.mon"} == {each.file.path for each in snapshot.readable_states}
    assert {"B.tue"} < {each.file.path for each in snapshot.states_since(FRIDAY)} == {"R.mon", "B.tue", "C.mon"}
    assert not snapshot.promoted_types
    assert (False, False, True, True) == tuple(of_id[each].files.is_read for each in "ABRC")  # type: ignore[attr-defined]
    assert not of_id["A"].coverage.is_read  # type: ignore[attr-defined]
    # Written again, and asked for, they are what they were.
    log.write_checkpoint(store, [*records.values()])
    again = log.read_checkpoint(store, list(records))
    assert [A, B, R, C] == list(again.values()) == list(records.values())


@given(lakes, st.lists(st.sets(st.integers(0, 4), min_size=2), max_size=3))
@settings(max_examples=200, deadline=None)
def test_rewrites_change_nothing_of_when_loads_were_retired_and_of_what_they_looked_at_again(
    lake: list[CoverageEntry], rewrites: list[set[int]]
) -> None:
    """The snapshot works that out from the entries that rewrites kept, without the records of all loads."""
    records = [
        record(load_id, [each for each in lake if each.load_id == load_id], [], START + timedelta(days=number))
        for number, load_id in enumerate(sorted({each.load_id for each in lake}))
    ]
    loads = Snapshot(records)
    for number, chosen in enumerate(rewrites):
        current = Snapshot(records).current
        if owners := [current[each] for each in chosen if each < len(current)]:
            coverage = without_superseded(entry for owner in owners for entry in owner.coverage)
            rewrite = replace(
                owners[0],
                load_id=f"rewrite-{number}",
                sources=(),
                coverage=tuple(coverage),
                replaces=tuple(each.load_id for each in owners),
            )
            records = [*records, rewrite]
    # As a checkpoint gives them, and as they were written.
    for some in (records, list(checkpoint.read(checkpoint.write(records), "checkpoint").values())):
        snapshot = Snapshot(some)
        of_loads = [each for each in some if each.is_load]
        assert [loads.retired_at(each) for each in loads.records] == [snapshot.retired_at(each) for each in of_loads]
        assert loads.recheck_coverage == snapshot.recheck_coverage


@pytest.mark.parametrize(
    "lines",
    [
        [{"v": 2, "channels": [["a:1"]]}],  # as no version wrote it
        [{"v": 2, "channels": []}, {"v": 3}],
        [{"v": 2, "channels": []}, {**json.loads(record_json.to_bytes(A)), "v": 99}],
        [[]],
    ],
)
def test_a_checkpoint_of_another_shape_is_as_good_as_none(lines: list[Any]) -> None:
    """Regression: an error of Python stopped every load. The records are still there."""
    store = open_store("memory://odd-checkpoint")
    store.replace(log.CHECKPOINT, gzip.compress(b"".join(json.dumps(each).encode() + b"\n" for each in lines)))
    assert {} == log.read_checkpoint(store, [])


def test_equal_channel_sets_of_many_threads_are_one_object() -> None:
    """Entries of equal sets are compared by identity: with two objects, a newer entry would not hide an older one's."""
    with ThreadPoolExecutor(8) as threads:
        for number in range(200):
            gate = threading.Barrier(8)

            def create(gate: threading.Barrier = gate, number: int = number) -> ChannelSet:
                gate.wait()
                return ChannelSet.of([f"thread:{number}", "thread:x"])

            found = [each.result() for each in [threads.submit(create) for _ in range(8)]]
            assert 1 == len({id(each) for each in found})
