"""What verify finds: one fault at a time on a real lake, and nothing where nothing is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from export_objects import channel, line, member, message, reaction, user, write_lines
from s3_server import new_lake

from airflow_provider_chatexport.core.entities import Shape
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import LakeError, MovedLakeError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import record_json
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.verify import VerifyReport, verify
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.store import LakeStore

NOW = datetime(2026, 2, 1, tzinfo=UTC)


def load_day(tmp_path: Path, day: int) -> None:
    """Load one day of the channel, with an example of everything that the law of conservation counts."""
    at = f"2026-01-0{day}T10:00:00Z"
    lines = [
        line("channel", channel()),
        line("member", member("u1"), Shape.KEYED),
        line("user", user("u1")),
        line("message", message(f"m{day}", created_at=at, latest_reactions=[reaction(f"m{day}", created_at=at)])),
        line("message", message(f"m{day}", created_at=at), Shape.ITEM),
        line("message", message(f"late{day}", created_at="2026-01-09T00:00:00Z")),
        line("message", message(f"bad{day}", created_at="never")),
        line("reaction", reaction(f"m{day}", "u3", created_at=at)),
        line("poll", {"id": "p"}),
        b"no JSON",
    ]
    load_files(
        [write_lines(tmp_path / f"day{day}.ndjson", lines)],
        lake_uri=str(tmp_path / "lake"),
        window=Window.parse(f"2026-01-0{day}", f"2026-01-0{day + 1}"),
        exported_at=datetime(2026, 1, 20, tzinfo=UTC),
    )


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    load_day(tmp_path, 1)
    load_day(tmp_path, 2)
    return open_store(tmp_path / "lake")


def kinds(report: VerifyReport) -> list[str]:
    return sorted(finding.kind for finding in report.findings)


def a_data_file(store: LakeStore) -> Path:
    record = commit_log.all_records(store)[0]
    return Path(store.url(next(file.path for file in record.files if file.table == "messages")))


def test_a_lake_of_two_days_is_in_order(store) -> None:
    """People ignore an alarm that always rings."""
    report = verify(store, now=NOW)
    assert ([], True, 2) == (kinds(report), report.ok, report.n_loads)


def test_a_day_that_was_never_loaded_is_a_gap(store, tmp_path) -> None:
    """A missing load must not look like a quiet day."""
    load_day(tmp_path, 5)
    report = verify(store, now=NOW)
    assert (["gap"], False) == (kinds(report), report.ok)
    assert "2026-01-03T00:00:00.000000Z to 2026-01-05T00:00:00.000000Z" in report.findings[0].what


def test_a_file_that_is_gone_is_missing(store) -> None:
    """The rows of a deleted file are lost until its window is exported again."""
    a_data_file(store).unlink()
    assert ["missing"] == kinds(verify(store, now=NOW))


def test_a_changed_byte_is_found(store) -> None:
    """Disks and people change files. The recorded digest shows it."""
    path = a_data_file(store)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert ["altered"] == kinds(verify(store, now=NOW))


def test_a_file_that_only_the_views_have_is_missing_from_its_folder(store) -> None:
    """A person deleted a link in a table's folder: globs read fewer rows than views until the catalog is rebuilt."""
    file = next(file for file in commit_log.all_records(store)[0].files if file.table == "messages")
    Path(store.url(file.path)).unlink()
    (finding,) = verify(store, now=NOW).findings
    assert ("missing", True) == (finding.kind, "chatexport catalog" in finding.what)
    refresh(store, full=True)
    assert verify(store, now=NOW).ok


def test_a_file_in_the_place_of_another_is_altered(store) -> None:
    """A restored backup, or a copy with other rows, may have the name of a file that the views read."""
    file = next(file for file in commit_log.all_records(store)[0].files if file.table == "messages")
    path = Path(store.url(file.path))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + b"more")
    assert ["altered"] == kinds(verify(store, now=NOW))


def test_a_file_that_only_history_reads_is_checked_as_well(tmp_path: Path) -> None:
    """``messages_history`` fails without it."""
    for hour in (1, 2):
        load_files(
            [write_lines(tmp_path / f"export-{hour}", [line("message", message(text=str(hour)))])],
            lake_uri=str(tmp_path / "lake"),
            window=Window.parse("2026-01-01", "2026-01-02"),
            exported_at=datetime(2026, 1, 20, hour, tzinfo=UTC),
            options=LoadOptions(keep_superseded=True),
        )
    store = open_store(tmp_path / "lake")
    assert verify(store, now=NOW).ok
    (kept,) = [each for each in commit_log.read_snapshot(store).files_of(MESSAGES) if not each.is_live]
    Path(store.url(store.data_path(kept.file.path))).unlink()
    assert ["missing"] == kinds(verify(store, now=NOW))


