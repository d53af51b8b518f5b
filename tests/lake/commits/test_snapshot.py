"""The states of files, worked out from records alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry, coverage_entry
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord, SourceFile
from airflow_provider_chatexport.lake.commits.snapshot import FileStatus, Snapshot
from airflow_provider_chatexport.lake.schema.tables import MESSAGES

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
