"""An export task at the service: its states, and what to do next in each."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NewType, assert_never

TaskId = NewType("TaskId", str)

MIN_POLL_S: Final = 1.0
MAX_POLL_S: Final = 60.0


class Status(enum.Enum):
    """States of a task (Go, Java and .NET SDKs; an older API description had ``canceled``)."""

    WAITING = "waiting"
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"

    @classmethod
    def from_wire(cls, word: str, *, error: str | None = None, has_link: bool = False) -> Status:
        """Return the state that a status reply describes.

        The API description allows any word. An unknown one counts as in progress; the deadline ends the wait. A task
        that has an error has failed, whatever its word: the description has an error only for a task that failed. The
        one exception is a completed task with a file.

        :param error: the reason in the reply's error.
        :param has_link: whether the reply has the link of a file.
        """
        lowered = word.lower()
        status = _BY_WORD.get(lowered, cls.UNKNOWN)
        if error is not None and not (status is cls.CANCELED or (status is cls.COMPLETED and has_link)):
            return cls.FAILED
        return status

    @property
    def ended(self) -> bool:
        """Whether the task is over."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELED)


_BY_WORD: Final[Mapping[str, Status]] = {
    **{status.value: status for status in Status},
    "error": Status.FAILED,
    "cancelled": Status.CANCELED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """One status reply.

    ``created_at`` and ``updated_at`` are by the service's clock. ``url`` is a fresh signed link while the file exists:
    do not log it or store it. ``error`` is the reason of a failed task. ``word`` is the service's own word for the
    status, fit to be quoted; None if it is that of ``status``.
    """

    task_id: TaskId
    status: Status
    created_at: datetime
    url: str | None = None
    error: str | None = None
    updated_at: datetime | None = None
    word: str | None = None

    @property
    def finished_at(self) -> datetime:
        """When a completed export was finished. If the service does not say it, when the export was created."""
        return max(self.created_at, self.updated_at or self.created_at)

    @property
    def said(self) -> str:
        """The service's word for the status."""
        return self.word or self.status.value

    @property
    def failure(self) -> str:
        """How a task that is over without a file ended, for a sentence: ``ended as failed at the service: ...``."""
        is_usual = self.said.lower() in (self.status.value, "cancelled")
        said = "" if is_usual else f', with the status "{self.said}"'
        return f"ended as {self.status.value} at the service{said}: {self.error or 'no reason given'}"

    def __repr__(self) -> str:
        link = "present" if self.url else "none"
        return f"TaskState(task_id={self.task_id!r}, status={self.said}, link={link})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Ask again in ``seconds``, before jitter."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Fetch:
    """Download the file: it is ready."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop waiting; ``reason`` says why."""

    reason: str


def next_step(
    status: Status, *, waited_s: float, budget_s: float, poll_s: float | None = None
) -> Wait | Fetch | GiveUp:
    """Decide what to do after a status reply. A worker's loop and a triggerer's loop obey the same decision.

    :param waited_s: seconds since the export was submitted.
    :param budget_s: seconds that the caller waits in all.
    :param poll_s: a fixed interval; by default the interval grows with the age of the export, from 1 s to 60 s.
    """
    match status:
        case Status.COMPLETED:
            return Fetch()
        case Status.FAILED:
            return GiveUp("the service reports the export as failed")
        case Status.CANCELED:
            return GiveUp("the service reports the export as canceled")
        case Status.WAITING | Status.PENDING | Status.RUNNING | Status.UNKNOWN:
            if waited_s >= budget_s:
                return GiveUp(f"still {status.value} after {waited_s:.0f} s")
            interval_s = poll_s if poll_s is not None else min(MAX_POLL_S, MIN_POLL_S + waited_s / 10)
            # Never past the deadline: the last request happens at the deadline, not an interval after it.
            return Wait(seconds=max(0.05, min(interval_s, budget_s - waited_s)))
        case _:
            assert_never(status)