def test_an_entity_that_went_nowhere_is_found(store) -> None:
    """Verify must say so if the counts of a load do not add up."""
    record = commit_log.all_records(store)[0]
    value = json.loads(store.read(record.path))
    value["counts"]["duplicates"] -= 1
    store.replace(record.path, json.dumps(value).encode())
    report = verify(store, now=NOW)
    assert (["unaccounted"], False) == (kinds(report), report.ok)


def test_a_file_that_is_in_no_record_is_reported_after_a_day(store) -> None:
    """The leftovers of a killed load may go. The files that a load is just writing may not."""
    path = a_data_file(store)
    stray = path.with_name("stray.parquet")
    stray.write_bytes(path.read_bytes())
    os.utime(stray, (NOW.timestamp(), NOW.timestamp()))
    assert [] == kinds(verify(store, now=NOW + timedelta(hours=23)))
    report = verify(store, now=NOW + timedelta(hours=25))
    assert (["unknown"], True) == (kinds(report), report.ok)


@pytest.mark.parametrize("uri", ["lake", "memory://verified-catalog"])
def test_a_catalog_that_does_not_know_all_records_is_found(uri: str, tmp_path: Path) -> None:
    """People query a lake through its catalog. Without one, or with yesterday's, they see no new rows."""
    store = open_store(uri if "://" in uri else tmp_path / uri)

    def load(day: int) -> None:
        path = write_lines(tmp_path / f"day{day}", [line("message", message(f"m{day}"))])
        window = Window.parse(f"2026-01-0{day}", f"2026-01-0{day + 1}")
        load_files([path], lake_uri=store.uri, window=window)

    load(1)
    of_one_load = store.read(catalog_file.NAME)
    load(2)
    assert [] == kinds(verify(store, now=NOW))
    for content in (of_one_load, b"junk", b"", of_one_load[:20_000], None):
        store.delete([catalog_file.NAME])
        if content is not None:
            store.replace(catalog_file.NAME, content)
        report = verify(store, now=NOW)
        assert (["catalog"], True) == (kinds(report), report.ok)
        assert "run chatexport catalog" in report.findings[0].what
    refresh(store)
    assert verify(store, now=NOW).ok


def test_a_catalog_of_a_lake_that_was_moved_is_found(store, tmp_path) -> None:
    """Its views read files by absolute paths. Another name of the same folder is not a fault."""
    (tmp_path / "link").symlink_to(tmp_path / "lake")
    assert verify(open_store(tmp_path / "link"), now=NOW).ok
    moved = open_store((tmp_path / "lake").rename(tmp_path / "moved"))
    (finding,) = verify(moved, now=NOW).findings
    assert ("moved", True) == (finding.kind, finding.is_fault)
    assert f"the lake was at {tmp_path}/lake" in finding.what
    refresh(moved, full=True)
    assert verify(moved, now=NOW).ok


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_a_copy_of_a_lake_never_answers_from_the_original(
    place: str, store: LakeStore, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Regression: queries over a copy, or over a lake mounted elsewhere, silently showed the rows of the original."""
    copied = str(tmp_path / "copy")
    if place == "disk":
        shutil.copytree(store.uri, copied)
    else:
        request.getfixturevalue("s3")
        copied = new_lake()
        for path, _ in store.walk("", ""):
            if path.startswith(("_loads/", "_files/", "catalog.")):
                open_store(copied).replace(path, store.read(path))
    copy, cure = Lake(copied), rf"was at {re.escape(store.uri)}, .*; run chatexport catalog --lake {re.escape(copied)}"
    for ask in (copy.coverage, lambda: copy.sql("FROM messages"), lambda: copy.fetch("FROM messages")):
        with pytest.raises(MovedLakeError, match=cure):
            ask()
    copy.rebuild_catalog()
    shutil.rmtree(store.uri)
    assert [("m1",), ("m2",)] == copy.sql("SELECT id FROM messages ORDER BY id").fetchall()


def test_what_a_newer_version_wrote_is_refused(store: LakeStore) -> None:
    """An older installation does not know its tables, and would leave rows or columns out."""
    path = Path(store.url(catalog_file.NAME))
    with duckdb.connect(str(path)) as con:
        con.execute("UPDATE _internal._built_from SET schema_version = 99")
    newer = "; upgrade airflow-provider-chatexport where it reads"
    with pytest.raises(LakeError, match=f"a newer version made the catalog of .*{newer}"):
        Lake(store.uri).fetch("FROM messages")
    record = commit_log.all_records(store)[0]
    store.replace(record.path, json.dumps(json.loads(record_json.to_bytes(record)) | {"schema_version": 99}).encode())
    with pytest.raises(LakeError, match=f"{record.path} is of a newer version: .*{newer}"):
        verify(open_store(store.uri), now=NOW)
