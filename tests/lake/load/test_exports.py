"""Exports fetched from the service and loaded: late edits, deletes, every shape and bound, and an object store."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import pytest
from lakes import UBUNTU, LakeProbe, client_of, exports_of, load_file, write_export

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.entities import Shape
from airflow_provider_chatexport.core.estimate import Backfill, estimate
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid, UserId, UsersRequest
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import (
    CallError,
    FileGoneError,
    InputError,
    TooManyRejectsError,
)
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.file_state import FileStatus
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.maintenance.forget import forget_user
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.object_store import PROOF
from airflow_provider_chatexport.sandbox import Sandbox, SandboxControl
from airflow_provider_chatexport.sandbox.chat.world import Bounds, World

NINE, TEN, ELEVEN = (f"2025-01-01T{hour:02}:00:00Z" for hour in (9, 10, 11))

Load = Callable[..., pipeline.LoadReport]


def ids_between(world: World, since: str, until: str) -> dict[str, str]:
    """An independent count: what the sandbox's data has in a window, whatever its bounds."""
    window, margin = Window.parse(since, until), timedelta(minutes=1)
    return {
        message["id"]: message["text"]
        for message in world.messages(UBUNTU, since=window.since - margin, until=window.until + margin)
        if (moment := parse_rfc3339(message["created_at"])) and moment in window
    }


def test_a_window_has_exactly_the_messages_of_the_service(load: Load, lake: LakeProbe, sandbox: Sandbox) -> None:
    """The first promise: what the service has in the window is in the lake, once, and nothing else."""
    report = load(NINE, TEN)
    assert ids_between(sandbox.world, NINE, TEN) == lake.texts()
    assert len(lake.texts()) == report.record.counts["rows"]["messages"] > 100
    lake.assert_tidy()


def test_estimates_are_near_what_a_load_takes(start_sandbox: Any, lake: LakeProbe) -> None:
    """The plan's figures per message were measured, on typed lines; a day of the corpus is within half and twice of
    them."""
    with client_of(start_sandbox(shape=Shape.TYPED)) as client:
        exports = exports_of(client, "2025-01-08T00:00:00Z", "2025-01-09T00:00:00Z")
        report = pipeline.load_exports(client, exports, lake_uri=lake.uri)
    rows, files = report.record.counts["rows"], report.record.files
    planned = estimate(Backfill(channels=1, messages=rows["messages"], windows=1))
    assert planned.files == len(files)
    assert 0.5 < sum(file.size_bytes for file in files) / planned.lake_bytes < 2
    assert 0.5 < report.record.bytes_in / planned.download_bytes < 2


@pytest.mark.parametrize("bounds", list(Bounds))
def test_consecutive_windows_tile_whatever_the_bounds_of_the_service(
    bounds: Bounds, start_sandbox: Any, lake: LakeProbe
) -> None:
    """The bounds are not documented. A message on the very edge belongs to the later window, and comes once."""
    sandbox = start_sandbox(bounds=bounds)
    sandbox.control.add_message(UBUNTU, text="on the edge", user_id="u-edge", created_at=TEN)
    with client_of(sandbox) as client:
        for since, until in ((NINE, TEN), (TEN, ELEVEN)):
            pipeline.load_exports(client, exports_of(client, since, until), lake_uri=lake.uri)
    assert ids_between(sandbox.world, NINE, ELEVEN) == lake.texts()
    assert 1 == lake.value("SELECT count(*) FROM messages WHERE text = 'on the edge'")


