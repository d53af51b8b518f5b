"""Both drivers over a real socket: what is sent once, what is sent again, and what is said when it fails."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.discovery import ChannelPage
from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid, UserId, UsersRequest
from airflow_provider_chatexport.core.task import Status, TaskId
from airflow_provider_chatexport.errors import (
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceUnavailableError,
    UnauthorizedError,
    UnexpectedReplyError,
)

EXPORTS = "/api/v2/chat/export_channels"
TASKS = "/api/v2/tasks"
CHANNELS = "/api/v2/chat/channels"

MakeSettings = Callable[..., ServiceSettings]


def test_a_submitted_export_is_known_to_the_service(drive, settings, small_request) -> None:
    """The id that a submit returns must be the one whose status can be asked for."""
    task_id = drive(settings, "submit_channels", small_request)
    state = drive(settings, "task", task_id)
    assert state.task_id == task_id
    assert state.status in (Status.WAITING, Status.PENDING, Status.RUNNING, Status.COMPLETED)
    assert state.created_at.tzinfo is not None


def test_a_users_export_is_accepted(drive, settings, sandbox) -> None:
    """Users exports have a path outside /chat."""
    user_id = UserId(next(iter(sandbox.world.user_ids())))
    task_id = drive(settings, "submit_users", UsersRequest(user_ids=(user_id,)))
    assert len(task_id) == 36


def test_channels_are_listed(drive, settings) -> None:
    """A page of channels must decode, times included: discovery and the connection test stand on it."""
    found = drive(settings, "query_channels", ChannelPage(limit=2))
    assert len(found) == 2
    assert all(channel.created_at is not None for channel in found)


@pytest.mark.parametrize("do", ["status:503", "status:500", "status:408", "drop"])
def test_a_passing_failure_is_overcome(drive, settings, control, do) -> None:
    """Two failures in a row must not reach the caller."""
    control.fault(do, CHANNELS, times=2)
    assert drive(settings, "query_channels", ChannelPage(limit=1))
    assert len(control.requests(CHANNELS)) == 3


def test_a_lasting_failure_ends_with_its_error_after_the_last_attempt(drive, make_settings, control) -> None:
    """The caller must get the service's error, not the retry library's, and no more requests than were set."""
    control.fault("status:503", CHANNELS, times=100)
    with pytest.raises(ServiceUnavailableError, match=r"listing channels failed.*HTTP 503") as caught:
        drive(make_settings(max_attempts=3), "query_channels", ChannelPage())
    assert caught.value.http_status == 503
    assert len(control.requests(CHANNELS)) == 3


def test_a_rate_limit_is_waited_out_and_is_no_failure(drive, make_settings, control) -> None:
    """Being limited is how the service says later: it must not use up the attempts for failures."""
    control.fault("status:429", CHANNELS, times=1)
    assert drive(make_settings(max_attempts=1), "query_channels", ChannelPage(limit=1))
    assert len(control.requests(CHANNELS)) == 2


def test_a_rate_limit_beyond_our_patience_is_reported_with_its_pause(drive, settings, control) -> None:
    """A trigger makes its own pauses: it needs the error at once, and when to come back."""
    control.fault("status:429", CHANNELS, times=100)
    with pytest.raises(RateLimitedError) as caught:
        drive(settings.without_retries(), "query_channels", ChannelPage())
    assert caught.value.retry_after_s == 1
    assert len(control.requests(CHANNELS)) == 1


@pytest.mark.parametrize("status", [400, 413, 431])
def test_a_refusal_is_not_repeated(drive, settings, control, status) -> None:
    """A request that is wrong stays wrong: repeating it would only use up the rate limit."""
    control.fault(f"status:{status}", CHANNELS, times=5)
    with pytest.raises(RequestRefusedError):
        drive(settings, "query_channels", ChannelPage())
    assert len(control.requests(CHANNELS)) == 1


@pytest.mark.parametrize("wrong", [{"api_key": "another-key"}, {"api_secret": "another-secret-of-at-least-32-bytes"}])
def test_a_wrong_key_or_secret_is_refused_once(drive, make_settings, control, wrong) -> None:
    """The sentence must name what to check, and hold neither key nor secret."""
    with pytest.raises(UnauthorizedError, match="check the API key") as caught:
        drive(make_settings(**wrong), "query_channels", ChannelPage())
    assert not any(value in str(caught.value) for value in wrong.values())
    assert len(control.requests(CHANNELS)) == 1


def test_an_unknown_channel_is_refused_with_the_services_reason(drive, settings) -> None:
    """One channel that does not exist fails the request: the sentence must lead to it."""
    with pytest.raises(RequestRefusedError, match=r"Can't find channel.*check the channels"):
        drive(settings, "submit_channels", ChannelsRequest(channels=(Cid("messaging:no-such-channel"),)))


def test_an_unknown_task_is_not_found(drive, settings) -> None:
    """A mistyped id must not look like a failure of the service."""
    with pytest.raises(NotFoundError, match="60 days"):
        drive(settings, "task", TaskId("00000000-0000-0000-0000-000000000000"))


def test_a_submit_whose_reply_is_lost_is_submitted_again(drive, settings, control, small_request, caplog) -> None:
    """There is no list of tasks to find the first one in: at worst one unused export is left, and the log says so."""
    control.fault("drop-after-accept", EXPORTS, method="POST")
    with caplog.at_level(logging.WARNING):
        task_id = drive(settings, "submit_channels", small_request)
    assert drive(settings, "task", task_id)
    assert len(control.requests(EXPORTS)) == 2
    assert "one export is left unused" in caplog.text


def test_a_slow_service_is_a_time_out_that_names_its_setting(drive, make_settings, control) -> None:
    """A time-out must say which of the four it was."""
    control.fault("slow:30", TASKS, times=5)
    with pytest.raises(ServiceUnavailableError, match=r"read time-out.*read_timeout_s"):
        drive(make_settings(read_timeout_s=0.05, max_attempts=2), "task", TaskId("any"))


def test_an_unreachable_service_is_one_sentence(drive, make_settings) -> None:
    """Nobody listens: the sentence must name the address and what to check."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServiceUnavailableError, match=rf"127.0.0.1:{port} cannot be reached.*check the address"):
        drive(make_settings(base_url=f"http://127.0.0.1:{port}", max_attempts=2), "query_channels", ChannelPage())


def test_an_address_that_is_not_the_api_says_so(drive, make_settings, sandbox) -> None:
    """A success that is not JSON, from a portal's login page say, must not pass for an empty list."""
    with pytest.raises((NotFoundError, UnexpectedReplyError), match="check the address"):
        drive(make_settings(base_url=f"{sandbox.url}/elsewhere"), "query_channels", ChannelPage())


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def test_no_key_secret_or_token_reaches_a_log_or_an_error(
    drive: Any, make_settings: MakeSettings, control: Any, small_request: ChannelsRequest, everything_logged: Any
) -> None:
    """httpx's own client logs URLs, and ours hold the key: at no level may it, the secret or a token come out."""
    settings = make_settings(max_attempts=2)
    drive(settings, "submit_channels", small_request)
    said = [repr(settings)]
    for do in ("drop", "status:503", "status:401", "status:429"):
        control.fault(do, CHANNELS, times=2)
        with pytest.raises(Exception, match="listing channels") as caught:
            drive(make_settings(max_attempts=2, rate_limit_patience_s=0.0), "query_channels", ChannelPage())
        said += [str(caught.value), repr(caught.value)]
    text = "\n".join([everything_logged.text, *said])
    assert "http" in text
    for secret in (settings.api_key, settings.api_secret, "eyJ", "api_key="):
        assert secret not in text
