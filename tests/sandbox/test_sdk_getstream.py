"""The official SDK of the current family, unchanged, against the sandbox: all of its export calls work and decode."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from getstream import AsyncStream, Stream
from getstream.exceptions import (
    StreamApiException,
    StreamRateLimitException,
    StreamTaskException,
    StreamTransportException,
)
from getstream.models import ChannelExport, SortParamRequest
from sandbox_calls import PATIENCE_S

from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.sandbox import Sandbox

SMALL = "messaging:rust"


def stream_to(sandbox: Sandbox, *, secret: str | None = None) -> Stream:
    """Return the SDK's client for a sandbox."""
    return Stream(
        api_key=sandbox.api_key, api_secret=secret or sandbox.api_secret, base_url=sandbox.url, timeout=PATIENCE_S
    )


@pytest.fixture
def stream(sandbox) -> Iterator[Stream]:
    """Yield the SDK as its README sets it up, with another base URL."""
    with stream_to(sandbox) as client:
        yield client


def export(stream: Stream, *cids: str, **options: object) -> str:
    """Submit an export of whole channels, and return the id of its task."""
    channels = [ChannelExport(cid=cid) for cid in cids]
    return stream.chat.export_channels(channels=channels, version="v2", **options).data.task_id


def test_a_channel_export_runs_from_request_to_file(stream, sandbox, sandbox_world):
    """Create and wait with the SDK, then download."""
    task_id = export(stream, SMALL)
    assert len(task_id) == 36
    done = stream.wait_for_task(task_id, poll_interval=0.02, timeout=PATIENCE_S).data
    assert (done.status, done.error) == ("completed", None)
    assert abs(done.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert done.updated_at >= done.created_at
    reply = httpx.get(done.result["url"])
    assert reply.content.count(b'{"type":"message",') == sum(1 for _ in sandbox_world.messages(SMALL))


def test_retention_policies_decode(stream, sandbox):
    """The SDK expects nanoseconds, and an age inside ``config``."""
    assert stream.chat.get_retention_policy().data.policies == []
    sandbox.control.set_retention(old_messages=timedelta(days=30))
    (policy,) = stream.chat.get_retention_policy().data.policies
    assert (policy.policy, policy.config.max_age_hours) == ("old-messages", 720)
    assert abs(policy.enabled_at - sandbox.control.now()) < timedelta(minutes=1)


def test_all_options_of_the_sdk_are_accepted(stream, sandbox_world):
    """The SDK sends datetimes as strings with an offset; the API description says numbers."""
    at = parse_rfc3339(sandbox_world.channel(SMALL)["last_message_at"])
    channels = [
        ChannelExport(type="messaging", id="rust", messages_since=at - timedelta(days=1), messages_until=at),
        ChannelExport(cid="messaging:retired"),
    ]
    created = stream.chat.export_channels(
        channels=channels,
        version="v2",
        format="json",
        clear_deleted_message_text=True,
        export_users=True,
        include_soft_deleted_channels=True,
        include_truncated_messages=True,
    )
    assert created.data.duration
    done = stream.wait_for_task(created.data.task_id, poll_interval=0.02, timeout=PATIENCE_S).data
    text = httpx.get(done.result["url"]).text
    assert '{"type":"user",' in text
    assert '{"type":"channel","item":{"id":"retired",' in text


def test_a_users_export_runs_from_request_to_file(stream, sandbox_world):
    """As in the SDK's own tests: the folder in the link, the id in the file."""
    user_id = sandbox_world.user_ids()[0]
    done = stream.wait_for_task(
        stream.export_users(user_ids=[user_id]).data.task_id, poll_interval=0.02, timeout=PATIENCE_S
    ).data
    assert "/exports/users/" in done.result["url"]
    assert user_id in httpx.get(done.result["url"]).text


# The nulls in a user's export are documented, but the SDK's models require those fields: it warns and goes on.
@pytest.mark.filterwarnings("ignore:Missing value of non-optional type:RuntimeWarning")
def test_one_user_decodes_into_the_sdks_models(stream, sandbox_world):
    """Times as nanoseconds, custom data nested, and the nulls that are documented."""
    user_id = max(sandbox_world.user_ids()[:200], key=sandbox_world.count_messages_of)
    exported = stream.export_user(user_id).data
    assert exported.user.id == user_id
    assert isinstance(exported.user.created_at, datetime)
    messages = list(sandbox_world.messages_of(user_id))
    assert [message.id for message in exported.messages] == [message["id"] for message in messages]
    assert exported.messages[0].created_at == parse_rfc3339(messages[0]["created_at"])
    assert {message.user for message in exported.messages} == {None}


def test_channels_decode_into_the_sdks_models(stream, sandbox_world):
    """Every object in a channel's state, with its times and its custom data."""
    state = stream.chat.query_channels(
        filter_conditions={"cid": SMALL}, sort=[SortParamRequest(field="cid", direction=1)], limit=1, message_limit=300
    ).data.channels[0]
    channel = sandbox_world.channel(SMALL)
    assert (state.channel.cid, state.channel.custom) == (SMALL, channel["custom"])
    assert state.channel.created_at == parse_rfc3339(channel["created_at"])
    assert state.channel.config.commands[0].name
    assert state.channel.created_by.id == channel["created_by"]["id"]
    assert isinstance(state.channel.config.created_at, datetime)
    assert all(isinstance(message.created_at, datetime) for message in state.messages)
    reactions = [reaction for message in state.messages for reaction in message.latest_reactions]
    assert all(
        isinstance(reaction.created_at, datetime) and reaction.user.id == reaction.user_id for reaction in reactions
    )
    groups = [group for message in state.messages for group in (message.reaction_groups or {}).values()]
    assert groups
    assert all(isinstance(group.first_reaction_at, datetime) for group in groups)
    assert all(member.user.id == member.user_id for member in state.members)
    assert all(isinstance(read.last_read, datetime) for read in state.read)
    assert state.threads == []


def test_rate_limits_decode(stream):
    """From the endpoint, and from the headers of any answer."""
    reply = stream.get_rate_limits(server_side=True, endpoints="ExportChannels")
    assert reply.data.server_side["ExportChannels"].limit == 60
    info = reply.rate_limit()
    assert (info.limit, info.remaining) == (10_000, 9_999)


def test_too_many_exports_raise_the_sdks_rate_limit(start_sandbox):
    """With Retry-After and the reset, so that its own retries can wait."""
    with stream_to(start_sandbox(rate_limit=True, frozen_clock=True)) as stream:
        export(stream, SMALL)
        export(stream, SMALL)
        with pytest.raises(StreamRateLimitException) as refused:
            export(stream, SMALL)
    assert (refused.value.status_code, refused.value.code) == (429, 9)
    assert refused.value.retry_after == timedelta(seconds=1)
    assert refused.value.rate_limit_info.remaining == 0


def test_errors_are_the_sdks_own_with_code_and_message(stream):
    """A body that lacks a key would surface as a KeyError instead."""
    with pytest.raises(StreamApiException, match="Can't find channel") as unknown:
        export(stream, "messaging:none-such")
    assert (unknown.value.status_code, unknown.value.code) == (404, 16)
    with pytest.raises(StreamApiException, match='Can\'t find task with id "none-such"'):
        stream.get_task("none-such")
    with pytest.raises(StreamApiException) as wrong:
        stream.chat.export_channels(channels=[])
    assert (wrong.value.status_code, wrong.value.code, list(wrong.value.exception_fields)) == (400, 4, ["channels"])
    assert wrong.value.more_info
    assert wrong.value.details == []


def test_a_wrong_secret_is_the_sdks_own_error(sandbox):
    """The most frequent mistake in a connection."""
    other = "another-secret-that-is-long-enough-for-hs256"
    with stream_to(sandbox, secret=other) as stream, pytest.raises(StreamApiException) as refused:
        export(stream, SMALL)
    assert (refused.value.status_code, refused.value.code) == (401, 43)


def test_a_failed_task_is_the_sdks_own_error(stream, calls):
    """With type and description, as its ErrorResult has them."""
    calls.control.fault("fail-task", "/api/v2/chat/export_channels")
    with pytest.raises(StreamTaskException) as failed:
        stream.wait_for_task(export(stream, SMALL), poll_interval=0.02, timeout=PATIENCE_S)
    assert failed.value.error_type == "InternalError"
    assert failed.value.description


@pytest.mark.parametrize("do", ["drop", "drop-after-accept", "truncate:5"])
def test_a_lost_answer_is_the_sdks_transport_error(stream, calls, do):
    """Faults look like a broken network and not like an answer."""
    calls.control.fault(do, "/api/v2/chat/export_channels")
    with pytest.raises((StreamTransportException, httpx.TransportError)):
        export(stream, SMALL)


async def test_the_asynchronous_client_works_alike(sandbox):
    """The same endpoints through the SDK's other half."""
    async with AsyncStream(
        api_key=sandbox.api_key, api_secret=sandbox.api_secret, base_url=sandbox.url, timeout=PATIENCE_S
    ) as stream:
        created = await stream.chat.export_channels(channels=[ChannelExport(cid=SMALL)], version="v2")
        done = await stream.wait_for_task(created.data.task_id, poll_interval=0.02, timeout=PATIENCE_S)
        assert done.data.status == "completed"
        page = await stream.chat.query_channels(filter_conditions={"type": "team"}, state=False)
        assert {entry.channel.type for entry in page.data.channels} == {"team"}
