"""One behaviour for every store: on a local disk, and where fsspec leads."""

from __future__ import annotations

import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from s3_server import new_lake

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import drop_leftovers, work_folder

DATA = f"messages/event_date=2026-01-01/{'0' * 24}-{'1' * 8}-0.parquet"
RECORD = "_loads/a.json"


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LakeStore:
    if request.param == "s3":
        request.getfixturevalue("s3")
    addresses = {"local": tmp_path / "lake", "memory": f"memory://{uuid.uuid4().hex}/lake", "s3": new_lake()}
    store = open_store(addresses[request.param])
    store.prepare()
    return store


def test_only_the_first_writer_of_an_object_writes_it(store: LakeStore) -> None:
    """A record is committed once, however many writers try at the same time."""
    assert store.put_new(RECORD, b"first")
    assert not store.put_new(RECORD, b"second")
    assert b"first" == store.read(RECORD)


def test_an_object_can_be_replaced_and_deleted(store: LakeStore) -> None:
    """A catalog is replaced after every load; to delete what is gone is not an error."""
    store.replace(RECORD, b"old")
    store.replace(RECORD, b"new")
    assert (True, b"new", [b"new"]) == (store.exists(RECORD), store.read(RECORD), list(store.chunks(RECORD)))
    store.delete([RECORD, RECORD])
    assert not store.exists(RECORD)


def test_a_folder_lists_its_own_objects_and_a_walk_those_below(store: LakeStore) -> None:
    """Neither a folder that is missing nor an object with another ending is an error."""
    assert [] == store.list_folder("_loads", ".json")
    for path in ("_loads/b.json", RECORD, "_loads/c.gz", "_loads/more/d.json"):
        store.replace(path, b"{}")
    assert [RECORD, "_loads/b.json"] == store.list_folder("_loads", ".json")
    assert [RECORD, "_loads/b.json", "_loads/more/d.json"] == [path for path, _ in store.walk("_loads", ".json")]
    assert [] == list(store.walk("nothing", ""))


def test_a_walk_says_when_objects_last_changed(store: LakeStore) -> None:
    """Vacuum spares young files, which may belong to a load under way."""
    before = datetime.now(UTC) - timedelta(seconds=2)
    store.replace(RECORD, b"{}")
    ((_, modified_at),) = store.walk("_loads", ".json")
    assert before < modified_at < datetime.now(UTC) + timedelta(seconds=2)


def test_a_data_file_is_one_file_under_all_its_names(store: LakeStore, tmp_path: Path) -> None:
    """A record knows it by its path in the table's folder, wherever the store keeps the bytes."""
    (tmp_path / "written").write_bytes(b"rows")
    assert not store.has_data(DATA)
    store.put_data(tmp_path / "written", DATA)
    assert store.has_data(DATA)
    assert [DATA] == [path for path, _ in store.data_files()]
    assert b"rows" == store.local_copy(store.data_path(DATA), tmp_path).read_bytes()
    assert DATA == store.path_in_table(store.data_path(DATA))
    store.drop_data([DATA])
    assert [] == list(store.data_files())


def test_a_missing_object_is_one_sentence(store: LakeStore) -> None:
    """What, where, and what to do."""
    with pytest.raises(LakeError, match=r"cannot read the lake at .*/lake: .*; check that the place exists"):
        store.read(RECORD)


def test_a_work_folder_goes_when_the_work_ends(store: LakeStore, tmp_path: Path) -> None:
    """It holds a raw export, also when the work fails."""

    def fail() -> None:
        with work_folder(store, tmp_path / "work") as folder:
            (folder / "export-0").write_bytes(b"raw")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [] == list((tmp_path / "work").iterdir())


def test_a_file_that_grows_keeps_its_work_folder(tmp_path: Path) -> None:
    """A folder's own time does not change while a file in it grows: vacuum must not take the folder of a long load."""
    store = open_store(tmp_path / "lake")
    now = datetime.now(UTC)
    days_ago = (now - timedelta(days=3)).timestamp()
    with work_folder(store) as folder:
        export_file = folder / "export-0"
        export_file.write_bytes(b"raw")
        os.utime(folder, (days_ago, days_ago))
        assert 0 == drop_leftovers(store, before=now - timedelta(days=1))
        os.utime(export_file, (days_ago, days_ago))
        assert 1 == drop_leftovers(store, before=now - timedelta(days=1))
        assert not folder.exists()


def test_refreshes_of_one_lake_take_turns(tmp_path: Path) -> None:
    """Regression: of eight processes that loaded at the same time, each wrote a catalog for each load of the others."""
    inside, most = 0, 0

    def enter(_: int) -> None:
        nonlocal inside, most
        with open_store(tmp_path).taking_turns():
            inside += 1
            most = max(most, inside)
            threading.Event().wait(0.001)
            inside -= 1

    with ThreadPoolExecutor(8) as threads:
        assert 16 == len(list(threads.map(enter, range(16))))
    assert 1 == most
