"""What only Iceberg tables have: catalogs, partitions, snapshots that expire, and readers without a catalog."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest
from lakes import LakeProbe, at, write_export
from published import configure
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.table import Table as IcebergTable
from pyiceberg.utils.config import Config
from s3_server import S3Server

from airflow_provider_chatexport.errors import CallError, LakeError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.commits.visibility import path_in
from airflow_provider_chatexport.lake.publish.driver import PublishReport, publish
from airflow_provider_chatexport.lake.publish.formats import PublishConflictError
from airflow_provider_chatexport.lake.publish.iceberg import MAX_MANIFESTS, IcebergFormat
from airflow_provider_chatexport.lake.publish.plan import Change, live_files
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.storage.address import open_store

READER: Final = Path(__file__).parents[3] / ".venv-readers" / "bin" / "python"
# Reads a table by its folder, as a person with a DuckDB shell and no catalog does.
DUCKDB: Final = """
import json, sys, duckdb, duckdb_extension_avro, duckdb_extension_iceberg
from pathlib import Path
con = duckdb.connect()
for module, name in ((duckdb_extension_avro, "avro"), (duckdb_extension_iceberg, "iceberg")):
    (extension,) = Path(module.__file__).parent.rglob(f"{name}.duckdb_extension")
    con.execute(f"LOAD '{extension}'")
print(json.dumps(dict(con.execute(f"SELECT id, text FROM iceberg_scan('{sys.argv[1]}')").fetchall())))
"""


def published(lake: LakeProbe, catalog: str | None = None, **others: Any) -> PublishReport:
    """Publish a lake to Iceberg."""
    store = open_store(lake.uri)
    return publish(store, IcebergFormat(store, catalog, **others))


def own_catalog(lake: LakeProbe) -> Catalog:
    """Open the catalog in a lake as docs/publishing.md says."""
    return load_catalog("chatexport", type="sql", uri=f"sqlite:///{lake.uri}/_iceberg/catalog.sqlite")


def catalog_named(name: str) -> Catalog:
    """Open a configured catalog. pyiceberg itself reads its configuration only once, when it is imported."""
    return load_catalog(name, **(Config().get_catalog_config(name) or {}))


def messages_in(catalog: Catalog) -> IcebergTable:
    return catalog.load_table("chatexport.messages")


def texts(table: IcebergTable, **query: Any) -> dict[str, str]:
    """Return the texts of messages by id, as pyiceberg reads them."""
    rows = table.scan(selected_fields=("id", "text"), **query).to_arrow().to_pylist()
    return dict(sorted((row["id"], row["text"]) for row in rows))


def n_files(table: IcebergTable, row_filter: str) -> int:
    return len(list(table.scan(row_filter=row_filter).plan_files()))


def load_day(lake: LakeProbe, folder: Path, day: int, texts: Mapping[str, str], *, cid: str = "a:1") -> None:
    """Load a day of January 2026; each message is an hour later than the one before. A later load has no other."""
    folder.mkdir(exist_ok=True)
    at_hours = {message_id: (hour, text) for hour, (message_id, text) in enumerate(texts.items(), 1)}
    path = write_export(folder / str(len(list(folder.iterdir()))), at_hours, cid, day=day)
    exported_at = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(hours=len(list(folder.iterdir())))
    with Lake(lake.uri) as opened:
        opened.load(path, since=at(0, day=day), until=at(0, day=day + 1), exported_at=exported_at)


def make_two_days(folder: Path) -> LakeProbe:
    """Make a lake with a day of one channel and a day of another."""
    lake = LakeProbe(str(folder / "lake"))
    load_day(lake, folder / "exports", 1, {"a": "a1", "b": "b1"})
    load_day(lake, folder / "exports", 2, {"c": "c1"}, cid="a:2")
    return lake


@pytest.fixture
def two_days(tmp_path: Path) -> LakeProbe:
    return make_two_days(tmp_path)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> LakeProbe:
    """The same lake, published, for tests that change neither the lake nor its tables."""
    published(lake := make_two_days(tmp_path_factory.mktemp("unchanged")))
    return lake


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a catalog in pyiceberg's configuration: a SQLite file, with metadata in a folder of its own."""
    return configure(
        monkeypatch, "shared", uri=f"sqlite:///{tmp_path}/shared.sqlite", warehouse=f"file://{tmp_path}/warehouse"
    )


