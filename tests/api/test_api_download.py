"""From link to file, over a file host that breaks off, expires, shrinks and lies."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.download import checked_link, download
from airflow_provider_chatexport.api.polling import ExportPoller, watch_exports
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.task import Status, TaskId, TaskState
from airflow_provider_chatexport.core.times import EPOCH
from airflow_provider_chatexport.errors import DownloadError, FileGoneError, LinkExpiredError, TaskFailedError

FILES = "/download"
PLAIN = {"host", "user-agent", "accept", "accept-encoding"}


@pytest.fixture
def client(settings: ServiceSettings):
    with ChatExportClient(settings) as client:
        yield client


@pytest.fixture
def task_id(client: ChatExportClient, small_request: Any) -> TaskId:
    """A completed export."""
    task_id = client.submit_channels(small_request)
    now_epoch_s = time.time()
    watch_exports(
        client, ExportPoller([task_id], started_epoch_s=now_epoch_s, deadline_epoch_s=now_epoch_s + 60, poll_s=0.02)
    )
    return task_id


@pytest.fixture
def content(client: ChatExportClient, task_id: TaskId) -> bytes:
    """The file as a plain client sees it."""
    url = client.task(task_id).url
    assert url is not None
    return httpx.get(url).raise_for_status().content


def test_a_file_arrives_whole_with_its_digest(client, task_id, content, tmp_path) -> None:
    """Size and sha256 are recorded in the lake: they must be those of the bytes on disk."""
    seen: list[tuple[int, int | None]] = []
    got = download(client, task_id, tmp_path / "export", progress=lambda done, total: seen.append((done, total)))
    assert got.path.read_bytes() == content
    assert (got.size_bytes, got.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert seen[-1] == (len(content), len(content))
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_the_file_host_gets_no_header_of_ours(client, task_id, control, tmp_path) -> None:
    """A signed link answers 400 when an Authorization header comes along, and nobody else should see our token."""
    download(client, task_id, tmp_path / "export")
    (request,) = control.requests(FILES)
    assert set(request["headers"]) == PLAIN


def test_a_broken_download_goes_on_where_it_stopped(client, task_id, content, control, tmp_path) -> None:
    """After a break only the rest is fetched, and the file is the same as without one."""
    control.forget_requests()
    control.fault("truncate:1000", FILES, times=2)
    got = download(client, task_id, tmp_path / "export")
    assert got.sha256 == hashlib.sha256(content).hexdigest()
    asked = [set(request["headers"]) for request in control.requests(FILES)]
    assert asked[0] == PLAIN
    assert all(headers == PLAIN | {"range", "if-range"} for headers in asked[1:])
    assert len(asked) == 3


def test_breaks_that_bring_bytes_are_not_counted_as_failures(client, task_id, content, control, tmp_path) -> None:
    """A large file over a bad line may break more often than attempts are allowed: progress is what counts."""
    control.fault("truncate:100", FILES, times=client.settings.max_attempts + 3)
    assert download(client, task_id, tmp_path / "export").size_bytes == len(content)


def test_a_link_that_expires_midway_is_renewed(client, task_id, content, control, tmp_path) -> None:
    """A long download outlives its link: it must go on where it stopped, under a fresh one."""
    control.fault("truncate:1000", FILES)
    control.fault("expire", FILES, after=1)
    got = download(client, task_id, tmp_path / "export")
    assert got.sha256 == hashlib.sha256(content).hexdigest()
    assert [request["status"] for request in control.requests(FILES)][-1] == 206


def test_links_that_are_always_refused_end_the_download(client, task_id, control, tmp_path) -> None:
    """Without progress there is an end: the error says what the file host does, and nothing is left on disk."""
    control.fault("expire", FILES, times=100)
    with pytest.raises(LinkExpiredError, match="HTTP 403"):
        download(client, task_id, tmp_path / "export")
    assert len(control.requests(FILES)) == client.settings.max_attempts
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("do", ["status:503", "status:429", "drop"])
def test_a_file_host_that_is_away_for_a_moment_is_waited_for(client, task_id, content, control, tmp_path, do) -> None:
    """Storage fails now and then: two failures in a row must not lose an export."""
    control.fault(do, FILES, times=2)
    assert download(client, task_id, tmp_path / "export").size_bytes == len(content)


def test_a_file_that_left_after_60_days_is_gone(client, task_id, control, tmp_path) -> None:
    """The service keeps files for 60 days: the error must say so, and not that a link expired."""
    control.advance_clock(61 * 86400)
    with pytest.raises(Exception, match="60 days") as caught:
        download(client, task_id, tmp_path / "export")
    assert caught.value.retryable is False
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_host_does_not_have_is_gone(client, task_id, control, tmp_path) -> None:
    """Links made a moment ago that all lead nowhere will lead nowhere next time."""
    control.fault("status:404", FILES, times=100)
    with pytest.raises(FileGoneError, match="60 days") as caught:
        download(client, task_id, tmp_path / "export")
    assert caught.value.retryable is False
    assert len(control.requests(FILES)) == client.settings.max_attempts


def test_a_file_larger_than_allowed_is_refused_before_it_fills_the_disk(client, task_id, tmp_path) -> None:
    """The announced size is enough to refuse."""
    with pytest.raises(DownloadError, match="larger than the allowed 1000 bytes"):
        download(client, task_id, tmp_path / "export", max_file_bytes=1000)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_one_sentence(client, task_id, tmp_path) -> None:
    """A disk's error must not come as a traceback."""
    with pytest.raises(DownloadError, match=r"cannot be written to .*missing"):
        download(client, task_id, tmp_path / "missing" / "export")


