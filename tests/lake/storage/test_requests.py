"""How many requests a lake in an object store makes, whatever its age. Each costs money, and 20 ms across regions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from lakes import LakeProbe, write_export
from s3_proxy import S3Proxy, in_front_of
from s3_server import S3Server, new_lake

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import record_json
from airflow_provider_chatexport.lake.load.report import LoadReport
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.storage.address import open_store

FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
# Read: its own record, the checkpoints, the catalog, and up to four records that no checkpoint has. Written: its record
# and the catalog. Listed: the records three times, and the suppression list twice, with two requests each.
MOST_OF_A_LOAD = 17


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    """Yield a proxy that all requests go through."""
    with in_front_of(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


def load_first_day(lake: LakeProbe, path: Path, number: int) -> LoadReport:
    """Load an export of the first day. Those with a greater number are newer."""
    return Lake(lake.uri).load(
        path,
        since=FIRST_DAY,
        until=FIRST_DAY + DAY,
        exported_at=FIRST_DAY + DAY + timedelta(minutes=number),
        options=LoadOptions(auto_compact=False),
    )


def add_loads(lake: LakeProbe, report: LoadReport, n_loads: int) -> None:
    """Commit copies of a load, each of a month of its own, as a lake of this age has them."""
    store = open_store(lake.uri)
    known = len(commit_log.record_paths(store))
    for number in range(known, known + n_loads):
        day = f"20{10 + number // 12}-{number % 12 + 1:02}-01"
        load_id = f"{number:024x}"
        files = []
        for file in report.record.files:
            if file.table == "messages":
                path = f"messages/event_month={day[:7]}/{load_id}-00000000-0.parquet"
                store.copy(store.data_path(file.path), store.data_path(path))
                files.append(replace(file, path=path, first_day=day, last_day=day))
        since = datetime.fromisoformat(f"{day}T00:00:00Z")
        entries = (replace(each, since=since, until=since + DAY, load_id=load_id) for each in report.record.coverage)
        record = replace(report.record, load_id=load_id, coverage=tuple(entries), files=tuple(files))
        store.put_new(record.path, record_json.to_bytes(record))
    Lake(lake.uri).rebuild_catalog()


def test_requests_do_not_grow_with_the_age_of_a_lake(proxy: S3Proxy, tmp_path: Path) -> None:
    """Regression: each load asked for every file of the lake twice, and for every record since the last checkpoint."""
    lake = LakeProbe(new_lake())
    path = write_export(tmp_path / "export", {"m1": (8, "one"), "m2": (9, "two")})
    report = load_first_day(lake, path, 0)
    for n_loads in (5, 55):
        add_loads(lake, report, n_loads)
        proxy.requests.clear()
        report = load_first_day(lake, path, n_loads)
        # The load replaces the one before it, and looks at what that one showed.
        n_compared = 3
        assert len(proxy.requests) <= MOST_OF_A_LOAD + len(report.record.files) + n_compared
        proxy.requests.clear()
        assert [] == Lake(lake.uri).table("messages", since="2009-03-01", until="2009-03-02").fetchall()
        n_requests = len(proxy.requests)
        # The catalog, and each small file of messages once: no question about any.
        assert n_requests <= 3 + sum(each.is_live for each in lake.snapshot().files_of(MESSAGES))


def test_a_file_that_is_gone_is_named(s3: S3Server, tmp_path: Path) -> None:
    """Regression: a query no longer asks whether a file is there, and the store's own error did not name it."""
    lake = LakeProbe(new_lake())
    report = load_first_day(lake, write_export(tmp_path / "export", {"m1": (8, "one")}), 0)
    (path,) = (file.path for file in report.record.files if file.table == "messages")
    store = open_store(lake.uri)
    store.delete([store.data_path(path)])
    with pytest.raises(LakeError, match=re.escape(path)):
        Lake(lake.uri).fetch("SELECT count(text) FROM messages")