def test_a_query_opens_only_the_files_of_its_month_its_day_and_its_channel(unchanged: LakeProbe) -> None:
    """A table of years is useless if each query opens all of its files. What rules them out comes from the records."""
    table = messages_in(own_catalog(unchanged))
    assert ["created_at_month"] == [field.name for field in table.spec().fields]
    assert 2 == n_files(table, "created_at >= '2026-01-01T00:00:00+00:00'")
    assert 0 == n_files(table, "created_at >= '2026-02-01T00:00:00+00:00'")
    assert 1 == n_files(table, "created_at < '2026-01-02T00:00:00+00:00'")
    assert 1 == n_files(table, "event_date = '2026-01-02'")
    assert 1 == n_files(table, "cid = 'a:1'")


def test_columns_say_what_they_are_and_times_have_a_zone(unchanged: LakeProbe) -> None:
    """People see the description of a column in their catalog; a time without a zone would be read as local."""
    table = messages_in(own_catalog(unchanged))
    schema = table.schema()
    assert "timestamptz" == str(schema.find_type("created_at"))
    assert "list<string>" == str(schema.find_type("mentioned_user_ids"))
    assert "string" == str(schema.find_type("custom"))
    assert (schema.find_field("custom").doc or "").endswith("As JSON text.")
    assert (table.properties["comment"]).startswith("One row per message")


