"""The export of one user in a single reply, streamed to a file: it may have hundreds of megabytes."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import httpx

from airflow_provider_chatexport.api.download import ProgressCallback
from airflow_provider_chatexport.api.error_replies import read_date
from airflow_provider_chatexport.api.protocol import Call, unexpected_reply_error
from airflow_provider_chatexport.api.settings import ServiceSettings

# The service refuses users with more than 10,000 messages. Each has some KB, with all its custom data at most some 50.
MAX_USER_EXPORT_BYTES: Final = 2 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class UserExport:
    """A saved export of one user, ``{"user":..,"messages":[..],"reactions":[..],"duration":..}``.

    :param sha256: the digest of the bytes on disk.
    :param exported_at: when the service answered, by its own clock if the reply says it.
    """

    path: Path
    size_bytes: int
    sha256: str
    exported_at: datetime


def save_reply(
    response: httpx.Response,
    call: Call[Any],
    settings: ServiceSettings,
    file: BinaryIO,
    target: Path,
    progress: ProgressCallback | None,
) -> UserExport:
    """Write the body of a successful reply to ``file``, from its start.

    :param target: where the file will be.
    :raises UnexpectedReplyError: the body is not a JSON object, or larger than any export of a user.
    :raises httpx.HTTPError: fewer bytes arrived than the reply declares.
    """
    file.seek(0)
    file.truncate()
    digest = hashlib.sha256()
    size_bytes = 0
    length = response.headers.get("content-length", "")
    # The declared length counts the bytes of the wire, and those of a compressed reply say nothing about the file.
    total_bytes = int(length) if length.isdecimal() and "content-encoding" not in response.headers else None
    for chunk in response.iter_bytes():
        if size_bytes == 0 and not chunk.lstrip().startswith(b"{"):
            break
        size_bytes += len(chunk)
        if size_bytes > MAX_USER_EXPORT_BYTES:
            raise unexpected_reply_error(call, response.status_code, settings, "more than 2 GB")
        file.write(chunk)
        digest.update(chunk)
        if progress is not None:
            progress(size_bytes, total_bytes)
    if size_bytes == 0:
        raise unexpected_reply_error(call, response.status_code, settings, "no JSON object")
    exported_at = datetime.fromtimestamp(read_date(response.headers) or time.time(), UTC)
    return UserExport(path=target, size_bytes=size_bytes, sha256=digest.hexdigest(), exported_at=exported_at)
