"""Requests and replies as values: what is sent to the letter, and that no reply can surprise."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.api import protocol
from airflow_provider_chatexport.api.error_replies import Reply, read_retry_after, scrub
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.discovery import ChannelPage
from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid, ExportFlags, UserId, UsersRequest
from airflow_provider_chatexport.core.task import Status, TaskId
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import (
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    ServiceUnavailableError,
    UnauthorizedError,
    UnexpectedReplyError,
)

SETTINGS = ServiceSettings(api_key="the-api-key", api_secret="the-api-secret-of-thirty-two-chars")
NOW_EPOCH_S = 1_767_225_600.0
CALLS = [
    protocol.submit_channels(ChannelsRequest(channels=(Cid("messaging:a"),))),
    protocol.submit_users(UsersRequest(user_ids=(UserId("u"),))),
    protocol.get_task(TaskId("t"), SETTINGS),
    protocol.query_channels(ChannelPage()),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
# Replies that come close to the documented ones, with any value in each place.
task_like = st.fixed_dictionaries(
    {},
    optional={
        "task_id": json_values,
        "status": json_values | st.sampled_from([status.value for status in Status]),
        "created_at": json_values | st.just("2026-01-01T00:00:00.1234Z"),
        "updated_at": json_values,
        "result": json_values | st.fixed_dictionaries({"url": json_values}),
        "error": json_values | st.fixed_dictionaries({"type": json_values, "description": json_values}),
        "channels": json_values | st.lists(st.fixed_dictionaries({"channel": json_values})),
        "code": json_values,
        "message": json_values,
    },
)


def read(call: protocol.Call[Any], status: int, body: bytes, headers: dict[str, str] | None = None) -> Any:
    return protocol.read_reply(
        call, Reply(status=status, headers=headers or {}, body=body), SETTINGS, now_epoch_s=NOW_EPOCH_S
    )


def read_task(**fields: Any) -> Any:
    task = {"task_id": "t", "status": "running", "created_at": "2026-01-01T00:00:00Z", **fields}
    return read(protocol.get_task(TaskId("t"), SETTINGS), 200, json.dumps(task).encode())


def error_body(code: int | None, message: str, **others: Any) -> bytes:
    return json.dumps({"code": code, "message": message, "StatusCode": 0, "duration": "0", **others}).encode()


@given(st.sampled_from(CALLS), st.integers(100, 599), json_values | task_like)
def test_any_json_either_decodes_or_is_an_error_of_ours(call, status, value) -> None:
    """Whatever a service, a proxy or a portal answers: no KeyError or TypeError may reach a caller."""
    with contextlib.suppress(ServiceError):
        read(call, status, json.dumps(value).encode())


@given(st.sampled_from(CALLS), st.integers(100, 599), st.binary(max_size=200))
def test_any_bytes_either_decode_or_are_an_error_of_ours(call, status, body) -> None:
    """A body may be no JSON at all, or no text."""
    with pytest.raises(ServiceError):
        read(call, status, body)


def test_a_deeply_nested_body_is_an_error_of_ours() -> None:
    """A parser's recursion limit must not look like a bug of the worker."""
    with pytest.raises(UnexpectedReplyError):
        read(CALLS[2], 200, b"[" * 100_000)


def test_a_channel_export_asks_with_padded_bounds_and_all_flags() -> None:
    """The service's bounds may be inclusive or not: a second on both sides covers either."""
    request = ChannelsRequest(
        channels=(Cid("messaging:a:b"),),
        window=Window.parse("2026-01-01", "2026-01-02"),
        flags=ExportFlags(export_users=True),
    )
    assert protocol.submit_channels(request).body == {
        "channels": [
            {
                "type": "messaging",
                "id": "a:b",
                "messages_since": "2025-12-31T23:59:59.000000Z",
                "messages_until": "2026-01-02T00:00:01.000000Z",
            }
        ],
        "version": "v2",
        "include_truncated_messages": False,
        "include_soft_deleted_channels": False,
        "clear_deleted_message_text": False,
        "export_users": True,
    }


def test_absent_bounds_are_left_out() -> None:
    """A null bound is not what the current SDK sends."""
    call = protocol.submit_channels(ChannelsRequest(channels=(Cid("messaging:a"),)))
    assert call.body is not None
    assert call.body["channels"] == [{"type": "messaging", "id": "a"}]


