"""The refresh after a commit."""

from __future__ import annotations

from pathlib import Path

import pytest
from lakes import LakeProbe, load_file, write_export

from airflow_provider_chatexport.lake.catalog import catalog_file, catalog_writer
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.local_store import LocalStore


@pytest.fixture
def store(lake: LakeProbe, tmp_path: Path) -> LocalStore:
    """Load twice into a lake."""
    for number, hour in enumerate((8, 9)):
        path = write_export(tmp_path / "export", {f"m{number}": (hour, "text")})
        load_file(lake, path, hour, hour + 1, "2026-01-02T00:00:00Z")
    store = open_store(lake.uri)
    assert isinstance(store, LocalStore)
    return store


def test_a_refresh_that_finds_its_records_shown_leaves_the_catalog(store: LocalStore) -> None:
    """Regression: eight loads that finished together made eighteen catalogs, each of the whole lake."""
    catalog = store.local_path(catalog_file.NAME)
    before = catalog.stat().st_ino
    refresh(store)
    assert before == catalog.stat().st_ino
    # Another load was committed since this one read the records, and has refreshed the lake.
    earlier = Snapshot(commit_log.all_records(store)[:1])
    assert not catalog_writer.publish(store, earlier)
    assert before == catalog.stat().st_ino


def test_a_refresh_shows_that_a_record_was_moved_out(lake: LakeProbe, store: LocalStore) -> None:
    """A person may take a load out of a lake by moving its record. The catalog has to follow."""
    store.local_path(commit_log.record_paths(store)[0]).unlink()
    refresh(open_store(lake.uri))
    assert [[1]] == lake.rows("SELECT count(*) FROM loads")
    assert [[1]] == lake.rows("SELECT count(*) FROM messages")


def test_a_store_object_reads_each_record_once(store: LocalStore, lake: LakeProbe, tmp_path: Path) -> None:
    """A load asks for the records some ten times. Those that others commit meanwhile are among the answers."""
    first = commit_log.all_records(store)
    path = write_export(tmp_path / "export", {"m3": (12, "text")})
    load_file(lake, path, 12, 13, "2026-01-02T00:00:00Z")
    again = commit_log.all_records(store)
    assert (2, 3) == (len(first), len(again))
    assert {id(record) for record in first} <= {id(record) for record in again}


def test_a_checkpoint_holds_what_the_records_hold(store: LocalStore, lake: LakeProbe) -> None:
    """Records in the checkpoint are not read from their own files, and lists of channels are in it once."""
    records = commit_log.all_records(store, afresh=True)
    commit_log.write_checkpoint(store, records)
    paths = commit_log.record_paths(store)
    assert {record.path: record for record in records} == commit_log.read_checkpoint(store, paths)
    store.replace(commit_log.CHECKPOINT, store.read(commit_log.CHECKPOINT)[:100])
    assert {} == commit_log.read_checkpoint(store, paths)
    assert records == commit_log.all_records(open_store(lake.uri))
