"""Records of loads of an hour each, for tests of what is written of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord, SourceFile

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SETS = [ChannelSet.of(["a:1"]), ChannelSet.of(["a:1", "a:2"])]


def data_file(name: str) -> DataFile:
    day = f"{START:%Y-%m-%d}"
    return DataFile(
        path=f"messages/{name}", table="messages", first_day=day, last_day=day, rows=1, size_bytes=2, sha256="c"
    )


def load(number: int) -> LoadRecord:
    since = START + number * HOUR
    entry = CoverageEntry(
        channels=SETS[number % 2], since=since, until=since + HOUR, exported_at=since + HOUR, load_id=f"load-{number}"
    )
    return LoadRecord(
        load_id=f"load-{number}",
        exported_at=entry.exported_at,
        committed_at=entry.exported_at,
        since=since,
        until=since + HOUR,
        flags={},
        sources=(SourceFile(name=f"{number}.ndjson", task_id=None, sha256="s", size_bytes=number),),
        coverage=(entry,),
        files=(data_file(f"{number}.parquet"),),
        counts={"rows": {"messages": number}},
        facts={"suppression_list": "d", "inputs": [number], "options": {}},
    )


LOADS = [load(number) for number in range(1300)]