def test_a_request_is_signed_as_the_sdks_sign() -> None:
    """Token without Bearer, made for this request and short-lived, key in the query, our name in the header."""
    request = protocol.sign(CALLS[0], SETTINGS, now_epoch_s=NOW_EPOCH_S)
    claims = jwt.decode(
        request.headers["authorization"], SETTINGS.api_secret, algorithms=["HS256"], options={"verify_exp": False}
    )
    assert claims == {"server": True, "exp": NOW_EPOCH_S + protocol.TOKEN_LIFETIME_S}
    assert request.headers["stream-auth-type"] == "jwt"
    assert request.headers["x-stream-client"].startswith("airflow-provider-chatexport-")
    assert request.url.params["api_key"] == SETTINGS.api_key


def test_a_task_id_cannot_leave_its_path() -> None:
    """An id comes from people, too: it must not become another endpoint."""
    request = protocol.sign(protocol.get_task(TaskId("../users/u1?x="), SETTINGS), SETTINGS, now_epoch_s=NOW_EPOCH_S)
    assert request.url.raw_path.startswith(b"/api/v2/tasks/..%2Fusers%2Fu1%3Fx%3D?")


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        ("2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00.12345678Z", datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)),
        (1_767_225_600_000_000_000, datetime(2026, 1, 1, tzinfo=UTC)),
        (1.7672256e18, datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_tasks_time_comes_in_either_spelling(spelled, expected) -> None:
    """The families differ, and an API description of one of them is wrong."""
    assert read_task(created_at=spelled).created_at == expected
    assert read_task(created_at=None, updated_at=spelled).created_at == expected


@pytest.mark.parametrize("absent", [{}, {"result": None, "error": None}, {"result": {}, "error": {}}, {"error": ""}])
def test_a_running_task_may_lack_result_and_error(absent) -> None:
    """SDK tests disagree on whether the keys are there before the end."""
    state = read_task(**absent)
    assert (state.status, state.url, state.error) == (Status.RUNNING, None, None)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            {"type": "ValidationError", "description": "no such channel", "stacktrace": "x"},
            "ValidationError: no such channel",
        ),
        ("it broke", "it broke"),
        ({"version": "v1"}, "no description"),
    ],
)
def test_a_failed_task_tells_why(error, told) -> None:
    """An error is an object or, in older code, a bare string; a stack trace is not for the reader."""
    assert read_task(status="failed", error=error).error == told


@pytest.mark.parametrize(
    ("status", "code", "kind", "retryable"),
    [
        (400, 4, RequestRefusedError, False),
        (401, 2, UnauthorizedError, False),
        (401, 40, UnauthorizedError, False),
        (403, 99, UnauthorizedError, False),
        (404, 16, NotFoundError, False),
        (408, 23, ServiceUnavailableError, True),
        (413, 22, RequestRefusedError, False),
        (429, 9, RateLimitedError, True),
        (431, 24, RequestRefusedError, False),
        (500, -1, ServiceUnavailableError, True),
        (502, None, ServiceUnavailableError, True),
        (302, None, UnexpectedReplyError, False),
    ],
)
def test_each_documented_error_has_its_place_in_the_tree(status, code, kind, retryable) -> None:
    """What is worth repeating follows the service's table of codes."""
    body = error_body(code, 'GetTask failed with error: "the reason"')
    with pytest.raises(ServiceError, match="the reason") as caught:
        read(CALLS[2], status, body)
    assert type(caught.value) is kind
    assert (caught.value.http_status, caught.value.code, caught.value.retryable) == (status, code, retryable)
    assert "GetTask failed" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 418])
@pytest.mark.parametrize(
    "body",
    [
        b"<html>default backend - 404</html>",
        b"",
        b'{"error":"access denied"}',
        b'{"message":"Can\'t find task"}',
        b'["code"]',
        b'{"code":true,"message":"no"}',
    ],
    ids=["a page", "nothing", "another's JSON", "without a number", "no object", "no number"],
)
def test_a_refusal_that_is_none_of_the_service_is_not_taken_for_its_word(status, body) -> None:
    """A gateway's 404 must not be an export that is lost, nor a firewall's 403 a wrong key: both pass."""
    with pytest.raises(UnexpectedReplyError, match=rf"{SETTINGS.host} answered HTTP {status} .* no error of the chat"):
        read(CALLS[2], status, body)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (408, ServiceUnavailableError),
        (413, RequestRefusedError),
        (429, RateLimitedError),
        (431, RequestRefusedError),
        (502, ServiceUnavailableError),
    ],
)
def test_what_means_the_same_whoever_says_it_needs_no_body(status, kind) -> None:
    """A gateway that is asked too much, or for too much, stands for the service."""
    with pytest.raises(ServiceError) as caught:
        read(CALLS[2], status, b"<html>no</html>")
    assert type(caught.value) is kind


