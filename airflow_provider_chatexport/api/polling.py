"""Waiting for exports, by one decision that a worker's loop and a triggerer's loop both obey.

``ExportPoller`` decides when to ask again and when to stop. It has no socket, no clock and no sleep. A worker and a
triggerer differ only in the two loops below it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.error_replies import REMEDY_FOR_TOO_LARGE_A_USER, is_too_large_a_user
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.api.shared_client import StatusRequests
from airflow_provider_chatexport.core.task import GiveUp, Status, TaskId, TaskState, Wait, next_step
from airflow_provider_chatexport.errors import (
    RateLimitedError,
    ServiceError,
    TaskFailedError,
    TaskOverdueError,
    UnexpectedReplyError,
)

log = logging.getLogger(__name__)

# With pauses that double from a second to a minute, the service may be unreachable for about seven minutes.
MAX_CONSECUTIVE_FAILURES: Final = 12
_SHORTEST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 60.0
# A pause is up to so much shorter or longer. The wider the range, the later the end of an export is noticed on average.
_JITTER: Final = 0.25


class ExportPoller:
    """The state of a wait for several exports.

    The wait ends when all exports are completed, when one has failed, or at the deadline. Times are unix seconds by the
    caller's clock. They come from a wall clock, so that a wait that moves to another process continues there.

    :param started_epoch_s: when the exports were submitted; the pause between requests grows from there.
    :param deadline_epoch_s: when to give up.
    :param poll_s: a fixed pause between requests instead of the growing one, before jitter.
    :param max_failures: how many status requests in a row may fail with an error that may pass.
    :param answered: whether the chat API has answered at this address before. The caller that submitted there knows
        that it has. Then a reply that is not of the chat API comes from a host in between, and may pass; otherwise the
        address may be wrong.
    """

    def __init__(
        self,
        task_ids: Iterable[TaskId],
        *,
        started_epoch_s: float,
        deadline_epoch_s: float,
        poll_s: float | None = None,
        max_failures: int = MAX_CONSECUTIVE_FAILURES,
        answered: bool = True,
    ) -> None:
        self.states: dict[TaskId, TaskState | None] = dict.fromkeys(task_ids)
        self._started_epoch_s = started_epoch_s
        self.deadline_epoch_s = deadline_epoch_s
        self._poll_s = poll_s
        self._max_failures = max_failures
        self._answered = answered
        self._n_unanswered = 0
        self._n_failures = 0
        self._asked_pause_s = 0.0
        self._unknown_words: set[tuple[TaskId, str]] = set()

    @property
    def open(self) -> tuple[TaskId, ...]:
        """Exports that are not known to be completed, in the caller's order."""
        return tuple(
            task_id for task_id, state in self.states.items() if state is None or state.status is not Status.COMPLETED
        )

    @property
    def completed(self) -> Mapping[TaskId, TaskState]:
        """Exports that are completed, each with its last status reply."""
        return {task_id: state for task_id, state in self.states.items() if state and state.status is Status.COMPLETED}

    def record_status(self, task_id: TaskId, state: TaskState) -> None:
        """Record a status reply.

        :raises TaskFailedError: the service ended the export as failed or canceled.
        """
        self._answered = True
        self._n_unanswered = self._n_failures = 0
        self._asked_pause_s = 0.0
        before = self.states[task_id]
        self.states[task_id] = state
        if before is None or before.said != state.said:
            self._log(state)
        if state.status.ended and state.status is not Status.COMPLETED:
            remedy = "check the channels, the users and the window, then export again"
            is_too_large = is_too_large_a_user(state.error or "")
            raise TaskFailedError(
                f"export {task_id} {state.failure}; {REMEDY_FOR_TOO_LARGE_A_USER if is_too_large else remedy}",
                task_id=task_id,
            )

    def _log(self, state: TaskState) -> None:
        """Log a status that is new for its export. Warn once of each word that is unknown."""
        if state.status is not Status.UNKNOWN:
            log.info("export status task_id=%s status=%s", state.task_id, state.said)
        elif (state.task_id, state.said) not in self._unknown_words:
            self._unknown_words.add((state.task_id, state.said))
            log.warning(
                'export %s has a status that this version does not know: "%s"; the wait for it goes on until its '
                "deadline",
                state.task_id,
                state.said,
            )
        if state.status is Status.COMPLETED and state.error is not None:
            log.warning("export %s is completed, and the service reports an error too: %s", state.task_id, state.error)

    def record_failure(self, error: ServiceError) -> None:
        """Record a status request that failed.

        Being rate-limited does not count as a failure: only the deadline ends it.

        :raises ServiceError: the same error, if it cannot pass or too many requests in a row have failed.
        """
        self._n_unanswered += 1
        self._n_failures += not isinstance(error, RateLimitedError)
        may_pass = error.retryable or (self._answered and isinstance(error, UnexpectedReplyError))
        if not may_pass or self._n_failures > self._max_failures:
            raise error
        self._asked_pause_s = getattr(error, "retry_after_s", None) or 0.0
        log.warning("%s (status requests in a row without an answer: %d)", error, self._n_unanswered)

    def next_pause_s(self, *, now_epoch_s: float) -> float | None:
        """Return how long to sleep before the next request, or None if all exports are completed.

        :raises TaskOverdueError: the deadline has passed.
        """
        if not self.open:
            return None
        step = self._next_step(now_epoch_s)
        if isinstance(step, GiveUp):
            raise self._overdue_error(now_epoch_s)
        backoff_s = min(_LONGEST_PAUSE_S, 2.0 ** min(self._n_unanswered - 1, 6)) if self._n_unanswered else 0.0
        if self._poll_s is not None:
            backoff_s = min(backoff_s, self._poll_s * 2.0 ** min(self._n_unanswered, 6))
        # Waits that started together drift apart. After a failure they have to do so at once.
        jitter = 1.0 if self._n_unanswered else _JITTER
        pause_s = self._asked_pause_s + max(step.seconds, backoff_s) * random.uniform(1 - jitter, 1 + jitter)  # noqa: S311
        return max(_SHORTEST_PAUSE_S, min(pause_s, self.deadline_epoch_s - now_epoch_s))

    def interval_s(self, *, now_epoch_s: float) -> float:
        """Return the seconds between requests at the present age of the exports, without jitter."""
        step = self._next_step(now_epoch_s) if self.open else None
        return step.seconds if isinstance(step, Wait) else _SHORTEST_PAUSE_S

    def _next_step(self, now_epoch_s: float) -> Wait | GiveUp:
        """Return the decision for all open exports. They were submitted together, so the first one stands for all."""
        state = self.states[self.open[0]]
        step = next_step(
            state.status if state else Status.WAITING,
            waited_s=max(0.0, now_epoch_s - self._started_epoch_s),
            budget_s=self.deadline_epoch_s - self._started_epoch_s,
            poll_s=self._poll_s,
        )
        assert isinstance(step, (Wait, GiveUp)), step  # noqa: S101 - open exports are not completed
        return step

    def _overdue_error(self, now_epoch_s: float) -> TaskOverdueError:
        statuses = {task_id: state.said if state else "unknown" for task_id, state in self.states.items()}
        listed = ", ".join(f"{task_id} ({statuses[task_id]})" for task_id in self.open[:10])
        more = f" and {len(self.open) - 10} more" if len(self.open) > 10 else ""
        waited_s = now_epoch_s - self._started_epoch_s
        return TaskOverdueError(
            f"{len(self.open)} of {len(self.states)} exports are not done after {waited_s:.0f} s: {listed}{more}; the "
            "service continues to work on them, so allow more time, or try again later",
            task_ids=self.open,
        )


