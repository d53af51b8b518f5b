"""The decision after a status reply, which a worker's loop and a triggerer's loop both obey."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.core.task import Fetch, GiveUp, Status, TaskId, TaskState, Wait, next_step

IN_PROGRESS = [Status.WAITING, Status.PENDING, Status.RUNNING, Status.UNKNOWN]
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


# Every word that the SDKs, the API descriptions and the docs know, alone and next to an error.
WORDS = {
    "waiting": (Status.WAITING, Status.FAILED),
    "pending": (Status.PENDING, Status.FAILED),
    "running": (Status.RUNNING, Status.FAILED),
    "completed": (Status.COMPLETED, Status.FAILED),
    "failed": (Status.FAILED, Status.FAILED),
    "error": (Status.FAILED, Status.FAILED),
    "canceled": (Status.CANCELED, Status.CANCELED),
    "cancelled": (Status.CANCELED, Status.CANCELED),
    "Completed": (Status.COMPLETED, Status.FAILED),
    "ERROR": (Status.FAILED, Status.FAILED),
    "queued_somewhere_new": (Status.UNKNOWN, Status.FAILED),
    "unknown": (Status.UNKNOWN, Status.FAILED),
    "": (Status.UNKNOWN, Status.FAILED),
}


@pytest.mark.parametrize("word", WORDS)
def test_an_error_ends_a_task_whatever_its_status_says(word: str) -> None:
    """A failure must not be waited for. An unknown word must not fail an export: the deadline ends the wait."""
    alone, next_to_an_error = WORDS[word]
    assert alone is Status.from_wire(word)
    assert next_to_an_error is Status.from_wire(word, error="InternalError")


def test_a_completed_task_with_a_file_is_completed_in_any_case() -> None:
    """The file is there, and fetching it shows what it is."""
    assert Status.COMPLETED is Status.from_wire("completed", error="InternalError", has_link=True)
    assert Status.FAILED is Status.from_wire("running", error="InternalError", has_link=True)


@pytest.mark.parametrize(
    ("sentence", "word", "status"),
    [
        ("ended as failed at the service: no room", "failed", Status.FAILED),
        ("ended as canceled at the service: no room", "cancelled", Status.CANCELED),
        ('ended as failed at the service, with the status "pending": no room', "pending", Status.FAILED),
    ],
)
def test_a_failure_has_the_words_of_the_service(sentence: str, word: str, status: Status) -> None:
    """A person compares them with what the service shows."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    state = TaskState(task_id=TaskId("t"), status=status, created_at=moment, error="no room", word=word)
    assert sentence == state.failure


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