def test_duckdb_reads_a_table_by_its_folder(unchanged: LakeProbe) -> None:
    """A person with a shell has no catalog: the folder says which metadata is the newest, also after later loads."""
    assert READER.exists(), "the readers' environment is missing; run `make .venv-readers/.ready`"
    folder = Path(unchanged.uri) / "_iceberg" / "messages"
    hint = folder / "metadata" / "version-hint.text"
    hint.write_text("00000-gone")  # as if the publisher had died before it wrote the new one
    assert not published(unchanged).changed
    done = subprocess.run([str(READER), "-c", DUCKDB, str(folder)], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    assert {"a": "a1", "b": "b1", "c": "c1"} == json.loads(done.stdout)


def test_no_engine_may_delete_the_lakes_files(two_days: LakeProbe) -> None:
    """Engines delete the files of a dropped table and of expired snapshots, unless the table says that it cannot."""
    published(two_days)
    catalog = own_catalog(two_days)
    assert "false" == messages_in(catalog).properties["gc.enabled"]
    catalog.drop_table("chatexport.messages")
    published(two_days)
    assert two_days.texts() == texts(messages_in(own_catalog(two_days)))


def test_what_another_writer_appended_is_taken_back(two_days: LakeProbe) -> None:
    """The lake is the one truth: a table that people wrote into shows the lake again after the next publication."""
    published(two_days)
    table = own_catalog(two_days).load_table("chatexport.channels")
    table.append(pa.Table.from_pylist([{"cid": "a:9"}], schema=table.schema().as_arrow()))
    assert {"a:1", "a:2", "a:9"} == set(table.scan().to_arrow()["cid"].to_pylist())
    report = published(two_days)
    assert 1 == next(each.removed for each in report.tables if each.table == "channels")
    assert {"a:1", "a:2"} == set(table.refresh().scan().to_arrow()["cid"].to_pylist())


def test_lists_of_files_stay_few_however_often_a_lake_is_published(two_days: LakeProbe) -> None:
    """Each publication adds lists of files, and readers open all of them: a year of days would be 700 requests."""
    published(two_days)
    store = open_store(two_days.uri)
    form = IcebergFormat(store, most_snapshots=4)
    live = live_files(two_days.snapshot(), MESSAGES, functools.partial(path_in, store))
    last = live[-1]
    for version in range(100, 100 + MAX_MANIFESTS):
        opened = form.open(MESSAGES)
        state = opened.state()
        assert state is not None
        is_there = last.path in state.files
        opened.commit(
            Change(
                table=MESSAGES,
                is_new=False,
                add=() if is_there else (last,),
                remove=(last.path,) if is_there else (),
                new_columns=(),
                version=version,
            )
        )
    table = messages_in(own_catalog(two_days))
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert MAX_MANIFESTS >= len(snapshot.manifests(table.io))
    # The lists of a day are kept, but not those of hundreds of publications in a day.
    assert 4 == len(table.metadata.snapshots)
    folder = Path(two_days.uri) / "_iceberg" / "messages" / "metadata"
    assert 4 + 1 >= len(list(folder.glob("snap-*.avro")))
    assert two_days.texts() == texts(table)


def test_expired_snapshots_leave_no_lists_of_files(two_days: LakeProbe, tmp_path: Path) -> None:
    """Old lists name channels and files that are gone. pyiceberg forgets snapshots, but leaves their files there."""
    published(two_days)
    load_day(two_days, tmp_path / "exports", 1, {"a": "a2"})
    published(two_days, keep=timedelta(0))
    assert {"a": "a2", "c": "c1"} == two_days.texts() == texts(messages_in(own_catalog(two_days)))
    folder = Path(two_days.uri) / "_iceberg" / "messages" / "metadata"
    assert only_current_lists(two_days) == set(folder.glob("*.avro"))


def only_current_lists(lake: LakeProbe) -> set[Path]:
    """Return the lists of files of the one snapshot of messages, and the list of those lists."""
    table = messages_in(own_catalog(lake))
    (snapshot,) = table.metadata.snapshots
    named = {snapshot.manifest_list, *(each.manifest_path for each in snapshot.manifests(table.io))}
    return {Path(address.removeprefix("file://")) for address in named}


def test_no_snapshot_from_before_the_removal_of_a_person_is_left(two_days: LakeProbe, tmp_path: Path) -> None:
    """Such a snapshot names files that are deleted, and its lists name channels, which may be named after people."""
    published(two_days)
    load_day(two_days, tmp_path / "exports", 1, {"a": "a2"})
    published(two_days)
    folder = Path(two_days.uri) / "_iceberg" / "messages" / "metadata"
    assert 2 == len(messages_in(own_catalog(two_days)).metadata.snapshots) == len(list(folder.glob("snap-*.avro")))
    (abandoned := folder / "died-m0.avro").write_bytes(b"")
    os.utime(abandoned, (0, 0))
    (at_work := folder / "at-work-m0.avro").write_bytes(b"")
    with Lake(two_days.uri) as opened:
        report = opened.forget_user("u1")
    assert ["iceberg"] == report.published
    assert {} == two_days.texts() == texts(messages_in(own_catalog(two_days)))
    assert only_current_lists(two_days) | {at_work} == set(folder.glob("*.avro"))


def test_a_lake_that_moved_is_published_where_it_is_now(two_days: LakeProbe, tmp_path: Path) -> None:
    """The tables name files by their whole address. A copy must never show, or change, the lake it came from."""
    published(two_days)
    copy, moved = LakeProbe(str(tmp_path / "copy")), LakeProbe(str(tmp_path / "moved"))
    shutil.copytree(two_days.uri, copy.uri)
    load_day(copy, tmp_path / "exports", 3, {"d": "d1"})
    published(copy)
    assert {*"abcd"} == set(texts(messages_in(own_catalog(copy))))
    assert {*"abc"} == set(texts(messages_in(own_catalog(two_days))))
    Path(copy.uri).rename(moved.uri)
    published(moved)
    table = messages_in(own_catalog(moved))
    assert {*"abcd"} == set(texts(table))
    assert table.location().endswith("/moved/_iceberg/messages")


def test_a_table_of_another_lake_is_left_alone(two_days: LakeProbe, configured: str, tmp_path: Path) -> None:
    """Two lakes in one catalog would take back each other's files with every publication."""
    published(two_days, configured)
    other = LakeProbe(str(tmp_path / "other"))
    load_day(other, tmp_path / "exports", 1, {"z": "z1"})
    with pytest.raises(CallError, match=r"has a table chatexport\.\w+ that is not of the lake at .*/other; name"):
        published(other, configured)
    table = messages_in(catalog_named(configured))
    assert two_days.texts() == texts(table)
    assert table.location() == f"file://{tmp_path}/warehouse/chatexport/messages"


def test_a_catalog_that_others_hold_is_one_sentence_after_some_attempts(
    unchanged: LakeProbe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: opening a catalog was tried again without a limit."""
    name = configure(monkeypatch, "held", uri=f"sqlite:///{tmp_path}/held.sqlite?timeout=0.01")
    with contextlib.closing(sqlite3.connect(tmp_path / "held.sqlite")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with Lake(unchanged.uri) as lake, pytest.raises(LakeError, match="in 5 attempts, because others changed it"):
            lake.publish("iceberg", catalog=name)


def test_a_catalog_that_pyiceberg_does_not_know_is_one_sentence(unchanged: LakeProbe) -> None:
    with pytest.raises(CallError, match=r"pyiceberg knows no catalog 'prod'; describe it in ~/\.pyiceberg\.yaml"):
        published(unchanged, "prod")


def test_a_catalog_that_cannot_be_reached_is_one_sentence(
    unchanged: LakeProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the catalog, and has no address: that may contain a token."""
    name = configure(monkeypatch, "away", uri="http://127.0.0.1:9/secret-token")
    with pytest.raises(LakeError, match=r"the Iceberg catalog away cannot be read or written \(ConnectionError\)") as e:
        published(unchanged, name)
    assert "secret-token" not in str(e.value)


def test_a_lake_in_an_object_store_asks_for_a_catalog(
    bucket: LakeProbe, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one that says nothing of S3, lists of files are written to the lake, by its own credentials."""
    load_day(bucket, tmp_path / "exports", 1, {"a": "a1"})
    with pytest.raises(CallError, match="in an object store, which cannot hold a catalog; name an Iceberg catalog"):
        published(bucket)
    name = configure(monkeypatch, "elsewhere", uri=f"sqlite:///{tmp_path}/elsewhere.sqlite")
    published(bucket, name)
    assert not published(bucket, name).changed
    options = {"s3.endpoint": s3.url, "s3.access-key-id": "lakekey", "s3.secret-access-key": "lakesecret123"}
    table = messages_in(load_catalog(name, uri=f"sqlite:///{tmp_path}/elsewhere.sqlite", **options))
    assert table.location() == f"{bucket.uri}/_iceberg/messages"
    assert bucket.texts() == texts(table)


def test_a_rest_catalog_has_the_tables_of_a_lake_in_an_object_store(
    bucket: LakeProbe, rest_catalog: str, tmp_path: Path
) -> None:
    """Such catalogs give fields ids of their own, refuse late commits, and are what teams with Spark or Trino have."""
    load_day(bucket, tmp_path / "exports", 1, {"a": "a1", "b": "b1"})
    assert published(bucket, rest_catalog).changed
    assert not published(bucket, rest_catalog).changed
    load_day(bucket, tmp_path / "exports", 1, {"a": "a2"})
    assert {"a": "a1", "b": "b1"} == texts(messages_in(catalog_named(rest_catalog)))
    store = open_store(bucket.uri)
    late = IcebergFormat(store, rest_catalog).open(MESSAGES)
    late.state()
    assert published(bucket, rest_catalog).changed
    table = messages_in(catalog_named(rest_catalog))
    assert {"a": "a2"} == bucket.texts() == texts(table)
    assert "/tables-" in table.location()
    with pytest.raises(PublishConflictError):
        late.commit(Change(table=MESSAGES, is_new=False, add=(), remove=(), new_columns=(), version=99))
    assert 1 == IcebergFormat(store, rest_catalog).open(MESSAGES).expire()
    assert {"a": "a2"} == texts(messages_in(catalog_named(rest_catalog)))
