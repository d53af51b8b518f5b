"""Loads of files into a real lake: committed whole or not at all, once, in any order."""

from __future__ import annotations

import gzip
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from export_objects import channel, line, message, reaction, write_lines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lakes import LakeProbe, at, load_file, write_export

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError, DamagedRecordError, InputError, LakeError, TooManyRejectsError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import record_json
from airflow_provider_chatexport.lake.commits.coverage import channels_of
from airflow_provider_chatexport.lake.commits.record_json import RECORD_VERSION
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, TABLES
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.local_store import LocalStore
from airflow_provider_chatexport.lake.storage.workdir import work_folder

FIRST, SECOND, THIRD = "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"
MARK = "a-text-that-no-one-else-may-read"


def report_of(report: pipeline.LoadReport) -> dict[str, Any]:
    return json.loads(json.dumps(report.to_json()))


# Commit


def test_a_report_has_the_keys_of_the_contract(lake: LakeProbe, tmp_path: Path) -> None:
    """Scripts and XCom readers hold on to them."""
    path = write_export(tmp_path / "export", {"m1": (10, "one"), "m2": (11, "two")})
    report = report_of(load_file(lake, path, 10, 11, FIRST))
    assert {
        "window": {"since": "2026-01-01T10:00:00.000000Z", "until": "2026-01-01T11:00:00.000000Z"},
        "lines": 3,
        "rejected": 0,
        "out_of_window": 1,
        "other_entities": 0,
        "duplicates": 0,
        "entities": {"channel": 1, "message": 2},
        "bytes_in": path.stat().st_size,
        "already_loaded": False,
    }.items() <= report.items()
    assert {"load_id", "rows", "files", "seconds"} <= report.keys()
    assert (1, 1) == (report["rows"]["messages"], report["rows"]["channels"])
    (record,) = lake.records()
    assert {file["path"] for file in record["files"]} == set(report["files"])
    lake.assert_tidy()


def test_loading_twice_is_loading_once(lake: LakeProbe, tmp_path: Path) -> None:
    """A cleared task runs again: the lake must not grow, nor the record change."""
    path = write_export(tmp_path / "export", {"m1": (10, "one")})
    first, files = load_file(lake, path, 10, 11, FIRST), lake.files()
    again = load_file(lake, path, 10, 11, FIRST)
    assert (record_json.to_bytes(first.record), True) == (record_json.to_bytes(again.record), again.already_loaded)
    assert files == lake.files()


def test_the_same_bytes_under_another_name_are_the_same_load(lake: LakeProbe, tmp_path: Path) -> None:
    """Files are known by what is in them."""
    texts = {"m1": (10, "one")}
    first = load_file(lake, write_export(tmp_path / "one", texts), 10, 11, FIRST)
    assert first.record.load_id == load_file(lake, write_export(tmp_path / "two", texts), 10, 11, FIRST).record.load_id


@pytest.mark.parametrize(("since", "until", "exported_at"), [(10, 12, FIRST), (10, 11, SECOND), (None, None, FIRST)])
def test_the_same_file_told_otherwise_is_another_load(
    since: int | None, until: int | None, exported_at: str, lake: LakeProbe, tmp_path: Path
) -> None:
    """Another window or time is other coverage."""
    path = write_export(tmp_path / "export", {"m1": (10, "one")})
    first = load_file(lake, path, 10, 11, FIRST)
    assert first.record.load_id != load_file(lake, path, since, until, exported_at).record.load_id


def test_a_load_leaves_its_catalog_behind_even_after_a_crash(lake: LakeProbe, tmp_path: Path) -> None:
    """A process may die between record and catalog: the next run of the same load makes the catalog good."""
    path = write_export(tmp_path / "export", {"m1": (10, "one")})
    load_file(lake, path, 10, 11, FIRST)
    (Path(lake.uri) / catalog_file.NAME).unlink()
    assert load_file(lake, path, 10, 11, FIRST).already_loaded
    assert {"m1": "one"} == lake.texts()


