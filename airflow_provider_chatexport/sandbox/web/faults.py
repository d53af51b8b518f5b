"""Misbehaviour on demand: which of the next requests go wrong, and how.

A fault counts the requests that match its method and path. It lets ``after`` of them pass, spoils the next ``times``,
and is gone. It also counts those that another fault spoils. At most one fault spoils a request: the oldest whose turn
it is.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from airflow_provider_chatexport.core.task import Status
from airflow_provider_chatexport.sandbox.exports.tasks import End, Fate

FILE_HOST_PATH: Final = "/download"
# Exports are created by POST to these paths and in no other way.
EXPORT_PATHS: Final = ("/export_channels", "/api/v2/chat/export_channels", "/export/users", "/api/v2/export/users")


class Do(enum.Enum):
    """What a fault does to a request."""

    STATUS = "status"
    DROP = "drop"
    DROP_AFTER_ACCEPT = "drop-after-accept"
    TRUNCATE = "truncate"
    CORRUPT = "corrupt"
    SLOW = "slow"
    EXPIRE = "expire"
    BUDGET = "budget"
    FAIL_TASK = "fail-task"
    STALL_TASK = "stall-task"


_ENDS: Final[Mapping[Do, End]] = {Do.FAIL_TASK: End.FAILS, Do.STALL_TASK: End.STALLS}
_ON_ANSWERS: Final = frozenset(Do) - frozenset(_ENDS)
_WORD: Final = re.compile(r"[A-Za-z][\w-]{0,59}", re.ASCII)
_AMOUNTS: Final[Mapping[Do, str]] = {
    Do.STATUS: "an HTTP status from 400 to 599, such as status:503",
    Do.TRUNCATE: "a number of bytes, such as truncate:1000",
    Do.SLOW: "a number of seconds, such as slow:2.5",
}


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A fault, as ``POST /_sandbox/faults`` takes it; ``times`` and ``after`` count down.

    :param path: what the path of a request begins with; ``/download`` is the file host.
    :param do: a name of ``Do``; for ``status``, ``truncate`` and ``slow`` with an amount, such as ``status:503``; for
        ``fail-task`` and ``stall-task`` perhaps with the status that the task then has, such as ``fail-task:error``.
    :param method: GET, POST, ...; None is any.
    :raises ValueError: there is no such fault, or it can never happen. A fault that silently never happens makes a test
        pass for the wrong reason.
    """

    method: str | None = None
    path: str
    do: str
    times: int = 1
    after: int = 0

    def __post_init__(self) -> None:
        self.method = self.method.upper() if self.method else None
        if not self.path.startswith("/"):
            raise ValueError("path must begin with a slash, such as /api/v2/tasks")
        if self.times < 1:
            raise ValueError("times must be at least 1")
        if self.after < 0:
            raise ValueError("after must be at least 0")
        _check_do(self.do)
        _check_can_happen(self.kind, self.method, self.path)

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read a fault as people type it: ``status:503 /api/v2/tasks times=2 after=1 method=GET``.

        :raises ValueError: it is not written like that, or there is no such fault.
        """
        do, _, rest = text.strip().partition(" ")
        path, *options = rest.split() or [""]
        given = dict(option.partition("=")[::2] for option in options)
        if not path or not given.keys() <= {"times", "after", "method"}:
            raise ValueError("give DO and PATH, and after them only times=N, after=N or method=GET")
        return cls(
            do=do,
            path=path,
            method=given.get("method"),
            times=_whole("times", given.get("times", "1")),
            after=_whole("after", given.get("after", "0")),
        )

    @property
    def kind(self) -> Do:
        """``do`` without its amount."""
        return Do(self.do.partition(":")[0])

    @property
    def amount(self) -> float:
        """The HTTP status, the bytes or the seconds; 0 for other kinds."""
        return float(self.do.partition(":")[2] or 0) if self.kind in _AMOUNTS else 0.0

    @property
    def fate(self) -> Fate:
        """What becomes of the task that a spoiled request creates."""
        return Fate(end=_ENDS[self.kind], status=self.do.partition(":")[2] or None)

    def matches(self, method: str, path: str) -> bool:
        """Return whether this fault counts the request."""
        return path.startswith(self.path) and self.method in (None, method)


class Faults(list[Fault]):
    """The faults that are set, oldest first."""

    def take_for_answer(self, method: str, path: str) -> Fault | None:
        """Return the fault that spoils this request or its answer, if any, and count it down."""
        return self._take(method, path, _ON_ANSWERS)

    def take_fate(self, method: str, path: str) -> Fate:
        """Return how the export that this request creates will end, and count a fault down."""
        fault = self._take(method, path, frozenset(_ENDS))
        return fault.fate if fault else Fate()

    def _take(self, method: str, path: str, kinds: frozenset[Do]) -> Fault | None:
        matching = [fault for fault in self if fault.kind in kinds and fault.matches(method, path)]
        due = next((fault for fault in matching if fault.after == 0), None)
        # Every matching fault counts the request, so that one fault does not shift the scenario of another.
        for fault in matching:
            fault.after = max(0, fault.after - 1)
        if due is not None:
            due.times -= 1
            if due.times == 0:
                self.remove(due)
        return due


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{name} takes a whole number, such as {name}=2")
    return int(text)


def _check_do(text: str) -> None:
    name, colon, amount_text = text.partition(":")
    try:
        kind = Do(name)
    except ValueError:
        known = ", ".join(sorted(kind.value for kind in Do))
        raise ValueError(f"do must be one of {known}") from None
    if kind in _ENDS and colon:
        _check_word(kind, amount_text)
        return
    if kind not in _AMOUNTS:
        if colon:
            raise ValueError(f"{name} takes no amount after a colon")
        return
    try:
        amount = float(amount_text)
    except ValueError:
        amount = math.nan
    low, high = (400.0, 599.0) if kind is Do.STATUS else (0.0, math.inf)
    whole = kind is Do.SLOW or amount.is_integer()
    if not (whole and low <= amount <= high and math.isfinite(amount)):
        raise ValueError(f"{name} takes {_AMOUNTS[kind]}")


def _check_word(kind: Do, word: str) -> None:
    if not _WORD.fullmatch(word):
        raise ValueError(f"{kind.value} takes a word as the status of the task, such as {kind.value}:pending")
    if kind is Do.STALL_TASK and Status.from_wire(word).ended:
        raise ValueError(f"a task with the status {word} has ended; stall-task takes one that is not over")


def _check_can_happen(kind: Do, method: str | None, path: str) -> None:
    if kind is Do.EXPIRE and not path.startswith(FILE_HOST_PATH):
        raise ValueError("only links of the file host expire; use the path /download")
    if kind is Do.BUDGET and path.startswith(FILE_HOST_PATH):
        raise ValueError("the file host has no budget; use a path of the API, such as /api/v2/chat/channels")
    creates_exports = method in (None, "POST") and any(known.startswith(path) for known in EXPORT_PATHS)
    if kind in _ENDS and not creates_exports:
        raise ValueError(
            f"{kind.value} applies to the next export that is created; use the method POST and a path such as "
            "/api/v2/chat/export_channels"
        )