@pytest.mark.parametrize("bounds", list(Bounds))
def test_overlapping_windows_over_a_changing_history(bounds: Bounds, start_sandbox: Any, lake: LakeProbe) -> None:
    """Every quarter of an hour is as the newest export of it said, whatever the bounds, to the message on the edge."""
    sandbox = start_sandbox(bounds=bounds)
    chosen = random.Random(11)
    quarters = [parse_rfc3339(NINE) + timedelta(minutes=15 * number) for number in range(9)]
    expected: dict[datetime, dict[str, str]] = {}
    for number in range(10):
        change(sandbox, chosen, number, at=chosen.choice(quarters[:-1]))
        first = chosen.randrange(0, 8)
        covered = quarters[first : chosen.randrange(first + 2, 10)]
        since, until = covered[0].isoformat(), covered[-1].isoformat()
        with client_of(sandbox) as client:
            receipts = exports_of(client, since, until)
            pipeline.load_exports(client, receipts, lake_uri=lake.uri, options=LoadOptions(accept_shrink=True))
        for quarter, end in pairwise(covered):
            expected[quarter] = ids_between(sandbox.world, quarter.isoformat(), end.isoformat())
    assert {key: text for each in expected.values() for key, text in each.items()} == lake.texts()
    assert lake.value("SELECT count(*) FROM messages WHERE second(created_at) = 0 AND text LIKE 'on the edge%'") > 0


def change(sandbox: Sandbox, chosen: random.Random, number: int, *, at: datetime) -> None:
    """One message on the edge is added, one is edited, one is deleted for good; and a minute goes by."""
    one, another = chosen.sample(sorted(ids_between(sandbox.world, NINE, ELEVEN)), 2)
    sandbox.control.add_message(UBUNTU, text=f"on the edge {number}", user_id="u-edge", created_at=at)
    sandbox.control.edit_message(one, text=f"edit {number}")
    sandbox.control.delete_message(another, hard=True)
    sandbox.control.advance_clock(timedelta(minutes=1))


def test_a_lookback_brings_edits_in_and_takes_deleted_messages_out(
    load: Load, lake: LakeProbe, sandbox: Sandbox, control: SandboxControl
) -> None:
    """Edits, soft and hard deletes and late messages of hours that were loaded long ago."""
    load(NINE, TEN)
    edited, soft, hard, *_ = sorted(lake.texts())
    control.edit_message(edited, text="edited later")
    control.delete_message(soft)
    control.delete_message(hard, hard=True)
    control.add_message(UBUNTU, text="sent late", user_id="u9", created_at=NINE)
    control.advance_clock(timedelta(hours=1))
    window = Window.parse(TEN, ELEVEN).looking_back(timedelta(hours=1))
    load(window.since.isoformat(), window.until.isoformat())
    texts = lake.texts()
    assert ids_between(sandbox.world, NINE, ELEVEN) == texts
    assert "edited later" == texts[edited]
    assert hard not in texts
    assert "sent late" in texts.values()
    assert [["deleted", True]] == lake.rows(f"SELECT type, deleted_at IS NOT NULL FROM messages WHERE id = '{soft}'")
    lake.assert_tidy()


def test_loading_the_same_exports_again_changes_nothing(
    client: ChatExportClient, exported: Callable[..., list[Receipt]], lake: LakeProbe
) -> None:
    """The load task is cleared and runs again with the receipts that it had, in whatever order."""
    receipts = exported(NINE, TEN) + exported(NINE, TEN, channels=("messaging:ubuntu-support",))
    first = pipeline.load_exports(client, receipts, lake_uri=lake.uri)
    files = lake.files()
    again = pipeline.load_exports(client, receipts[::-1], lake_uri=lake.uri)
    assert (first.record.load_id, True) == (again.record.load_id, again.already_loaded)
    assert files == lake.files()


def test_a_channel_without_messages_is_covered_all_the_same(load: Load, lake: LakeProbe) -> None:
    """Its silence is known: no gap, and an older load of it would be replaced."""
    load("2001-01-01T00:00:00Z", "2001-01-02T00:00:00Z")
    assert [[UBUNTU, "2001-01-01T00:00:00.000000Z", "2001-01-02T00:00:00.000000Z"]] == lake.rows(
        "SELECT cid, since, until FROM coverage"
    )


