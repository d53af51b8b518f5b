"""Starting a run's exports once: those that an earlier try started are found again, and a refused batch is taken apart.

Airflow 3.3 keeps a small store per task instance, which survives retries and clears. The id of an export goes there the
moment it is known, under the fingerprint of what was asked. A later try asks the service about it and goes on waiting
instead of asking for the same again. Before 3.3 there is no such store: a retry submits again, and the first export is
left at the service unused.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, watch_exports
from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid, UsersRequest
from airflow_provider_chatexport.core.receipt import Receipt
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
    """What earlier tries of this task instance started.

    :param store: the task's store (``context["task_state_store"]``), None where Airflow has none.
    :param series: the same for all tries that follow a failure by themselves, another once somebody has cleared the
        task: Airflow then allows it more tries (``max_tries``).
    """

    def __init__(self, store: Any | None, series: int | None) -> None:
        self._store = store
        self._series = series

    @classmethod
    def of(cls, context: Context) -> Self:
        return cls(context.get("task_state_store"), getattr(context.get("ti"), "max_tries", None))

    def begin(self, *, fresh: bool = False) -> float:
        """When this series of tries began, in unix seconds.

        What a task had that came to its end is forgotten when it is cleared: whoever does that wants the state of now.

        :param fresh: forget it in any case.
        """
        now_epoch_s = time.time()
        if self._store is None:
            return now_epoch_s
        before = self._entry(_SERIES) or {}
        goes_on = bool(before) and before["number"] == self._series
        if fresh or (before.get("done") and not goes_on):
            self._store.clear()
        began_epoch_s = float(before["began_epoch_s"]) if goes_on else now_epoch_s
        self._mark(began_epoch_s, done=False)
        return began_epoch_s

    def done(self) -> None:
        """All that the task returns is there. Should it die before Airflow hears so, its next try returns the same."""
        before = self._entry(_SERIES) or {}
        self._mark(float(before.get("began_epoch_s", time.time())), done=True)

    def find(self, client: ChatExportClient, request: Request) -> Receipt | None:
        """The export of an earlier try that answers this request, if the service still has it. One that failed, or that
        the service does not know any more, is forgotten.

        :raises ServiceError: the service could not be asked.
        """
        entry = self._entry(_key(request))
        if entry is None:
            return None
        task_id = TaskId(entry["task_id"])
        try:
            status = client.task(task_id).status
        except NotFoundError:
            status = None
        if status is None or status in (Status.FAILED, Status.CANCELED):
            told = status.value if status else "unknown to the service"
            log.info("export of an earlier try cannot be used task_id=%s status=%s", task_id, told)
            self._forget(request)
            return None
        log.info("export of an earlier try found task_id=%s status=%s", task_id, status.value)
        return Receipt(task_id=task_id, request=request)

    def remember(self, receipt: Receipt) -> None:
        if self._store is not None:
            self._store.set(_key(receipt.request), {"v": _ENTRY_VERSION, "task_id": receipt.task_id})

    def was_split(self, request: Request) -> bool:
        """Whether an earlier try found that the service does not finish this, and went on with its halves."""
        return self._store is not None and request.fingerprint in self._store.get(_SPLIT, [])

    def split(self, request: Request) -> None:
        """From now on this is asked for in halves."""
        self._forget(request)
        if self._store is not None:
            self._store.set(_SPLIT, sorted({*self._store.get(_SPLIT, []), request.fingerprint}))

    def _forget(self, request: Request) -> None:
        if self._store is not None:
            self._store.delete(_key(request))

    def _mark(self, began_epoch_s: float, *, done: bool) -> None:
        if self._store is not None:
            told = {"v": _ENTRY_VERSION, "number": self._series, "began_epoch_s": began_epoch_s, "done": done}
            self._store.set(_SERIES, told)

    def _entry(self, key: str) -> Mapping[str, Any] | None:
        entry = self._store.get(key) if self._store is not None else None
        return entry if isinstance(entry, Mapping) and entry.get("v") == _ENTRY_VERSION else None


def _key(request: Request) -> str:
    return _KEY.format(fingerprint=request.fingerprint)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedExport:
    """An export that is waited for. ``n_splits``: how often its window was halved on the way to it."""

    receipt: Receipt
    n_splits: int = 0

    def can_be_halved(self, max_splits: int) -> bool:
        return self.n_splits < max_splits and bool(self.halves())

    def halves(self) -> tuple[ChannelsRequest, ...]:
        """Empty where there is no window, or a very short one."""
        request = self.receipt.request
        return (isinstance(request, ChannelsRequest) and request.halved()) or ()


@dataclass(slots=True)
class Submitter:
    """Starts what was not started before.

    :param missing: channels that the service does not know, and what it said.
    """

    client: ChatExportClient
    known: SubmittedExports
    started: list[SubmittedExport] = field(default_factory=list)
    missing: dict[Cid, RequestRefusedError] = field(default_factory=dict)

    def submit(self, requests: Sequence[Request], *, on_missing_channel: OnMissingChannel = "fail") -> None:
        """Starts all of them; none, where the service knows no channel and they are to be skipped.

        :raises RequestRefusedError: the service refuses the request, or does not know some channels; the sentence names
            all of them.
        :raises ServiceError: the service could not be asked.
        """
        for request in requests:
            self._one(request)
        self._tell_missing(on_missing_channel)

    def split(self, lost: Iterable[SubmittedExport], *, on_missing_channel: OnMissingChannel = "fail") -> None:
        """Starts both halves of exports that the service does not finish. Raises as ``submit`` does."""
        for each in lost:
            task_id, request = each.receipt.task_id, each.receipt.request
            log.warning("export is split in two task_id=%s fingerprint=%s", task_id, request.fingerprint)
            self.known.split(request)
            for half in each.halves():
                self._one(half, each.n_splits + 1)
        self._tell_missing(on_missing_channel)

    def _tell_missing(self, on_missing_channel: OnMissingChannel) -> None:
        if not self.missing:
            return
        named = ", ".join([*self.missing][:10])
        more = f" and {len(self.missing) - 10} more" if len(self.missing) > 10 else ""
        if on_missing_channel == "skip":
            log.warning("channels are skipped, because the service does not know them channels=%s%s", named, more)
            return
        first = next(iter(self.missing.values()))
        raise RequestRefusedError(
            f"the service does not know {len(self.missing)} channel(s): {named}{more} ({first.message}); take them out "
            'of what is exported, where on_missing_channel="skip" does so by itself',
            http_status=first.http_status,
            code=first.code,
        )

    def _one(self, request: Request, n_splits: int = 0) -> None:
        if isinstance(request, ChannelsRequest) and not self.missing.keys().isdisjoint(request.channels):
            # Of another window: what is missing is known by now, and need not spoil this one as well.
            if (left := request.without(self.missing)) is None:
                return
            request = left
        if isinstance(request, ChannelsRequest) and self.known.was_split(request):
            for half in request.halved() or ():
                self._one(half, n_splits + 1)
            return
        if receipt := self.known.find(self.client, request):
            self.started.append(SubmittedExport(receipt=receipt, n_splits=n_splits))
            return
        try:
            receipt = _submitted(self.client, request)
        except RequestRefusedError as error:
            if not isinstance(request, ChannelsRequest) or not error.may_be_of_a_part:
                raise
            if len(request.channels) > 1:
                # One bad channel spoils its whole batch: halves of it, until it stands alone.
                for half in request.bisected():
                    self._one(half, n_splits)
            elif error.is_missing:
                self.missing[request.channels[0]] = error
            else:
                raise
            return
        self.known.remember(receipt)
        self.started.append(SubmittedExport(receipt=receipt, n_splits=n_splits))


def find_unfinished(
    client: ChatExportClient, started: Iterable[SubmittedExport], *, overdue: bool
) -> list[SubmittedExport]:
    """Those that the service ended as failed, or does not know; if they are overdue, those not completed as well.

    :raises ServiceError: the service could not be asked.
    """
    lost = []
    for each in started:
        try:
            status = client.task(each.receipt.task_id).status
        except NotFoundError:
            status = Status.FAILED
        if status is not Status.COMPLETED and (overdue or status.ended):
            lost.append(each)
    return lost


def _submitted(client: ChatExportClient, request: Request) -> Receipt:
    match request:
        case ChannelsRequest():
            task_id = client.submit_channels(request)
            size, window = f"channels={len(request.channels)}", request.window
        case UsersRequest():
            task_id = client.submit_users(request)
            size, window = f"users={len(request.user_ids)}", None
    # At once, and before anything else can fail: the service has no list of its tasks.
    log.info("export started task_id=%s %s window=%s fingerprint=%s", task_id, size, window, request.fingerprint)
    return Receipt(task_id=task_id, request=request)


def exported_again(
    client: ChatExportClient, known: SubmittedExports, receipts: Iterable[Receipt], *, patience_s: float
) -> list[Receipt]:
    """The same questions as new exports, waited for here.

    :raises TaskFailedError: the service ended one as failed.
    :raises TaskOverdueError: one was not done in time.
    :raises ServiceError: the service could not be asked.
    """
    began_epoch_s = known.begin()
    submission = Submitter(client, known)
    submission.submit([receipt.request for receipt in receipts])
    made = [each.receipt for each in submission.started]
    watch = ExportPoller(
        [receipt.task_id for receipt in made],
        started_epoch_s=began_epoch_s,
        deadline_epoch_s=began_epoch_s + patience_s,
    )
    with ChatExportClient(client.settings.without_retries()) as watching:
        watch_exports(watching, watch)
    return made
