"""Which callers the service accepts, and what it answers to the others."""

from __future__ import annotations

import time

import httpx
import jwt
import pytest
from sandbox_calls import token

from airflow_provider_chatexport.sandbox import Sandbox

NOW_S = int(time.time())
REQUIRED_KEYS = {"code", "message", "StatusCode", "duration", "more_info", "details"}


def ask(
    sandbox: Sandbox, *, params: dict[str, str] | None = None, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Send a request with a right key and a right token, unless the test gives others."""
    return httpx.get(
        f"{sandbox.url}/api/v2/rate_limits",
        params={"api_key": sandbox.api_key} if params is None else params,
        headers={"Authorization": token(sandbox, {}), "stream-auth-type": "jwt"} if headers is None else headers,
    )


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({}, id="getstream"),
        pytest.param({"server": True}, id="stream-chat"),
        pytest.param({"server": True, "iat": NOW_S - 5, "nbf": NOW_S - 5, "exp": NOW_S + 86_400}, id="short-lived"),
    ],
)
def test_a_server_token_is_accepted(sandbox, claims):
    """The official SDKs send different claims; refusing either would lock one of them out."""
    assert ask(sandbox, headers={"Authorization": token(sandbox, claims)}).status_code == 200


@pytest.mark.parametrize(
    ("claims", "status", "code"),
    [
        pytest.param({"exp": NOW_S - 60}, 401, 40, id="expired"),
        pytest.param({"nbf": NOW_S + 86_400}, 401, 41, id="not-yet-valid"),
        pytest.param({"iat": NOW_S + 86_400}, 401, 42, id="issued-in-the-future"),
        pytest.param({"exp": "soon"}, 401, 5, id="exp-is-not-a-number"),
        pytest.param({"user_id": "u1"}, 403, 17, id="of-a-client"),
    ],
)
def test_a_wrong_token_is_refused_with_its_number(sandbox, claims, status, code):
    """Clients see from the number whether a new token can help."""
    reply = ask(sandbox, headers={"Authorization": token(sandbox, claims)})
    assert (status, code) == (reply.status_code, reply.json()["code"])
    assert reply.json().keys() >= REQUIRED_KEYS
    assert reply.json()["message"].startswith('GetRateLimits failed with error: "')


def test_a_token_signed_with_another_secret_is_refused(sandbox):
    """A caller without the secret must not get in, with any claims."""
    foreign = token(sandbox, {"server": True}, secret="another-secret-that-is-long-enough-for-hs256")
    assert ask(sandbox, headers={"Authorization": foreign}).json()["code"] == 43


def test_a_token_of_another_algorithm_is_refused(sandbox):
    """The service accepts HS256 only; accepting what the token names would accept "none"."""
    with pytest.warns(UserWarning, match="HMAC key"):
        other = token(sandbox, {"server": True}, algorithm="HS512")
    assert ask(sandbox, headers={"Authorization": other}).json()["code"] == 43
    unsigned = jwt.encode({"server": True}, None, algorithm="none")
    assert ask(sandbox, headers={"Authorization": unsigned}).json()["code"] == 43


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"Authorization": "nonsense"}, id="no-token"),
        pytest.param({"Authorization": "BEARER"}, id="bearer"),
        pytest.param({"Authorization": "TOKEN", "stream-auth-type": "anonymous"}, id="anonymous"),
    ],
)
def test_anything_but_a_bare_token_is_refused(sandbox, headers):
    """The service refuses a client that writes Bearer, so the sandbox must too."""
    values = {"BEARER": f"Bearer {token(sandbox, {})}", "TOKEN": token(sandbox, {})}
    sent = {name: values.get(value, value) for name, value in headers.items()}
    reply = ask(sandbox, headers=sent)
    assert (reply.status_code, reply.json()["code"]) == (401, 5)


@pytest.mark.parametrize(
    ("params", "words"), [({}, "api_key or app_id not provided"), ({"api_key": "other"}, "api_key not valid")]
)
def test_a_wrong_key_is_refused_in_the_words_of_the_service(sandbox, params, words):
    """The service answers with this wording and number."""
    reply = ask(sandbox, params=params)
    assert (reply.status_code, reply.json()["code"]) == (401, 2)
    assert f'GetRateLimits failed with error: "{words}"' == reply.json()["message"]


def test_a_wrong_key_costs_no_export(calls_to, start_sandbox):
    """Refused callers must not use up the app's rate limit."""
    calls = calls_to(start_sandbox(rate_limit=True))
    for _ in range(5):
        assert calls.http.post("/export_channels", params={"api_key": "other"}).status_code == 401
    assert calls.export(calls.sandbox.world.cids[-2]).headers["x-ratelimit-remaining"] == "59"


@pytest.mark.parametrize("path", ["/nowhere", "/api/v2/export_channels", "/api/v2/chat/export_channels/x", "/tasks/x/"])
def test_an_unknown_path_is_404_with_code_16(calls, path):
    """The API description does not have these paths, so a client that uses them is wrong."""
    reply = calls.http.get(path)
    assert (reply.status_code, reply.json()["code"]) == (404, 16)
    assert reply.json()["message"] == 'Request failed with error: "Not Found"'


def test_an_unknown_verb_is_404_too(calls):
    """The service never answers 405."""
    assert (calls.http.delete("/tasks/x").status_code, calls.http.delete("/tasks/x").json()["code"]) == (404, 16)
