"""Lakes of older versions: day folders and records of version 1, and data files in the tables' folders of a bucket."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fixtures.make_old_lake import export
from lakes import LakeProbe

from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.commits.file_state import FileStatus
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.storage.address import open_store

FIXTURES = Path(__file__).parents[1] / "fixtures"
ARCHIVE = FIXTURES / "lake-5192e9a.tar.gz"
BUCKET = FIXTURES / "bucket-6e2799c.tar.gz"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[LakeProbe, dict[str, Any]]:
    """Return the lake, and what its views showed when it was made."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    lake = LakeProbe(str(folder / "lake"))
    Lake(lake.uri).rebuild_catalog()
    return lake, json.loads((folder / "shown.json").read_text())


def kinds_of_faults(lake: LakeProbe) -> set[str]:
    """Return what verify finds wrong. The lake has gaps."""
    return {finding.kind for finding in Lake(lake.uri).verify().findings if finding.is_fault}


def shown(lake: LakeProbe, like: dict[str, Any]) -> dict[str, Any]:
    """Return what the views show, in the columns of another answer."""
    found = {
        name: sorted(lake.rows(f"SELECT {', '.join(each['columns'])} FROM {name}"), key=str)
        for name, each in like.items()
    }
    return json.loads(json.dumps(found, default=str))


def test_an_old_lake_is_read_loaded_compacted_and_verified(old: tuple[LakeProbe, dict[str, Any]]) -> None:
    """A person must not have to load years of exports a second time because the layout of files has changed."""
    lake, before = old
    expected = {name: each["rows"] for name, each in before.items()}
    assert expected == shown(lake, before)
    assert {"gap"} == kinds_of_faults(lake)
    # One day is looked up among files that have it as a column, and files that have it as the name of their folder.
    Lake(lake.uri).load(
        export(Path(lake.uri).parent / "new", range(10, 13), "v5"),
        since="2026-01-10",
        until="2026-01-13",
        exported_at="2026-02-05T00:00:00Z",
    )
    folders = {path.rpartition("/")[0] for path in lake.files() if path.startswith("messages/")}
    assert {"messages/event_month=2026-01", "messages/event_date=2026-01-09"} <= folders
    of_days = (
        "SELECT event_date::VARCHAR, count(*) FROM messages WHERE event_date IN ('2026-01-09', '2026-01-10') GROUP BY 1"
    )
    assert [["2026-01-09", 1], ["2026-01-10", 1]] == sorted(lake.rows(of_days))
    lake.assert_tidy()
    after = shown(lake, before)
    Lake(lake.uri).compact()
    assert {name: rows for name, rows in after.items() if name != "messages_history"} == {
        name: rows for name, rows in shown(lake, before).items() if name != "messages_history"
    }
    live = {each.file.path for each in lake.snapshot().live_files_of(MESSAGES)}
    assert {"messages/event_month=2026-01"} == {path.rpartition("/")[0] for path in live}
    lake.assert_glob_equals_view()
    lake.assert_tidy()
    Lake(lake.uri).vacuum(keep=timedelta(0))
    assert {"gap"} == kinds_of_faults(lake)
    assert Lake(lake.uri).forget_user("cyd").removed["reactions"] > 0
    assert {"gap"} == kinds_of_faults(lake)


@pytest.fixture
def bucket(tmp_path: Path) -> tuple[LakeProbe, dict[str, Any]]:
    """Return a lake in an object store, and what its views showed when it was made."""
    root = f"/{tmp_path.name}/lake"
    files = fsspec.filesystem("memory")
    with tarfile.open(BUCKET) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            files.pipe_file(f"{root}/{member.name}", content.read())
    shown_before = json.loads(files.cat_file(f"{root}/shown.json"))
    files.rm_file(f"{root}/shown.json")
    lake = LakeProbe(f"memory:/{root}")
    Lake(lake.uri).rebuild_catalog()
    return lake, shown_before


def in_tables(lake: LakeProbe) -> Counter[str]:
    """Return how many data files lie in the folder of each table."""
    found = (path for path, _ in open_store(lake.uri).walk("", ".parquet") if "/empty-v" not in path)
    return Counter(path.partition("/")[0] for path in found)


def test_an_old_lake_in_a_bucket_is_read_loaded_compacted_and_verified(
    bucket: tuple[LakeProbe, dict[str, Any]], tmp_path: Path
) -> None:
    """Its files stay where they are as long as they are live, and for the keep time after that."""
    lake, before = bucket
    assert {name: each["rows"] for name, each in before.items()} == shown(lake, before)
    assert {"gap"} == kinds_of_faults(lake)
    old = in_tables(lake)
    assert 4 == old["messages"]
    with Lake(lake.uri) as reader:
        opened = reader.sql("SELECT count(text) FROM messages")
        # It hides a whole day, and a part of the month that a compaction wrote.
        path = export(tmp_path / "new", range(10, 21), "v6")
        with Lake(lake.uri) as writer:
            writer.load(path, since="2026-01-10", until="2026-01-21", exported_at="2026-02-06T00:00:00Z")
        assert set() == kinds_of_faults(lake)
        assert 3 == sum(each.is_live and not each.file.below_files for each in lake.snapshot().files_of(MESSAGES))
        after = shown(lake, before)
        Lake(lake.uri).compact()
        assert {name: rows for name, rows in after.items() if name != "messages_history"} == {
            name: rows for name, rows in shown(lake, before).items() if name != "messages_history"
        }
        assert old == in_tables(lake)
        # A reader that opened the lake before all of this goes on.
        assert [(len(before["messages"]["rows"]),)] == opened.fetchall()
    assert not any(each.is_live and not each.file.below_files for each in lake.snapshot().files_of(MESSAGES))
    versions = "SELECT id, text FROM messages_history ORDER BY ALL"
    history = lake.rows(versions)
    Lake(lake.uri).vacuum(keep=timedelta(0))
    assert 0 == in_tables(lake)["messages"]
    assert history == lake.rows(versions)
    assert set() == kinds_of_faults(lake)
    assert Lake(lake.uri).forget_user("cyd").removed["reactions"] > 0
    assert set() == kinds_of_faults(lake)


def test_the_files_of_a_bucket_stay_for_the_keep_time(tmp_path: Path) -> None:
    """Regression: an object store deleted superseded files at once, and a reader with an older catalog got an error."""
    lake = Lake(f"memory://{tmp_path.name}/lake")
    window = {"since": "2026-01-01", "until": "2026-01-02"}
    first = lake.load(export(tmp_path / "1", range(1, 2), "v1"), exported_at="2026-02-01T00:00:00Z", **window)
    assert all(path.startswith("_files/") for path in first.files)
    probe = LakeProbe(lake.uri)
    with lake:
        opened = lake.sql("SELECT text FROM messages ORDER BY id")
        Lake(lake.uri).load(export(tmp_path / "2", range(1, 2), "v2"), exported_at="2026-02-02T00:00:00Z", **window)
        Lake(lake.uri).vacuum()
        assert [("v1 of m01-09",), ("v1 of m01-15",)] == opened.fetchall()
    assert ["v2 of m01-09", "v2 of m01-15"] == list(probe.texts().values())
    dead = {each.file.path for each in probe.snapshot().file_states if each.status is FileStatus.DEAD}
    assert {"messages", "reactions", "attachments"} == {path.partition("/")[0] for path in dead}
    assert dead == {*Lake(lake.uri).vacuum(keep=timedelta(0)).superseded}
    probe.assert_tidy()
