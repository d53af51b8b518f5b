"""Requests and replies as values: the exact bodies that are sent, and an error for every unusable reply."""

from __future__ import annotations

import contextlib
import json
import pickle
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
from airflow_provider_chatexport.core.retention import RetentionPolicy, RetentionTarget
from airflow_provider_chatexport.core.task import Status, TaskId
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import (
    ApiBudgetError,
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
NOW = "2026-01-01T00:00:00Z"
CALLS = [
    protocol.submit_channels(ChannelsRequest(channels=(Cid("messaging:a"),))),
    protocol.submit_users(UsersRequest(user_ids=(UserId("u"),))),
    protocol.get_task(TaskId("t"), SETTINGS),
    protocol.query_channels(ChannelPage()),
    protocol.export_user(UserId("u")),
    protocol.retention_policy(),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
# Replies that resemble the documented ones, with any value in each place.
task_like = st.fixed_dictionaries(
    {},
    optional={
        "task_id": json_values,
        "status": json_values | st.sampled_from([status.value for status in Status]),
        "created_at": json_values | st.just("2026-01-01T00:00:00.1234Z"),
        "updated_at": json_values,
        "result": json_values | st.fixed_dictionaries({"url": json_values}),
        "error": json_values | st.fixed_dictionaries({"type": json_values, "description": json_values}),
        "policies": json_values
        | st.lists(st.fixed_dictionaries({"policy": st.just("old-messages"), "config": json_values})),
        "channels": json_values | st.lists(st.fixed_dictionaries({"channel": json_values})),
        "code": json_values,
        "message": json_values,
    },
)


def read(call: protocol.Call[Any], status: int, body: bytes, headers: dict[str, str] | None = None) -> Any:
    """Read a reply to a call."""
    return protocol.read_reply(
        call, Reply(status=status, headers=headers or {}, body=body), SETTINGS, now_epoch_s=NOW_EPOCH_S
    )


def read_task(**fields: Any) -> Any:
    """Read a status reply with these fields."""
    task = {"task_id": "t", "status": "running", "created_at": "2026-01-01T00:00:00Z", **fields}
    return read(protocol.get_task(TaskId("t"), SETTINGS), 200, json.dumps(task).encode())


def error_body(code: int | None, message: str, **others: Any) -> bytes:
    """Return the body of an error as the service sends it."""
    return json.dumps({"code": code, "message": message, "StatusCode": 0, "duration": "0", **others}).encode()


@given(st.sampled_from(CALLS), st.integers(100, 599), json_values | task_like)
def test_any_json_either_decodes_or_is_a_service_error(call, status, value) -> None:
    """Whatever the service, a proxy or a portal answers: no KeyError or TypeError may reach a caller."""
    with contextlib.suppress(ServiceError):
        read(call, status, json.dumps(value).encode())


@given(st.sampled_from(CALLS), st.integers(100, 599), st.binary(max_size=200))
def test_a_body_that_is_not_json_is_a_service_error(call, status, body) -> None:
    """A body may be a page, an image, or nothing."""
    with pytest.raises(ServiceError):
        read(call, status, body)


def test_a_deeply_nested_body_is_a_service_error() -> None:
    """The parser's recursion limit must not look like a bug of the worker."""
    with pytest.raises(UnexpectedReplyError):
        read(CALLS[2], 200, b"[" * 100_000)


def test_a_channel_export_asks_with_padded_bounds_and_all_flags() -> None:
    """The service's bounds may be inclusive or exclusive: one more second on both sides covers both."""
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
    """The current SDK does not send null for an absent bound."""
    call = protocol.submit_channels(ChannelsRequest(channels=(Cid("messaging:a"),)))
    assert call.body is not None
    assert call.body["channels"] == [{"type": "messaging", "id": "a"}]


def test_a_request_is_signed_as_the_sdks_sign() -> None:
    """The token is new, short-lived and without Bearer; the key is in the query; a header names this client."""
    request = protocol.sign(CALLS[0], SETTINGS, now_epoch_s=NOW_EPOCH_S)
    token = jwt.decode(
        request.headers["authorization"], SETTINGS.api_secret, algorithms=["HS256"], options={"verify_exp": False}
    )
    assert token == {"server": True, "exp": NOW_EPOCH_S + protocol.TOKEN_LIFETIME_S}
    assert request.headers["stream-auth-type"] == "jwt"
    assert request.headers["x-stream-client"].startswith("airflow-provider-chatexport-")
    assert request.url.params["api_key"] == SETTINGS.api_key


def test_a_task_id_cannot_leave_its_path() -> None:
    """People type ids: an id must not turn the request into one for another address."""
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
    """The two families of addresses differ, and the API description of one of them is wrong."""
    assert read_task(created_at=spelled).created_at == expected
    assert read_task(created_at=None, updated_at=spelled).created_at == expected


@pytest.mark.parametrize(
    "absent",
    [
        {},
        {"result": None, "error": None},
        {"result": {}, "error": {}},
        {"error": ""},
        {"error": " "},
        {"error": {"type": "", "description": ""}},
    ],
)
def test_a_running_task_may_lack_result_and_error(absent) -> None:
    """The tests of the SDKs disagree on whether these keys exist before the end. Go writes an unset object empty."""
    state = read_task(**absent)
    assert (state.status, state.url, state.error) == (Status.RUNNING, None, None)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            {"type": "ValidationError", "description": "no such channel", "stacktrace": "x"},
            "ValidationError: no such channel",
        ),
        ("it broke", "it broke"),
        ({"version": "v1"}, "no description"),
    ],
)
def test_a_failed_task_has_a_reason(error, reason) -> None:
    """An error is an object or, in older code, a string; a stack trace does not help the reader."""
    assert read_task(status="failed", error=error).error == reason


