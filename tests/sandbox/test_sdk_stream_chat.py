"""The official SDK of the legacy family, unchanged, against the sandbox."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import requests
from sandbox_calls import PATIENCE_S
from stream_chat import StreamChat, StreamChatAsync
from stream_chat.base.exceptions import StreamAPIException

from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.sandbox import Sandbox

SMALL = "messaging:rust"


def chat_with(sandbox: Sandbox, *, secret: str | None = None) -> StreamChat:
    """Return the SDK's client for a sandbox. Its own timeout of 6 s is not enough on a busy machine."""
    return StreamChat(sandbox.api_key, secret or sandbox.api_secret, base_url=sandbox.url, timeout=PATIENCE_S)


@pytest.fixture
def chat(sandbox) -> Iterator[StreamChat]:
    """Yield the SDK as its README sets it up, with another base URL."""
    client = chat_with(sandbox)
    yield client
    client.session.close()


def ended(ask: Any, task_id: str) -> dict[str, Any]:
    """Poll as the SDK's own tests do, until the task has ended."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        reply = ask(task_id)
        if reply["status"] in ("completed", "failed"):
            return reply
    raise AssertionError("the task did not end")


def test_a_channel_export_runs_from_request_to_file(chat, sandbox_world):
    """The default version is v1: one array, one element per channel."""
    created = chat.export_channel("messaging", "rust")
    assert (len(created["task_id"]), created.status_code()) == (36, 201)
    done = ended(chat.get_task, created["task_id"])
    assert "error" not in done
    assert parse_rfc3339(done["created_at"]) <= parse_rfc3339(done["updated_at"])
    (element,) = json.loads(httpx.get(done["result"]["url"]).content)
    assert len(element["messages"]) == sum(1 for _ in sandbox_world.messages(SMALL))


def test_the_former_status_call_of_the_sdk_still_works(chat, sandbox_world):
    """It is no longer in the API description, but it is in the SDK."""
    at = parse_rfc3339(sandbox_world.channel(SMALL)["last_message_at"])
    created = chat.export_channel(
        "messaging", "rust", at - timedelta(days=1), at, version="v2", include_truncated_messages=True
    )
    done = ended(chat.get_export_channel_status, created["task_id"])
    assert {"url", "path", "s3_bucket_name"} <= done["result"].keys()


def test_a_users_export_runs_from_request_to_file(chat, sandbox_world):
    """As in the SDK's own tests: the folder in the link, the id in the file."""
    user_id = sandbox_world.user_ids()[0]
    done = ended(chat.get_task, chat.export_users([user_id])["task_id"])
    assert "/exports/users/" in done["result"]["url"]
    assert user_id in httpx.get(done["result"]["url"]).text


def test_one_user_has_flat_custom_fields_and_times_as_strings(chat, sandbox_world):
    """As the legacy family has them."""
    user_id = max(sandbox_world.user_ids()[:200], key=sandbox_world.count_messages_of)
    exported = chat.export_user(user_id)
    assert exported["user"]["id"] == user_id
    assert "custom" not in exported["user"]
    assert parse_rfc3339(exported["messages"][0]["created_at"])
    assert {reaction["user_id"] for reaction in exported["reactions"]} <= {user_id}


def test_channels_are_queried_with_the_sdks_defaults(chat, sandbox_world):
    """It sends state, watch and presence, and writes a sort in its own way."""
    reply = chat.query_channels({"type": "team"}, sort=[{"field": "cid", "direction": -1}], limit=5, offset=0)
    assert reply.status_code() == 201
    assert [entry["channel"]["id"] for entry in reply["channels"]] == ["ubuntu-meeting", "mediawiki"]
    channel = reply["channels"][0]["channel"]
    assert "custom" not in channel
    assert channel["name"] == sandbox_world.channel(channel["cid"])["custom"]["name"]


def test_rate_limits_are_read_from_headers_and_from_their_endpoint(chat):
    """The SDK looks up lower-case names in a plain dictionary."""
    reply = chat.get_rate_limits(server_side=True, endpoints=["ExportChannels", "QueryChannels"])
    assert reply["server_side"].keys() == {"ExportChannels", "QueryChannels"}
    created = chat.export_channels([{"cid": SMALL}])
    assert (created.rate_limit().limit, created.rate_limit().remaining) == (60, 59)
    assert created.rate_limit().reset.timestamp() > time.time()


def test_errors_are_the_sdks_own_with_code_and_message(chat):
    """Its own tests look for these words."""
    with pytest.raises(StreamAPIException, match="Can't find channel") as unknown:
        chat.export_channels([{"type": "messaging", "id": "none-such"}])
    assert (unknown.value.status_code, unknown.value.error_code) == (404, 16)
    with pytest.raises(StreamAPIException, match='Can\'t find task with id "none-such"'):
        chat.get_task("none-such")
    with pytest.raises(StreamAPIException) as wrong:
        chat.export_channels([])
    assert (wrong.value.status_code, wrong.value.error_code) == (400, 4)


def test_a_wrong_secret_and_a_token_of_a_user_are_refused(sandbox, chat):
    """A wrong secret gets 401, a user's token 403."""
    with pytest.raises(StreamAPIException) as foreign:
        chat_with(sandbox, secret="another-secret-that-is-long-enough-for-hs256").get_task("x")
    assert (foreign.value.status_code, foreign.value.error_code) == (401, 43)
    chat.auth_token = chat.create_token("someone")
    with pytest.raises(StreamAPIException) as client:
        chat.export_channels([{"cid": SMALL}])
    assert (client.value.status_code, client.value.error_code) == (403, 17)


def test_a_limit_exceeded_is_the_sdks_own_error(start_sandbox):
    """Code 9, as documented. The clock stands still: on a slow machine a second would pass between the exports."""
    sandbox = start_sandbox(rate_limit=True, frozen_clock=True)
    chat, user_id = chat_with(sandbox), sandbox.world.user_ids()[0]
    for _ in range(2):
        chat.export_users([user_id])
    with pytest.raises(StreamAPIException) as refused:
        chat.export_users([user_id])
    assert (refused.value.status_code, refused.value.error_code) == (429, 9)
    sandbox.control.advance_clock(timedelta(seconds=1))
    assert chat.export_users([user_id])["task_id"]


def test_a_lost_answer_is_a_broken_connection(chat, calls):
    """The SDK repeats a broken request once, so the test needs two faults."""
    calls.control.fault("drop", "/export_channels", times=2)
    with pytest.raises(requests.exceptions.ConnectionError):
        chat.export_channels([{"cid": SMALL}])


async def test_the_asynchronous_client_works_alike(sandbox):
    """The same endpoints through the SDK's other half."""
    async with StreamChatAsync(sandbox.api_key, sandbox.api_secret, base_url=sandbox.url, timeout=PATIENCE_S) as chat:
        created = await chat.export_channels([{"cid": SMALL}], version="v2")
        while (task := await chat.get_task(created["task_id"]))["status"] not in ("completed", "failed"):
            assert task["status"] in ("waiting", "running")
        assert task["status"] == "completed"
        assert [entry["channel"]["cid"] for entry in (await chat.query_channels({"cid": SMALL}))["channels"]] == [SMALL]
