"""Control calls under ``/_sandbox/``: without a key, without faults, not recorded. A wrong one gets 400 and a sentence.

``SandboxControl`` makes these calls from Python.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from airflow_provider_chatexport.core.retention import RetentionTarget
from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.sandbox.chat.validation import typed
from airflow_provider_chatexport.sandbox.service import Service
from airflow_provider_chatexport.sandbox.web.faults import Fault
from airflow_provider_chatexport.sandbox.web.request_body import parse_json
from airflow_provider_chatexport.sandbox.web.request_log import CONTROL_PATH
from airflow_provider_chatexport.sandbox.web.responses import JsonReply

# A hundred years in all: dates of files and links must not leave what Python can hold.
MAX_ADVANCE_S: Final = 100 * 365 * 86400


class ControlError(Exception):
    """A control call that makes no sense. The message is a sentence for its caller."""

    def __init__(self, message: str, *, http_status: int = 400) -> None:
        super().__init__(message)
        self.http_status = http_status


class Advance(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /_sandbox/clock``: seconds to move the clock forward by. It never goes back."""

    advance_s: Annotated[float, msgspec.Meta(ge=0)]


class Ages(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /_sandbox/retention``: hours after which each policy deletes; null is no policy."""

    old_messages: int | None = None
    inactive_channels: int | None = None


class Edit(msgspec.Struct):
    """Which message an edit changes. The other fields of the object are what it changes."""

    id: Annotated[str, msgspec.Meta(min_length=1)]


class Delete(msgspec.Struct):
    """Which message to delete, and whether for good."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    hard: bool = False


class Control:
    """The control calls of one sandbox."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Return the routes of all control calls."""
        return [
            Route(f"{CONTROL_PATH}{path}", _answering(call), methods=[method])
            for method, path, call in (
                ("GET", "/health", self._health),
                ("POST", "/reset", self._reset),
                ("GET", "/faults", self._list_faults),
                ("POST", "/faults", self._add_faults),
                ("DELETE", "/faults", self._clear_faults),
                ("GET", "/requests", self._list_requests),
                ("DELETE", "/requests", self._clear_requests),
                ("GET", "/clock", self._read_clock),
                ("POST", "/clock", self._advance_clock),
                ("POST", "/messages", self._change_messages),
                ("POST", "/retention", self._set_retention),
            )
        ]

    async def _health(self, _request: Request) -> object:
        return {"status": "ok"}

    async def _reset(self, _request: Request) -> object:
        await self._service.reset()
        return {"status": "ok"}

    async def _list_faults(self, _request: Request) -> object:
        return self._service.faults

    async def _add_faults(self, request: Request) -> object:
        value = await _json(request)
        try:
            faults = typed(value, list[Fault]) if isinstance(value, list) else [typed(value, Fault)]
        except ValueError as problem:
            raise ControlError(
                f'{problem}; a fault is an object such as {{"path": "/api/v2/tasks", "do": "status:503"}}'
            ) from None
        self._service.faults.extend(faults)
        return self._service.faults

    async def _clear_faults(self, _request: Request) -> object:
        self._service.faults.clear()
        return []

    async def _list_requests(self, _request: Request) -> object:
        return list(self._service.requests)

    async def _clear_requests(self, _request: Request) -> object:
        self._service.requests.clear()
        return []

    async def _read_clock(self, _request: Request) -> object:
        return {"now": format_rfc3339(self._service.clock.now())}

    async def _advance_clock(self, request: Request) -> object:
        try:
            advance_s = typed(await _json(request), Advance).advance_s
        except ValueError as problem:
            raise ControlError(f'{problem}; give {{"advance_s": SECONDS}} with zero or more seconds') from None
        clock = self._service.clock
        if advance_s > MAX_ADVANCE_S - clock.advanced_s:
            raise ControlError(
                f"all advance_s together may be {MAX_ADVANCE_S}, a hundred years, and {clock.advanced_s:.0f} are used "
                "up; start another sandbox"
            )
        clock.advance(advance_s)
        self._service.tasks.sweep()
        await self._service.delete_old()
        return await self._read_clock(request)

    async def _change_messages(self, request: Request) -> object:
        changes = {"edit": self._edit, "delete": self._delete, "add": self._add}
        match await _json(request):
            case dict(value) if len(value) == 1:
                ((verb, fields),) = value.items()
            case _:
                verb, fields = "", None
        if verb not in changes or not isinstance(fields, dict):
            raise ControlError('give one of {"edit": {...}}, {"delete": {...}}, {"add": {...}}')
        try:
            return {"message": await self._service.readers.change(lambda: changes[verb](fields))}
        except ValueError as problem:
            raise ControlError(f"the world refuses to {verb} this message: {problem}") from None

    async def _set_retention(self, request: Request) -> object:
        retention = self._service.retention
        try:
            ages = typed(await _json(request), Ages)
            retention.set(RetentionTarget.OLD_MESSAGES, ages.old_messages)
            retention.set(RetentionTarget.INACTIVE_CHANNELS, ages.inactive_channels)
        except ValueError as problem:
            raise ControlError(f'{problem}; give whole hours, such as {{"old_messages": 720}}') from None
        return {policy.target.value: policy.max_age_hours for policy in retention.policies()}

    def _edit(self, fields: Mapping[str, Any]) -> object:
        message_id = typed(fields, Edit).id
        changes = {name: value for name, value in fields.items() if name != "id"}
        if not changes:
            raise ControlError('an edit says what changes, such as {"edit": {"id": "...", "text": "..."}}')
        if not self._service.world.edit_message(message_id, changes, self._service.clock.now()):
            raise _unknown_message(message_id)
        return self._service.world.message(message_id)

    def _delete(self, fields: Mapping[str, Any]) -> object:
        delete = typed(fields, Delete)
        if not self._service.world.delete_message(delete.id, delete.hard, self._service.clock.now()):
            raise _unknown_message(delete.id)
        return self._service.world.message(delete.id)

    def _add(self, fields: Mapping[str, Any]) -> object:
        if fields.get("cid") not in self._service.world.cids:
            raise ControlError("give the cid of a channel that exists, such as messaging:rust")
        return self._service.world.add_message(fields, self._service.clock.now())


def _unknown_message(message_id: str) -> ControlError:
    return ControlError(f"there is no message with the id {message_id[:80]!r}", http_status=404)


def _answering(call: Callable[[Request], Awaitable[object]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return JsonReply(msgspec.to_builtins(await call(request)))
        except ControlError as refused:
            return JsonReply({"error": str(refused)}, status_code=refused.http_status)

    return endpoint


async def _json(request: Request) -> Any:
    try:
        return parse_json(await request.body())
    except ValueError:
        raise ControlError("the body of a control call must be JSON") from None