@pytest.mark.parametrize("word", ["failed", "error", "pending", "running", "a_new_word", "completed"])
@pytest.mark.parametrize("error", [{"type": "InternalError", "description": "no room"}, "InternalError: no room"])
def test_a_task_with_an_error_has_failed_with_the_reason_of_the_service(word, error) -> None:
    """Waiting for it would take hours, and end without the reason."""
    state = read_task(status=word, error=error)
    assert (Status.FAILED, "InternalError: no room", word) == (state.status, state.error, state.word)


def test_neither_reason_nor_status_shows_a_secret_or_a_link() -> None:
    """Both become parts of errors and logs."""
    link = "https://files.example/x?X-Amz-Signature=abc"
    state = read_task(status=f"{SETTINGS.api_secret}\n{link}", error={"description": f"{link} {SETTINGS.api_key}"})
    assert ("<hidden> <link>", "<link> <hidden>") == (state.said, state.error)
    assert 40 == len(read_task(status="x" * 1000).said)


def read_policies(*policies: Any) -> Any:
    """Read a reply with these retention policies."""
    return read(protocol.retention_policy(), 200, json.dumps({"policies": policies, "duration": "1ms"}).encode())


def test_retention_policies_are_read_as_the_sdk_reads_them() -> None:
    """What the service deletes must be known with its age, or an archive would take it for deleted by people."""
    messages = {"app_pk": 1, "policy": "old-messages", "config": {"max_age_hours": 4380}, "enabled_at": 10**18}
    channels = {"app_pk": 1, "policy": "inactive-channels", "config": {"max_age_hours": 24}, "enabled_at": NOW}
    assert read_policies(messages, channels) == (
        RetentionPolicy(
            target=RetentionTarget.OLD_MESSAGES, max_age_hours=4380, enabled_at=datetime(2001, 9, 9, 1, 46, 40, 0, UTC)
        ),
        RetentionPolicy(
            target=RetentionTarget.INACTIVE_CHANNELS, max_age_hours=24, enabled_at=datetime(2026, 1, 1, tzinfo=UTC)
        ),
    )


@pytest.mark.parametrize("body", [b'{"policies":[]}', b'{"policies":null}'])
def test_an_app_without_policies_keeps_everything(body) -> None:
    """Go writes an empty list as null."""
    assert () == read(protocol.retention_policy(), 200, body)


@pytest.mark.parametrize(
    ("others", "is_enabled"),
    [
        ({}, True),
        ({"enabled_at": NOW}, True),
        ({"enabled_at": NOW, "enabled": False}, False),
        ({"enabled_at": None}, False),
        ({"enabled_at": "0001-01-01T00:00:00Z"}, False),
        ({"enabled_at": 0}, False),
    ],
)
def test_a_policy_may_be_disabled(others, is_enabled) -> None:
    """The docs do not say how a disabled policy looks: one that says nothing is in force."""
    (policy,) = read_policies({"policy": "old-messages", "max_age_hours": 24.0, **others})
    assert (24, is_enabled) == (policy.max_age_hours, policy.is_enabled)


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"policy": "old-files", "max_age_hours": 24}, "'old-files' is a policy that this version does not know"),
        ({"policy": "old-messages", "config": {}}, "max_age_hours"),
        ({"policy": "old-messages", "max_age_hours": 0}, "0 hours"),
        ({"policy": "old-messages", "max_age_hours": 1.5}, "not a whole number"),
        ({"policy": "old-messages", "max_age_hours": True}, "not a whole number"),
        ({"policy": "old-messages", "max_age_hours": 24, "enabled_at": "soon"}, "it is not RFC3339 text"),
        ("old-messages", "a policy is not an object"),
    ],
)
def test_a_policy_that_cannot_be_understood_is_refused(policy, why) -> None:
    """To ignore it would be to ignore what the service deletes."""
    with pytest.raises(UnexpectedReplyError, match=why):
        read_policies(policy)


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
def test_each_documented_error_has_its_class(status, code, kind, retryable) -> None:
    """The service's table of codes decides which errors may be retried."""
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
    ids=["a page", "nothing", "another's JSON", "without a code", "not an object", "not a number"],
)
def test_a_refusal_without_a_code_is_not_of_the_service(status, body) -> None:
    """A gateway's 404 must not mean a lost export, nor a firewall's 403 a wrong key: both may pass."""
    with pytest.raises(
        UnexpectedReplyError, match=rf"{SETTINGS.host} answered HTTP {status}, but not with an error of the chat API"
    ):
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
def test_a_status_that_any_host_uses_needs_no_code(status, kind) -> None:
    """A gateway may limit the rate or the size of requests in the service's place."""
    with pytest.raises(ServiceError) as caught:
        read(CALLS[2], status, b"<html>no</html>")
    assert type(caught.value) is kind