def test_rows_bear_the_time_of_the_task_by_the_clock_of_the_service(
    load: Load, lake: LakeProbe, control: SandboxControl
) -> None:
    """Newest-wins must not hang on the clock of whichever machine loads."""
    control.advance_clock(timedelta(days=3650))
    report = load(NINE, TEN)
    assert report.record.exported_at > report.record.committed_at + timedelta(days=3000)
    assert 1 == lake.value("SELECT count(DISTINCT _exported_at) FROM messages")


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("packed", [False, True])
def test_either_version_plain_or_packed_gives_the_same_messages(
    version: str, packed: bool, start_sandbox: Any, lake: LakeProbe
) -> None:
    """The default may change, and old files are still about."""
    sandbox = start_sandbox(gzip=packed)
    with client_of(sandbox) as client:
        pipeline.load_exports(client, exports_of(client, NINE, TEN, version=version), lake_uri=lake.uri)
    assert ids_between(sandbox.world, NINE, TEN) == lake.texts()


def test_nothing_to_load_is_refused(client: ChatExportClient, lake: LakeProbe) -> None:
    """An empty list is a wiring mistake, and not an empty export."""
    with pytest.raises(CallError, match="there is no export to load"):
        pipeline.load_exports(client, [], lake_uri=lake.uri)


def test_an_export_that_the_service_does_not_know_leaves_nothing_behind(
    client: ChatExportClient, exported: Callable[..., list[Receipt]], lake: LakeProbe
) -> None:
    """One good and one bad receipt: no half of a load."""
    good = exported(NINE, TEN)
    unknown = Receipt(task_id=TaskId("00000000-0000-0000-0000-000000000000"), request=good[0].request)
    with pytest.raises(FileGoneError):
        pipeline.load_exports(client, [*good, unknown], lake_uri=lake.uri)
    assert set() == lake.files()


@pytest.fixture
def serve(closing: contextlib.ExitStack) -> Callable[[bytes], ChatExportClient]:
    """A client of a service whose one export is completed, and has this file."""

    def start(content: bytes) -> ChatExportClient:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                result = {"url": f"http://{self.headers['host']}/file"}
                task = {"task_id": "t", "status": "completed", "created_at": NINE, "result": result}
                body = json.dumps(task).encode() if self.path.startswith("/api/") else content
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        closing.callback(serving.join)
        closing.callback(server.shutdown)
        closing.callback(server.server_close)
        serving.start()
        base_url = f"http://127.0.0.1:{server.server_port}"
        return closing.enter_context(
            ChatExportClient(ServiceSettings(api_key="k", api_secret="s" * 32, base_url=base_url))
        )

    return start


NO_EXPORT = [b'{"error":"access denied"}', b"{}", b'{"error":"access denied"}\n{}\n', b'[{"error":"access denied"}]']
OF_CHANNELS = ChannelsRequest(channels=(Cid(UBUNTU),), window=Window.parse(NINE, TEN))
OF_USERS = UsersRequest(user_ids=(UserId("u"),))


@pytest.mark.parametrize("content", NO_EXPORT)
@pytest.mark.parametrize("request_", [OF_CHANNELS, OF_USERS], ids=["channels", "users"])
def test_a_fetched_file_of_nothing_but_rejects_is_no_export(
    request_: ChannelsRequest | UsersRequest,
    content: bytes,
    serve: Callable[[bytes], ChatExportClient],
    lake: LakeProbe,
) -> None:
    """A proxy's error in its place: committed, the window would be covered, and no run would fetch it again."""
    receipt = Receipt(task_id=TaskId("t"), request=request_)
    with pytest.raises(InputError, match="the file of export t holds no line that is part of an export") as caught:
        pipeline.load_exports(serve(content), [receipt], lake_uri=lake.uri, options=LoadOptions(max_rejected=None))
    assert caught.value.retryable
    assert set() == lake.files()


def test_a_fetched_file_with_one_line_of_an_export_is_one(
    serve: Callable[[bytes], ChatExportClient], lake: LakeProbe
) -> None:
    """Its other lines are rejects as ever, and so is the line itself, whose entity is known."""
    content = b'{}\n{"type":"message","data":{}}\n{"error":"access denied"}\n'
    report = pipeline.load_exports(
        serve(content),
        [Receipt(task_id=TaskId("t"), request=OF_CHANNELS)],
        lake_uri=lake.uri,
        options=LoadOptions(max_rejected=None),
    )
    assert (3, 3) == (report.record.counts["lines"], report.record.counts["rejected"])


