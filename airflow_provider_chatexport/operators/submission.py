"""Start the exports of a run once: find those that an earlier try started, and split a batch that is refused.

Airflow 3.3 keeps a small store per task instance, which survives retries and clears. The submitter puts the id of an
export there as soon as the service returns it, under the fingerprint of the request. A later try asks the service about
that id and continues to wait, instead of requesting the same export again. Airflow before 3.3 has no such store: a
retry submits again, and the first export stays at the service unused.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, wait_for_exports
from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid, UsersRequest
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.retention import Retention
from airflow_provider_chatexport.core.task import Status, TaskId
from airflow_provider_chatexport.errors import NotFoundError, RequestRefusedError

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

OnMissingChannel = Literal["fail", "skip"]
Request = ChannelsRequest | UsersRequest

_KEY: Final = "chatexport.{fingerprint}"
_SPLIT: Final = "chatexport.split"
_SERIES: Final = "chatexport.series"
_ENTRY_VERSION: Final = 1


class SubmittedExports:
    """The exports that earlier tries of this task instance started.

    :param store: the store of the task instance (``context["task_state_store"]``); None if this Airflow has none.
    :param series: a number that all automatic retries share and that a clear changes: Airflow's ``max_tries``, which
        grows when a user clears the task.
    """

    def __init__(self, store: Any | None, series: int | None) -> None:
        self._store = store
        self._series = series

    @classmethod
    def of(cls, context: Context) -> Self:
        """Return those of the task instance that runs."""
        return cls(context.get("task_state_store"), getattr(context.get("ti"), "max_tries", None))

    def begin(self, *, fresh: bool = False) -> float:
        """Return when this series of tries began, in unix seconds.

        If a user clears a task that succeeded, its exports are dropped from the store: a clear asks for the current
        state of the service. A clear of a task that failed keeps them.

        :param fresh: drop them in any case.
        """
        now_epoch_s = time.time()
        if self._store is None:
            return now_epoch_s
        before = self._entry(_SERIES) or {}
        is_same_series = bool(before) and before["number"] == self._series
        if fresh or (before.get("done") and not is_same_series):
            self._store.clear()
        began_epoch_s = float(before["began_epoch_s"]) if is_same_series else now_epoch_s
        self._mark(began_epoch_s, done=False)
        return began_epoch_s

    def done(self) -> None:
        """Record that the result is complete.

        If the worker dies before Airflow has the result, the next try finds the exports again and returns the same.
        """
        before = self._entry(_SERIES) or {}
        self._mark(float(before.get("began_epoch_s", time.time())), done=True)

    def find(self, client: ChatExportClient, request: Request) -> Receipt | None:
        """Return the export of an earlier try that answers this request, if the service still has it.

        An export that failed, or that the service no longer knows, is dropped from the store.

        :raises ServiceError: the status request failed.
        """
        entry = self._entry(_key(request))
        if entry is None:
            return None
        task_id, retention = TaskId(entry["task_id"]), entry.get("retention")
        try:
            status = client.task(task_id).status
        except NotFoundError:
            status = None
        if status is None or status in (Status.FAILED, Status.CANCELED):
            reason = status.value if status else "unknown to the service"
            log.info("export of an earlier try is not usable task_id=%s status=%s", task_id, reason)
            self._forget(request)
            return None
        log.info("export of an earlier try found task_id=%s status=%s", task_id, status.value)
        return Receipt(
            task_id=task_id, request=request, retention=Retention.from_json(retention) if retention else None
        )

    def remember(self, receipt: Receipt) -> None:
        """Store the id of an export that was started, and the retention policies of that moment."""
        if self._store is not None:
            retention = receipt.retention.to_json() if receipt.retention else None
            entry = {"v": _ENTRY_VERSION, "task_id": receipt.task_id, "retention": retention}
            self._store.set(_key(receipt.request), entry)

    def was_split(self, request: Request) -> bool:
        """Return whether an earlier try replaced this export by its halves, because the service did not finish it."""
        return self._store is not None and request.fingerprint in self._store.get(_SPLIT, [])

    def split(self, request: Request) -> None:
        """Store that this request is made in halves from now on."""
        self._forget(request)
        if self._store is not None:
            self._store.set(_SPLIT, sorted({*self._store.get(_SPLIT, []), request.fingerprint}))

    def _forget(self, request: Request) -> None:
        if self._store is not None:
            self._store.delete(_key(request))

    def _mark(self, began_epoch_s: float, *, done: bool) -> None:
        if self._store is not None:
            entry = {"v": _ENTRY_VERSION, "number": self._series, "began_epoch_s": began_epoch_s, "done": done}
            self._store.set(_SERIES, entry)

    def _entry(self, key: str) -> Mapping[str, Any] | None:
        entry = self._store.get(key) if self._store is not None else None
        return entry if isinstance(entry, Mapping) and entry.get("v") == _ENTRY_VERSION else None


def _key(request: Request) -> str:
    return _KEY.format(fingerprint=request.fingerprint)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedExport:
    """An export that the task waits for. ``n_splits``: how often its window was halved to get to it."""

    receipt: Receipt
    n_splits: int = 0

    def can_be_halved(self, max_splits: int) -> bool:
        """Return whether its window can be halved again."""
        return self.n_splits < max_splits and bool(self.halves())

    def halves(self) -> tuple[ChannelsRequest, ...]:
        """Return the requests for both halves of its window; none if it has no window, or a very short one."""
        request = self.receipt.request
        return (isinstance(request, ChannelsRequest) and request.split_window()) or ()


@dataclass(slots=True)
class Submitter:
    """Starts exports, unless an earlier try has started them.

    :param retention: what the service says of its retention policies, for the receipts; None if it was not asked.
    :param started: the exports to wait for, those of earlier tries included.
    :param missing: the channels that the service does not know, each with its reply.
    """

    client: ChatExportClient
    submitted: SubmittedExports
    retention: Retention | None = None
    started: list[SubmittedExport] = field(default_factory=list)
    missing: dict[Cid, RequestRefusedError] = field(default_factory=dict)

    def submit(self, requests: Sequence[Request], *, on_missing_channel: OnMissingChannel = "fail") -> None:
        """Start all exports; none if the service knows none of the channels and missing ones are skipped.

        :raises RequestRefusedError: the service refuses the request, or does not know some channels. The message names
            all of them.
        :raises ServiceError: a request failed.
        """
        for request in requests:
            self._submit(request)
        self._report_missing(on_missing_channel)

    def split(self, exports: Iterable[SubmittedExport], *, on_missing_channel: OnMissingChannel = "fail") -> None:
        """Start both halves of exports that the service does not finish. Raises as ``submit`` does."""
        for each in exports:
            task_id, request = each.receipt.task_id, each.receipt.request
            log.warning("export is split in two task_id=%s fingerprint=%s", task_id, request.fingerprint)
            self.submitted.split(request)
            for half in each.halves():
                self._submit(half, each.n_splits + 1)
        self._report_missing(on_missing_channel)

    def _report_missing(self, on_missing_channel: OnMissingChannel) -> None:
        if not self.missing:
            return
        names = ", ".join([*self.missing][:10])
        more = f" and {len(self.missing) - 10} more" if len(self.missing) > 10 else ""
        if on_missing_channel == "skip":
            log.warning("skipping channels that the service does not know channels=%s%s", names, more)
            return
        first = next(iter(self.missing.values()))
        raise RequestRefusedError(
            f"the service does not know {len(self.missing)} channel(s): {names}{more} ({first.message}); remove them "
            'from the channels to export, or set on_missing_channel="skip"',
            http_status=first.http_status,
            code=first.code,
        )

    def _submit(self, request: Request, n_splits: int = 0) -> None:
        if isinstance(request, ChannelsRequest) and not self.missing.keys().isdisjoint(request.channels):
            # A request for another window has found these channels missing. Leave them out of this one at once.
            if (remaining := request.without(self.missing)) is None:
                return
            request = remaining
        if isinstance(request, ChannelsRequest) and self.submitted.was_split(request):
            for half in request.split_window() or ():
                self._submit(half, n_splits + 1)
            return
        if receipt := self.submitted.find(self.client, request):
            # What the service said when that export was submitted counts. An older entry of the store does not say it.
            receipt = replace(receipt, retention=receipt.retention or self.retention)
            self.started.append(SubmittedExport(receipt=receipt, n_splits=n_splits))
            return
        try:
            receipt = replace(_start(self.client, request), retention=self.retention)
        except RequestRefusedError as error:
            if not isinstance(request, ChannelsRequest) or not error.part_may_succeed:
                raise
            if len(request.channels) > 1:
                # One bad channel fails its whole batch: halve the batch until that channel is alone.
                for half in request.split_channels():
                    self._submit(half, n_splits)
            elif error.is_missing:
                self.missing[request.channels[0]] = error
            else:
                raise
            return
        self.submitted.remember(receipt)
        self.started.append(SubmittedExport(receipt=receipt, n_splits=n_splits))


def find_unfinished(
    client: ChatExportClient, exports: Iterable[SubmittedExport], *, overdue: bool
) -> list[SubmittedExport]:
    """Return the exports that the service ended as failed, or no longer knows.

    :param overdue: include those that are still running.
    :raises ServiceError: a status request failed.
    """
    unfinished = []
    for each in exports:
        try:
            status = client.task(each.receipt.task_id).status
        except NotFoundError:
            status = Status.FAILED
        if status is not Status.COMPLETED and (overdue or status.ended):
            unfinished.append(each)
    return unfinished


def _start(client: ChatExportClient, request: Request) -> Receipt:
    match request:
        case ChannelsRequest():
            task_id = client.submit_channels(request)
            size, window = f"channels={len(request.channels)}", request.window
        case UsersRequest():
            task_id = client.submit_users(request)
            size, window = f"users={len(request.user_ids)}", None
    # Log the id before anything else can fail: the service cannot list its tasks.
    log.info("export started task_id=%s %s window=%s fingerprint=%s", task_id, size, window, request.fingerprint)
    return Receipt(task_id=task_id, request=request)


def export_again(
    client: ChatExportClient, submitted: SubmittedExports, receipts: Iterable[Receipt], *, wait_timeout_s: float
) -> list[Receipt]:
    """Start new exports for the same requests, and wait for them on the worker.

    :raises TaskFailedError: the service ended an export as failed.
    :raises TaskOverdueError: an export was not completed in time.
    :raises ServiceError: a request failed.
    """
    began_epoch_s = submitted.begin()
    receipts = list(receipts)
    asks = any(receipt.retention is not None for receipt in receipts)
    submitter = Submitter(client, submitted, retention=client.retention() if asks else None)
    submitter.submit([receipt.request for receipt in receipts])
    new_receipts = [each.receipt for each in submitter.started]
    poller = ExportPoller(
        [receipt.task_id for receipt in new_receipts],
        started_epoch_s=began_epoch_s,
        deadline_epoch_s=began_epoch_s + wait_timeout_s,
    )
    with ChatExportClient(client.settings.without_retries()) as polling_client:
        wait_for_exports(polling_client, poller)
    return new_receipts
