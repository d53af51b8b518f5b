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
from typing import Any, Final, Literal

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.watch import Watch, watch_exports
from airflow_provider_chatexport.core.plan import ChannelsRequest, UsersRequest
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.task import Status, TaskId
from airflow_provider_chatexport.errors import NotFoundError, RequestRefusedError

log = logging.getLogger(__name__)

OnMissingChannel = Literal["fail", "skip"]
Request = ChannelsRequest | UsersRequest

_KEY: Final = "chatexport.{fingerprint}"
_SPLIT: Final = "chatexport.split"
_ENTRY_VERSION: Final = 1


class KnownExports:
    """What earlier tries of this task instance started.

    :param store: the task's store (``context["task_state_store"]``), None where Airflow has none.
    """

    def __init__(self, store: Any | None) -> None:
        self._store = store

    def find(self, client: ChatExportClient, request: Request) -> tuple[Receipt, float] | None:
        """The export of an earlier try that answers this request, if the service still has it, and when it was
        submitted (unix seconds). One that failed, or that the service does not know any more, is forgotten.

        :raises ServiceError: the service could not be asked.
        """
        entry = self._entry(request)
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
            self.forget([request])
            return None
        log.info("export of an earlier try found task_id=%s status=%s", task_id, status.value)
        return Receipt(task_id=task_id, request=request), float(entry["submitted_epoch_s"])

    def remember(self, receipt: Receipt, submitted_epoch_s: float) -> None:
        if self._store is not None:
            entry = {"v": _ENTRY_VERSION, "task_id": receipt.task_id, "submitted_epoch_s": submitted_epoch_s}
            self._store.set(_key(receipt.request), entry)

    def was_split(self, request: Request) -> bool:
        """Whether an earlier try found that the service does not finish this, and went on with its halves."""
        return self._store is not None and request.fingerprint in self._store.get(_SPLIT, [])

    def split(self, request: Request) -> None:
        """From now on this is asked for in halves."""
        self.forget([request])
        if self._store is not None:
            self._store.set(_SPLIT, sorted({*self._store.get(_SPLIT, []), request.fingerprint}))

    def give_more_time(self, receipts: Iterable[Receipt]) -> None:
        """After a deadline that passed: whoever clears the task goes on waiting for the same exports, from then on."""
        for receipt in receipts:
            self.remember(receipt, time.time())

    def forget(self, requests: Iterable[Request]) -> None:
        """So that a clear of this task exports anew, instead of reading an old snapshot again."""
        if self._store is not None:
            for request in requests:
                self._store.delete(_key(request))

    def forget_all(self, requests: Iterable[Request]) -> None:
        """These, and what was split on the way to them."""
        self.forget(requests)
        if self._store is not None and self._store.get(_SPLIT):
            self._store.delete(_SPLIT)

    def _entry(self, request: Request) -> Mapping[str, Any] | None:
        entry = self._store.get(_key(request)) if self._store is not None else None
        return entry if isinstance(entry, Mapping) and entry.get("v") == _ENTRY_VERSION else None


def _key(request: Request) -> str:
    return _KEY.format(fingerprint=request.fingerprint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
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
class Submission:
    """Starts what was not started before.

    :param started_epoch_s: when the first of the exports was submitted, by this try or an earlier one.
    :param missing: channels that the service refuses.
    """

    client: ChatExportClient
    known: KnownExports
    started: list[Started] = field(default_factory=list)
    started_epoch_s: float = field(default_factory=time.time)
    missing: list[tuple[str, RequestRefusedError]] = field(default_factory=list)

    def submit(self, requests: Sequence[Request], *, on_missing_channel: OnMissingChannel = "fail") -> None:
        """Starts all of them.

        :raises RequestRefusedError: the service refuses a channel; the sentence names all that it refuses.
        :raises ServiceError: the service could not be asked.
        """
        for request in requests:
            self._one(request)
        self._tell_missing(on_missing_channel)

    def split(self, lost: Iterable[Started], *, on_missing_channel: OnMissingChannel = "fail") -> None:
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
        named = ", ".join(cid for cid, _ in self.missing[:10])
        more = f" and {len(self.missing) - 10} more" if len(self.missing) > 10 else ""
        if on_missing_channel == "skip" and self.started:
            log.warning("channels are skipped, because the service refuses them channels=%s%s", named, more)
            return
        first = self.missing[0][1]
        raise RequestRefusedError(
            f"the service refuses {len(self.missing)} channel(s): {named}{more} ({first.message}); take them out, or "
            'skip them with on_missing_channel="skip"',
            http_status=first.http_status,
            code=first.code,
        )

    def _one(self, request: Request, n_splits: int = 0) -> None:
        if isinstance(request, ChannelsRequest) and self.known.was_split(request):
            for half in request.halved() or ():
                self._one(half, n_splits + 1)
            return
        if found := self.known.find(self.client, request):
            receipt, submitted_epoch_s = found
            self.started.append(Started(receipt=receipt, n_splits=n_splits))
            self.started_epoch_s = min(self.started_epoch_s, submitted_epoch_s)
            return
        try:
            receipt = _submitted(self.client, request)
        except RequestRefusedError as error:
            if not isinstance(request, ChannelsRequest):
                raise
            if len(request.channels) == 1:
                self.missing.append((request.channels[0], error))
                return
            # One bad channel spoils its whole batch: halves of it, until it stands alone.
            for half in request.bisected():
                self._one(half, n_splits)
            return
        self.known.remember(receipt, time.time())
        self.started.append(Started(receipt=receipt, n_splits=n_splits))


def unfinished(client: ChatExportClient, started: Iterable[Started], *, overdue: bool) -> list[Started]:
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
    client: ChatExportClient, known: KnownExports, receipts: Iterable[Receipt], *, patience_s: float
) -> list[Receipt]:
    """The same questions as new exports, waited for here.

    :raises TaskFailedError: the service ended one as failed.
    :raises TaskOverdueError: one was not done in time.
    :raises ServiceError: the service could not be asked.
    """
    submission = Submission(client, known)
    submission.submit([receipt.request for receipt in receipts])
    made = [each.receipt for each in submission.started]
    watch = Watch(
        [receipt.task_id for receipt in made],
        started_epoch_s=submission.started_epoch_s,
        deadline_epoch_s=submission.started_epoch_s + patience_s,
    )
    with ChatExportClient(client.settings.without_retries()) as watching:
        watch_exports(watching, watch)
    return made
