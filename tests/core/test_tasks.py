"""The decision after a status reply, which a worker's loop and a triggerer's loop both obey."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.core.task import Fetch, GiveUp, Status, TaskId, TaskState, Wait, next_step

IN_PROGRESS = [Status.WAITING, Status.PENDING, Status.RUNNING]
seconds = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("expected", "status"),
    [
        (Fetch(), Status.COMPLETED),
        (GiveUp("the service reports the export as failed"), Status.FAILED),
        (GiveUp("the service reports the export as canceled"), Status.CANCELED),
    ],
)
@given(waited_s=seconds)
def test_an_ended_task_is_handled_after_the_deadline_too(expected: object, status: Status, waited_s: float) -> None:
    """A file that is ready at the deadline must still be downloaded."""
    assert expected == next_step(status, waited_s=waited_s, budget_s=60)


@pytest.mark.parametrize("status", IN_PROGRESS)
@given(waited_s=seconds, budget_s=seconds, poll_s=st.none() | st.floats(0.1, 600))
def test_a_wait_never_goes_past_the_deadline(
    status: Status, waited_s: float, budget_s: float, poll_s: float | None
) -> None:
    """The last request must happen at the deadline: a task may complete just before it."""
    step = next_step(status, waited_s=waited_s, budget_s=budget_s, poll_s=poll_s)
    if waited_s >= budget_s:
        assert isinstance(step, GiveUp)
    else:
        assert isinstance(step, Wait)
        assert 0 < step.seconds <= max(0.05, budget_s - waited_s)


@pytest.mark.parametrize(("expected_s", "waited_s"), [(1, 0), (2, 10), (7, 60), (60, 590), (60, 5000)])
def test_waits_grow_with_age_up_to_a_minute(expected_s: float, waited_s: float) -> None:
    """Small exports take seconds and large ones hours: the interval must suit both."""
    assert Wait(seconds=expected_s) == next_step(Status.RUNNING, waited_s=waited_s, budget_s=1e6)


def test_an_overdue_task_is_given_up_with_its_status_and_age() -> None:
    """The reason becomes part of an error."""
    assert GiveUp("still running after 90 s") == next_step(Status.RUNNING, waited_s=90, budget_s=60)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (Status.COMPLETED, "Completed"),
        (Status.CANCELED, "cancelled"),
        (Status.CANCELED, "canceled"),
        (Status.PENDING, "queued_somewhere_new"),
        (Status.PENDING, ""),
    ],
)
def test_an_unknown_status_counts_as_in_progress(expected: Status, text: str) -> None:
    """The service may add statuses: a new word must not fail an export, and the deadline ends the wait."""
    assert expected is Status.from_wire(text)


def test_only_three_states_are_final() -> None:
    """A loop that ends with another status would abandon a running export."""
    assert {Status.COMPLETED, Status.FAILED, Status.CANCELED} == {status for status in Status if status.ended}


def test_the_repr_does_not_contain_the_link() -> None:
    """Logs may contain reprs, and a signed link opens the file."""
    state = TaskState(
        task_id=TaskId("t1"),
        status=Status.COMPLETED,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        url="https://example.com/file?X-Signature=secret",
    )
    assert repr(state) == "TaskState(task_id='t1', status=completed, link=present)"
