"""Misbehaviour on demand: which of the next requests go wrong, and how.

The kinds are those of ``POST /_sandbox/faults``. A fault counts the requests that it matches: it lets ``after`` of them
pass, whatever other faults do to those, spoils the next ``times``, and is gone. A request is spoiled by one fault at
most, the oldest that wants it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_chatexport.sandbox.exports.tasks import Fate

FILE_HOST_PATH: Final = "/download"
# Where exports are created: method POST, these paths, nothing else.
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
    FAIL_TASK = "fail-task"
    STALL_TASK = "stall-task"


_FATES: Final[Mapping[Do, Fate]] = {Do.FAIL_TASK: Fate.FAILS, Do.STALL_TASK: Fate.STALLS}
_MEANING: Final[Mapping[Do, str]] = {
    Do.STATUS: "an HTTP status from 400 to 599, such as status:503",
    Do.TRUNCATE: "a number of bytes, such as truncate:1000",
    Do.SLOW: "a number of seconds, such as slow:2.5",
}


class FaultSpellingError(ValueError):
    """A control call describes no fault that exists; the message is a sentence for its sender."""


@dataclass(slots=True, kw_only=True)
class Fault:
    """A fault and what is left of it. ``amount``: the status, the bytes or the seconds, by kind."""

    do: Do
    amount: float
    method: str | None
    path: str
    times: int
    after: int

    @classmethod
    def from_json(cls, value: object) -> Fault:
        """:raises FaultSpellingError: the value is no fault."""
        if not isinstance(value, dict):
            raise FaultSpellingError('a fault is an object such as {"path": "/api/v2/tasks", "do": "status:503"}')
        unknown = sorted(set(value) - {"method", "path", "do", "times", "after"})
        if unknown:
            raise FaultSpellingError(f"a fault has method, path, do, times and after, not {', '.join(unknown)}")
        path, method = value.get("path"), value.get("method")
        if not isinstance(path, str) or not path.startswith("/"):
            raise FaultSpellingError("path must be a string that begins with a slash, such as /api/v2/tasks")
        if method is not None and not isinstance(method, str):
            raise FaultSpellingError("method must be a string, such as GET; leave it out to match all")
        do, amount = _parse_do(value.get("do"))
        _refuse_what_never_matches(do, method, path)
        return cls(
            do=do,
            amount=amount,
            method=method.upper() if method else None,
            path=path,
            times=_count(value, "times", default=1, low=1),
            after=_count(value, "after", default=0, low=0),
        )

    def to_json(self) -> dict[str, Any]:
        suffix = f":{self.amount:g}" if self.do in _MEANING else ""
        return {
            "method": self.method,
            "path": self.path,
            "do": f"{self.do.value}{suffix}",
            "times": self.times,
            "after": self.after,
        }

    def matches(self, method: str, path: str) -> bool:
        return path.startswith(self.path) and self.method in (None, method)


class Faults:
    """The faults that are set, oldest first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, faults: list[Fault]) -> None:
        self._faults.extend(faults)

    def clear(self) -> None:
        self._faults.clear()

    def to_json(self) -> list[dict[str, Any]]:
        return [fault.to_json() for fault in self._faults]

    def take_for_wire(self, method: str, path: str) -> Fault | None:
        """The fault that spoils this request or its answer, if any; uses it up by one."""
        return self._take(method, path, frozenset(Do) - frozenset(_FATES))

    def take_fate(self, method: str, path: str) -> Fate:
        """How the export that this request creates shall end; uses a fault up by one."""
        fault = self._take(method, path, frozenset(_FATES))
        return _FATES[fault.do] if fault else Fate.NORMAL

    def _take(self, method: str, path: str, kinds: frozenset[Do]) -> Fault | None:
        matching = [fault for fault in self._faults if fault.do in kinds and fault.matches(method, path)]
        taken = next((fault for fault in matching if fault.after == 0), None)
        # All that match count the request, whoever spoils it: ``after`` speaks of requests, not of other faults.
        for fault in matching:
            fault.after = max(0, fault.after - 1)
        if taken is not None:
            taken.times -= 1
            if taken.times == 0:
                self._faults.remove(taken)
        return taken


def _parse_do(text: object) -> tuple[Do, float]:
    name, colon, amount_text = text.partition(":") if isinstance(text, str) else ("", "", "")
    try:
        do = Do(name)
    except ValueError:
        known = ", ".join(sorted(do.value for do in Do))
        raise FaultSpellingError(f"do must be one of {known}") from None
    if do not in _MEANING:
        if colon:
            raise FaultSpellingError(f"{do.value} takes nothing behind a colon")
        return do, 0.0
    try:
        amount = float(amount_text)
    except ValueError:
        amount = math.nan
    low, high = (400.0, 599.0) if do is Do.STATUS else (0.0, math.inf)
    whole = do is Do.SLOW or amount.is_integer()
    if not (whole and low <= amount <= high and math.isfinite(amount)):
        raise FaultSpellingError(f"{do.value} takes {_MEANING[do]}")
    return do, amount


def _refuse_what_never_matches(do: Do, method: str | None, path: str) -> None:
    if do is Do.EXPIRE and not path.startswith(FILE_HOST_PATH):
        raise FaultSpellingError("only links of the file host expire: use the path /download")
    if do in _FATES and not (
        (method or "POST").upper() == "POST" and any(known.startswith(path) for known in EXPORT_PATHS)
    ):
        raise FaultSpellingError(
            f"{do.value} applies to the next export that is created: use POST and a path such as "
            "/api/v2/chat/export_channels"
        )


def _count(value: Mapping[str, Any], name: str, *, default: int, low: int) -> int:
    number = value.get(name, default)
    if isinstance(number, bool) or not isinstance(number, int) or number < low:
        raise FaultSpellingError(f"{name} must be a whole number of at least {low}")
    return number
