"""The file host behind the signed links. It behaves as S3 does, not as the API.

Ranges, ETag, If-Range, HEAD, errors as XML. An ``Authorization`` header in addition to the signature gets 400 (S3,
"only one auth mechanism allowed").
"""

from __future__ import annotations

import base64
import http.client
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import format_datetime
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from airflow_provider_chatexport.sandbox.exports.signed_links import ATTACHMENTS_PATH, LinkRefusedError, SignedLinks
from airflow_provider_chatexport.sandbox.exports.tasks import ExportFile, Tasks

CHUNK_BYTES: Final = 256 * 1024
# No known export declares another type. This is S3's for a file that was uploaded without one.
MEDIA_TYPE: Final = "binary/octet-stream"

# What all images and all other attachments are: a grey pixel as PNG, and the head of an MP4 file.
_IMAGE: Final = base64.b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNoAAAAggCB2kUIOwAAAABJRU5ErkJggg=="
)
_VIDEO: Final = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom"

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """Bytes ``first`` to ``last``, both included, as HTTP counts them."""

    first: int
    last: int

    @property
    def size_bytes(self) -> int:
        """The number of bytes."""
        return self.last - self.first + 1


class UnsatisfiableRangeError(Exception):
    """The range starts after the end of the file."""


class FileHost:
    """Answers GET and HEAD under ``/download``."""

    def __init__(self, links: SignedLinks, tasks: Tasks) -> None:
        self._links = links
        self._tasks = tasks

    async def answer(self, request: Request) -> Response:
        """Return the file, a range of it, or an error."""
        if "authorization" in request.headers:
            return s3_error(400, "InvalidArgument", "Only one auth mechanism allowed")
        try:
            self._links.check(request.url.path, request.query_params)
        except LinkRefusedError as refused:
            return s3_error(403, refused.s3_code, refused.reason)
        if request.url.path.startswith(ATTACHMENTS_PATH):
            return _attachment(request.url.path)
        file = self._tasks.file_at(request.url.path)
        if file is None:
            return s3_error(404, "NoSuchKey", "The specified key does not exist.")
        return _answer(request, file)


def s3_error(status: int, code: str, message: str) -> Response:
    """Return an error as S3 writes it."""
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{escape(code)}</Code>'
        f"<Message>{escape(message)}</Message></Error>"
    )
    return Response(body, status_code=status, media_type="application/xml")


def expired() -> Response:
    """Return the error for an expired link."""
    return s3_error(403, "AccessDenied", "Request has expired")


def status_error(status: int) -> Response:
    """Return the file host's error with this status."""
    phrase = http.client.responses.get(status, "Error")
    return s3_error(status, phrase.replace(" ", ""), phrase)


def parse_range(header: str, size_bytes: int) -> ByteRange | None:
    """Return the range that a Range header asks for; None if S3 would ignore the header and send the whole file.

    :raises UnsatisfiableRangeError: the range starts after the end.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first_text, last_text = match.groups()
    if not first_text:
        wanted = min(int(last_text), size_bytes)
        if wanted == 0:
            raise UnsatisfiableRangeError
        return ByteRange(first=size_bytes - wanted, last=size_bytes - 1)
    first, last = int(first_text), int(last_text) if last_text else size_bytes - 1
    if first >= size_bytes:
        raise UnsatisfiableRangeError
    if last < first:
        return None
    return ByteRange(first=first, last=min(last, size_bytes - 1))


def _attachment(path: str) -> Response:
    is_image = path.startswith(f"{ATTACHMENTS_PATH}/images/")
    return Response(_IMAGE, media_type="image/png") if is_image else Response(_VIDEO, media_type="video/mp4")


def _answer(request: Request, file: ExportFile) -> Response:
    headers = {
        "accept-ranges": "bytes",
        "etag": file.etag,
        "last-modified": _http_date(file),
        "content-type": MEDIA_TYPE,
    }
    if request.headers.get("if-match", file.etag) not in (file.etag, "*"):
        return s3_error(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
    try:
        byte_range = (
            parse_range(request.headers.get("range", ""), file.size_bytes) if _range_holds(request, file) else None
        )
    except UnsatisfiableRangeError:
        refusal = s3_error(416, "InvalidRange", "The requested range is not satisfiable")
        refusal.headers["content-range"] = f"bytes */{file.size_bytes}"
        return refusal
    status, size_bytes = 200, file.size_bytes
    if byte_range is not None:
        status, size_bytes = 206, byte_range.size_bytes
        headers["content-range"] = f"bytes {byte_range.first}-{byte_range.last}/{file.size_bytes}"
    headers["content-length"] = str(size_bytes)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(
        _chunks(file.path, byte_range.first if byte_range else 0, size_bytes), status_code=status, headers=headers
    )


def _range_holds(request: Request, file: ExportFile) -> bool:
    """Return whether the file is still the one that ``If-Range`` names; true without that header."""
    return request.headers.get("if-range", file.etag) in (file.etag, _http_date(file))


def _http_date(file: ExportFile) -> str:
    return format_datetime(file.finished_at.replace(microsecond=0), usegmt=True)


def _chunks(path: Path, start: int, size_bytes: int) -> Iterator[bytes]:
    """Yield the bytes; starlette asks for each chunk in a thread.

    A file that is deleted meanwhile stays readable through the open handle.
    """
    with path.open("rb") as file:
        file.seek(start)
        left_bytes = size_bytes
        while left_bytes > 0 and (chunk := file.read(min(CHUNK_BYTES, left_bytes))):
            left_bytes -= len(chunk)
            yield chunk
