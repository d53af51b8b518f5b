"""Object stores as they are: late, lost and refused requests, wrong addresses, stores that cannot keep a promise."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
from lakes import LakeProbe, load_file, write_export
from s3_proxy import Reply, Request, S3Proxy, Send, ignoring_conditions, in_front_of
from s3_server import BUCKET, S3Server, new_lake

from airflow_provider_chatexport.errors import ChatExportError, LakeError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.object_store import PROOF

EXPORTED = "2026-01-02T01:00:00Z"
TEXTS = {"a": "a1", "b": "b1"}


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    """A proxy that all requests go through, with clients that give up at once."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with in_front_of(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def lake() -> LakeProbe:
    return LakeProbe(new_lake())


@pytest.fixture
def load(tmp_path: Path) -> Callable[[LakeProbe], object]:
    """Loads two messages."""
    path = write_export(tmp_path / "export", {"a": (8, "a1"), "b": (9, "b1")})
    return lambda lake: load_file(lake, path, 8, 10, EXPORTED)


def is_record(request: Request) -> bool:
    return request.method == "PUT" and bool(re.search(r"/_loads/[0-9a-f]{24}\.json$", request.target))


class Interrupted(BaseException):
    """As Airflow's time-out, or Ctrl-C."""


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Yield a function that interrupts the main thread wherever it is."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        yield lambda: os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


# Commits


def test_a_record_that_lands_after_its_load_was_interrupted_has_its_files(
    proxy: S3Proxy, lake: LakeProbe, load: Callable[[LakeProbe], object]
) -> None:
    """Regression: its files were deleted because the record was not there yet, and from then on every load failed."""
    go_on, landed = threading.Event(), threading.Event()
    with interruptible() as interrupt:

        def late(request: Request, send: Send) -> Reply:
            if not is_record(request):
                return send(request)
            interrupt()
            assert go_on.wait(60)
            reply = send(request)
            landed.set()
            return reply

        proxy.behaviour = late
        with pytest.raises(Interrupted):
            load(lake)
    assert [] == lake.records()
    go_on.set()
    assert landed.wait(60)
    proxy.behaviour = lambda request, send: send(request)
    assert 1 == len(lake.records())
    load(lake)
    assert TEXTS == lake.texts()
    assert verify(open_store(lake.uri), now=datetime.now(UTC)).ok
    lake.assert_tidy()


