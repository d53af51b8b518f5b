"""Downloads of export files: with a fresh link, streamed, resumed after a break, checked for size.

The service publishes no digest of an export file. If bytes change on the way and their number does not, only the reader
of the file notices (by gzip's checksum, or by lines that are not JSON).
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import httpx

from airflow_provider_chatexport.api.error_replies import read_retry_after
from airflow_provider_chatexport.api.part_file import part_file
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.api.transport import transport_options
from airflow_provider_chatexport.core.task import Status, TaskId, TaskState
from airflow_provider_chatexport.errors import (
    DownloadError,
    FileGoneError,
    LinkExpiredError,
    NotFoundError,
    TaskFailedError,
)

log = logging.getLogger(__name__)

# How much of an error's body is read. File hosts answer with a little XML.
_ERROR_BYTES: Final = 4096
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.ASCII)

# A pre-signed link answers 400 to a request with an Authorization header, and the file host need not know our token. So
# these are the headers of a plain client. Firewalls refuse a client without a name; "identity" asks for the bytes as
# they are stored.
PLAIN_HEADERS: Final = {
    "User-Agent": f"python-httpx/{httpx.__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
}

# Called with the number of bytes received, and with the number in all if the file host announces it.
ProgressCallback = Callable[[int, int | None], None]


class StatusSource(Protocol):
    """The part of ``ChatExportClient`` that a download uses."""

    settings: ServiceSettings

    def task(self, task_id: TaskId) -> TaskState:
        """Return the status, with a fresh link if the export is completed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """A whole export file. ``sha256`` is the digest of the bytes on disk; ``task`` is the last status reply."""

    path: Path
    size_bytes: int
    sha256: str
    task: TaskState


def download(
    client: StatusSource, task_id: TaskId, target: Path, *, progress: ProgressCallback | None = None
) -> Downloaded:
    """Download the file of a completed export to ``target``.

    Every attempt starts with a status request: each status reply has a new link, and a link lives for one day. An
    attempt that gets further than all before it does not count towards ``settings.max_attempts``.

    :raises FileGoneError: the service no longer has the file.
    :raises DownloadError: the file did not arrive whole, its link is not allowed, or it cannot be written.
    :raises TaskFailedError: the export ended as failed.
    :raises ServiceError: a status request failed.
    """
    with part_file(target, what=f"the file of export {task_id}") as file:
        transfer = _Transfer(task_id, file, progress=progress)
        task = _fetch_whole(client, task_id, transfer)
    log.info("export file downloaded task_id=%s bytes=%d", task_id, transfer.size_bytes)
    return Downloaded(path=target, size_bytes=transfer.size_bytes, sha256=transfer.sha256, task=task)


def _fetch_whole(client: StatusSource, task_id: TaskId, transfer: _Transfer) -> TaskState:
    settings = client.settings
    n_fruitless = 0
    furthest_bytes = 0
    while True:
        try:
            task = client.task(task_id)
        except NotFoundError:
            raise _gone_error(task_id) from None
        try:
            transfer.fetch(checked_link(task, settings), settings)
            return task
        except DownloadError as error:
            # Compare with the furthest attempt, not with the last: a file that changes restarts at every attempt.
            n_fruitless = 0 if transfer.size_bytes > furthest_bytes else n_fruitless + 1
            furthest_bytes = max(furthest_bytes, transfer.size_bytes)
            if not error.retryable or n_fruitless >= settings.max_attempts:
                # A single 404 may come from a proxy, or from a file that is not there yet. The last one is final.
                if error.facts.get("http_status") == 404:
                    raise _gone_error(task_id) from None
                raise
            bound_s = settings.pause_bound_s(n_fruitless)
            asked_s: float = getattr(error, "retry_after_s", None) or 0.0
            pause_s = min(settings.longest_wait_s, asked_s) + random.uniform(0.0, bound_s)  # noqa: S311
            log.warning("%s; the download continues at byte %d in %.1f s", error, transfer.size_bytes, pause_s)
            time.sleep(pause_s)


def checked_link(task: TaskState, settings: ServiceSettings) -> httpx.URL:
    """Return the link of a completed export if the settings allow it. The link is a credential: do not log it.

    :raises TaskFailedError: the export ended as failed.
    :raises FileGoneError: the export is completed and has no file.
    :raises DownloadError: the export is still running, or the settings do not allow the link.
    """
    if not task.status.ended:
        raise _refused_error(task.task_id, f"the export is {task.said}, not completed; wait for it first")
    if task.status is not Status.COMPLETED:
        raise TaskFailedError(
            f"export {task.task_id} {task.failure}; export again",
            task_id=task.task_id,
        )
    if task.url is None:
        raise _gone_error(task.task_id)
    try:
        link = httpx.URL(task.url)
    except httpx.InvalidURL:
        link = httpx.URL("")
    if link.scheme not in ("http", "https") or not link.host or link.userinfo:
        raise _refused_error(task.task_id, "the service's link is malformed; try again, or report it to the service")
    if link.scheme == "http" and not settings.http_links_allowed:
        raise _refused_error(
            task.task_id,
            f"its link leads to {link.host} over plain http; to accept that, set allow_http_links in the connection",
        )
    if settings.link_host is not None and link.host != settings.link_host.lower():
        raise _refused_error(
            task.task_id,
            f"its link leads to {link.host}, and the connection allows {settings.link_host} only; if that host is "
            "right, change link_host in the connection",
        )
    return link


