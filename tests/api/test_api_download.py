"""Downloads from the sandbox's file host, which breaks off, expires links and loses files."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.download import checked_link, download
from airflow_provider_chatexport.api.polling import ExportPoller, wait_for_exports
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.task import Status, TaskId, TaskState
from airflow_provider_chatexport.core.times import EPOCH
from airflow_provider_chatexport.errors import DownloadError, FileGoneError, LinkExpiredError, TaskFailedError

FILES = "/download"
PLAIN = {"host", "user-agent", "accept", "accept-encoding"}


@pytest.fixture
def task_id(client: ChatExportClient, task_id: TaskId) -> TaskId:
    """Wait until the export is completed."""
    wait_for_exports(client, ExportPoller([task_id], started_epoch_s=0.0, deadline_epoch_s=1e12, poll_s=0.02))
    return task_id


@pytest.fixture
def content(client: ChatExportClient, task_id: TaskId) -> bytes:
    """Return the file as a plain client sees it."""
    url = client.task(task_id).url
    assert url is not None
    return httpx.get(url).raise_for_status().content


def test_a_file_arrives_whole_with_its_digest(client, task_id, content, tmp_path) -> None:
    """The lake records size and sha256: they must be those of the bytes on disk."""
    progress: list[tuple[int, int | None]] = []
    file = download(client, task_id, tmp_path / "export", progress=lambda done, total: progress.append((done, total)))
    assert file.path.read_bytes() == content
    assert (file.size_bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert progress[-1] == (len(content), len(content))
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_the_file_host_gets_no_header_of_ours(client, task_id, control, tmp_path) -> None:
    """A signed link answers 400 to an Authorization header, and the file host must not see our token."""
    download(client, task_id, tmp_path / "export")
    (request,) = control.requests(FILES)
    assert set(request.headers) == PLAIN


def test_a_broken_download_resumes_where_it_stopped(client, task_id, content, control, tmp_path) -> None:
    """After a break the client fetches only the rest, and the file is the same as without the break."""
    control.clear_requests()
    control.fault("truncate:1000", FILES, times=2)
    file = download(client, task_id, tmp_path / "export")
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    first, *others = (set(request.headers) for request in control.requests(FILES))
    assert first == PLAIN
    assert others == [PLAIN | {"range", "if-range"}] * 2


def test_an_attempt_that_gets_further_is_not_a_failure(client, task_id, content, control, tmp_path) -> None:
    """A large file over a bad line may break more often than attempts are allowed: only progress counts."""
    control.fault("truncate:100", FILES, times=client.settings.max_attempts + 3)
    assert download(client, task_id, tmp_path / "export").size_bytes == len(content)


def test_a_link_that_expires_midway_is_replaced(client, task_id, content, control, tmp_path) -> None:
    """A long download outlives its link: it must resume where it stopped, with a fresh link."""
    control.fault("truncate:1000", FILES)
    control.fault("expire", FILES, after=1)
    file = download(client, task_id, tmp_path / "export")
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert [request.status for request in control.requests(FILES)][-1] == 206


def test_links_that_are_always_refused_end_the_download(client, task_id, control, tmp_path) -> None:
    """Without progress the download must end: the error says what the file host answered, and no file stays."""
    control.fault("expire", FILES, times=100)
    with pytest.raises(LinkExpiredError, match="HTTP 403"):
        download(client, task_id, tmp_path / "export")
    assert len(control.requests(FILES)) == client.settings.max_attempts
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("do", ["status:503", "status:429", "drop"])
def test_a_file_host_that_fails_for_a_moment_is_retried(client, task_id, content, control, tmp_path, do) -> None:
    """Storage fails now and then: two failures in a row must not lose an export."""
    control.fault(do, FILES, times=2)
    assert download(client, task_id, tmp_path / "export").size_bytes == len(content)


def test_a_file_that_was_deleted_after_60_days_is_gone(client, task_id, control, tmp_path) -> None:
    """The service keeps files for 60 days: the error must say so, and not that a link expired."""
    control.advance_clock(timedelta(days=61))
    with pytest.raises(Exception, match="60 days") as caught:
        download(client, task_id, tmp_path / "export")
    assert caught.value.retryable is False
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_host_does_not_have_is_gone(client, task_id, control, tmp_path) -> None:
    """If several fresh links lead nowhere, the next one will not lead anywhere either."""
    control.fault("status:404", FILES, times=100)
    with pytest.raises(FileGoneError, match="60 days") as caught:
        download(client, task_id, tmp_path / "export")
    assert caught.value.retryable is False
    assert len(control.requests(FILES)) == client.settings.max_attempts


def test_a_missing_directory_is_one_sentence(client, task_id, tmp_path) -> None:
    """An error of the disk must not appear as a traceback."""
    with pytest.raises(DownloadError, match=r"cannot be written to .*missing"):
        download(client, task_id, tmp_path / "missing" / "export")


def test_no_link_reaches_a_log_or_an_error(client, task_id, control, tmp_path, caplog) -> None:
    """A link opens a whole export: no log level and no error may contain one."""
    with caplog.at_level(logging.DEBUG):
        download(client, task_id, tmp_path / "export")
        sentences = []
        for do in ("expire", "drop", "status:404"):
            control.fault(do, FILES, times=100)
            with pytest.raises(DownloadError) as caught:
                download(client, task_id, tmp_path / "export")
            sentences.append(str(caught.value))
            control.clear_faults()
    url = client.task(task_id).url
    assert url is not None
    link = httpx.URL(url)
    for part in (link.path, *link.params):
        assert part not in caplog.text + "".join(sentences)


def state(url: str | None = "https://files.example/x", status: Status = Status.COMPLETED) -> TaskState:
    """Return a status reply; by default a completed export with a link."""
    return TaskState(task_id=TaskId("t"), status=status, created_at=EPOCH, url=url)


@pytest.fixture
def remote() -> Callable[..., ServiceSettings]:
    """Make settings for a service that is not the sandbox."""
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
def test_a_link_that_the_settings_do_not_allow_is_refused(remote, url, others, reason) -> None:
    """A reply must not decide which hosts the client connects to."""
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
    """The connection can allow more links, and a base URL on http does so by itself."""
    assert str(checked_link(state(url), remote(**others))) == url


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        (state(status=Status.RUNNING), DownloadError),
        (state(status=Status.FAILED), TaskFailedError),
        (state(url=None), FileGoneError),
    ],
)
def test_an_export_without_a_file_is_an_error_by_its_status(remote, task, kind) -> None:
    """An export that is running, one that failed, and one whose file is gone need different actions."""
    with pytest.raises(kind):
        checked_link(task, remote())
