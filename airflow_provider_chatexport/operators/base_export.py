"""Start the exports of a run and wait for them, in the triggerer or on the worker: what all exports have in common."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator, conf

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, wait_for_exports
from airflow_provider_chatexport.core.arguments import is_whole, parse_duration
from airflow_provider_chatexport.core.plan import (
    ChannelsRequest,
    UsersRequest,
)
from airflow_provider_chatexport.core.receipt import Receipt, completed_receipts
from airflow_provider_chatexport.core.retention import Retention
from airflow_provider_chatexport.errors import CallError, TaskFailedError, TaskOverdueError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.hooks.config import configured_s
from airflow_provider_chatexport.hooks.exceptions import (
    as_airflow_errors,
    checked_arguments,
    explain_timeout,
    seconds_to_timeout,
)
from airflow_provider_chatexport.hooks.lake_storage import lake_filesystem, path_text
from airflow_provider_chatexport.operators.links import ExportTaskLink, show_exports
from airflow_provider_chatexport.operators.submission import (
    OnMissingChannel,
    SubmittedExport,
    SubmittedExports,
    Submitter,
    find_unfinished,
)
from airflow_provider_chatexport.triggers.events import BACKSTOP, read_event

if TYPE_CHECKING:
    from airflow.sdk import Context

# The trigger passes these through with each receipt. The worker needs them if it has to split an export.
_N_SPLITS: Final = "n_splits"
_STARTED_EPOCH_S: Final = "started_epoch_s"
# A wait on the worker ends this long before Airflow's alarm for execution_timeout.
_BEFORE_THE_ALARM_S: Final = 2.0


class BaseExportOperator(BaseOperator):
    """Start the exports of this run, wait for all of them, and return their receipts.

    :param chatexport_conn_id: a connection of type ``chatexport``. (templated)
    :param lake: address of the lake that the exports are for: the task fails before it starts an export if that lake
        cannot be written. Default: no check. (templated)
    :param lake_conn_id: a connection through which that lake is reached. Default: the environment of the worker.
        (templated)
    :param wait_timeout: how long to wait in all, as a timedelta or in seconds. Default: ``wait_timeout_s`` in section
        ``[chatexport]`` of Airflow's configuration, 6 hours.
    :param poll_interval: a fixed pause between two status requests, as a timedelta or in seconds. Default:
        ``poll_interval_s`` of the configuration, where 0 means a pause that grows with the age of the exports from 1
        to 60 seconds.
    :param wait: False to end as soon as the exports are started; ``ExportTaskSensor`` can then wait for them.
    :param deferrable: wait in the triggerer instead of on the worker.
    :param fresh: start new exports even if an earlier try of this task left exports that could be waited for.
    :param on_missing_channel: what to do if the service does not know some of the channels: ``fail`` with an error
        that names all of them, or ``skip`` them. If it knows none of the channels, ``skip`` skips the task.
    :param max_splits: how often to halve the window of an export that fails or takes too long, and export the halves
        instead. ``wait_timeout`` is divided equally among the ``max_splits`` + 1 rounds.
    """

    template_fields: Sequence[str] = ("chatexport_conn_id", "lake", "lake_conn_id")
    ui_color = "#e3f2ff"
    operator_extra_links = (ExportTaskLink(),)

    def __init__(
        self,
        *,
        chatexport_conn_id: str = ChatExportHook.default_conn_name,
        lake: str | Path | None = None,
        lake_conn_id: str | None = None,
        wait_timeout: timedelta | float | None = None,
        poll_interval: timedelta | float | None = None,
        wait: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        fresh: bool = False,
        on_missing_channel: OnMissingChannel = "fail",
        max_splits: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with checked_arguments():
            if on_missing_channel not in ("fail", "skip"):
                raise CallError(f'on_missing_channel is {on_missing_channel!r}; write "fail" or "skip"')
            if not is_whole(max_splits, least=0):
                raise CallError(f"max_splits is {max_splits!r}; give a whole number, 0 or more")
            self.wait_timeout = parse_duration(wait_timeout, "wait_timeout")
            self.poll_interval = parse_duration(poll_interval, "poll_interval")
            of_the_wait = {
                "wait_timeout": wait_timeout,
                "poll_interval": poll_interval,
                "max_splits": max_splits or None,
            }
            if not wait and (given := [name for name, value in of_the_wait.items() if value is not None]):
                raise CallError(f"the task does not wait (wait=False), so {given[0]} has no effect; leave it out")
        self.wait = wait
        self.chatexport_conn_id = chatexport_conn_id
        self.lake = path_text(lake)
        self.lake_conn_id = lake_conn_id
        self.fresh = fresh
        self.on_missing_channel = on_missing_channel
        self.max_splits = max_splits
        self.deferrable = deferrable

    @abstractmethod
    def plan(self, context: Context) -> Sequence[ChannelsRequest | UsersRequest]:
        """Return the requests of this run.

        :raises CallError: an argument or an input of the run is missing or wrong.
        """

    def ask_retention(self, client: ChatExportClient) -> Retention | None:  # noqa: ARG002
        """Return what the service says of its retention policies; None if it is not asked. Users have no window."""
        return None

    def wait_out_grace_period(self, context: Context) -> None:
        """Wait until what the run exports is old enough. Exports without a window do not wait."""

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Start the exports, and wait for them unless ``wait`` is False.

        :raises TaskDeferred: the triggerer waits; the task resumes in ``execute_complete``.
        """
        with as_airflow_errors(), explain_timeout(self._timeout_sentence):
            # Validate the arguments before calling the service.
            self._wait_budget_s()
            self._check_lake()
            self.wait_out_grace_period(context)
            requests = self.plan(context)
            submitted = SubmittedExports.of(context)
            # The start of the first try: a retry has what is left of the time, not all of it again.
            started_epoch_s = submitted.begin(fresh=self.fresh)
            with ChatExportHook(self.chatexport_conn_id).client() as client:
                submitter = Submitter(client, submitted, retention=self.ask_retention(client))
                submitter.submit(requests, on_missing_channel=self.on_missing_channel)
            if self.wait:
                return self._wait(context, submitted, submitter.started, started_epoch_s)
            receipts = _receipts(submitter.started)
            show_exports(context, receipts, "submitted")
            submitted.done()
            return [receipt.to_json() for receipt in receipts]

    def _check_lake(self) -> None:
        if not self.lake or self.lake == "None":
            return
        # This imports duckdb and pyarrow. A DAG file that only names the operator must not load them.
        from airflow_provider_chatexport import pipeline  # noqa: PLC0415

        pipeline.check_lake(self.lake, lake_filesystem(self.lake, self.lake_conn_id))

    def execute_complete(self, context: Context, event: Any = None) -> list[dict[str, Any]]:
        """Resume the task after the wait, in a new process. The event contains all that it needs."""
        with as_airflow_errors(), explain_timeout(self._timeout_sentence):
            submitted = SubmittedExports.of(context)
            passed_through = event.get("receipts") or [] if isinstance(event, dict) else []
            receipts = [Receipt.from_json(dict(each)) for each in passed_through]
            status = event.get("status") if isinstance(event, dict) else None
            show_exports(context, receipts, status or "submitted")
            if status in ("failed", "timeout") and self.max_splits and receipts:
                exports = [
                    SubmittedExport(receipt=receipt, n_splits=each.get(_N_SPLITS, 0))
                    for receipt, each in zip(receipts, passed_through, strict=True)
                ]
                halved = self._split(submitted, exports, overdue=status == "timeout")
                if halved is not None:
                    return self._wait(context, submitted, halved, passed_through[0].get(_STARTED_EPOCH_S, time.time()))
            created_at = read_event(event)
            submitted.done()
            return completed_receipts(receipts, created_at)

    def _wait(
        self, context: Context, submitted: SubmittedExports, exports: list[SubmittedExport], started_epoch_s: float
    ) -> list[dict[str, Any]]:
        """Wait until all exports are completed, in the triggerer or here.

        :raises TaskDeferred: the triggerer waits; the task resumes in ``execute_complete``.
        :raises AirflowSkipException: there are no exports, because missing channels are skipped and all are missing.
        :raises TaskFailedError: the service ended an export as failed.
        :raises TaskOverdueError: the deadline passed.
        """
        receipts = _receipts(exports)
        show_exports(context, receipts, "submitted")
        deadline_epoch_s = started_epoch_s + self._wait_budget_s() * self._share_of_budget(exports)
        if self.deferrable:
            self._defer(exports, started_epoch_s, deadline_epoch_s)
        if left_s := seconds_to_timeout():
            # Airflow's alarm would not name the exports, and the retry after it would have no time left.
            deadline_epoch_s = min(deadline_epoch_s, time.time() + left_s - min(_BEFORE_THE_ALARM_S, left_s / 2))
        poller = ExportPoller(
            [receipt.task_id for receipt in receipts],
            started_epoch_s=started_epoch_s,
            deadline_epoch_s=deadline_epoch_s,
            poll_s=self._poll_interval_s(),
        )
        settings = ChatExportHook(self.chatexport_conn_id).settings()
        try:
            with ChatExportClient(settings.without_retries()) as client:
                states = wait_for_exports(client, poller)
        except (TaskFailedError, TaskOverdueError) as error:
            overdue = isinstance(error, TaskOverdueError)
            show_exports(context, receipts, "timeout" if overdue else "failed")
            halved = self._split(submitted, exports, overdue=overdue)
            if halved is not None:
                return self._wait(context, submitted, halved, started_epoch_s)
            raise
        show_exports(context, receipts, "completed")
        submitted.done()
        return completed_receipts(receipts, {task_id: state.created_at for task_id, state in states.items()})

    def _defer(self, exports: list[SubmittedExport], started_epoch_s: float, deadline_epoch_s: float) -> NoReturn:
        """Leave the wait to the triggerer.

        :raises TaskDeferred: always; the task resumes in ``execute_complete``.
        """
        from airflow_provider_chatexport.triggers.export import ExportTaskTrigger  # noqa: PLC0415 - see triggers.events

        self.defer(
            trigger=ExportTaskTrigger(
                chatexport_conn_id=self.chatexport_conn_id,
                task_ids=[each.receipt.task_id for each in exports],
                started_epoch_s=started_epoch_s,
                deadline_epoch_s=deadline_epoch_s,
                poll_interval_s=self._poll_interval_s(),
                receipts=[
                    {**each.receipt.to_json(), _N_SPLITS: each.n_splits, _STARTED_EPOCH_S: started_epoch_s}
                    for each in exports
                ],
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(deadline_epoch_s - time.time(), 0.0)) + BACKSTOP,
        )

    def _share_of_budget(self, exports: Iterable[SubmittedExport]) -> float:
        """Return the share of the time after which unfinished exports are split again; 1.0 if none can be halved."""
        n_splits = [each.n_splits for each in exports if each.can_be_halved(self.max_splits)]
        return (max(n_splits) + 1) / (self.max_splits + 1) if n_splits else 1.0

    def _split(
        self, submitted: SubmittedExports, exports: list[SubmittedExport], *, overdue: bool
    ) -> list[SubmittedExport] | None:
        """Halve the exports that the service does not finish; return the ones to wait for now.

        :param overdue: exports that are still running count as unfinished.
        :return: None if splitting cannot help.
        """
        if not self.max_splits:
            return None
        with ChatExportHook(self.chatexport_conn_id).client() as client:
            unfinished = find_unfinished(client, exports, overdue=overdue)
            halved = [each for each in unfinished if each.can_be_halved(self.max_splits)]
            if overdue and not halved and self._share_of_budget(exports) < 1:
                # Every export that could be halved is completed. The others get the rest of the time.
                return [replace(each, n_splits=self.max_splits) for each in exports]
            if not halved or (len(halved) < len(unfinished) and not overdue):
                return None
            submitter = Submitter(client, submitted, retention=halved[0].receipt.retention)
            submitter.split(halved, on_missing_channel=self.on_missing_channel)
        return [*(each for each in exports if each not in halved), *submitter.started]

    @property
    def _timeout_sentence(self) -> str:
        return (
            f"the exports were not started or not completed within the execution_timeout of {self.execution_timeout}; "
            "the service goes on with the exports that were started, so give the task more time and clear it"
        )

    def _wait_budget_s(self) -> float:
        """Return how long to wait in all: the shorter of ``wait_timeout`` and ``execution_timeout``.

        Airflow does not enforce ``execution_timeout`` while a task is deferred.

        :raises CallError: ``wait_timeout`` is not positive.
        """
        budget_s = _positive_s(configured_s("wait_timeout_s") if self.wait_timeout is None else self.wait_timeout)
        return min(budget_s, self.execution_timeout.total_seconds()) if self.execution_timeout else budget_s

    def _poll_interval_s(self) -> float | None:
        """Return the fixed pause between two status requests; None if it grows with the age of the exports."""
        interval = configured_s("poll_interval_s") or None if self.poll_interval is None else self.poll_interval
        return None if interval is None else _positive_s(interval)


def _positive_s(duration: timedelta | float) -> float:
    """Return the duration in seconds.

    :raises CallError: it is not positive.
    """
    value = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if value <= 0:
        raise CallError(f"wait_timeout and poll_interval must be more than zero, not {duration}")
    return value


def _receipts(exports: Iterable[SubmittedExport]) -> list[Receipt]:
    """Return the receipts of exports that were started.

    :raises AirflowSkipException: there are none, because missing channels are skipped and all are missing.
    """
    receipts = [each.receipt for each in exports]
    if not receipts:
        raise AirflowSkipException("the service knows none of the channels, so there is nothing to export")
    return receipts
