"""From a finished export to a file on disk: a fresh link, streamed, resumed where it broke off, checked for size.

The service publishes no digest of an export file, so bytes that change on the way while their number stays the same
are found only when the file is read (gzip's own check, or lines that are not JSON).
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

# How much is read of an error, which is some XML.
_ERROR_BYTES: Final = 4096
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.ASCII)

# Pre-signed links answer 400 when an Authorization header comes along, and who holds the files need not know of us. So
# the request says what any plain client says (firewalls refuse one without a name), and that bytes be sent as they are.
PLAIN_HEADERS: Final = {
    "User-Agent": f"python-httpx/{httpx.__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
}

ProgressCallback = Callable[[int, int | None], None]


class StatusSource(Protocol):
    """Whoever can be asked for the status of an export: ``ChatExportClient``."""

    settings: ServiceSettings

    def task(self, task_id: TaskId) -> TaskState:
        """The status, with a fresh link if the export is completed. :raises ServiceError: after the last attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """A whole export file. ``sha256`` is over its bytes as they lie on disk; ``task`` is the last status reply."""

    path: Path
    size_bytes: int
    sha256: str
    task: TaskState


def download(
    client: StatusSource,
    task_id: TaskId,
    target: Path,
    *,
    max_file_bytes: int | None = None,
    progress: ProgressCallback | None = None,
) -> Downloaded:
    """Fetch the file of a completed export to ``target``, through ``target`` + ``.part``; nothing is left on failure.

    Every attempt begins with a status request, because links are made anew by each and live for a day only. An
    attempt that got further is not held against the number of attempts (``settings.max_attempts``).

    :param max_file_bytes: refuse a larger file.
    :param progress: called with the bytes that are here, and the bytes in all where the file host tells.
    :raises FileGoneError: the service no longer has the file.
    :raises DownloadError: it could not be fetched whole, may not be fetched from where it is, or cannot be written.
    :raises TaskFailedError: the export ended as failed.
    :raises ServiceError: the status could not be asked for.
    """
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as file:
            transfer = _Transfer(task_id, file, max_file_bytes=max_file_bytes, progress=progress)
            task = _fetch_whole(client, task_id, transfer)
        part.replace(target)
    except OSError as error:
        raise DownloadError(
            f"the file of export {task_id} cannot be written to {target.parent}: {error.strerror or error}; free some "
            "space there or choose another directory"
        ) from None
    finally:
        part.unlink(missing_ok=True)
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
            raise _gone(task_id) from None
        try:
            transfer.fetch(checked_link(task, settings), settings)
            return task
        except DownloadError as error:
            # Further than ever, not than last time: a file that changes at each attempt begins anew at each.
            n_fruitless = 0 if transfer.size_bytes > furthest_bytes else n_fruitless + 1
            furthest_bytes = max(furthest_bytes, transfer.size_bytes)
            if not error.retryable or n_fruitless >= settings.max_attempts:
                # Once it may be a page of something in between, or a file that is not there yet.
                if error.facts.get("http_status") == 404:
                    raise _gone(task_id) from None
                raise
            bound_s = settings.pause_bound_s(n_fruitless)
            asked_s: float = getattr(error, "retry_after_s", None) or 0.0
            pause_s = min(settings.longest_wait_s, asked_s) + random.uniform(0.0, bound_s)  # noqa: S311
            log.warning("%s; going on at byte %d in %.1f s", error, transfer.size_bytes, pause_s)
            time.sleep(pause_s)


def checked_link(task: TaskState, settings: ServiceSettings) -> httpx.URL:
    """The link of a completed export, if it may be followed. Its text is a credential: it must not be logged.

    :raises TaskFailedError: the export ended as failed.
    :raises FileGoneError: it is completed and has no file.
    :raises DownloadError: it is still running, or the link leads where the settings do not allow.
    """
    if not task.status.ended:
        raise _refused(task.task_id, f"the export is {task.status.value}, not completed; wait for it first")
    if task.status is not Status.COMPLETED:
        raise TaskFailedError(
            f"export {task.task_id} ended as {task.status.value} at the service: {task.error or 'without a reason'}; "
            "export again",
            task_id=task.task_id,
        )
    if task.url is None:
        raise _gone(task.task_id)
    try:
        link = httpx.URL(task.url)
    except httpx.InvalidURL:
        link = httpx.URL("")
    if link.scheme not in ("http", "https") or not link.host or link.userinfo:
        raise _refused(task.task_id, "the service's link to it is malformed; try again, or report it to the service")
    if link.scheme == "http" and not settings.http_links_allowed:
        raise _refused(
            task.task_id,
            f"its link leads to {link.host} over plain http; set allow_http_links in the connection to accept that",
        )
    if settings.link_host is not None and link.host != settings.link_host.lower():
        raise _refused(
            task.task_id,
            f"its link leads to {link.host}, and the connection allows {settings.link_host} only; change link_host "
            "there if that is right",
        )
    return link