FAILURES: dict[str, tuple[type[Exception], Callable[[Path], Path]]] = {
    "no export": (InputError, lambda folder: write_lines(folder / "bad", [b"<html>"])),
    "not there": (InputError, lambda folder: folder / "bad"),
    "a folder": (InputError, lambda folder: folder),
    "half an array": (InputError, lambda folder: write_lines(folder / "bad", [b'[{"channel":{"cid":"a:1"},'])),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_load_leaves_nothing_behind(failure: str, lake: LakeProbe, tmp_path: Path) -> None:
    """No visible half, and no file that a person has to find and judge later."""
    good = write_export(tmp_path / "good", {"m1": (10, "one")})
    load_file(lake, good, 10, 11, FIRST)
    files = lake.files()
    kind, made = FAILURES[failure]
    with pytest.raises(kind) as caught:
        load_files([good, made(tmp_path)], lake_uri=lake.uri, window=Window.parse(at(1), at(2)))
    assert files == lake.files()
    assert 1 == str(caught.value).count(";")


def test_strict_refuses_before_the_commit(lake: LakeProbe, tmp_path: Path) -> None:
    """One reject is enough; without strict the same file is loaded with its reject in a table."""
    path = write_lines(tmp_path / "export", [line("message", message()), b"{broken"])
    with pytest.raises(TooManyRejectsError, match=r"0 are allowed; nothing was loaded\. The first is line 2 of export"):
        load_files([path], lake_uri=lake.uri, options=LoadOptions(max_rejected=0))
    assert not Path(lake.uri).exists()
    assert 1 == load_files([path], lake_uri=lake.uri).record.counts["rejected"]
    assert [[2, "{broken"]] == lake.rows("SELECT line_number, raw FROM rejects")


def test_a_load_with_more_rejects_than_half_is_refused_by_default(lake: LakeProbe, tmp_path: Path) -> None:
    """Such a file is not an export, and a lake of nothing but rejects reads as a success."""
    good, bad = line("message", message()), b'{"a":1}'
    half = write_lines(tmp_path / "half", [good, bad])
    more = write_lines(tmp_path / "more", [good, bad, bad])
    first = rf"line 2 of more, at byte {len(good) + 1} \(no entity that this version knows"
    with pytest.raises(TooManyRejectsError, match=rf"^2 of 3 lines could not .* and 50 % are allowed; .* {first}"):
        load_files([more], lake_uri=lake.uri)
    assert not Path(lake.uri).exists()
    assert 1 == load_files([half], lake_uri=lake.uri).record.counts["rejected"]
    files = lake.files()
    with pytest.raises(TooManyRejectsError):
        load_files([more], lake_uri=lake.uri)
    assert files == lake.files()


@pytest.mark.parametrize("limit", [None, 1.0, 3])
def test_any_number_of_rejects_may_be_allowed(limit: float | None, lake: LakeProbe, tmp_path: Path) -> None:
    """The table of rejects is a way to look at a file. The same load with the default says what it is."""
    path = write_lines(tmp_path / "export", [b'{"a":1}'] * 3)
    options = LoadOptions(max_rejected=limit)
    assert 3 == load_files([path], lake_uri=lake.uri, options=options).record.counts["rejected"]
    assert load_files([path], lake_uri=lake.uri, options=options).already_loaded
    with pytest.raises(
        TooManyRejectsError, match=r"3 of 3 lines .* is in the lake all the same, since more were allow"
    ):
        load_files([path], lake_uri=lake.uri)


def test_a_share_of_rejects_is_one_of_objects_and_not_of_lines(lake: LakeProbe, tmp_path: Path) -> None:
    """A v1 export of one channel is one line. A message that is no message must not refuse its thousand others."""
    bad = {**message("bad"), "created_at": "yesterday"}
    element = {"channel": channel(), "messages": [message(), message("m2"), bad]}
    path = tmp_path / "export"
    path.write_text(json.dumps([element]))
    report = load_files([path], lake_uri=lake.uri)
    assert (1, 1) == (report.record.counts["lines"], report.record.counts["rejected"])
    with pytest.raises(TooManyRejectsError, match=r"^1 of 4 lines and objects in them could not become rows, and 20 %"):
        load_files([path], lake_uri=f"{lake.uri}-2", options=LoadOptions(max_rejected=0.2))


QUIET = {
    "no byte": b"",
    "blanks": b" \n\n",
    "packed": gzip.compress(b""),
    "v1": b"[]",
}


@pytest.mark.parametrize("content", QUIET.values(), ids=QUIET)
def test_an_empty_export_covers_its_window_for_the_channels_that_are_stated(
    content: bytes, lake: LakeProbe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was written there. A file without a line cannot name its channels, so a person has to."""
    path = tmp_path / "export"
    path.write_bytes(content)
    empty = load_file(lake, path, 10, 11, FIRST)
    assert (0, ()) == (empty.record.counts["lines"], empty.record.coverage)
    assert "covers its window for no channel" in caplog.text
    quiet = Lake(lake.uri).load(path, since=at(10), until=at(11), exported_at=FIRST, channels=["messaging:b", "a:c"])
    assert 1 == caplog.text.count("covers its window for no channel")
    window = Window.parse(at(10), at(11))
    assert [(("a:c", "messaging:b"), window.since, window.until)] == [
        (entry.channels.names, entry.since, entry.until) for entry in quiet.record.coverage
    ]


@pytest.mark.parametrize("content", [b"", b"\n", gzip.compress(b"")], ids=["v2", "blank", "packed"])
def test_an_empty_file_without_a_window_is_refused(content: bytes, lake: LakeProbe, tmp_path: Path) -> None:
    """It may be a download that failed, and it says nothing."""
    path = tmp_path / "export"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match="export holds nothing; if nothing was written in its window, state the window"
    ):
        load_files([path], lake_uri=lake.uri)
    assert not Path(lake.uri).exists()


def test_channels_that_are_stated_are_covered_next_to_those_that_a_file_names(lake: LakeProbe, tmp_path: Path) -> None:
    """A channel in which nothing was written is in no line of its export."""
    path = write_export(tmp_path / "export", {"m1": (10, "one")})
    report = Lake(lake.uri).load(path, since=at(10), until=at(11), exported_at=FIRST, channels="team:quiet")
    assert {"a:1", "team:quiet"} == channels_of(report.record.coverage)
    with pytest.raises(CallError, match="channels are stated without a window"):
        Lake(lake.uri).load(path, channels="team:quiet")


def test_a_catalog_is_not_taken_for_a_lake_or_an_export(lake: LakeProbe, tmp_path: Path) -> None:
    """Both names stand next to each other in a shell's history."""
    path = write_export(tmp_path / "export", {"m1": (10, "one")})
    load_file(lake, path, 10, 11, FIRST)
    catalog = Path(lake.uri) / catalog_file.NAME
    with pytest.raises(LakeError, match=f"is the catalog of a lake; give the folder of the lake, such as {lake.uri}"):
        Lake(catalog)
    with pytest.raises(LakeError, match="is the catalog of a lake; give the lake's address, memory://chat/lake"):
        Lake("memory://chat/lake/catalog.duckdb")
    with pytest.raises(LakeError, match="is a file; give the folder of the lake"):
        Lake(path)
    with pytest.raises(InputError, match="is a DuckDB database, such as the catalog of a lake"):
        load_files([catalog], lake_uri=lake.uri)
    with pytest.raises(InputError, match="is a folder; give the export files in it"):
        load_files([Path(lake.uri)], lake_uri=lake.uri)


def test_a_lake_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """The commonest mistakes: a file in the way, a scheme without a file system."""
    path = write_export(tmp_path / "export", {"m1": (10, "one")})
    (tmp_path / "file").write_bytes(b"")
    for uri, sentence in (
        (f"{tmp_path}/file/lake", "cannot write the lake at"),
        ("nowhere://lake", "no file system serves"),
    ):
        with pytest.raises(LakeError, match=sentence):
            load_files([path], lake_uri=uri)


def test_two_attempts_at_the_same_load_end_in_one(lake: LakeProbe, tmp_path: Path) -> None:
    """A task that was thought dead may come back while its retry runs: one record, one set of files."""
    path = write_export(tmp_path / "export", {"m1": (10, "one")})
    reports: list[pipeline.LoadReport] = []
    threads = [threading.Thread(target=lambda: reports.append(load_file(lake, path, 10, 11, FIRST))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 4 == len(reports)
    assert 1 == len(lake.records()) == len({report.record.load_id for report in reports})
    assert {"m1": "one"} == lake.texts()
    lake.assert_tidy()


def test_loads_from_several_processes_are_all_there(lake: LakeProbe, tmp_path: Path) -> None:
    """Workers share nothing but the lake; the worker that writes the catalog last must have seen every record."""
    started = []
    for number in range(4):
        path = write_export(tmp_path / f"export-{number}", {f"m{number}": (number, "text")})
        code = "import sys; from airflow_provider_chatexport.cli import main; main(sys.argv[1:])"
        arguments = ["load", str(path), "--lake", lake.uri, "--since", at(number), "--until", at(number + 1), "--json"]
        started.append(subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE))
    assert [0] * 4 == [process.wait() for process in started]
    for process in started:
        assert process.stdout is not None
        process.stdout.close()
    assert {f"m{number}": "text" for number in range(4)} == lake.texts()
    lake.assert_tidy()


# The truth rule, in a lake


def test_a_later_export_of_the_same_window_replaces(lake: LakeProbe, tmp_path: Path) -> None:
    """Edited, gone and new messages: the lake shows what the newest export said, and the older files go."""
    load_file(lake, write_export(tmp_path / "one", {"m1": (10, "old"), "gone": (10, "x")}), 10, 11, FIRST)
    load_file(lake, write_export(tmp_path / "two", {"m1": (10, "new"), "m2": (10, "two")}), 10, 11, SECOND)
    assert {"m1": "new", "m2": "two"} == lake.texts()
    assert 1 == lake.value("SELECT count(*) FROM loads WHERE retired_at IS NOT NULL")
    lake.assert_tidy()


def test_an_older_export_that_arrives_late_changes_nothing(lake: LakeProbe, tmp_path: Path) -> None:
    """The order in which loads arrive does not matter."""
    load_file(lake, write_export(tmp_path / "two", {"m1": (10, "new")}), 10, 11, SECOND)
    load_file(lake, write_export(tmp_path / "one", {"m1": (10, "old"), "gone": (10, "x")}), 10, 11, FIRST)
    assert {"m1": "new"} == lake.texts()
    lake.assert_tidy()


def test_what_is_partly_overlapped_is_filtered(lake: LakeProbe, tmp_path: Path) -> None:
    """Of the older load only the hours outside of the newer one are still true."""
    load_file(lake, write_export(tmp_path / "one", {f"m{hour}": (hour, "old") for hour in range(8, 14)}), 8, 14, FIRST)
    load_file(lake, write_export(tmp_path / "two", {"m10": (10, "new"), "m12": (12, "new")}), 10, 13, SECOND)
    assert {"m8": "old", "m9": "old", "m10": "new", "m12": "new", "m13": "old"} == lake.texts()


def test_another_channel_in_the_same_window_is_left_alone(lake: LakeProbe, tmp_path: Path) -> None:
    """Coverage is per channel."""
    load_file(lake, write_export(tmp_path / "one", {"m1": (10, "one")}, cid="a:1"), 10, 11, FIRST)
    load_file(lake, write_export(tmp_path / "two", {"m2": (10, "two")}, cid="a:2"), 10, 11, SECOND)
    assert {"m1": "one", "m2": "two"} == lake.texts()


def test_reactions_and_attachments_go_with_their_message(lake: LakeProbe, tmp_path: Path) -> None:
    """A late reaction is placed by its message's time, so a new export of that hour replaces it too."""
    love = {"user_id": "u2", "user": {"id": "u2"}, "type": "love", "created_at": at(20), "updated_at": at(20)}
    first = write_export(tmp_path / "one", {"m1": (10, "x")}, latest_reactions=[love], attachments=[{"type": "a"}])
    load_file(lake, first, 10, 11, FIRST)
    assert [1, 1] == [lake.value(f"SELECT count(*) FROM {name}") for name in ("reactions", "attachments")]
    load_file(lake, write_export(tmp_path / "two", {"m1": (10, "y")}), 10, 11, SECOND)
    assert [0, 0] == [lake.value(f"SELECT count(*) FROM {name}") for name in ("reactions", "attachments")]


def test_a_file_without_a_window_claims_only_what_it_shows(lake: LakeProbe, tmp_path: Path) -> None:
    """The caller did not say what it covers: from its first to its last message, per channel, and not a moment more."""
    load_file(
        lake, write_export(tmp_path / "one", {"m8": (8, "old"), "m9": (9, "old"), "m11": (11, "old")}), 8, 12, FIRST
    )
    load_file(lake, write_export(tmp_path / "two", {"m9": (9, "new"), "m10": (10, "new")}), None, None, SECOND)
    assert {"m8": "old", "m9": "new", "m10": "new", "m11": "old"} == lake.texts()


def test_of_several_files_each_claims_only_what_it_shows_itself(lake: LakeProbe, tmp_path: Path) -> None:
    """Files of different channels have different ages: a newer one says nothing of what only the others hold."""
    one = write_export(tmp_path / "one", {"m8": (8, "one"), "m9": (9, "one")}, cid="a:1")
    two = write_export(tmp_path / "two", {"m10": (10, "two")}, cid="a:2")
    os.utime(one, (1_800_000_000, 1_800_000_000))
    os.utime(two, (1_800_000_060, 1_800_000_060))
    load_files([one, two], lake_uri=lake.uri)
    assert {"m8": "one", "m9": "one", "m10": "two"} == lake.texts()


@pytest.mark.parametrize("moment", ["1900-01-01T00:00:00Z", "2261-12-31T23:59:59.999999999Z"])
def test_a_moment_at_the_ends_of_the_calendar_is_one_like_others(moment: str, lake: LakeProbe, tmp_path: Path) -> None:
    """Whatever a record says of it has to be read again."""
    for number in range(2):
        path = write_lines(tmp_path / f"export-{number}", [line("message", message(f"m{number}", created_at=moment))])
        load_file(lake, path, None, None, datetime.now(UTC))
    assert "m1" in lake.texts()
    assert lake.value("SELECT created_at FROM messages WHERE id = 'm1'").startswith(moment[:19])
    lake.assert_tidy()


@pytest.mark.parametrize("moment", ["2262-01-01T00:00:00Z", "1899-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z"])
def test_a_moment_past_the_ends_of_the_calendar_is_a_reject(moment: str, lake: LakeProbe, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "export", [line("message", message(created_at=moment)), line("message", message())])
    assert 1 == load_file(lake, path, None, None, datetime.now(UTC)).record.counts["rejected"]


def test_an_answer_that_a_store_lost_leaves_the_load_committed(lake: LakeProbe, tmp_path: Path) -> None:
    """Clients of object stores ask again, and hear that the record is there: it is their own."""

    class AskedTwice(LocalStore):
        def put_new(self, path: str, content: bytes) -> bool:
            super().put_new(path, content)
            return super().put_new(path, content)

    load_file(lake, write_export(tmp_path / "export", {"m8": (8, "one")}), 8, 9, FIRST)
    (record,) = lake.snapshot().records
    local = {}
    for file in record.files:
        local[file.path] = tmp_path / f"{file.table}.parquet"
        local[file.path].write_bytes(Path(lake.uri, file.path).read_bytes())
    other = AskedTwice(str(tmp_path / "other"))
    other.prepare()
    assert commit_log.commit(other, record, local)
    assert all(other.has_data(file.path) for file in record.files)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x1f\x8b\x08\x00 not that", gzip.compress(b"[]"), gzip.compress(b'{"v":1}')],
    ids=["empty", "corrupt", "a list", "no records"],
)
def test_a_checkpoint_of_no_use_is_left_alone(content: bytes, lake: LakeProbe, tmp_path: Path) -> None:
    load_file(lake, write_export(tmp_path / "one", {"m8": (8, "one")}), 8, 9, FIRST)
    open_store(lake.uri).replace(commit_log.CHECKPOINT, content)
    load_file(lake, write_export(tmp_path / "two", {"m9": (9, "two")}), 9, 10, SECOND)
    assert {"m8": "one", "m9": "two"} == lake.texts()


@pytest.mark.parametrize("name", ["type=chat", "event_date=2026-01-01", "ID=5"])
def test_a_folder_that_readers_take_for_a_column_is_refused(name: str, tmp_path: Path) -> None:
    """Its value would stand in every row."""
    path = write_export(tmp_path / "export", {"m8": (8, "one")})
    with pytest.raises(LakeError, match="choose another folder"):
        load_file(LakeProbe(str(tmp_path / name / "lake")), path, 8, 9, FIRST)
    load_file(LakeProbe(str(tmp_path / "tenant=a" / "lake")), path, 8, 9, FIRST)


def test_an_export_below_a_folder_like_that_or_named_as_packed_is_read(lake: LakeProbe, tmp_path: Path) -> None:
    """What a file is, its bytes say, and not its address."""
    folder = tmp_path / "data=1"
    folder.mkdir()
    load_file(lake, write_export(folder / "export.ndjson.gz", {"m8": (8, "one")}), 8, 9, FIRST)
    assert {"m8": "one"} == lake.texts()


def test_a_reaction_whose_message_is_elsewhere_is_replaced_and_cut_like_one_that_is_here(
    lake: LakeProbe, tmp_path: Path
) -> None:
    """It names no channel: it belongs to the one before it, so that a newer export of the window takes it away."""
    lines = [line("channel", channel("a:1")), line("reaction", reaction("gone", created_at=at(8, 30)))]
    load_file(lake, write_lines(tmp_path / "one", lines), 8, 9, FIRST)
    load_file(lake, write_lines(tmp_path / "two", [*lines, b""]), 8, 9, SECOND)
    assert [["a:1", 1]] == lake.rows("SELECT cid, count(*) FROM reactions GROUP BY ALL")
    assert 1 == load_file(lake, write_lines(tmp_path / "three", lines), 9, 10, THIRD).record.counts["out_of_window"]
    assert 1 == lake.value("SELECT count(*) FROM reactions")


def test_names_of_entities_in_a_report_are_names(lake: LakeProbe, tmp_path: Path) -> None:
    """What a line puts in the place of a name goes into records and XCom: nothing that looks like no name."""
    lines = [line("message", message()), b'{"My password is x":{}}', b'{"type":"poll","data":{"cid":"a:9"}}']
    lines += [b'{"thing_%d":{}}' % number for number in range(100)]
    report = load_file(lake, write_lines(tmp_path / "export", lines), None, None, FIRST)
    counted = report_of(report)["entities"]
    assert (102, True) == (sum(counted.values()) - counted["message"], len(counted) <= 52)
    assert "password" not in json.dumps(report_of(report))
    assert "a:9" == lake.value("SELECT cid FROM other_entities WHERE entity = 'poll'")


def test_a_file_that_changes_while_it_is_read_is_refused(lake: LakeProbe, tmp_path: Path) -> None:
    """It is read more than once, and the two readings would be of different files."""
    path = write_export(tmp_path / "export", {"m8": (8, "one")})

    def meanwhile(stage: str, done: int, whole: int | None) -> None:
        if stage == "read" and not path.read_bytes().endswith(b"more"):
            with path.open("ab") as more:
                more.write(b"more")

    with pytest.raises(InputError, match="changed while it was read"):
        load_files([path], lake_uri=lake.uri, progress=meanwhile)
    assert [] == lake.records()


def test_a_pipe_is_refused(lake: LakeProbe, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"is not a regular file \(a pipe\?\)"):
        load_files([tmp_path / "pipe"], lake_uri=lake.uri)


def test_no_file_is_nothing_to_load(lake: LakeProbe) -> None:
    with pytest.raises(CallError, match="no file to load"):
        load_files([], lake_uri=lake.uri)


def test_objects_far_larger_than_usual_are_loaded_like_others(lake: LakeProbe, tmp_path: Path) -> None:
    """Rows of 20 KB and more are sorted on one core; entities without a table lie in several files of 32 MB."""
    text = "x" * 20_000
    lines = [
        line("message", message(f"m{number}", text=f"{number}{text}", attachments=[{"title": text}] * 5))
        for number in range(300)
    ]
    lines += [line("poll", {"id": f"p{number}", "name": text * 50}) for number in range(40)]
    report = load_file(lake, write_lines(tmp_path / "export", lines), None, None, datetime.now(UTC))
    rows = report.record.counts["rows"]
    assert (300, 1500, 40) == (rows["messages"], rows["attachments"], rows["other_entities"])
    assert 300 == lake.value("SELECT count(DISTINCT left(text, 3)) FROM messages WHERE strlen(text) > 20_000")
    assert verify(open_store(lake.uri), now=datetime.now(UTC)).ok


def test_an_export_of_an_open_window_leaves_its_rest_as_a_gap(lake: LakeProbe, tmp_path: Path) -> None:
    """What had not happened yet is not covered: an older truth about it stays, and coverage shows the gap."""
    load_file(lake, write_export(tmp_path / "one", {"m1": (10, "x")}), 10, 14, "2026-01-01T12:00:00Z")
    assert [[at(10).replace("00Z", "00.000000Z"), "2026-01-01T12:00:00.000000Z"]] == [
        [span["since"], span["until"]] for span in Lake(lake.uri).coverage().to_json()["coverage"]
    ]


LOADS: list[tuple[dict[str, tuple[int, str]], int, int, str]] = [
    ({"m1": (1, "a"), "m2": (2, "a"), "m3": (3, "a")}, 0, 4, "2026-01-02T00:00:00Z"),
    ({"m2": (2, "b")}, 2, 3, "2026-01-02T01:00:00Z"),
    ({"m3": (3, "c"), "m4": (4, "c")}, 3, 6, "2026-01-02T02:00:00Z"),
    ({"m1": (1, "d"), "m5": (5, "d")}, 0, 6, "2026-01-01T20:00:00Z"),
]


@given(order=st.permutations(range(4)))
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_order_of_loads_ends_in_the_same_view(order: list[int], tmp_path_factory: Any) -> None:
    """Backfills, retries and the schedule interleave as they like."""
    folder = tmp_path_factory.mktemp("order")
    lake = LakeProbe(str(folder / "lake"))
    for number in order:
        texts, since, until, exported_at = LOADS[number]
        load_file(lake, write_export(folder / f"export-{number}", texts), since, until, exported_at)
    assert {"m1": "a", "m2": "b", "m3": "c", "m4": "c"} == lake.texts()
    lake.assert_tidy()


# The catalog


def test_an_empty_lake_can_be_queried(lake: LakeProbe) -> None:
    """Dashboards and dbt come before the first load."""
    store = open_store(lake.uri)
    store.prepare()
    refresh(store)
    for table in (*TABLES, "loads", "coverage"):
        assert 0 == lake.value(f"SELECT count(*) FROM {getattr(table, 'name', table)}")
    assert () == Lake(lake.uri).coverage().spans


@pytest.fixture(scope="module")
def empty_lake(tmp_path_factory: pytest.TempPathFactory) -> LakeProbe:
    lake = LakeProbe(str(tmp_path_factory.mktemp("empty") / "lake"))
    store = open_store(lake.uri)
    store.prepare()
    refresh(store)
    return lake


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_views_have_the_columns_of_the_registry_with_their_comments(table: Table, empty_lake: LakeProbe) -> None:
    """People read about a column where they query it; an empty view has the same types as a full one."""
    lake = empty_lake
    described = lake.rows(
        "SELECT column_name, data_type, comment FROM duckdb_columns() "
        f"WHERE database_name = 'lake' AND table_name = '{table.name}'"
    )
    assert [[column.name, column.kind.value, column.doc] for column in table] == described[:-1]
    assert [table.date_column, "DATE"] == described[-1][:2]


def test_a_glob_gives_what_the_view_gives_where_nothing_overlaps(lake: LakeProbe, tmp_path: Path) -> None:
    """Other engines read the files and never see a catalog."""
    for hour in range(3):
        load_file(lake, write_export(tmp_path / f"{hour}", {f"m{hour}": (hour, "x")}), hour, hour + 1, FIRST)
    load_file(lake, write_export(tmp_path / "again", {"m1": (1, "y")}), 1, 2, SECOND)
    columns = ", ".join(f'"{column.name}"' for column in MESSAGES)
    glob = f"SELECT {columns} FROM read_parquet('{lake.uri}/messages/**/*.parquet') ORDER BY id"
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"ATTACH '{lake.uri}/catalog.duckdb' AS any_name_at_all (READ_ONLY)")
    view = con.sql(f"SELECT {columns} FROM any_name_at_all.messages ORDER BY id").to_arrow_table()
    assert view.to_pylist() == con.sql(glob).to_arrow_table().to_pylist()
    assert ["x", "y", "x"] == view["text"].to_pylist()
    con.close()


def test_views_work_under_any_alias_and_beside_another_database(lake: LakeProbe, tmp_path: Path) -> None:
    """An analyst attaches the catalog to a database of their own, in which a filtered view must still find its rule."""
    load_file(lake, write_export(tmp_path / "one", {"m8": (8, "old"), "m9": (9, "old")}), 8, 12, FIRST)
    load_file(lake, write_export(tmp_path / "two", {"m9": (9, "new")}), 9, 10, SECOND)
    with duckdb.connect(str(tmp_path / "own.duckdb")) as con:
        con.execute(f"ATTACH '{lake.uri}/catalog.duckdb' AS \"chat lake\" (READ_ONLY)")
        rows = con.sql('SELECT id, text FROM "chat lake".messages ORDER BY id').fetchall()
    assert [("m8", "old"), ("m9", "new")] == rows


def test_an_open_catalog_goes_on_while_it_is_replaced(lake: LakeProbe, tmp_path: Path) -> None:
    """A reader that has it open goes on reading the lake as it was."""
    load_file(lake, write_export(tmp_path / "one", {"m1": (10, "one")}), 10, 11, FIRST)
    with duckdb.connect(f"{lake.uri}/catalog.duckdb", read_only=True) as con:
        load_file(lake, write_export(tmp_path / "two", {"m2": (11, "two")}), 11, 12, SECOND)
        assert [("m1",)] == con.sql("SELECT id FROM messages").fetchall()
    assert {"m1": "one", "m2": "two"} == lake.texts()


def everything_in(lake: LakeProbe) -> dict[str, Any]:
    """What people find in the catalog: its views with what they say of themselves, and all their rows."""
    named = "database_name = 'lake' AND schema_name = 'main'"
    views = lake.rows(f"SELECT view_name, comment FROM duckdb_views() WHERE {named} AND NOT internal ORDER BY ALL")
    columns = "table_name, column_index, column_name, data_type, comment"
    return {
        "views": views,
        "columns": lake.rows(f"SELECT {columns} FROM duckdb_columns() WHERE {named} ORDER BY ALL"),
        "macros": lake.rows(f"SELECT function_name, comment FROM duckdb_functions() WHERE {named} ORDER BY ALL"),
        **{name: lake.rows(f"SELECT * FROM {name} ORDER BY ALL") for name, _ in views},
    }


def test_a_catalog_that_is_brought_up_to_date_is_as_one_made_anew(lake: LakeProbe, tmp_path: Path) -> None:
    """A load changes what lies beneath the views in a copy of a catalog: no word and no row may differ.

    In the third new lake of a process, that copy is of a catalog without rows.
    """
    for name in ("first", "second"):
        refresh(open_store(str(tmp_path / name)))
    load_file(
        lake, write_export(tmp_path / "one", {"m8": (8, "old"), "m9": (9, "old"), "m10": (10, "x")}), 8, 12, FIRST
    )
    load_file(lake, write_export(tmp_path / "two", {"m9": (9, "new")}), 9, 11, SECOND, accept_shrink=True)
    load_file(lake, write_export(tmp_path / "three", {"m12": (12, "late")}), 12, 13, FIRST)
    size = (Path(lake.uri) / catalog_file.NAME).stat().st_size
    brought_up = everything_in(lake)
    refresh(open_store(lake.uri), full=True)
    assert everything_in(lake) == brought_up
    assert (3, 3) == (len(brought_up["loads"]), len(brought_up["messages"]))
    for number in range(8):
        load_file(lake, write_export(tmp_path / f"more-{number}", {}), number, number + 1, FIRST)
    assert (Path(lake.uri) / catalog_file.NAME).stat().st_size < 2 * size


@pytest.mark.parametrize("is_readable", [True, False])
def test_a_catalog_that_was_damaged_is_made_anew(is_readable: bool, lake: LakeProbe, tmp_path: Path) -> None:
    """The next load does not build on it, whatever is the matter."""
    load_file(lake, write_export(tmp_path / "one", {"m1": (10, "one")}), 10, 11, FIRST)
    path = Path(lake.uri) / catalog_file.NAME
    if is_readable:
        with duckdb.connect(str(path)) as con:
            con.execute("DROP VIEW messages; UPDATE _internal._built_from SET digest = 'of another version'")
    else:
        path.write_bytes(path.read_bytes()[:5000])
    load_file(lake, write_export(tmp_path / "two", {"m2": (11, "two")}), 11, 12, FIRST)
    assert {"m1": "one", "m2": "two"} == lake.texts()


def test_the_newest_snapshot_of_a_channel_is_shown(lake: LakeProbe, tmp_path: Path) -> None:
    """Channels, members, users and reads are as of the newest export that names them."""
    path = write_export(tmp_path / "one", {"m1": (10, "x")})
    load_file(lake, path, 10, 11, FIRST)
    load_file(lake, path, 10, 12, THIRD)
    load_file(lake, path, 10, 13, SECOND)
    assert [["a:1", "2026-01-04T00:00:00.000000Z"]] == lake.rows("SELECT cid, _exported_at FROM channels")


def test_coverage_joins_what_touches_and_shows_gaps(lake: LakeProbe, tmp_path: Path) -> None:
    """The first question of a person who takes a lake over."""
    for number, (since, until) in enumerate(((0, 2), (2, 3), (5, 6))):
        path = write_export(tmp_path / f"{number}", {f"m{number}": (since, "x")})
        load_file(lake, path, since, until, FIRST)
    assert [[0, 3, 2, 2], [5, 6, 1, 1]] == [
        [
            span.since.hour if span.since else None,
            span.until.hour,
            span.loads,
            span.messages,
        ]
        for span in Lake(lake.uri).coverage().spans
    ]


# Records


def test_a_record_survives_its_file(lake: LakeProbe, tmp_path: Path) -> None:
    """Records are all that is known of a load."""
    record = load_file(lake, write_export(tmp_path / "one", {"m1": (10, "x")}), 10, 11, FIRST).record
    again = commit_log.find(open_store(lake.uri), record.load_id)
    assert again is not None
    assert record_json.to_bytes(record) == record_json.to_bytes(again)
    assert (record.coverage, record.files, record.counts) == (again.coverage, again.files, again.counts)


def test_a_record_of_an_unknown_version_is_refused_with_a_way_out(lake: LakeProbe, tmp_path: Path) -> None:
    """An older installation must not guess at what a newer one has loaded."""
    path = write_export(tmp_path / "one", {"m1": (10, "x")})
    record = load_file(lake, path, 10, 11, FIRST).record
    target = Path(lake.uri) / record.path
    target.write_bytes(json.dumps(json.loads(target.read_bytes()) | {"v": 99}).encode())
    reads = f"is a load record of version 99, and this installation reads versions up to {RECORD_VERSION}; upgrade"
    with pytest.raises(LakeError, match=reads):
        load_file(lake, path, 12, 13, FIRST)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"text"', b'{"v":1}', b"\xff"])
def test_a_file_that_is_not_a_record_is_named(content: bytes, lake: LakeProbe) -> None:
    """A person puts a file of their own there, or a disk cuts one."""
    store = open_store(lake.uri)
    store.prepare()
    store.replace("_loads/mine.json", content)
    assert [] == commit_log.all_records(store)
    assert {"_loads/mine.json"} == commit_log.read_snapshot(store).damaged
    with pytest.raises(DamagedRecordError, match=r"_loads/mine\.json is not a load record; restore it"):
        commit_log.find(store, "mine")


def test_the_way_out_of_a_damaged_record_brings_its_rows_back(lake: LakeProbe, tmp_path: Path) -> None:
    """Other loads go on without it; a repair names the window that it covered."""
    path = write_export(tmp_path / "one", {"m1": (10, "x")})
    record = load_file(lake, path, 10, 11, FIRST).record
    damaged = Path(lake.uri) / record.path
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(DamagedRecordError, match=r"run chatexport repair, .*, then load or export that window again"):
        load_file(lake, path, 10, 11, FIRST)
    found = Lake(lake.uri).repair(dry_run=True)
    assert [("a:1",)] == [window.cids for window in found.windows]
    load_file(lake, write_export(tmp_path / "two", {"m2": (11, "y")}), 11, 12, FIRST)
    assert {"m2": "y"} == lake.texts()
    (finding,) = [each for each in Lake(lake.uri).verify().findings if each.is_fault]
    assert ("damaged", True) == (finding.kind, str(damaged) in finding.what)
    kept = lake.data_files()
    vacuum(open_store(lake.uri), keep=timedelta(0), now=datetime.now(UTC) + timedelta(days=2))
    assert kept == lake.data_files()
    assert ((record.path, False),) == Lake(lake.uri).repair().records
    load_file(lake, path, 10, 11, FIRST)
    assert {"m1": "x", "m2": "y"} == lake.texts()
    assert Lake(lake.uri).verify().ok


def test_a_damaged_record_is_restored_from_the_checkpoint(lake: LakeProbe, tmp_path: Path) -> None:
    """The checkpoint has all records that there were when it was written."""
    record = load_file(lake, write_export(tmp_path / "one", {"m1": (10, "x")}), 10, 11, FIRST).record
    store = open_store(lake.uri)
    commit_log.write_checkpoint(store, commit_log.all_records(store))
    store.replace(record.path, b"{")
    assert {"m1": "x"} == lake.texts()
    assert ((record.path, True),) == Lake(lake.uri).repair().records
    assert record_json.to_bytes(record) == store.read(record.path)
    assert Lake(lake.uri).verify().ok


def test_a_query_that_is_wrong_is_told_from_a_lake_that_is_broken(lake: LakeProbe, tmp_path: Path) -> None:
    """One is for the person who typed it, the other for the person who runs the lake."""
    with pytest.raises(LakeError, match="there is no lake at"):
        lake.rows("SELECT 1")
    record = load_file(lake, write_export(tmp_path / "one", {"m1": (10, "x")}), 10, 11, FIRST).record
    with pytest.raises(CallError, match="the query is wrong: Catalog Error"):
        lake.rows("SELECT * FROM nothing")
    store = open_store(lake.uri)
    store.delete([store.data_path(next(file.path for file in record.files if file.table == "messages"))])
    with pytest.raises(LakeError, match=r"the query failed, because messages/.* is missing or damaged .*; restore it"):
        lake.rows("SELECT * FROM messages")


# What must stay private


def test_no_text_of_a_person_is_in_logs_or_errors(
    lake: LakeProbe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs and errors go where the lake's readers are not: neither may quote what a person wrote."""
    caplog.set_level(logging.DEBUG)
    bad = [
        line("message", message(text=MARK, created_at=MARK)),
        line("message", message(MARK, text=MARK, cid=None)),
        line("message", message(text=MARK))[:-1],
        line("message", message(text=MARK)).replace(b"messaging", b"\xff\xfe"),
        b'{"%b":"%b"}' % (MARK.encode(), MARK.encode()),
        b'{"type":"%b","data":{"a":"\xff"}}' % MARK.encode(),
        line(
            "message", message(text=MARK, reply_count=MARK, updated_at=MARK, attachments=MARK, user=MARK, custom=MARK)
        ),
    ]
    path = write_lines(tmp_path / "export", bad)
    refused = []
    for number, bad_line in enumerate(bad[:-1]):
        one = write_lines(tmp_path / f"bad-{number}", [bad_line])
        with pytest.raises(TooManyRejectsError) as strict:
            load_files([one], lake_uri=lake.uri, options=LoadOptions(max_rejected=0))
        refused.append(repr(strict.value))
    report = load_files([path], lake_uri=lake.uri, options=LoadOptions(max_rejected=None))
    assert 6 == report.record.counts["rejected"]
    assert all(MARK not in reason for (reason,) in lake.rows("SELECT reason FROM rejects"))
    broken = tmp_path / "broken.json"
    broken.write_bytes(b'[{"channel":{"cid":"a:b"},"messages":[{"text":"' + MARK.encode())
    with pytest.raises(InputError) as half:
        load_files([broken], lake_uri=lake.uri)
    assert "load committed" in caplog.text
    for text in (caplog.text, *refused, repr(half.value), *map(json.dumps, lake.records())):
        assert MARK not in text


def test_files_are_for_the_owner_of_the_lake_only_while_they_are_made(lake: LakeProbe, tmp_path: Path) -> None:
    """The work folder holds unpacked messages: no other user of the machine may look into it."""
    store = open_store(lake.uri)
    store.prepare()
    with work_folder(store) as folder:
        assert "0o700" == oct(folder.stat().st_mode & 0o777)
    assert [] == list(Path(lake.uri).iterdir())
    with work_folder(store, tmp_path / "elsewhere") as folder:
        assert tmp_path / "elsewhere" == folder.parent


def test_the_time_of_a_file_is_the_time_of_its_export_unless_told(lake: LakeProbe, tmp_path: Path) -> None:
    """A file loaded by hand was made when it was last written, as far as its file system knows."""
    path = write_export(tmp_path / "one", {"m1": (10, "x")})
    made = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    os.utime(path, (made.timestamp(), made.timestamp()))
    assert made == load_files([path], lake_uri=lake.uri).record.exported_at
