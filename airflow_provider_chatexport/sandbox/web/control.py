"""Control calls under ``/_sandbox/``: no key, never spoiled, not noted. A wrong one gets 400 with a sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.sandbox.chat.validation import MESSAGE, check_depth
from airflow_provider_chatexport.sandbox.service import Service
from airflow_provider_chatexport.sandbox.web.faults import Fault, FaultSpellingError
from airflow_provider_chatexport.sandbox.web.middleware import CONTROL_PATH
from airflow_provider_chatexport.sandbox.web.request_body import parse_json
from airflow_provider_chatexport.sandbox.web.responses import JsonReply

# A hundred years in all: dates of files and links must not leave what Python can hold.
MAX_ADVANCE_S: Final = 100 * 365 * 86400


class ControlError(Exception):
    """A control call that makes no sense; the message is a sentence for its sender."""

    def __init__(self, message: str, *, http_status: int = 400) -> None:
        super().__init__(message)
        self.http_status = http_status


class Control:
    """The control calls of one sandbox."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        return [
            Route(f"{CONTROL_PATH}{path}", _answering(call), methods=[method])
            for method, path, call in (
                ("GET", "/health", self._health),
                ("GET", "/faults", self._list_faults),
                ("POST", "/faults", self._add_faults),
                ("DELETE", "/faults", self._clear_faults),
                ("GET", "/requests", self._list_requests),
                ("DELETE", "/requests", self._clear_requests),
                ("GET", "/clock", self._read_clock),
                ("POST", "/clock", self._advance_clock),
                ("POST", "/messages", self._change_messages),
            )
        ]

    async def _health(self, _request: Request) -> object:
        return {"status": "ok"}

    async def _list_faults(self, _request: Request) -> object:
        return self._service.faults.to_json()

    async def _add_faults(self, request: Request) -> object:
        value = await _json(request)
        try:
            faults = [Fault.from_json(item) for item in (value if isinstance(value, list) else [value])]
        except FaultSpellingError as misspelt:
            raise ControlError(str(misspelt)) from None
        self._service.faults.add(faults)
        return self._service.faults.to_json()

    async def _clear_faults(self, _request: Request) -> object:
        self._service.faults.clear()
        return []

    async def _list_requests(self, _request: Request) -> object:
        return [noted.to_json() for noted in self._service.requests]

    async def _clear_requests(self, _request: Request) -> object:
        self._service.requests.clear()
        return []

    async def _read_clock(self, _request: Request) -> object:
        return {"now": format_rfc3339(self._service.clock.now())}

    async def _advance_clock(self, request: Request) -> object:
        value = await _json(request)
        advance_s = value.get("advance_s") if isinstance(value, dict) else None
        clock = self._service.clock
        if isinstance(advance_s, bool) or not isinstance(advance_s, (int, float)) or advance_s < 0:
            raise ControlError('give {"advance_s": SECONDS} with zero or more seconds; the clock never goes back')
        if advance_s > MAX_ADVANCE_S - clock.advanced_s:
            raise ControlError(
                f"all advance_s together may be {MAX_ADVANCE_S}, a hundred years, and {clock.advanced_s:.0f} are used "
                "up; start another sandbox"
            )
        clock.advance(advance_s)
        self._service.tasks.sweep()
        return await self._read_clock(request)

    async def _change_messages(self, request: Request) -> object:
        value = await _json(request)
        if not isinstance(value, dict) or len(value) != 1 or not isinstance(next(iter(value.values())), dict):
            raise ControlError('give one of {"edit": {...}}, {"delete": {...}}, {"add": {...}}')
        ((verb, fields),) = value.items()
        changes = {"edit": self._edit, "delete": self._delete, "add": self._add}
        if verb not in changes:
            raise ControlError(f"a message can be edited, deleted or added, and {verb!r} is none of edit, delete, add")
        try:
            check_depth(fields)
            MESSAGE.check(fields)
            return await self._service.readers.change(lambda: changes[verb](fields))
        except ValueError as problem:
            raise ControlError(f"the world refuses to {verb} this message: {problem}") from None
        except (AttributeError, LookupError, OverflowError, TypeError):
            raise ControlError(
                f"the world refuses to {verb} this message: a value in it is of the wrong type"
            ) from None

    def _edit(self, fields: dict[str, Any]) -> object:
        message_id, changes = _message_id(fields), {name: value for name, value in fields.items() if name != "id"}
        if not changes:
            raise ControlError('an edit says what changes, such as {"edit": {"id": "...", "text": "..."}}')
        if not self._service.world.edit_message(message_id, changes, self._service.clock.now()):
            raise _unknown_message(message_id)
        return {"message": self._service.world.message(message_id)}

    def _delete(self, fields: dict[str, Any]) -> object:
        message_id, hard = _message_id(fields), fields.get("hard", False)
        if not isinstance(hard, bool):
            raise ControlError("hard must be true or false")
        if not self._service.world.delete_message(message_id, hard, self._service.clock.now()):
            raise _unknown_message(message_id)
        return {"message": self._service.world.message(message_id)}

    def _add(self, fields: dict[str, Any]) -> object:
        if fields.get("cid") not in self._service.world.cids:
            raise ControlError("a message is added with the cid of a channel that is there, such as messaging:general")
        return {"message": self._service.world.add_message(fields, self._service.clock.now())}


def _message_id(fields: dict[str, Any]) -> str:
    message_id = fields.get("id")
    if not isinstance(message_id, str) or not message_id:
        raise ControlError("id must be the id of a message")
    return message_id


def _unknown_message(message_id: str) -> ControlError:
    return ControlError(f"there is no message with the id {message_id[:80]!r}", http_status=404)


def _answering(call: Callable[[Request], Awaitable[object]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return JsonReply(await call(request))
        except ControlError as refused:
            return JsonReply({"error": str(refused)}, status_code=refused.http_status)

    return endpoint


async def _json(request: Request) -> Any:
    try:
        return parse_json(await request.body())
    except ValueError:
        raise ControlError("the body of a control call is JSON, and this is none") from None