def wait_for_exports(
    client: ChatExportClient, poller: ExportPoller, *, on_round: Callable[[], None] = lambda: None
) -> Mapping[TaskId, TaskState]:
    """Wait in a worker and return the last state of each export, all completed.

    :param on_round: is called after each round of status requests, for example to log how long the wait has taken.
    :raises TaskFailedError: the service ended one as failed.
    :raises TaskOverdueError: the deadline passed.
    :raises ServiceError: a status request failed with an error that cannot pass, or too many failed in a row.
    """
    while True:
        for task_id in poller.open:
            try:
                poller.record_status(task_id, client.task(task_id))
            except ServiceError as error:
                poller.record_failure(error)
                break
        on_round()
        pause_s = poller.next_pause_s(now_epoch_s=time.time())
        if pause_s is None:
            return poller.completed
        time.sleep(pause_s)


async def wait_for_exports_async(settings: ServiceSettings, poller: ExportPoller) -> Mapping[TaskId, TaskState]:
    """Wait on an event loop, with the client and at the pace that all waits of the app share there.

    Otherwise as ``wait_for_exports``.
    """
    async with StatusRequests(settings, deadline_epoch_s=poller.deadline_epoch_s) as requests:
        pause_s = poller.interval_s(now_epoch_s=time.time())
        while True:
            for task_id in poller.open:
                try:
                    poller.record_status(task_id, await requests.ask(task_id, pause_s=pause_s))
                except ServiceError as error:
                    poller.record_failure(error)
                    break
                except TimeoutError:
                    break  # the deadline has passed, as next_pause_s() says
                pause_s = _SHORTEST_PAUSE_S
            next_pause_s = poller.next_pause_s(now_epoch_s=time.time())
            if next_pause_s is None:
                return poller.completed
            pause_s = next_pause_s
