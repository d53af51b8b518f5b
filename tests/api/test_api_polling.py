"""The decisions of a wait. They are pure: each test passes the times as arguments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, wait_for_exports
from airflow_provider_chatexport.core.task import Status, TaskId, TaskState
from airflow_provider_chatexport.core.times import EPOCH
from airflow_provider_chatexport.errors import (
    RateLimitedError,
    ServiceUnavailableError,
    TaskFailedError,
    TaskOverdueError,
    UnauthorizedError,
    UnexpectedReplyError,
)

A, B = TaskId("a"), TaskId("b")


def state(task_id: TaskId, status: Status, error: str | None = None) -> TaskState:
    """Return a status reply."""
    return TaskState(task_id=task_id, status=status, created_at=EPOCH, error=error)


def poller(poll_s: float | None = None, max_failures: int = 2, **others: bool) -> ExportPoller:
    """Wait for A and B from second 1000 to second 1600."""
    return ExportPoller(
        [A, B], started_epoch_s=1000.0, deadline_epoch_s=1600.0, poll_s=poll_s, max_failures=max_failures, **others
    )


def test_a_wait_ends_when_all_are_completed() -> None:
    """A completed export must not be asked for again, and must not end the wait for the other one."""
    waiting = poller()
    waiting.record_status(A, state(A, Status.COMPLETED))
    assert waiting.open == (B,)
    assert waiting.next_pause_s(now_epoch_s=1001.0) is not None
    waiting.record_status(B, state(B, Status.COMPLETED))
    assert waiting.next_pause_s(now_epoch_s=1001.0) is None
    assert set(waiting.completed) == {A, B}


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELED])
def test_an_export_that_failed_ends_the_wait_with_its_reason(status) -> None:
    """Waiting for the other exports would only delay the error."""
    with pytest.raises(TaskFailedError, match=f"export a ended as {status.value}.*no such channel"):
        poller().record_status(A, state(A, status, "no such channel"))


def test_an_unknown_status_is_logged_once_for_each_export(caplog) -> None:
    """A wait asks thousands of times."""
    waiting = poller()
    for task_id, word in [(A, "queued"), (A, "queued"), (A, "thinking"), (A, "queued"), (B, "queued")]:
        waiting.record_status(task_id, TaskState(task_id=task_id, status=Status.UNKNOWN, created_at=EPOCH, word=word))
    warned = [tuple(record.args or ()) for record in caplog.records if record.levelname == "WARNING"]
    assert [(A, "queued"), (A, "thinking"), (B, "queued")] == warned
    with pytest.raises(TaskOverdueError, match=r"a \(queued\), b \(queued\)"):
        waiting.next_pause_s(now_epoch_s=1600.0)


def test_a_user_with_too_many_messages_ends_the_wait_with_what_to_do() -> None:
    """Exporting again cannot help: the service refuses users with more than 10,000 messages."""
    with pytest.raises(TaskFailedError, match=r"more than 10000 messages.*Export the channels of this user"):
        poller().record_status(A, state(A, Status.FAILED, "user u1 has more than 10000 messages"))


def test_the_deadline_names_the_open_exports() -> None:
    """The reader needs the ids, because the service has no list of tasks, and their last known status."""
    waiting = poller()
    waiting.record_status(A, state(A, Status.COMPLETED))
    waiting.record_status(B, state(B, Status.RUNNING))
    with pytest.raises(TaskOverdueError, match=r"1 of 2 exports are not done after 600 s.*b \(running\)") as caught:
        waiting.next_pause_s(now_epoch_s=1600.0)
    assert caught.value.task_ids == (B,)


@given(st.floats(1000.0, 1599.9), st.none() | st.floats(0.1, 1000.0), st.integers(0, 2))
def test_no_pause_passes_the_deadline(now_epoch_s, poll_s, n_failures) -> None:
    """The last request must happen at the deadline, not an interval after it, and no pause may be zero."""
    waiting = poller(poll_s)
    for _ in range(n_failures):
        waiting.record_failure(ServiceUnavailableError("away"))
    pause_s = waiting.next_pause_s(now_epoch_s=now_epoch_s)
    assert pause_s is not None
    assert 0.05 <= pause_s <= max(0.05, 1600.0 - now_epoch_s)


def test_failures_that_may_pass_are_tolerated_up_to_a_number() -> None:
    """A run that waits for hours must survive a short outage of the service, and must end with a long one."""
    waiting = poller(max_failures=2)
    waiting.record_failure(ServiceUnavailableError("away"))
    waiting.record_failure(ServiceUnavailableError("away"))
    waiting.record_status(A, state(A, Status.RUNNING))
    waiting.record_failure(ServiceUnavailableError("away"))
    waiting.record_failure(ServiceUnavailableError("away"))
    with pytest.raises(ServiceUnavailableError):
        waiting.record_failure(ServiceUnavailableError("away"))


def test_an_unexpected_reply_may_pass() -> None:
    """The exports were started at this address: a page that answers now is a gateway's or a firewall's."""
    waiting = poller(max_failures=2)
    waiting.record_failure(UnexpectedReplyError("a page"))
    waiting.record_failure(ServiceUnavailableError("away"))
    with pytest.raises(UnexpectedReplyError):
        waiting.record_failure(UnexpectedReplyError("a page"))


def test_an_unexpected_reply_ends_the_wait_if_the_service_never_answered() -> None:
    """Then the address is probably wrong; once the service has answered, the address is right."""
    with pytest.raises(UnexpectedReplyError):
        poller(answered=False).record_failure(UnexpectedReplyError("a page"))
    waiting = poller(answered=False)
    waiting.record_status(A, state(A, Status.RUNNING))
    waiting.record_failure(UnexpectedReplyError("a page"))
    assert waiting.next_pause_s(now_epoch_s=1001.0) is not None


def test_being_rate_limited_is_not_a_failure() -> None:
    """With many waiters the service may limit the rate for a long time: only the deadline ends that."""
    waiting = poller(max_failures=2)
    for _ in range(100):
        waiting.record_failure(RateLimitedError("slow down", retry_after_s=1.0))
    with pytest.raises(TaskOverdueError):
        waiting.next_pause_s(now_epoch_s=1600.0)


def test_a_refusal_ends_the_wait_at_once() -> None:
    """Asking again does not make a wrong key right."""
    with pytest.raises(UnauthorizedError):
        poller().record_failure(UnauthorizedError("no"))


def test_the_pause_is_at_least_what_the_service_asks_for() -> None:
    """A request before the rate limit resets only prolongs the limit."""
    waiting = poller(poll_s=0.1)
    waiting.record_failure(RateLimitedError("slow down", retry_after_s=30.0))
    pause_s = waiting.next_pause_s(now_epoch_s=1001.0)
    assert pause_s is not None
    assert pause_s >= 30.0


def test_each_round_of_a_wait_can_be_reported(client: ChatExportClient, task_id: TaskId, control) -> None:
    """A log says now and then how long a wait has taken already."""
    rounds: list[int] = []
    wait = ExportPoller([task_id], started_epoch_s=0.0, deadline_epoch_s=1e12, poll_s=0.01)
    control.clear_requests()
    wait_for_exports(client, wait, on_round=lambda: rounds.append(len(rounds)))
    assert len(rounds) == len(control.requests())
