"""Both drivers over a real socket: which requests they repeat, and which errors they raise."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.core.discovery import ChannelPage
from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid, UserId, UsersRequest
from airflow_provider_chatexport.core.retention import Retention, RetentionTarget
from airflow_provider_chatexport.core.task import Status, TaskId
from airflow_provider_chatexport.errors import (
    ApiBudgetError,
    ChatExportError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceUnavailableError,
    UnauthorizedError,
    UnexpectedReplyError,
)

EXPORTS = "/api/v2/chat/export_channels"
TASKS = "/api/v2/tasks"


def test_a_submitted_export_is_known_to_the_service(ask_status, settings, task_id) -> None:
    """A submit must return the id whose status can be asked for."""
    state = ask_status(settings, task_id)
    assert state.task_id == task_id
    assert state.status in (Status.WAITING, Status.PENDING, Status.RUNNING, Status.COMPLETED)
    assert state.created_at.tzinfo is not None


def test_a_users_export_is_accepted(client, sandbox) -> None:
    """Users exports have an address outside /chat."""
    user_id = UserId(next(iter(sandbox.world.user_ids())))
    assert len(client.submit_users(UsersRequest(user_ids=(user_id,)))) == 36


def test_channels_are_listed(client) -> None:
    """A page of channels must decode, times included: discovery and the connection test need it."""
    channels = client.query_channels(ChannelPage(limit=2))
    assert len(channels) == 2
    assert all(channel.created_at is not None for channel in channels)


@pytest.mark.parametrize("do", ["status:503", "status:500", "status:408", "drop"])
def test_a_failure_that_passes_is_retried(ask_status, settings, task_id, control, do) -> None:
    """Two failures in a row must not reach the caller."""
    control.fault(do, TASKS, times=2)
    assert ask_status(settings, task_id)
    assert len(control.requests(TASKS)) == 3


def test_a_failure_that_lasts_is_raised_after_the_last_attempt(ask_status, make_settings, task_id, control) -> None:
    """The caller must get the service's error, not the retry library's, after the configured number of requests."""
    control.fault("status:503", TASKS, times=100)
    with pytest.raises(ServiceUnavailableError, match=r"asking for the status of export .* failed.*HTTP 503") as caught:
        ask_status(make_settings(max_attempts=3), task_id)
    assert caught.value.http_status == 503
    assert len(control.requests(TASKS)) == 3


def test_a_rate_limit_is_waited_out_and_is_not_a_failure(ask_status, make_settings, task_id, control) -> None:
    """A rate limit asks for a pause: it must not use up the attempts for failures."""
    control.fault("status:429", TASKS, times=1)
    assert ask_status(make_settings(max_attempts=1), task_id)
    assert len(control.requests(TASKS)) == 2


def test_a_rate_limit_without_retries_is_raised_with_its_pause(ask_status, settings, task_id, control) -> None:
    """A trigger pauses by itself: it needs the error at once, and the time to come back."""
    control.fault("status:429", TASKS, times=100)
    with pytest.raises(RateLimitedError) as caught:
        ask_status(settings.without_retries(), task_id)
    assert caught.value.retry_after_s == 1
    assert len(control.requests(TASKS)) == 1


def test_a_used_up_budget_is_waited_out_as_the_service_asks(ask_status, make_settings, task_id, control) -> None:
    """It resets after a second, the rate limit after an hour: a client that waited for that would give up."""
    control.fault("budget", TASKS)
    assert ask_status(make_settings(max_attempts=1), task_id)
    assert len(control.requests(TASKS)) == 2


def test_a_budget_that_stays_used_up_is_raised(make_settings, control) -> None:
    """A query that is too expensive for the app fails with what makes it cheaper."""
    control.fault("budget", "/api/v2/chat/channels", times=100)
    with ChatExportClient(make_settings().without_retries()) as client, pytest.raises(ApiBudgetError, match="cheaper"):
        client.query_channels(ChannelPage())


@pytest.mark.parametrize("status", [400, 413, 431])
def test_a_refusal_is_not_retried(ask_status, settings, task_id, control, status) -> None:
    """A wrong request stays wrong: repeating it would only use up the rate limit."""
    control.fault(f"status:{status}", TASKS, times=5)
    with pytest.raises(RequestRefusedError):
        ask_status(settings, task_id)
    assert len(control.requests(TASKS)) == 1


@pytest.mark.parametrize("wrong", [{"api_key": "another-key"}, {"api_secret": "another-secret-of-at-least-32-bytes"}])
def test_a_wrong_key_or_secret_is_refused_once(ask_status, make_settings, task_id, control, wrong) -> None:
    """The sentence must name what to check, and contain neither key nor secret."""
    with pytest.raises(UnauthorizedError, match="check the API key") as caught:
        ask_status(make_settings(**wrong), task_id)
    assert not any(value in str(caught.value) for value in wrong.values())
    assert len(control.requests(TASKS)) == 1


def test_an_unknown_channel_is_refused_with_the_services_reason(client) -> None:
    """One channel that does not exist fails the whole request: the sentence must name it."""
    with pytest.raises(RequestRefusedError, match=r"Can't find channel.*check the channels"):
        client.submit_channels(ChannelsRequest(channels=(Cid("messaging:no-such-channel"),)))


def test_an_unknown_task_is_not_found(ask_status, settings) -> None:
    """A mistyped id must not look like a failure of the service."""
    with pytest.raises(NotFoundError, match="60 days"):
        ask_status(settings, TaskId("00000000-0000-0000-0000-000000000000"))


def test_a_submit_whose_reply_is_lost_is_repeated(client, control, small_request, caplog) -> None:
    """The service has no list of tasks to find the first one in. The log says that one export may stay unused."""
    control.fault("drop-after-accept", EXPORTS, method="POST")
    with caplog.at_level(logging.WARNING):
        task_id = client.submit_channels(small_request)
    assert client.task(task_id)
    assert len(control.requests(EXPORTS)) == 2
    assert "one export stays there unused" in caplog.text


def test_a_slow_service_is_a_timeout_that_names_its_setting(ask_status, make_settings, task_id, control) -> None:
    """The sentence must say which of the four timeouts it was."""
    control.fault("slow:30", TASKS, times=5)
    with pytest.raises(ServiceUnavailableError, match=r"read timeout.*read_timeout_s"):
        ask_status(make_settings(read_timeout_s=0.05, max_attempts=2), task_id)


def test_an_unreachable_service_is_one_sentence(ask_status, make_settings) -> None:
    """No process listens: the sentence must name the address and what to check."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(ServiceUnavailableError, match=rf"127.0.0.1:{port} cannot be reached.*check the address"):
        ask_status(make_settings(base_url=f"http://127.0.0.1:{port}", max_attempts=2), TaskId("any"))