def test_lines_that_are_too_long_to_be_looked_at_may_be_of_an_export(
    serve: Callable[[bytes], ChatExportClient], lake: LakeProbe
) -> None:
    """That they are rejects was asked for: fetched again, they are as long."""
    report = pipeline.load_exports(
        serve(b'{"type":"message","data":{"text":"long"}}\n'),
        [Receipt(task_id=TaskId("t"), request=OF_CHANNELS)],
        lake_uri=lake.uri,
        options=LoadOptions(max_line_bytes=20, max_rejected=1),
    )
    assert (1, 1) == (report.record.counts["lines"], report.record.counts["rejected"])


@pytest.mark.parametrize("content", NO_EXPORT)
def test_a_file_given_by_hand_may_be_all_rejects_if_that_is_allowed(
    content: bytes, lake: LakeProbe, tmp_path: Path
) -> None:
    """The person who gives it sees them, and it covers nothing."""
    (path := tmp_path / "export").write_bytes(content)
    with pytest.raises(TooManyRejectsError):
        load_file(lake, path, None, None, NINE)
    report = load_file(lake, path, None, None, NINE, max_rejected=1.0)
    assert report.record.counts["lines"] == report.record.counts["rejected"] > 0


@pytest.mark.parametrize("content", [b"", b"\n", gzip.compress(b""), b"[]"], ids=["v2", "blank", "packed", "v1"])
def test_a_fetched_export_of_a_quiet_window_covers_it(
    content: bytes, serve: Callable[[bytes], ChatExportClient], lake: LakeProbe
) -> None:
    """Without that, a quiet channel would fail each night, or be exported again and again."""
    request = ChannelsRequest(channels=(Cid(UBUNTU),), window=Window.parse("2025-01-01T08:00:00Z", NINE))
    report = pipeline.load_exports(serve(content), [Receipt(task_id=TaskId("t"), request=request)], lake_uri=lake.uri)
    assert (0, 0) == (report.record.counts["lines"], report.record.counts["rejected"])
    (entry,) = report.record.coverage
    assert ((UBUNTU,), request.window) == (entry.channels.names, Window(since=entry.since, until=entry.until))
    assert verify(open_store(lake.uri), now=datetime.now(UTC)).ok