def test_a_commit_whose_answer_is_lost_is_a_commit(
    proxy: S3Proxy, lake: LakeProbe, load: Callable[[LakeProbe], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client asks again, and the store says that the record is there: it is this load's own."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    lost: list[Request] = []

    def lose(request: Request, send: Send) -> Reply | None:
        reply = send(request)
        if is_record(request) and not lost:
            lost.append(request)
            return None
        return reply

    proxy.behaviour = lose
    load(lake)
    assert 1 == len(lost)
    assert TEXTS == lake.texts()
    lake.assert_tidy()


def test_files_of_a_record_that_never_lands_stay_until_a_vacuum(
    proxy: S3Proxy, lake: LakeProbe, load: Callable[[LakeProbe], object]
) -> None:
    """A refused record may still be on its way; after a day it is not."""
    proxy.behaviour = lambda request, send: Reply(500) if is_record(request) else send(request)
    with pytest.raises(LakeError, match="cannot write the lake"):
        load(lake)
    proxy.behaviour = lambda request, send: send(request)
    left = lake.data_files()
    assert left
    load(lake)
    assert TEXTS == lake.texts()
    vacuum(open_store(lake.uri), keep=timedelta(0), now=datetime.now(UTC) + timedelta(days=2))
    lake.assert_tidy()
    assert left.isdisjoint(lake.data_files())


# What a store has to promise


def test_a_store_that_ignores_conditions_is_refused(proxy: S3Proxy, lake: LakeProbe) -> None:
    """Two loads at once would overwrite each other's records, unnoticed."""
    proxy.behaviour = ignoring_conditions
    with pytest.raises(LakeError, match=r"ignores the condition If-None-Match, .*; use a store") as refused:
        Lake(lake.uri).create()
    assert not refused.value.retryable
    assert set() == lake.files()
    assert not open_store(lake.uri).exists(PROOF)


def test_a_load_refuses_such_a_store_before_it_writes(
    proxy: S3Proxy, lake: LakeProbe, load: Callable[[LakeProbe], object]
) -> None:
    """A load may be the first that anything hears of the lake."""
    proxy.behaviour = ignoring_conditions
    with pytest.raises(LakeError, match="ignores the condition If-None-Match"):
        load(lake)
    assert set() == lake.files()


def test_a_place_that_does_not_list_what_is_written_is_refused(proxy: S3Proxy, lake: LakeProbe) -> None:
    """Regression: a lake whose records no listing shows was written, and every load was a success."""

    def hide(request: Request, send: Send) -> Reply:
        reply = send(request)
        if request.method == "GET" and "list-type=2" in request.target:
            reply = replace(reply, body=re.sub(rb"<Contents>.*?</Contents>", b"", reply.body, flags=re.DOTALL))
        return reply

    proxy.behaviour = hide
    with pytest.raises(LakeError, match="does not list what has just been written"):
        Lake(lake.uri).create()


def test_trying_the_store_out_costs_nothing_in_a_lake_that_has_been_tried_out(
    proxy: S3Proxy, lake: LakeProbe, tmp_path: Path, load: Callable[[LakeProbe], object]
) -> None:
    """A load has requests enough."""
    load(lake)
    assert 2 == sum(request.target.endswith(PROOF) for request in proxy.requests)
    proxy.requests.clear()
    load_file(lake, write_export(tmp_path / "more", {"c": (10, "c1")}), 10, 11, EXPORTED)
    assert 0 == sum(request.target.endswith(PROOF) for request in proxy.requests)


def test_a_conflict_of_conditional_writes_is_tried_again(proxy: S3Proxy, lake: LakeProbe) -> None:
    """S3 answers 409 if another conditional write is under way."""
    conflicts = [Reply(409, {}, b"<Error><Code>ConditionalRequestConflict</Code></Error>")] * 2
    proxy.behaviour = lambda request, send: conflicts.pop() if request.method == "PUT" and conflicts else send(request)
    assert open_store(lake.uri).put_new("_loads/a.json", b"{}")


def test_an_object_is_read_in_one_request(proxy: S3Proxy, lake: LakeProbe) -> None:
    """Regression: parts of a large catalog could come from two versions of it. One request reads one version."""
    store = open_store(lake.uri)
    content = os.urandom(60 * 1024 * 1024)  # s3fs reads more than 50 MB in parts
    store.replace("catalog.duckdb", content)
    proxy.requests.clear()
    assert content == store.read("catalog.duckdb")
    assert ["GET"] == [request.method for request in proxy.requests]


def test_a_large_file_is_uploaded_in_parts_and_a_damaged_part_is_refused(
    proxy: S3Proxy, lake: LakeProbe, tmp_path: Path
) -> None:
    """A gigabyte in one request would start again after each hiccup; a flipped bit must not become a data file."""
    path, store = tmp_path / "large", open_store(lake.uri)
    path.write_bytes(os.urandom(1024) * 105 * 1024)
    store.publish(path, "a.parquet")
    assert 3 == sum("partNumber=" in request.target for request in proxy.requests)
    assert path.stat().st_size == sum(map(len, store.chunks("a.parquet")))
    proxy.requests.clear()

    def damage(request: Request, send: Send) -> Reply:
        if request.method == "PUT" and request.body:
            request = replace(request, body=request.body[:-1] + bytes([request.body[-1] ^ 1]))
        return send(request)

    proxy.behaviour = damage
    path.write_bytes(b"rows" * 1000)
    with pytest.raises(LakeError, match="cannot write the lake"):
        store.publish(path, "b.parquet")
    assert not store.exists("b.parquet")


# Addresses


@pytest.mark.parametrize(
    "typed",
    ["s3://{}//lake", "s3://{}/lake/", "s3://{}/./lake", "s3:///{}/lake", "S3://{}/lake//"],
)
def test_an_address_has_one_form(typed: str) -> None:
    """Regression: a lake at s3://bucket//lake was written, and no listing found it."""
    assert "s3://chat/lake" == open_store(typed.format("chat"), {"anon": True}).uri


@pytest.mark.parametrize("typed", ["{}//lake", "{}/./lake/", "{}/other/../lake"])
def test_a_local_path_has_one_form(typed: str, tmp_path: Path, load: Callable[[LakeProbe], object]) -> None:
    """Regression: in a lake at a path with two slashes, no data file was found again."""
    lake = LakeProbe(open_store(typed.format(tmp_path)).uri)
    assert str(tmp_path / "lake") == lake.uri
    load(LakeProbe(typed.format(tmp_path)))
    lake.assert_tidy()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("s3://chat/la[ke]", r"has a \["),
        ("s3://chat/lake*", r"has a \*"),
        ("s3://chat/lake?versionId=1", r"has a \?"),
        ("/tmp/la[ke", r"has a \["),
        ("/tmp/what?", r"has a \?"),
        ("s3://chat/../lake", "has a part .."),
        ("s3://", "names no bucket"),
        ("s3://chat/la\nke", "control character"),
        ("s3://chat/la\\ke", "backslash"),
        ("s3://key:secret@chat/lake", r"\*\*\*@chat/lake contains a secret"),
        ("simplecache::s3://chat/lake", "chain of addresses"),
        ("s3://chat/simple::lake", "chain of addresses"),
    ],
)
def test_an_address_that_readers_take_for_something_else_is_refused(address: str, why: str) -> None:
    """Regression: a load committed its record, and then failed on a pattern that its own address had become."""
    with pytest.raises(LakeError, match=why) as refused:
        open_store(address)
    assert "secret@" not in str(refused.value)


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_an_unusual_address_works(
    place: str, s3: S3Server, tmp_path: Path, load: Callable[[LakeProbe], object]
) -> None:
    """Spaces, letters of any language, and what shells, URLs, SQL and Python would take for their own."""
    name = "my lake's 100% Größe #1 {a} %20 +b&c;d"
    lake = LakeProbe(f"{tmp_path if place == 'disk' else new_lake()}/{name}")
    load(lake)
    assert TEXTS == lake.texts()
    lake.assert_tidy()
    lake.assert_glob_equals_view()
    assert verify(open_store(lake.uri), now=datetime.now(UTC)).ok