def test_a_failure_that_the_service_calls_unrecoverable_is_not_retryable() -> None:
    """The service knows which of its failures a retry cannot fix."""
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
def test_the_pause_of_a_rate_limit_is_read_from_either_header(headers, expected_s) -> None:
    """It is in seconds, a date by the service's clock, or the reset of the limit; nonsense is ignored."""
    assert read_retry_after(headers, status=429, now_epoch_s=NOW_EPOCH_S) == expected_s


BUDGET = {"x-budget-used-ms": "60250", "x-budget-limit-ms": "60000", "x-budget-remaining-ms": "0"}
LIMIT = {"x-ratelimit-remaining": "9990", "x-ratelimit-reset": "1767229200"}


def test_a_used_up_budget_is_not_a_rate_limit() -> None:
    """Fewer requests would not help, a cheaper query does: the sentence must say which, and the facts how far."""
    with pytest.raises(ApiBudgetError, match=r"60250 of 60000 ms.* in 7 s.*cheaper.* cid, .*last_message_at") as caught:
        read(CALLS[3], 429, error_body(9, "over budget"), {**BUDGET, **LIMIT, "retry-after": "7"})
    error = pickle.loads(pickle.dumps(caught.value))
    assert (7, 60250, 60000, 0) == (error.retry_after_s, error.used_ms, error.limit_ms, error.remaining_ms)
    assert (429, 9, True) == (error.http_status, error.code, error.retryable)


def test_a_used_up_budget_does_not_wait_for_the_rate_limit() -> None:
    """The reset of the rate limit, in an hour here, says nothing about the budget."""
    with pytest.raises(ApiBudgetError, match="try again later") as caught:
        read(CALLS[3], 429, b"", {"x-budget-used-ms": "many", **LIMIT})
    assert (None, None) == (caught.value.retry_after_s, caught.value.used_ms)


def test_a_rate_limit_with_budget_left_stays_a_rate_limit() -> None:
    """Every reply of a budgeted endpoint has the headers of the budget, also one that is about the rate limit."""
    left = {**BUDGET, "x-budget-used-ms": "90", "x-budget-remaining-ms": "59910"}
    with pytest.raises(RateLimitedError) as caught:
        read(CALLS[3], 429, error_body(9, "too many"), {**left, **LIMIT, "x-ratelimit-remaining": "0"})
    assert (RateLimitedError, 3600) == (type(caught.value), caught.value.retry_after_s)


@pytest.mark.parametrize(("more", "expected_s"), [({}, None), ({"retry-after": "7"}, 7)])
def test_a_failure_ignores_the_reset_of_the_rate_limit(more, expected_s) -> None:
    """Every reply contains the reset, even a 503 with most of the limit unused: that request may be repeated now."""
    headers = {"x-ratelimit-remaining": "58", "x-ratelimit-reset": "1767225640", **more}
    with pytest.raises(ServiceUnavailableError) as caught:
        read(CALLS[2], 503, error_body(-1, "busy"), headers)
    assert caught.value.facts["retry_after_s"] == expected_s


def test_quoted_text_contains_no_link_key_or_token() -> None:
    """A service may echo anything: a quote of it must not contain a credential."""
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
    """Such a link opens the file as well."""
    assert scrub(f"cannot read {link}, sigh=1") == "cannot read <link> sigh=1"


@pytest.mark.parametrize("spelled", [str, lambda text: {"type": "E", "description": text}], ids=["text", "object"])
def test_the_reason_of_a_failed_task_contains_no_key_or_secret(spelled) -> None:
    """Logs and Airflow's database contain the reason, as they contain the text of an error."""
    text = f"callback failed for {SETTINGS.api_key} with {SETTINGS.api_secret}"
    reason = read_task(status="failed", error=spelled(text)).error
    assert reason.removeprefix("E: ") == "callback failed for <hidden> with <hidden>"


def test_the_id_of_a_refused_channel_is_quoted() -> None:
    """The reader needs the channel's id to find the mistake."""
    body = error_body(4, 'ExportChannels failed with error: "Can\'t find channel with id messaging:x"')
    with pytest.raises(RequestRefusedError, match="messaging:x"):
        read(CALLS[0], 400, body)
