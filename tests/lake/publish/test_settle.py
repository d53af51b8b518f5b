"""What the record of a settlement takes from others, worked out from records alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_provider_chatexport.lake.commits import checkpoint, record_json
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import coverage_entry, covered_spans
from airflow_provider_chatexport.lake.commits.file_state import FileStatus
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord, SourceFile
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.maintenance.rewrite import record_of
from airflow_provider_chatexport.lake.publish.plan import unfit
from airflow_provider_chatexport.lake.publish.settle import rewrite_of_some

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def data_file(name: str, table: str, first: datetime, last: datetime) -> DataFile:
    days = (f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}")
    return DataFile(
        path=name, table=table, first_day=days[0], last_day=days[1], rows=1, size_bytes=1, sha256="", schema_version=99
    )


def load(number: int, lookback_hours: int) -> LoadRecord:
    """Return the load of an hour and of the hours before it, with messages and a channel."""
    load_id = f"{number:024x}"
    until = START + (number + 1) * HOUR
    since = max(START, until - (1 + lookback_hours) * HOUR)
    entry = coverage_entry(
        channels=ChannelSet.of(["a:1"]), since=since, until=until, exported_at=until + HOUR / 60, load_id=load_id
    )
    assert entry is not None
    return LoadRecord(
        load_id=load_id,
        exported_at=entry.exported_at,
        committed_at=entry.exported_at,
        since=since,
        until=until,
        flags={},
        sources=(SourceFile(name=load_id, task_id=None, sha256="", size_bytes=1),),
        coverage=(entry,),
        files=(
            data_file(f"messages-{number}", "messages", since, until - HOUR),
            data_file(f"channels-{number}", "channels", until, until),
        ),
        counts={},
    )


def settled(snapshot: Snapshot) -> LoadRecord | None:
    """Return the record of a settlement that rewrites everything that may have hidden rows; None if nothing has."""
    gone = list(unfit(snapshot))
    if not gone:
        return None
    written = {}
    for table in sorted({each.file.table for each in gone}):
        files = [each.file for each in gone if each.file.table == table]
        days = {day for file in files for day in (file.first_day, file.last_day)}
        for day in sorted(days) if table == "messages" else [max(days)]:
            name = f"{table}-of-{len(snapshot.records)}-{day}"
            written[replace(files[0], path=name, first_day=day, last_day=day)] = Path(name)
    rewrite = rewrite_of_some(snapshot, {each.file.path for each in gone})
    record = record_of(snapshot, replace(rewrite, written=written), seconds=0.0)
    return replace(record, committed_at=snapshot.records[-1].committed_at + timedelta(seconds=1))


def published_hourly(n_loads: int, lookback_hours: int) -> Iterator[tuple[Snapshot, LoadRecord | None]]:
    records: list[LoadRecord] = []
    for number in range(n_loads):
        records.append(load(number, lookback_hours))
        record = settled(Snapshot(records))
        if record is not None:
            records.append(record)
        yield Snapshot(records), record


@pytest.mark.parametrize(("lookback_hours", "most_files", "most_entries"), [(0, 1, 0), (6, 3, 60)])
def test_a_settlement_costs_what_it_rewrites_however_old_the_lake_is(
    lookback_hours: int, most_files: int, most_entries: int
) -> None:
    """Regression: each record listed all of the lake, so hourly publishing made records grow with the square of time.

    With a lookback, a record knows the entries of the days that loads still change, and no others.
    """
    for snapshot, record in published_hourly(24 * 4, lookback_hours):
        assert [] == list(unfit(snapshot))
        if record is not None:
            assert most_files >= len(record.files)
            assert most_entries >= len(record.coverage)
    loads = [record for record in snapshot.records if record.is_load]
    assert covered_spans(each for record in loads for each in record.coverage) == covered_spans(snapshot.coverage)
    assert len(snapshot.coverage) == len(set(snapshot.coverage))
    # Most records of settlements have nothing left after the next one.
    assert len(loads) + 1 + 4 >= len([record for record in snapshot.current if record.files or record.coverage])


def test_a_load_that_comes_later_hides_rows_of_a_settlement() -> None:
    """The settlement has applied the entries that it knew, and no others."""
    *_, (snapshot, record) = published_hourly(8, 3)
    assert record is not None
    late = replace(load(5, 3), load_id="f" * 24)
    late = replace(
        late,
        coverage=tuple(
            replace(entry, load_id=late.load_id, exported_at=entry.exported_at + 9 * HOUR) for entry in late.coverage
        ),
        files=(replace(late.files[0], path="late"),),
    )
    statuses = {each.file.path: each.status for each in Snapshot([*snapshot.records, late]).readable_states}
    assert FileStatus.WHOLE is statuses["late"]
    (settled_file,) = (file for file in record.files if file.table == "messages")
    assert FileStatus.PARTLY_HIDDEN is statuses[settled_file.path]


def test_a_settlement_that_is_restored_after_another_one_does_not_count() -> None:
    """Its record was damaged while the next one was made, which took the same files: rows would be there twice."""
    first = [load(0, 0), load(1, 1)]
    lost = settled(Snapshot(first))
    assert lost is not None
    second = settled(Snapshot(first, damaged=[lost.path]))
    assert second is not None
    assert second.load_id > lost.load_id
    statuses = {
        each.file.path: (each.record.load_id, each.status) for each in Snapshot([*first, lost, second]).readable_states
    }
    assert {second.load_id} == {owner for path, (owner, _) in statuses.items() if "-of-" in path}
    assert all(status is FileStatus.WHOLE for _, status in statuses.values())


def test_a_record_that_takes_files_is_one_that_older_programs_refuse() -> None:
    """They do not know which files others lost to it. A checkpoint has what it took, too."""
    record = settled(Snapshot([load(0, 0), load(1, 1)]))
    assert record is not None
    assert record.taken
    assert 4 == record_json.to_json(record, {})["v"]
    assert record == record_json.from_bytes(record_json.to_bytes(record), "here")
    assert record.taken == checkpoint.read(checkpoint.write([record]), "here")[record.path].taken