# Credentials


def test_a_lake_takes_its_credentials_from_storage_options(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A notebook has no variables; and nothing shows the secret."""
    caplog.set_level("DEBUG")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write_export(tmp_path / "export", {"a": (8, "a1")})
    for options in (
        {"storage_options": s3_server.storage_options},
        {"filesystem": fsspec.filesystem("s3", **s3_server.storage_options)},
    ):
        with Lake(new_lake(), **options) as lake:
            lake.load(path, since="2026-01-01", until="2026-01-02", exported_at=EXPORTED)
            assert [("a1",)] == lake.sql("SELECT text FROM messages").fetchall()
            assert lake.compact().files_before >= 0
            assert lake.verify().ok
            assert str(s3_server.storage_options["secret"]) not in repr(lake) + caplog.text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "no credentials for the store were found; see docs/object-storage.md"),
        ({"key": "nobody", "secret": "s3cr3t"}, "the store refuses the key or the secret; check them"),
        ({"key": "lakekey", "secret": "s3cr3t"}, "the store refuses the key or the secret; check them"),
        ({"anon": True}, "the store does not allow these credentials to write there"),
        ({"key": "lakekey", "secret": "s3cr3t", "sekret": "x"}, "the store has no option sekret"),
    ],
)
def test_what_is_wrong_with_credentials_is_said_at_once(
    options: dict[str, object], sentence: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the error spoke of room on the disk."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    where = {"endpoint_url": s3_server.url, "client_kwargs": {"region_name": "us-east-1"}}
    with pytest.raises(LakeError, match=re.escape(sentence)) as refused:
        Lake(new_lake(), storage_options={**where, **options}).create()
    assert not refused.value.retryable
    assert "s3cr3t" not in str(refused.value)


def test_a_missing_bucket_is_one_sentence(s3: S3Server) -> None:
    """What, where, and what to do."""
    with pytest.raises(LakeError, match=r"cannot write the lake at s3://no-such-bucket/lake: there is no such bucket"):
        Lake("s3://no-such-bucket/lake").create()


def test_a_store_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    """A wrong endpoint is worth a retry: the network may be at fault."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(LakeError, match="the store cannot be reached; check the endpoint") as refused:
        Lake(f"s3://{BUCKET}/lake").create()
    assert refused.value.retryable


@pytest.mark.parametrize(
    ("uri", "options"),
    [("lake", {"storage_options": {"key": "k"}}), ("gs://chat/lake", {"filesystem": fsspec.filesystem("memory")})],
)
def test_options_that_do_not_fit_the_address_are_refused(uri: str, options: dict[str, object]) -> None:
    """They would be ignored, and the mistake would show elsewhere."""
    with pytest.raises(ChatExportError, match=r"has no use for storage options|serves memory://"):
        Lake(uri, **options)


# Processes that die


def test_a_load_that_dies_after_any_of_its_writes(proxy: S3Proxy, lake: LakeProbe, tmp_path: Path) -> None:
    """Readers see the lake before it or after it, and the same load again finishes it.

    To the store, a process that dies is one that sends nothing more. Its last request may have been carried out.
    """
    shown: dict[str, str] = {}
    n_killed = n_before = n_after = 0
    for hour in range(1, 23):
        n_writes = 0

        def die(request: Request, send: Send, last: int = hour) -> Reply | None:
            nonlocal n_writes
            if n_writes == last:
                return None
            reply = send(request)
            n_writes += request.method not in {"GET", "HEAD"}
            return None if n_writes == last else reply

        # A lookback: each load edits the message of the one before it.
        texts = {f"m{hour - 1:02}": (hour - 1, f"by {hour}"), f"m{hour:02}": (hour, f"by {hour}")}
        path = write_export(tmp_path / str(hour), texts)
        before, after = dict(shown), shown | {each: text for each, (_, text) in texts.items()}
        exported_at = f"2026-01-02T{hour:02}:00:00Z"
        proxy.behaviour = die
        failed = None
        try:
            load_file(lake, path, hour - 1, hour + 1, exported_at)
        except LakeError as error:
            failed = error
        # Seen once, on a busy machine. Readers must see the state before, and the next load must succeed, all the same.
        if failed and n_writes < hour:
            warnings.warn(f"the load of hour {hour} failed by itself: {failed}", stacklevel=1)
        n_killed += n_writes == hour
        proxy.behaviour = lambda request, send: send(request)
        if open_store(lake.uri).exists("catalog.duckdb"):
            seen = lake.texts()
            assert seen in (before, after), hour
            n_before += seen == before
            n_after += seen == after
        load_file(lake, path, hour - 1, hour + 1, exported_at)
        assert after == lake.texts(), hour
        assert [] == [each for each in Lake(lake.uri).verify().findings if each.is_fault], hour
        shown = after
        if n_writes < hour and not failed:
            break
    assert n_writes < hour, "the load has more writes than were tried"
    assert min(n_killed, n_before, n_after) > 1
    vacuum(open_store(lake.uri), keep=timedelta(0), now=datetime.now(UTC) + timedelta(days=2))
    lake.assert_tidy()
    assert shown == lake.texts()


def test_a_vacuum_ends_uploads_that_killed_processes_left(lake: LakeProbe, tmp_path: Path, s3: S3Server) -> None:
    """No listing shows their parts, and the bucket's owner pays for them."""
    load_file(lake, write_export(tmp_path / "export", {"a": (8, "a1")}), 8, 10, EXPORTED)
    fs, folder = fsspec.filesystem("s3"), lake.uri.removeprefix(f"s3://{BUCKET}/")
    for key in (f"{folder}/_files/messages/large.pq", f"{folder}-of-others/large.pq"):
        upload = fs.call_s3("create_multipart_upload", Bucket=BUCKET, Key=key)
        part = {"Bucket": BUCKET, "Key": key, "UploadId": upload["UploadId"], "PartNumber": 1}
        fs.call_s3("upload_part", Body=b"part", **part)
    store, now = open_store(lake.uri), datetime.now(UTC)
    assert 0 == store.drop_unfinished_uploads(before=now - timedelta(days=1))
    assert 1 == store.drop_unfinished_uploads(before=now + timedelta(days=1))
    left = fs.call_s3("list_multipart_uploads", Bucket=BUCKET, Prefix=folder)["Uploads"]
    assert [f"{folder}-of-others/large.pq"] == [each["Key"] for each in left]
