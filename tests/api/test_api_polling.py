"""The account of a wait: pure, so each rule is told with times as arguments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.api.polling import ExportPoller
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
    return TaskState(task_id=task_id, status=status, created_at=EPOCH, error=error)


def watch(poll_s: float | None = None, max_failures: int = 2, **others: bool) -> ExportPoller:
    return ExportPoller(
        [A, B], started_epoch_s=1000.0, deadline_epoch_s=1600.0, poll_s=poll_s, max_failures=max_failures, **others
    )


def test_a_wait_ends_when_all_are_completed() -> None:
    """One that is done must not be asked for again, and must not end the wait for the other."""
    both = watch()
    both.record_status(A, state(A, Status.COMPLETED))
    assert both.open == (B,)
    assert both.pause_s(now_epoch_s=1001.0) is not None
    both.record_status(B, state(B, Status.COMPLETED))
    assert both.pause_s(now_epoch_s=1001.0) is None
    assert set(both.completed) == {A, B}


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELED])
def test_an_export_that_failed_ends_the_wait_with_its_reason(status) -> None:
    """Waiting for the others would only delay the news."""
    with pytest.raises(TaskFailedError, match=f"export a ended as {status.value}.*no such channel"):
        watch().record_status(A, state(A, status, "no such channel"))


def test_the_deadline_names_what_was_open() -> None:
    """The reader needs the ids, because the service has no list of them, and what was last known."""
    late = watch()
    late.record_status(A, state(A, Status.COMPLETED))
    late.record_status(B, state(B, Status.RUNNING))
    with pytest.raises(TaskOverdueError, match=r"1 of 2 exports are not done after 600 s.*b \(running\)") as caught:
        late.pause_s(now_epoch_s=1600.0)
    assert caught.value.task_ids == (B,)


@given(st.floats(1000.0, 1599.9), st.none() | st.floats(0.1, 1000.0), st.integers(0, 2))
def test_no_pause_passes_the_deadline(now_epoch_s, poll_s, n_failures) -> None:
    """The last look must happen on the deadline, not an interval after it; and no pause may be nothing."""
    waiting = watch(poll_s)
    for _ in range(n_failures):
        waiting.record_failure(ServiceUnavailableError("away"))
    pause_s = waiting.pause_s(now_epoch_s=now_epoch_s)
    assert pause_s is not None
    assert 0.05 <= pause_s <= max(0.05, 1600.0 - now_epoch_s)


def test_failures_that_may_pass_are_borne_up_to_a_number() -> None:
    """A service that is away for a moment must not fail a run that waits for hours; one that is away for good must."""
    waiting = watch(max_failures=2)
    waiting.record_failure(ServiceUnavailableError("away"))
    waiting.record_failure(ServiceUnavailableError("away"))
    waiting.record_status(A, state(A, Status.RUNNING))
    waiting.record_failure(ServiceUnavailableError("away"))
    waiting.record_failure(ServiceUnavailableError("away"))
    with pytest.raises(ServiceUnavailableError):
        waiting.record_failure(ServiceUnavailableError("away"))


def test_what_is_no_reply_of_the_service_may_pass() -> None:
    """The exports were started at this address: a page that stands there now is a gateway's or a firewall's."""
    waiting = watch(max_failures=2)
    waiting.record_failure(UnexpectedReplyError("a page"))
    waiting.record_failure(ServiceUnavailableError("away"))
    with pytest.raises(UnexpectedReplyError):
        waiting.record_failure(UnexpectedReplyError("a page"))


def test_what_is_no_reply_ends_the_wait_where_the_service_never_answered() -> None:
    """Then the address is likely to be wrong; once it has answered, it is not."""
    with pytest.raises(UnexpectedReplyError):
        watch(answered=False).record_failure(UnexpectedReplyError("a page"))
    waiting = watch(answered=False)
    waiting.record_status(A, state(A, Status.RUNNING))
    waiting.record_failure(UnexpectedReplyError("a page"))
    assert waiting.pause_s(now_epoch_s=1001.0) is not None


def test_being_rate_limited_is_no_failure() -> None:
    """With many waiters the service may say "later" for long: only the deadline ends that."""
    waiting = watch(max_failures=2)
    for _ in range(100):
        waiting.record_failure(RateLimitedError("slow down", retry_after_s=1.0))
    with pytest.raises(TaskOverdueError):
        waiting.pause_s(now_epoch_s=1600.0)


def test_a_refusal_ends_the_wait_at_once() -> None:
    """A wrong key does not become right by asking again."""
    with pytest.raises(UnauthorizedError):
        watch().record_failure(UnauthorizedError("no"))


def test_a_pause_that_the_service_asks_for_is_kept() -> None:
    """Coming back sooner than a rate limit says only prolongs it."""
    waiting = watch(poll_s=0.1)
    waiting.record_failure(RateLimitedError("slow down", retry_after_s=30.0))
    pause_s = waiting.pause_s(now_epoch_s=1001.0)
    assert pause_s is not None
    assert pause_s >= 30.0