class _Transfer:
    """The bytes of one export file so far, and whose bytes they are (by ETag)."""

    def __init__(
        self, task_id: TaskId, file: BinaryIO, *, max_file_bytes: int | None, progress: ProgressCallback | None
    ) -> None:
        self.size_bytes = 0
        self._task_id = task_id
        self._file = file
        self._max_file_bytes = max_file_bytes
        self._progress = progress
        self._digest = hashlib.sha256()
        self._etag: str | None = None
        self._total_bytes: int | None = None

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def fetch(self, link: httpx.URL, settings: ServiceSettings) -> None:
        """One attempt: all that is still missing.

        :raises DownloadError: not all of it came.
        """
        headers = PLAIN_HEADERS | self._range_headers()
        request = httpx.Request("GET", link, headers=headers, extensions={"timeout": settings.timeouts.as_dict()})
        try:
            # A transport and not a client: httpx's client logs every URL at INFO and follows the environment's .netrc.
            with httpx.HTTPTransport(**transport_options(settings, str(link))) as transport:
                response = transport.handle_request(request)
                try:
                    self._accept(response, link.host)
                    for chunk in response.iter_raw():
                        self._take(chunk)
                finally:
                    response.close()
        except httpx.HTTPError as error:
            raise self._broken(f"the connection to {link.host} failed ({type(error).__name__})") from None
        if self._total_bytes is not None and self.size_bytes != self._total_bytes:
            raise self._broken(f"{link.host} sent {self.size_bytes} of {self._total_bytes} bytes")

    def _range_headers(self) -> dict[str, str]:
        """Only bytes that the same strong ETag vouches for may be continued; without one the file begins anew."""
        if self.size_bytes == 0 or self._etag is None:
            self._begin()
            return {}
        return {"Range": f"bytes={self.size_bytes}-", "If-Range": self._etag}

    def _accept(self, response: httpx.Response, host: str) -> None:
        """Take up the head of an answer.

        :raises DownloadError: it is not the file, or not the part that was asked for.
        """
        etag = response.headers.get("etag")
        if response.status_code == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            if match is None or int(match[1]) != self.size_bytes or etag != self._etag:
                self._begin()
                raise self._broken(f"{host} sent another part than was asked for")
            if match[3] != "*":
                self._total_bytes = int(match[3])
        elif response.status_code == 200:
            # The whole file: this is the first attempt, or the file is another one now (If-Range).
            self._begin()
            self._etag = etag if etag and not etag.startswith("W/") else None
            length = response.headers.get("content-length", "")
            self._total_bytes = int(length) if re.fullmatch(r"\d{1,18}", length, re.ASCII) else None
        else:
            raise self._not_the_file(response, host)
        self._check_size(self._total_bytes or 0)

    def _not_the_file(self, response: httpx.Response, host: str) -> DownloadError:
        status = response.status_code
        # S3 and Google say 400 where what the link was signed with has expired, and 400 to a request that is wrong too.
        if status in (401, 403, 404) or (status == 400 and b"expired" in _head(response).lower()):
            what = "knows no file under the link" if status == 404 else "refuses the link"
            return LinkExpiredError(
                f"the file of export {self._task_id} could not be fetched: {host} {what} (HTTP {status}), as it does "
                "when the link has expired; export again if fresh links are of no more use",
                http_status=status,
            )
        if status == 410:
            return _gone(self._task_id)
        if status == 416:
            self._begin()
            return self._broken(f"{host} has fewer bytes than are here already")
        if status in (408, 429) or status >= 500:
            return self._broken(
                f"{host} answered HTTP {status}",
                retry_after_s=read_retry_after(response.headers, status=status, now_epoch_s=time.time()),
            )
        if 300 <= status < 400:
            return _refused(self._task_id, f"{host} redirects elsewhere (HTTP {status}), which is never followed")
        return _refused(self._task_id, f"{host} answered HTTP {status}; check proxy and network, then try again")

    def _take(self, chunk: bytes) -> None:
        self._check_size(self.size_bytes + len(chunk))
        if self._total_bytes is not None and self.size_bytes + len(chunk) > self._total_bytes:
            raise _refused(self._task_id, f"more than the announced {self._total_bytes} bytes came; try again")
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size_bytes += len(chunk)
        if self._progress is not None:
            self._progress(self.size_bytes, self._total_bytes)

    def _check_size(self, size_bytes: int) -> None:
        if self._max_file_bytes is not None and size_bytes > self._max_file_bytes:
            raise _refused(
                self._task_id,
                f"it is larger than the allowed {self._max_file_bytes} bytes; raise max_file_bytes, or export a "
                "shorter window or fewer channels at once",
            )

    def _begin(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self.size_bytes = 0
        self._etag = self._total_bytes = None

    def _broken(self, why: str, *, retry_after_s: float | None = None) -> DownloadError:
        return DownloadError(
            f"the file of export {self._task_id} did not come whole: {why}; try again later",
            retry_after_s=retry_after_s,
        )


def _head(response: httpx.Response) -> bytes:
    return next(response.iter_raw(_ERROR_BYTES), b"")


def _refused(task_id: TaskId, why: str) -> DownloadError:
    return DownloadError(f"the file of export {task_id} cannot be fetched: {why}", retryable=False)


def _gone(task_id: TaskId) -> FileGoneError:
    return FileGoneError(
        f"the service no longer has the file of export {task_id}: it keeps export files for 60 days; export again (in "
        "Airflow, clear the export task), or check that this connection is of the app that exported"
    )