class _Transfer:
    """The bytes of one export file that have arrived, and the ETag of the file that they belong to."""

    def __init__(self, task_id: TaskId, file: BinaryIO, *, progress: ProgressCallback | None) -> None:
        self.size_bytes = 0
        self._task_id = task_id
        self._file = file
        self._progress = progress
        self._digest = hashlib.sha256()
        self._etag: str | None = None
        self._total_bytes: int | None = None

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def fetch(self, link: httpx.URL, settings: ServiceSettings) -> None:
        """Fetch all bytes that are missing, in one attempt.

        :raises DownloadError: some did not arrive.
        """
        headers = PLAIN_HEADERS | self._range_headers()
        request = httpx.Request("GET", link, headers=headers, extensions={"timeout": settings.timeouts.as_dict()})
        try:
            # A transport instead of a client: httpx's client logs every URL at INFO and reads the user's .netrc.
            with httpx.HTTPTransport(**transport_options(settings, str(link))) as transport:
                response = transport.handle_request(request)
                try:
                    self._accept(response, link.host)
                    for chunk in response.iter_raw():
                        self._take(chunk)
                finally:
                    response.close()
        except httpx.HTTPError as error:
            raise self._incomplete_error(f"the connection to {link.host} failed ({type(error).__name__})") from None
        if self._total_bytes is not None and self.size_bytes != self._total_bytes:
            raise self._incomplete_error(f"{link.host} sent {self.size_bytes} of {self._total_bytes} bytes")

    def _range_headers(self) -> dict[str, str]:
        """Return the headers that ask for the rest. Without a strong ETag, start from the first byte instead."""
        if self.size_bytes == 0 or self._etag is None:
            self._restart()
            return {}
        return {"Range": f"bytes={self.size_bytes}-", "If-Range": self._etag}

    def _accept(self, response: httpx.Response, host: str) -> None:
        """Read the head of a response.

        :raises DownloadError: the response is not the file, or not the part that was requested.
        """
        etag = response.headers.get("etag")
        if response.status_code == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            if match is None or int(match[1]) != self.size_bytes or etag != self._etag:
                self._restart()
                raise self._incomplete_error(f"{host} sent another part than the requested one")
            if match[3] != "*":
                self._total_bytes = int(match[3])
        elif response.status_code == 200:
            # The whole file: this is the first attempt, or the file has changed since the last (If-Range).
            self._restart()
            self._etag = etag if etag and not etag.startswith("W/") else None
            length = response.headers.get("content-length", "")
            self._total_bytes = int(length) if re.fullmatch(r"\d{1,18}", length, re.ASCII) else None
        else:
            raise self._error_for(response, host)

    def _error_for(self, response: httpx.Response, host: str) -> DownloadError:
        """Return the error for a response that is not the file."""
        status = response.status_code
        # S3 and Google answer 400 when the credential that signed the link has expired, and to a malformed request.
        if status in (401, 403, 404) or (status == 400 and b"expired" in _head(response).lower()):
            what = "has no file for the link" if status == 404 else "refuses the link"
            return LinkExpiredError(
                f"the file of export {self._task_id} cannot be downloaded: {host} {what} (HTTP {status}), as it does "
                "when the link has expired; if new links fail as well, export again",
                http_status=status,
            )
        if status == 410:
            return _gone_error(self._task_id)
        if status == 416:
            self._restart()
            return self._incomplete_error(f"{host} has fewer bytes than have arrived already")
        if status in (408, 429) or status >= 500:
            return self._incomplete_error(
                f"{host} answered HTTP {status}",
                retry_after_s=read_retry_after(response.headers, status=status, now_epoch_s=time.time()),
            )
        if 300 <= status < 400:
            return _refused_error(
                self._task_id,
                f"{host} redirects elsewhere (HTTP {status}), and redirects are never followed; check the proxy and "
                "the network, then try again",
            )
        return _refused_error(
            self._task_id, f"{host} answered HTTP {status}; check the proxy and the network, then try again"
        )

    def _take(self, chunk: bytes) -> None:
        if self._total_bytes is not None and self.size_bytes + len(chunk) > self._total_bytes:
            raise _refused_error(self._task_id, f"more than the announced {self._total_bytes} bytes arrived; try again")
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size_bytes += len(chunk)
        if self._progress is not None:
            self._progress(self.size_bytes, self._total_bytes)

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self.size_bytes = 0
        self._etag = self._total_bytes = None

    def _incomplete_error(self, why: str, *, retry_after_s: float | None = None) -> DownloadError:
        return DownloadError(
            f"the file of export {self._task_id} did not arrive whole: {why}; try again later",
            retry_after_s=retry_after_s,
        )


def _head(response: httpx.Response) -> bytes:
    return next(response.iter_raw(_ERROR_BYTES), b"")


def _refused_error(task_id: TaskId, why: str) -> DownloadError:
    return DownloadError(f"the file of export {task_id} cannot be downloaded: {why}", retryable=False)


def _gone_error(task_id: TaskId) -> FileGoneError:
    return FileGoneError(
        f"the service no longer has the file of export {task_id}: it keeps export files for 60 days; export again (in "
        "Airflow, clear the export task), or check that this connection is of the app that made the export"
    )
