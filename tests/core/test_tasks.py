"""What a waiter does next: the one table that the worker's loop and the triggerer's loop both obey."""

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
def test_an_ended_task_is_acted_on_however_late(expected: object, status: Status, waited_s: float) -> None:
    """A file that is ready at the deadline is still worth fetching."""
    assert expected == next_step(status, waited_s=waited_s, budget_s=60)


@pytest.mark.parametrize("status", IN_PROGRESS)
@given(waited_s=seconds, budget_s=seconds, poll_s=st.none() | st.floats(0.1, 600))
def test_a_wait_never_goes_past_the_deadline(
    status: Status, waited_s: float, budget_s: float, poll_s: float | None
) -> None:
    """The last look happens on the deadline; a task ready just before it must not be given up."""
    step = next_step(status, waited_s=waited_s, budget_s=budget_s, poll_s=poll_s)
    if waited_s >= budget_s:
        assert isinstance(step, GiveUp)
    else:
        assert isinstance(step, Wait)
        assert 0 < step.seconds <= max(0.05, budget_s - waited_s)


@pytest.mark.parametrize(("expected_s", "waited_s"), [(1, 0), (2, 10), (7, 60), (60, 590), (60, 5000)])
def test_waits_grow_with_age_up_to_a_minute(expected_s: float, waited_s: float) -> None:
    """Small exports are done in seconds, large ones in hours: polling must suit both."""
    assert Wait(seconds=expected_s) == next_step(Status.RUNNING, waited_s=waited_s, budget_s=1e6)


def test_an_overdue_task_is_given_up_with_its_status_and_age() -> None:
    """The reason goes into the error that a person reads."""
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
def test_a_status_that_nobody_knows_waits(expected: Status, text: str) -> None:
    """The service may invent states; failing an export over a word would be worse than waiting under a deadline."""
    assert expected is Status.from_wire(text)


def test_only_three_states_are_final() -> None:
    """A loop that ends on another state would leave an export behind."""
    assert {Status.COMPLETED, Status.FAILED, Status.CANCELED} == {status for status in Status if status.ended}


def test_a_link_stays_out_of_the_repr() -> None:
    """States are logged; a signed link in a log is a key to the file."""
    state = TaskState(
        task_id=TaskId("t1"),
        status=Status.COMPLETED,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        url="https://example.com/file?X-Signature=secret",
    )
    assert repr(state) == "TaskState(task_id='t1', status=completed, link=present)"
