"""The file host: links that die, ranges, and what S3 refuses."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.sandbox.exports.file_host import Span, UnsatisfiableRangeError, parse_range

SMALL = "messaging:rust"
DAY_S = 86400


@pytest.fixture
def link(calls):
    """A fresh link to a finished export."""
    return calls.link(calls.export(SMALL))


def test_a_link_needs_no_key_and_tells_its_size(link):
    """A bare client downloads; the declared size is what it can check against."""
    reply = httpx.get(link)
    assert reply.status_code == 200
    assert int(reply.headers["content-length"]) == len(reply.content) > 0
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["etag"].strip('"')


def test_head_tells_the_same_without_a_body(link):
    """Some clients look before they leap."""
    head, get = httpx.head(link), httpx.get(link)
    assert head.content == b""
    assert {**get.headers, "date": ""} == {**head.headers, "date": ""}


def test_every_status_request_makes_another_link(calls):
    """As documented; who compares links to tell files apart must fail here."""
    created = calls.export(SMALL)
    first, second = calls.link(created), calls.link(created)
    assert first != second
    assert httpx.get(first).content == httpx.get(second).content


def test_an_authorization_header_beside_the_signature_is_400(link):
    """S3 refuses two ways of signing at once, so a client that sends its API headers everywhere must learn it here."""
    reply = httpx.get(link, headers={"Authorization": "anything"})
    assert reply.status_code == 400
    assert b"<Code>InvalidArgument</Code>" in reply.content


def test_a_link_dies_after_24_hours_and_another_one_lives(calls):
    """Long after the export the task still gives out links that work."""
    created = calls.export(SMALL)
    link = calls.link(created)
    calls.advance(DAY_S - 60)
    assert httpx.get(link).status_code == 200
    calls.advance(120)
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
def test_a_link_that_was_tampered_with_is_403(link, tamper):
    """The signature covers path and expiry."""
    assert httpx.get(tamper(httpx.URL(link))).status_code == 403


def test_files_are_gone_after_60_days(calls, sandbox):
    """Then the task is as unknown as the file; the file itself leaves the disk."""
    created = calls.export(SMALL)
    assert calls.ended(created)["status"] == "completed"
    calls.advance(59 * DAY_S)
    link = calls.link(created)
    calls.advance(DAY_S - 60)
    assert httpx.get(link).status_code == 200
    calls.advance(120)
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
    """A broken download goes on where it stopped. What S3 does not honour gets the whole file."""
    whole = httpx.get(link).content
    part = httpx.get(link, headers={"Range": header})
    assert (part.status_code, part.content) == (status, whole[cut])
    if status == 206:
        first = len(whole[: cut.start]) if cut.start and cut.start > 0 else len(whole) + (cut.start or -len(whole))
        assert part.headers["content-range"] == f"bytes {first}-{first + len(part.content) - 1}/{len(whole)}"


def test_a_range_behind_the_end_is_416_with_the_size(link):
    """A download that is complete already asks for this, and has to be told the size."""
    size_bytes = len(httpx.get(link).content)
    reply = httpx.get(link, headers={"Range": f"bytes={size_bytes}-"})
    assert (reply.status_code, reply.headers["content-range"]) == (416, f"bytes */{size_bytes}")


def test_if_range_of_another_file_gives_the_whole(link):
    """Two halves of different files must never be glued together."""
    etag = httpx.get(link).headers["etag"]
    assert httpx.get(link, headers={"Range": "bytes=5-", "If-Range": etag}).status_code == 206
    assert httpx.get(link, headers={"Range": "bytes=5-", "If-Range": '"another"'}).status_code == 200
    assert httpx.get(link, headers={"Range": "bytes=5-", "If-Match": '"another"'}).status_code == 412


@given(size_bytes=st.integers(1, 10_000), first=st.integers(0, 12_000), last=st.integers(0, 12_000))
def test_a_parsed_range_lies_within_the_file(size_bytes, first, last):
    """No span may reach outside of the file, whatever is asked for."""
    for header in (f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last}"):
        try:
            span = parse_range(header, size_bytes)
        except UnsatisfiableRangeError:
            assert first >= size_bytes or (header.startswith("bytes=-") and last == 0)
            continue
        assert span is None or (0 <= span.first <= span.last < size_bytes and span.size_bytes >= 1)


def test_pieces_of_any_size_make_the_whole(link):
    """The law behind resuming: consecutive ranges are the file."""
    whole = httpx.get(link).content
    piece_bytes = len(whole) // 5 + 1
    with httpx.Client() as client:
        pieces = [
            client.get(link, headers={"Range": f"bytes={start}-{start + piece_bytes - 1}"}).content
            for start in range(0, len(whole), piece_bytes)
        ]
    assert b"".join(pieces) == whole
    assert Span(first=0, last=0).size_bytes == 1