def test_the_retention_policies_are_those_of_the_app(client, control) -> None:
    """What the service deletes for good decides what an export can still contain."""
    assert () == client.retention_policy()
    control.set_retention(old_messages=timedelta(days=30), inactive_channels=timedelta(days=365))
    policies = {policy.target: policy for policy in client.retention_policy()}
    assert {
        RetentionTarget.OLD_MESSAGES: timedelta(days=30),
        RetentionTarget.INACTIVE_CHANNELS: timedelta(days=365),
    } == {target: policy.max_age for target, policy in policies.items()}
    assert all(policy.is_enabled and policy.enabled_at for policy in policies.values())


def test_how_long_messages_are_kept_is_the_smallest_age(client, control) -> None:
    """A load has to know one age; a service that does not say it is no service that keeps everything."""
    assert Retention() == client.retention()
    control.set_retention(old_messages=timedelta(days=30), inactive_channels=timedelta(days=2))
    assert Retention(max_age_hours=48) == client.retention()
    control.fault("status:404", "/api/v2/chat/retention_policy")
    with pytest.raises(RequestRefusedError, match=r"found nothing: .* does not say how long .*retention=\"30d\""):
        client.retention()


def test_the_client_knows_the_clock_of_the_service(client, control) -> None:
    """What is complete by now is decided by the clock that dates the messages. A machine's own may be wrong."""
    assert abs(client.now() - datetime.now(UTC)) < timedelta(minutes=1)
    at_the_service = control.advance_clock(timedelta(days=40))
    client.query_channels(ChannelPage(limit=1))
    assert timedelta(seconds=-2) <= client.now() - at_the_service < timedelta(minutes=1)


def test_an_address_that_is_not_the_api_is_an_error(ask_status, make_settings, sandbox) -> None:
    """A page of another server must not look like a task that the service has forgotten."""
    with pytest.raises((NotFoundError, UnexpectedReplyError), match="check the address"):
        ask_status(make_settings(base_url=f"{sandbox.url}/elsewhere"), TaskId("any"))


@pytest.fixture
def all_logs(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Capture logs of every level."""
    with caplog.at_level(logging.DEBUG):
        yield caplog


def test_no_key_secret_or_token_reaches_a_log_or_an_error(
    ask_status, make_settings, control, small_request, all_logs
) -> None:
    """Our URLs contain the key, and httpx's own client logs URLs: no log level may show key, secret or token."""
    settings = make_settings(max_attempts=2)
    with ChatExportClient(settings) as client:
        task_id = client.submit_channels(small_request)
    texts = [repr(settings)]
    for do in ("drop", "status:503", "status:401", "status:429"):
        control.fault(do, TASKS, times=2)
        with pytest.raises(ChatExportError, match="asking for the status") as caught:
            ask_status(make_settings(max_attempts=2, rate_limit_patience_s=0.0), task_id)
        texts += [str(caught.value), repr(caught.value)]
    text = "\n".join([all_logs.text, *texts])
    assert "http" in text
    for secret in (settings.api_key, settings.api_secret, "eyJ", "api_key="):
        assert secret not in text