def test_no_link_reaches_a_log_or_an_error(client, task_id, control, tmp_path, caplog) -> None:
    """A link is a key to a whole export: at no level may a log or an error hold one."""
    with caplog.at_level(logging.DEBUG):
        download(client, task_id, tmp_path / "export")
        said = []
        for do in ("expire", "drop", "status:404"):
            control.fault(do, FILES, times=100)
            with pytest.raises(DownloadError) as caught:
                download(client, task_id, tmp_path / "export")
            said.append(str(caught.value))
            httpx.delete(f"{client.settings.base_url}/_sandbox/faults")
    url = client.task(task_id).url
    assert url is not None
    link = httpx.URL(url)
    for part in (link.path, *link.params):
        assert part not in caplog.text + "".join(said)


def state(url: str | None = "https://files.example/x", status: Status = Status.COMPLETED) -> TaskState:
    return TaskState(task_id=TaskId("t"), status=status, created_at=EPOCH, url=url)


@pytest.fixture
def remote() -> Callable[..., ServiceSettings]:
    return lambda **others: ServiceSettings(api_key="k" * 12, api_secret="s" * 32, **others)


@pytest.mark.parametrize(
    ("url", "others", "reason"),
    [
        ("http://files.example/x", {}, "plain http"),
        ("https://elsewhere.example/x", {"link_host": "files.example"}, "allows files.example only"),
        ("ftp://files.example/x", {}, "malformed"),
        ("https://user:password@files.example/x", {}, "malformed"),
        ("not a link", {}, "malformed"),
    ],
)
def test_a_link_that_leads_where_it_must_not_is_refused(remote, url, others, reason) -> None:
    """What a reply says is not a reason to go anywhere."""
    with pytest.raises(DownloadError, match=reason) as caught:
        checked_link(state(url), remote(**others))
    assert caught.value.retryable is False
    assert "/x" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "others"),
    [
        ("https://files.example/x", {}),
        ("http://files.example/x", {"allow_http_links": True}),
        ("http://files.example/x", {"base_url": "http://127.0.0.1:1"}),
        ("https://files.example/x", {"link_host": "Files.Example"}),
    ],
)
def test_a_link_that_the_settings_allow_is_followed(remote, url, others) -> None:
    """The connection can widen what is allowed, and a base URL on http does so by itself."""
    assert str(checked_link(state(url), remote(**others))) == url


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        (state(status=Status.RUNNING), DownloadError),
        (state(status=Status.FAILED), TaskFailedError),
        (state(url=None), FileGoneError),
    ],
)
def test_an_export_without_a_file_says_what_it_has_instead(remote, task, kind) -> None:
    """Still running, failed and expired are three different things to do something about."""
    with pytest.raises(kind):
        checked_link(task, remote())
