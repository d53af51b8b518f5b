"""Waiting for exports: one account of what is known, obeyed alike by a worker's loop and by a triggerer's.

``Watch`` decides and does nothing else: no socket, no clock, no sleep. The two loops under it are all that differs
between a worker and a triggerer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Mapping
from typing import Final

from airflow_provider_chatexport.api.client import AsyncChatExportClient, ChatExportClient
from airflow_provider_chatexport.api.rate_limit import turns_of
from airflow_provider_chatexport.core.task import GiveUp, Status, TaskId, TaskState, Wait, next_step
from airflow_provider_chatexport.errors import (
    RateLimitedError,
    ServiceError,
    TaskFailedError,
    TaskOverdueError,
    UnexpectedReplyError,
)

log = logging.getLogger(__name__)

# With pauses that double from a second to a minute: some seven minutes in which a service may be away.
MAX_CONSECUTIVE_FAILURES: Final = 12
_SHORTEST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 60.0


class ExportPoller:
    """Exports that are waited for, until all are completed, one is lost, or the deadline passes.

    Times are unix seconds by the caller's clock: a wall clock, so that a wait which moves to another process goes on
    instead of beginning anew.

    :param started_epoch_s: when the exports were submitted; the pause between looks grows from there.
    :param deadline_epoch_s: when to give up.
    :param poll_s: a fixed pause between looks instead of the growing one (before jitter).
    :param max_failures: how many status requests in a row may fail in a way that may pass.
    :param answered: whether the chat API has answered at this address before, as it has whoever submitted there. What
        is no reply of it then comes from something in between, and may pass; else the address may be wrong.
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
        self._deadline_epoch_s = deadline_epoch_s
        self._poll_s = poll_s
        self._max_failures = max_failures
        self._answered = answered
        self._n_misses = 0
        self._n_failures = 0
        self._asked_pause_s = 0.0

    @property
    def open(self) -> tuple[TaskId, ...]:
        """Those not known to be completed, in the order given."""
        return tuple(
            task_id for task_id, state in self.states.items() if state is None or state.status is not Status.COMPLETED
        )

    @property
    def completed(self) -> Mapping[TaskId, TaskState]:
        return {task_id: state for task_id, state in self.states.items() if state and state.status is Status.COMPLETED}

    def record_status(self, task_id: TaskId, state: TaskState) -> None:
        """A status reply.

        :raises TaskFailedError: the service ended the export as failed.
        """
        self._answered = True
        self._n_misses = self._n_failures = 0
        self._asked_pause_s = 0.0
        before = self.states[task_id]
        self.states[task_id] = state
        if before is None or before.status is not state.status:
            log.info("export status task_id=%s status=%s", task_id, state.status.value)
        if state.status.ended and state.status is not Status.COMPLETED:
            reason = f": {state.error}" if state.error else ", without a reason"
            raise TaskFailedError(
                f"export {task_id} ended as {state.status.value} at the service{reason}; check what was asked for, "
                "then export again",
                task_id=task_id,
            )

    def record_failure(self, error: ServiceError) -> None:
        """A status request that failed. Being rate-limited is no failure: it ends with the deadline at the latest.

        :raises ServiceError: the same, if another look cannot help or too many in a row have failed.
        """
        self._n_misses += 1
        self._n_failures += not isinstance(error, RateLimitedError)
        may_pass = error.retryable or (self._answered and isinstance(error, UnexpectedReplyError))
        if not may_pass or self._n_failures > self._max_failures:
            raise error
        self._asked_pause_s = getattr(error, "retry_after_s", None) or 0.0
        log.warning("%s (look %d in a row without an answer)", error, self._n_misses)

    def pause_s(self, *, now_epoch_s: float) -> float | None:
        """How long to sleep before the next look; None: all are completed.

        :raises TaskOverdueError: the deadline is here.
        """
        if not self.open:
            return None
        step = self._next_step(now_epoch_s)
        if isinstance(step, GiveUp):
            raise self._overdue(now_epoch_s)
        backoff_s = min(_LONGEST_PAUSE_S, 2.0 ** min(self._n_misses - 1, 6)) if self._n_misses else 0.0
        if self._poll_s is not None:
            backoff_s = min(backoff_s, self._poll_s * 2.0 ** min(self._n_misses, 6))
        # Full jitter around the pause that was meant: thousands of waiters that began together drift apart.
        pause_s = self._asked_pause_s + random.uniform(0.0, 2.0 * max(step.seconds, backoff_s))  # noqa: S311
        return max(_SHORTEST_PAUSE_S, min(pause_s, self._deadline_epoch_s - now_epoch_s))

    def _next_step(self, now_epoch_s: float) -> Wait | GiveUp:
        """The open exports were all submitted together, so one answer holds for each."""
        state = self.states[self.open[0]]
        step = next_step(
            state.status if state else Status.WAITING,
            waited_s=max(0.0, now_epoch_s - self._started_epoch_s),
            budget_s=self._deadline_epoch_s - self._started_epoch_s,
            poll_s=self._poll_s,
        )
        assert isinstance(step, (Wait, GiveUp)), step  # noqa: S101 - open exports are not completed
        return step

    def _overdue(self, now_epoch_s: float) -> TaskOverdueError:
        known = {task_id: state.status.value if state else "unknown" for task_id, state in self.states.items()}
        listed = ", ".join(f"{task_id} ({known[task_id]})" for task_id in self.open[:10])
        more = f" and {len(self.open) - 10} more" if len(self.open) > 10 else ""
        waited_s = now_epoch_s - self._started_epoch_s
        return TaskOverdueError(
            f"{len(self.open)} of {len(self.states)} exports are not done after {waited_s:.0f} s: "
            f"{listed}{more}; the service goes on with them, so give them more time, or try again later",
            task_ids=self.open,
        )


def watch_exports(client: ChatExportClient, watch: ExportPoller) -> Mapping[TaskId, TaskState]:
    """Wait on a worker. Returns the last state of each export, all completed.

    :raises TaskFailedError: the service ended one as failed.
    :raises TaskOverdueError: the deadline passed.
    :raises ServiceError: asking for the status failed for good.
    """
    while True:
        for task_id in watch.open:
            try:
                watch.record_status(task_id, client.task(task_id))
            except ServiceError as error:
                watch.record_failure(error)
                break
        pause_s = watch.pause_s(now_epoch_s=time.time())
        if pause_s is None:
            return watch.completed
        time.sleep(pause_s)


async def watch_exports_async(client: AsyncChatExportClient, watch: ExportPoller) -> Mapping[TaskId, TaskState]:
    """Wait on an event loop, in line with others there. Returns and raises as ``watch_exports`` does."""
    turns = turns_of(client.settings)
    while True:
        for task_id in watch.open:
            await turns.wait()
            try:
                watch.record_status(task_id, await client.task(task_id))
            except ServiceError as error:
                watch.record_failure(error)
                break
        pause_s = watch.pause_s(now_epoch_s=time.time())
        if pause_s is None:
            return watch.completed
        await asyncio.sleep(pause_s)