def test_a_failure_that_the_service_calls_unrecoverable_is_not_retryable() -> None:
    """The service knows which of its failures a repeat cannot cure."""
    with pytest.raises(ServiceUnavailableError) as caught:
        read(CALLS[2], 500, error_body(-1, "broken", unrecoverable=True))
    assert caught.value.retryable is False


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": " , 7, 9"}, 7),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT", "date": "Thu, 01 Jan 2026 00:00:20 GMT"}, 10),
        ({"x-ratelimit-reset": "1767225640"}, 40),
        ({"x-ratelimit-reset": "1767225640", "retry-after": "7"}, 7),
        ({"x-ratelimit-reset": ",1767225640,1"}, 40),
        ({"x-ratelimit-reset": "1767225500"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 400}, None),
        ({}, None),
    ],
)
def test_when_to_come_back_is_read_from_either_header(headers, expected_s) -> None:
    """Seconds, a date by the service's own clock, or the reset of its window; nonsense is no answer."""
    assert read_retry_after(headers, status=429, now_epoch_s=NOW_EPOCH_S) == expected_s


@pytest.mark.parametrize(("more", "expected_s"), [({}, None), ({"retry-after": "7"}, 7)])
def test_the_reset_of_the_rate_limit_is_nothing_to_a_failure(more, expected_s) -> None:
    """Every answer tells it, a 503 with most of the limit unused as well: that one may be tried again at once."""
    headers = {"x-ratelimit-remaining": "58", "x-ratelimit-reset": "1767225640", **more}
    with pytest.raises(ServiceUnavailableError) as caught:
        read(CALLS[2], 503, error_body(-1, "busy"), headers)
    assert caught.value.facts["retry_after_s"] == expected_s


def test_quoted_text_holds_no_link_key_or_token() -> None:
    """A service may echo anything: what we quote of it must not open a door."""
    text = (
        f"see https://files.example/x?sig=1 with {SETTINGS.api_key} and {SETTINGS.api_secret}\n eyJhbGciOi.eyJzZXJ2.sig"
    )
    assert scrub(text, SETTINGS) == "see <link> with <hidden> and <hidden>  <hidden>"


@pytest.mark.parametrize(
    "link",
    [
        "bucket.s3.amazonaws.com/exports/f.json?X-Amz-Signature=abc&X-Amz-Credential=AKIA",
        "/exports/f.json?X-Amz-Expires=9&amp;x-amz-security-token=abc",
        "next=bucket.example%2Ff%3FX-Goog-Signature%3Dabc",
        "account.blob.example/f?sv=1&sig=abc",
    ],
)
def test_a_signed_link_is_hidden_without_its_scheme_too(link) -> None:
    """It opens the file all the same."""
    assert scrub(f"cannot read {link}, sigh=1") == "cannot read <link> sigh=1"


@pytest.mark.parametrize("spelled", [str, lambda said: {"type": "E", "description": said}], ids=["text", "object"])
def test_the_reason_of_a_failed_task_holds_no_key_or_secret(spelled) -> None:
    """It ends up in logs and in Airflow's database, as an error's text does."""
    said = f"callback failed for {SETTINGS.api_key} with {SETTINGS.api_secret}"
    told = read_task(status="failed", error=spelled(said)).error
    assert told.removeprefix("E: ") == "callback failed for <hidden> with <hidden>"


def test_the_refused_channel_stays_readable() -> None:
    """A channel's id is what the reader needs to find the mistake."""
    body = error_body(4, 'ExportChannels failed with error: "Can\'t find channel with id messaging:x"')
    with pytest.raises(RequestRefusedError, match="messaging:x"):
        read(CALLS[0], 400, body)
