"""``SandboxControl``: faults, the clock and changes of history, for a sandbox in this process or in another one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec

from airflow_provider_chatexport.core.times import format_rfc3339, parse_rfc3339
from airflow_provider_chatexport.errors import CallError, ServiceUnavailableError, UnexpectedReplyError
from airflow_provider_chatexport.sandbox.web.faults import Fault
from airflow_provider_chatexport.sandbox.web.request_log import CONTROL_PATH, RecordedRequest

# A change of history waits for the export files that are being written.
TIMEOUT_S: Final = 60.0


class SandboxControl:
    """Controls the sandbox at a URL: makes requests fail, moves its clock, changes its history, resets it.

    ``Sandbox.control`` is one. For a sandbox of another process::

        with SandboxControl("http://127.0.0.1:8900") as control:
            control.wait_until_ready()
            control.fault("status:503", "/api/v2/tasks", times=2)

    Control calls need no key, are not recorded, and no fault applies to them.

    :raises CallError: from every method: the sandbox refuses the call, and the message says why.
    :raises ServiceUnavailableError: from every method: no sandbox answers at the URL.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        try:
            scheme = httpx.URL(url).scheme
        except httpx.InvalidURL:
            scheme = ""
        if scheme not in ("http", "https"):
            raise CallError(f"{url!r} is not the URL of a sandbox; give one such as http://127.0.0.1:8900")
        # Preparing TLS takes 20 ms, and a sandbox speaks none. A proxy in the environment is not meant for localhost.
        is_https = scheme == "https"
        self._http = httpx.Client(timeout=timeout_s, verify=is_https, trust_env=is_https)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The sandbox goes on."""
        self._http.close()

    def is_ready(self) -> bool:
        """Return whether the sandbox accepts requests."""
        try:
            self._call("GET", "/health")
        except ServiceUnavailableError:
            return False
        return True

    def wait_until_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until the sandbox accepts requests, for a process or a container that has just been started.

        :raises ServiceUnavailableError: it does not after ``timeout_s``.
        """
        deadline_s = time.monotonic() + timeout_s
        while not self.is_ready():
            if time.monotonic() > deadline_s:
                raise ServiceUnavailableError(f"no sandbox answered at {self.url} within {timeout_s:g} s; start one")
            time.sleep(0.05)

    def reset(self) -> None:
        """Return to the state of the start, as if the sandbox had been started again at the same address.

        History, clock, exports, limits, policies and requests are as at the start. Faults are those of the settings.
        """
        self._call("POST", "/reset")

    # Faults.

    def fault(self, do: str, path: str, *, method: str | None = None, times: int = 1, after: int = 0) -> None:
        """Make the next matching requests go wrong.

        ======================  =================================================================================
        ``do``                  what happens
        ======================  =================================================================================
        ``status:503``          an error body with this status; ``status:429`` comes with ``Retry-After: 1``
        ``drop``                the connection closes without an answer, and nothing was done
        ``drop-after-accept``   the work is done, and the connection closes without an answer
        ``truncate:1000``       the answer declares its length and ends after so many bytes
        ``corrupt``             the answer has wrong bytes
        ``slow:2.5``            the answer comes so many seconds late
        ``budget``              429 with ``X-Budget-Used-Ms`` and ``Retry-After: 1``: database time is used up
        ``expire``              the file host answers as for an expired link; the path is ``/download``
        ``fail-task``           the export that is created ends as failed
        ``fail-task:error``     the same, with another word as its status: ``error``, ``pending``, ...
        ``stall-task``          the export that is created never ends
        ``stall-task:queued``   the same, with another word as its status
        ======================  =================================================================================

        :param path: what the path of the requests begins with, such as ``/api/v2/tasks``; ``/download`` is the file
            host.
        :param method: GET, POST, ...; any by default.
        :param times: how many requests go wrong.
        :param after: how many matching requests pass before that.
        """
        self._call("POST", "/faults", {"do": do, "path": path, "method": method, "times": times, "after": after})

    def faults(self) -> list[Fault]:
        """Return the faults that are still to come, oldest first."""
        return msgspec.convert(self._call("GET", "/faults"), list[Fault])

    def clear_faults(self) -> None:
        """Let no more requests go wrong."""
        self._call("DELETE", "/faults")

    # Requests.

    def requests(self, path: str = "/") -> list[RecordedRequest]:
        """Return the requests since the start or since ``clear_requests``, oldest first.

        :param path: only those whose path begins with it.
        """
        recorded = msgspec.convert(self._call("GET", "/requests"), list[RecordedRequest])
        return [request for request in recorded if request.path.startswith(path)]

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        self._call("DELETE", "/requests")

    # The clock.

    def now(self) -> datetime:
        """Return the time by the sandbox's clock, in UTC."""
        return parse_rfc3339(self._call("GET", "/clock")["now"])

    def advance_clock(self, by: timedelta) -> datetime:
        """Move the sandbox's clock forward, and return its time in UTC.

        Rate limits recover, links expire after 24 hours, files are deleted after 60 days. Tokens are checked by the
        machine's clock.
        """
        return parse_rfc3339(self._call("POST", "/clock", {"advance_s": by.total_seconds()})["now"])

    # Retention.

    def set_retention(
        self, *, old_messages: timedelta | None = None, inactive_channels: timedelta | None = None
    ) -> None:
        """Set the app's retention policies; None is no policy.

        The sandbox deletes for good what a policy covers: for the first time 24 hours later by its clock, then once a
        day. A policy that was set before with the same age goes on as it was.

        :param old_messages: delete messages that are older; from 24 hours to 43,800 hours, as at the service.
        :param inactive_channels: delete channels without a change or a message for so long.
        :raises CallError: a duration is not in whole hours, or not one that the service allows.
        """
        ages = {"old_messages": old_messages, "inactive_channels": inactive_channels}
        self._call("POST", "/retention", {name: None if age is None else _hours(age) for name, age in ages.items()})

    # History.

    def add_message(self, cid: str, /, **fields: Any) -> dict[str, Any]:
        """Add a message to a channel, and return it complete.

        Everything but the channel is optional: ``id``, ``text``, ``user_id`` (an unknown one becomes a user),
        ``created_at`` (now by the sandbox's clock), ``parent_id``, ``attachments``, ``latest_reactions``, ... Fields
        that the service does not know become custom fields. Times may be aware datetimes.
        """
        return self._change("add", {"cid": cid, **fields})

    def edit_message(self, message_id: str, /, **fields: Any) -> dict[str, Any]:
        """Change fields of a message, and return it complete.

        ``latest_reactions`` replaces all its reactions: so a reaction comes late, or goes.
        """
        return self._change("edit", {"id": message_id, **fields})

    def delete_message(self, message_id: str, /, *, hard: bool = False) -> None:
        """Delete a message.

        :param hard: remove it from exports too; otherwise it stays, with ``type`` deleted.
        """
        self._change("delete", {"id": message_id, "hard": hard})

    def _change(self, verb: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = self._call("POST", "/messages", {verb: fields})["message"]
        return message

    def _call(self, method: str, path: str, value: object = None) -> Any:
        content = None if value is None else json.dumps(value, default=_to_json)
        try:
            reply = self._http.request(method, f"{self.url}{CONTROL_PATH}{path}", content=content)
        except httpx.HTTPError as problem:
            raise ServiceUnavailableError(
                f"no sandbox answers at {self.url} ({type(problem).__name__}); start one with chatexport sandbox"
            ) from None
        try:
            answer = reply.json()
        except ValueError:
            answer = None
        if reply.is_success and answer is not None:
            return answer
        if isinstance(answer, dict) and "error" in answer:
            raise CallError(f"the sandbox refuses {method} {CONTROL_PATH}{path}: {answer['error']}")
        raise UnexpectedReplyError(
            f"{self.url} is not a sandbox: it answers {reply.status_code} to {CONTROL_PATH}{path}"
        )


def _hours(age: timedelta) -> int:
    if age % timedelta(hours=1):
        raise CallError(f"a retention policy has whole hours, not {age}")
    return age // timedelta(hours=1)


def _to_json(value: object) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise CallError(f"{value} has no time zone; give an aware datetime")
        return format_rfc3339(value)
    raise CallError(f"a {type(value).__name__} cannot be a field of a message; give JSON types or a datetime")
