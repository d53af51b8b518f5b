"""The file host: links that expire, ranges, and what S3 refuses."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.sandbox.exports.file_host import ByteRange, UnsatisfiableRangeError, parse_range

SMALL = "messaging:rust"
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


@pytest.fixture
def link(calls):
    """Return a fresh link to a finished export."""
    return calls.link(calls.export(SMALL))


def test_a_link_needs_no_key_and_declares_its_size(link):
    """A client without a key downloads, and checks the file against the declared size."""
    reply = httpx.get(link)
    assert reply.status_code == 200
    assert int(reply.headers["content-length"]) == len(reply.content) > 0
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["etag"].strip('"')


def test_head_answers_the_same_without_a_body(link):
    """Some clients ask for the size first."""
    head, get = httpx.head(link), httpx.get(link)
    assert head.content == b""
    assert {**get.headers, "date": ""} == {**head.headers, "date": ""}


def test_every_status_request_makes_another_link(calls):
    """As documented: a client that identifies files by their links must fail here."""
    created = calls.export(SMALL)
    first, second = calls.link(created), calls.link(created)
    assert first != second
    assert httpx.get(first).content == httpx.get(second).content


def test_an_authorization_header_in_addition_to_the_signature_is_400(link):
    """S3 refuses two ways of signing at once, so a client that sends its API headers everywhere must fail here."""
    reply = httpx.get(link, headers={"Authorization": "anything"})
    assert reply.status_code == 400
    assert b"<Code>InvalidArgument</Code>" in reply.content


def test_a_link_expires_after_24_hours_and_another_one_works(calls):
    """The task gives out links that work, long after the export."""
    created = calls.export(SMALL)
    link = calls.link(created)
    calls.control.advance_clock(DAY - MINUTE)
    assert httpx.get(link).status_code == 200
    calls.control.advance_clock(2 * MINUTE)
    reply = httpx.get(link)
    assert reply.status_code == 403
    assert b"<Message>Request has expired</Message>" in reply.content
    assert httpx.get(calls.link(created)).status_code == 200


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(lambda url: url.copy_remove_param("signature"), id="unsigned"),
        pytest.param(lambda url: url.copy_set_param("expires", "99999999999"), id="prolonged"),
        pytest.param(lambda url: url.copy_set_param("nonce", "0"), id="other-nonce"),
        pytest.param(lambda url: url.copy_set_param("signature", "é"), id="no-hex"),
        pytest.param(lambda url: url.copy_with(path=url.path + "x"), id="other-file"),
    ],
)
def test_a_changed_link_is_403(link, tamper):
    """The signature covers path and expiry."""
    assert httpx.get(tamper(httpx.URL(link))).status_code == 403


def test_files_are_gone_after_60_days(calls, sandbox):
    """The task is then unknown, and the file is deleted from the disk."""
    created = calls.export(SMALL)
    assert calls.ended(created)["status"] == "completed"
    calls.control.advance_clock(59 * DAY)
    link = calls.link(created)
    calls.control.advance_clock(DAY - MINUTE)
    assert httpx.get(link).status_code == 200
    calls.control.advance_clock(2 * MINUTE)
    gone = calls.http.get(f"/api/v2/tasks/{created.json()['task_id']}")
    assert (gone.status_code, gone.json()["code"]) == (404, 16)
    assert httpx.get(link).status_code in (403, 404)


@pytest.mark.parametrize(
    ("header", "status", "cut"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=10-99999999999", 206, slice(10, None)),
        ("bytes=9-0", 200, slice(None)),
        ("bytes=0-1,5-6", 200, slice(None)),
        ("lines=1-2", 200, slice(None)),
    ],
)
def test_a_range_gives_those_bytes(link, header, status, cut):
    """A broken download goes on where it stopped. A range that S3 ignores gets the whole file."""
    whole = httpx.get(link).content
    part = httpx.get(link, headers={"Range": header})
    assert (part.status_code, part.content) == (status, whole[cut])
    if status == 206:
        first = len(whole[: cut.start]) if cut.start and cut.start > 0 else len(whole) + (cut.start or -len(whole))
        assert part.headers["content-range"] == f"bytes {first}-{first + len(part.content) - 1}/{len(whole)}"


def test_a_range_after_the_end_is_416_with_the_size(link):
    """A client whose download is already complete asks for this, and needs the size."""
    size_bytes = len(httpx.get(link).content)
    reply = httpx.get(link, headers={"Range": f"bytes={size_bytes}-"})
    assert (reply.status_code, reply.headers["content-range"]) == (416, f"bytes */{size_bytes}")


def test_if_range_of_another_file_gives_the_whole(link):
    """Two halves of different files must never become one."""
    etag = httpx.get(link).headers["etag"]
    assert httpx.get(link, headers={"Range": "bytes=5-", "If-Range": etag}).status_code == 206
    assert httpx.get(link, headers={"Range": "bytes=5-", "If-Range": '"another"'}).status_code == 200
    assert httpx.get(link, headers={"Range": "bytes=5-", "If-Match": '"another"'}).status_code == 412


@given(size_bytes=st.integers(1, 10_000), first=st.integers(0, 12_000), last=st.integers(0, 12_000))
def test_a_parsed_range_lies_within_the_file(size_bytes, first, last):
    """No range may reach outside of the file, for any header."""
    for header in (f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last}"):
        try:
            byte_range = parse_range(header, size_bytes)
        except UnsatisfiableRangeError:
            assert first >= size_bytes or (header.startswith("bytes=-") and last == 0)
            continue
        assert byte_range is None or 0 <= byte_range.first <= byte_range.last < size_bytes


def test_consecutive_ranges_are_the_file(link):
    """A client that resumes a download relies on it."""
    whole = httpx.get(link).content
    piece_bytes = len(whole) // 5 + 1
    with httpx.Client() as client:
        pieces = [
            client.get(link, headers={"Range": f"bytes={start}-{start + piece_bytes - 1}"}).content
            for start in range(0, len(whole), piece_bytes)
        ]
    assert b"".join(pieces) == whole
    assert ByteRange(first=0, last=0).size_bytes == 1
