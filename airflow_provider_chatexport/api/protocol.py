"""Requests and replies of the export API as values: no socket, no clock, no retry.

A ``Call`` says what to send and how to read the answer; ``sign`` makes it an HTTP request; ``read_reply`` turns the
answer into the call's value or into an error of the tree. Both drivers go through these three, so they cannot differ.
Only the ``/api/v2`` family is spoken; its replies are read as tolerantly as the older family's would need.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import httpx
import jwt

from airflow_provider_chatexport import __version__
from airflow_provider_chatexport.api.error_replies import Reply, error_from, parse_json, scrub
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.discovery import ChannelPage, FoundChannel
from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid, UsersRequest
from airflow_provider_chatexport.core.task import Status, TaskId, TaskState
from airflow_provider_chatexport.core.times import format_rfc3339, parse_instant
from airflow_provider_chatexport.errors import ServiceError, UnexpectedReplyError

# A token is minted for each request. Ten minutes forgive a worker's clock that is behind by as much.
TOKEN_LIFETIME_S: Final = 600

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[_T]):
    """One request. ``doing`` completes the sentence "... failed"; ``decode`` reads the JSON of a success, or raises
    ValueError, KeyError or TypeError. ``starts_export``: a repeat after a lost reply may leave one unused export.
    """

    doing: str
    method: str
    path: str
    decode: Callable[[Any], _T]
    body: Mapping[str, Any] | None = None
    starts_export: bool = False


def submit_channels(request: ChannelsRequest) -> Call[TaskId]:
    """Start a channel export, with padded bounds (see ``Window.padded``); bounds that are absent are left out."""
    bounds: dict[str, str] = {}
    if request.window is not None:
        asked = request.window.padded()
        bounds = {"messages_since": format_rfc3339(asked.since), "messages_until": format_rfc3339(asked.until)}
    flags = request.flags
    return Call(
        doing=f"starting an export of {_count(len(request.channels), 'channel')}",
        method="POST",
        path="/api/v2/chat/export_channels",
        body={
            "channels": [_type_and_id(cid) | bounds for cid in request.channels],
            "version": flags.version,
            "include_truncated_messages": flags.include_truncated_messages,
            "include_soft_deleted_channels": flags.include_soft_deleted_channels,
            "clear_deleted_message_text": flags.clear_deleted_message_text,
            "export_users": flags.export_users,
        },
        decode=_decode_submitted,
        starts_export=True,
    )


def submit_users(request: UsersRequest) -> Call[TaskId]:
    """Start a users export."""
    return Call(
        doing=f"starting an export of {_count(len(request.user_ids), 'user')}",
        method="POST",
        path="/api/v2/export/users",
        body={"user_ids": list(request.user_ids)},
        decode=_decode_submitted,
        starts_export=True,
    )


def get_task(task_id: TaskId, settings: ServiceSettings) -> Call[TaskState]:
    """The status of an export, with a fresh link once it is completed.

    :param settings: whose key and secret the reason of a failed export must not hold.
    """
    return Call(
        doing=f"asking for the status of export {task_id[:64]}",
        method="GET",
        path=f"/api/v2/tasks/{quote(task_id, safe='')}",
        decode=functools.partial(_decode_task, settings=settings),
    )


def query_channels(page: ChannelPage) -> Call[tuple[FoundChannel, ...]]:
    """One page of channels, without their messages and members."""
    return Call(
        doing="listing channels",
        method="POST",
        path="/api/v2/chat/channels",
        body={
            "filter_conditions": dict(page.filter_conditions),
            "sort": [dict(order) for order in page.sort],
            "limit": page.limit,
            "offset": page.offset,
            "state": False,
        },
        decode=_decode_channels,
    )


def sign(call: Call[Any], settings: ServiceSettings, *, now_epoch_s: float) -> httpx.Request:
    """The HTTP request of a call, with a token of its own ("Tokens & Authentication": server tokens need no user)."""
    token = jwt.encode(
        {"server": True, "exp": int(now_epoch_s) + TOKEN_LIFETIME_S}, settings.api_secret, algorithm="HS256"
    )
    return httpx.Request(
        call.method,
        settings.base_url + call.path,
        params={"api_key": settings.api_key},
        headers={
            "Authorization": token,  # without "Bearer ", as every official SDK sends it
            "stream-auth-type": "jwt",
            "X-Stream-Client": f"airflow-provider-chatexport-{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
        },
        json=call.body,
        extensions={"timeout": settings.timeouts.as_dict()},
    )


def read_reply(call: Call[_T], reply: Reply, settings: ServiceSettings, *, now_epoch_s: float) -> _T:
    """What a reply means.

    :raises ServiceError: the service answered with an error.
    :raises UnexpectedReplyError: it answered with a success that is not what it documents.
    """
    if not 200 <= reply.status < 300:
        raise error_from(reply, doing=call.doing, settings=settings, now_epoch_s=now_epoch_s)
    try:
        return call.decode(parse_json(reply.body))
    except ServiceError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        # A KeyError's text is the missing key, the others' are ours or the parser's: none quotes a value at length.
        raise UnexpectedReplyError(
            f"{call.doing} failed: {settings.host} answered HTTP {reply.status} with something that is not the "
            f"documented reply ({type(error).__name__}: {scrub(str(error), settings)[:120]}); check that the address "
            "is the chat API's",
            http_status=reply.status,
        ) from None


def _type_and_id(cid: Cid) -> dict[str, str]:
    channel_type, _, channel_id = cid.partition(":")
    return {"type": channel_type, "id": channel_id}


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{what} is no object")
    return value


def _text(value: Any, what: str) -> str:
    if not (isinstance(value, str) and value):
        raise TypeError(f"{what} is no text")
    return value


def _decode_submitted(value: Any) -> TaskId:
    return TaskId(_text(_mapping(value, "the reply")["task_id"], "task_id"))


def _decode_task(value: Any, settings: ServiceSettings) -> TaskState:
    """Times are RFC3339 text or unix nanoseconds; ``result`` and ``error`` are absent, null or empty until the end."""
    task = _mapping(value, "the reply")
    created_at = parse_instant(task.get("created_at")) or parse_instant(task.get("updated_at"))
    if created_at is None:
        raise ValueError("neither created_at nor updated_at has a time")
    result = _mapping(task.get("result") or {}, "result")
    url = result.get("url") or None
    return TaskState(
        task_id=TaskId(_text(task["task_id"], "task_id")),
        status=Status.from_wire(_text(task["status"], "status")),
        created_at=created_at,
        url=None if url is None else _text(url, "result.url"),
        error=_decode_task_error(task.get("error"), settings),
    )


def _decode_task_error(value: Any, settings: ServiceSettings) -> str | None:
    """The API description has an object with type and description; older code takes a bare string."""
    if not value:
        return None
    if isinstance(value, str):
        return scrub(value, settings)
    error = _mapping(value, "error")
    parts = [part for part in (error.get("type"), error.get("description")) if isinstance(part, str) and part]
    return scrub(": ".join(parts), settings) or "no description"


def _decode_channels(value: Any) -> tuple[FoundChannel, ...]:
    found = []
    for entry in _mapping(value, "the reply")["channels"]:
        channel = _mapping(_mapping(entry, "a channel")["channel"], "a channel")
        found.append(
            FoundChannel(
                cid=Cid(_text(channel["cid"], "cid")),
                created_at=parse_instant(channel.get("created_at")),
                last_message_at=parse_instant(channel.get("last_message_at")),
            )
        )
    return tuple(found)