def test_no_link_key_or_text_is_in_logs_or_records(
    load: Load, lake: LakeProbe, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """A signed link in a log is a key to the file; the sandbox's links hold /download."""
    caplog.set_level(logging.DEBUG)
    load(NINE, TEN)
    longest = max(lake.texts().values(), key=len)
    text = caplog.text + json.dumps(lake.records())
    for secret in (sandbox.api_key, sandbox.api_secret, "/download", "Signature", longest):
        assert secret not in text


# An object store


def test_a_lake_in_an_object_store_is_written_like_a_local_one(
    client: ChatExportClient, exported: Callable[..., list[Receipt]], bucket: LakeProbe, sandbox: Sandbox
) -> None:
    """Same files, same records, same views; no extension of DuckDB has to be there for it. Tables have no folders."""
    fs = fsspec.filesystem("s3")
    first = pipeline.load_exports(client, exported(NINE, TEN), lake_uri=bucket.uri)
    again = pipeline.load_exports(client, exported(NINE, TEN), lake_uri=bucket.uri)
    store = open_store(bucket.uri)
    records = {record.load_id: record for record in commit_log.all_records(store)}
    assert {first.record.load_id, again.record.load_id} == records.keys()
    fs.invalidate_cache()
    root = bucket.uri.removeprefix("s3://")
    found = {path.removeprefix(f"{root}/") for path in fs.find(root) if "/empty-v" not in path}
    files = {store.data_path(file.path) for record in records.values() for file in record.files}
    assert files | {record.path for record in records.values()} | {"catalog.duckdb", PROOF} == found
    (messages,) = [file for file in records[again.record.load_id].files if file.table == "messages"]
    assert (len(ids_between(sandbox.world, NINE, TEN)), messages.size_bytes) == (
        messages.rows,
        fs.size(f"{root}/{store.data_path(messages.path)}"),
    )
    assert ids_between(sandbox.world, NINE, TEN) == bucket.texts()


def test_history_in_an_object_store_forgets_and_ends(bucket: LakeProbe, tmp_path: Path) -> None:
    """A removal and a clean-up find what newer exports superseded."""
    for hour, text in ((1, "first"), (2, "second")):
        path = write_export(tmp_path / "export", {"a": (8, text), "b": (9, text)}, user={"id": f"ann-{hour}"})
        load_file(bucket, path, 8, 10, f"2026-01-02T{hour:02}:00:00Z", keep_superseded=True)
    store, now = open_store(bucket.uri), datetime.now(UTC) + timedelta(days=2)
    assert 4 == bucket.value("SELECT count(*) FROM messages_history")
    forget_user(store, "ann-1", now=now)
    assert [["second"]] == bucket.rows("SELECT DISTINCT text FROM messages_history")
    assert {path for path, _ in store.data_files()} == {
        each.file.path
        for each in commit_log.read_snapshot(store).file_states
        if each.is_live or each.status is FileStatus.HISTORY
    }
    vacuum(store, keep=timedelta(0), now=now, history=True)
    assert {path for path, _ in store.data_files()} == {
        each.file.path for each in commit_log.read_snapshot(store).file_states if each.is_live
    }
    assert verify(store, now=now).ok


def test_loading_again_into_an_object_store_changes_nothing(
    client: ChatExportClient, exported: Callable[..., list[Receipt]], bucket: LakeProbe
) -> None:
    """The record is written on the condition that none is there: the second writer learns of the first."""
    receipts = exported(NINE, TEN)
    pipeline.load_exports(client, receipts, lake_uri=bucket.uri)
    assert pipeline.load_exports(client, receipts, lake_uri=bucket.uri).already_loaded
    store = open_store(bucket.uri)
    (record,) = commit_log.all_records(store)
    assert not store.put_new(record.path, b"another")
    assert record == commit_log.find(store, record.load_id)


def test_upkeep_of_a_lake_in_an_object_store(
    client: ChatExportClient,
    exported: Callable[..., list[Receipt]],
    bucket: LakeProbe,
    sandbox: Sandbox,
    control: SandboxControl,
) -> None:
    """Compaction, clean-up and the removal of a person do there what they do on a disk."""
    store = open_store(bucket.uri)
    pipeline.load_exports(client, exported(NINE, TEN), lake_uri=bucket.uri)
    control.advance_clock(timedelta(minutes=1))
    half_past = NINE.replace(":00:00Z", ":30:00Z")
    pipeline.load_exports(client, exported(half_past, ELEVEN), lake_uri=bucket.uri)
    expected = ids_between(sandbox.world, NINE, ELEVEN)
    assert expected == bucket.texts()
    assert compact(store).rows_hidden > 0
    assert expected == bucket.texts()
    now = datetime.now(UTC) + timedelta(days=2)
    dead = {each.file.path for each in commit_log.read_snapshot(store).file_states if each.status is FileStatus.DEAD}
    assert dead
    assert dead == set(vacuum(store, keep=timedelta(0), now=now).superseded)
    author = bucket.value("SELECT user_id FROM messages GROUP BY user_id ORDER BY count(*) DESC LIMIT 1")
    theirs = {each for (each,) in bucket.rows(f"SELECT id FROM messages WHERE user_id = '{author}'")}
    receipt = forget_user(store, author, now=now)
    assert len(theirs) == receipt.removed["messages"] > 0
    assert expected.keys() - theirs == bucket.texts().keys()
    assert 0 == bucket.value(f"SELECT count(*) FROM users WHERE id = '{author}'")
    vacuum(store, keep=timedelta(0), now=now)
    assert {each.file.path for each in commit_log.read_snapshot(store).file_states if each.is_live} == {
        path for path, _ in store.data_files()
    }
    assert [] == [each for each in verify(store, now=now).findings if each.is_fault]
