"""Requests and replies of the export API as values: no socket, no clock, no retry.

A ``Call`` says what to send and how to decode the reply. ``sign`` turns it into an HTTP request, and ``read_reply``
turns the reply into the call's value or into an error. Both drivers use these three, so they cannot differ. Requests go
to the ``/api/v2`` addresses only; replies are decoded as tolerantly as those of the older addresses would need.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import httpx

from airflow_provider_chatexport import __version__
from airflow_provider_chatexport.api.error_replies import Reply, error_from, parse_json, scrub
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.api.token import server_token
from airflow_provider_chatexport.core.discovery import ChannelPage, FoundChannel
from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid, UserId, UsersRequest
from airflow_provider_chatexport.core.retention import RetentionPolicy, RetentionTarget
from airflow_provider_chatexport.core.task import Status, TaskId, TaskState
from airflow_provider_chatexport.core.times import EPOCH, format_rfc3339, read_time
from airflow_provider_chatexport.errors import ServiceError, UnexpectedReplyError

# Each request has a token of its own. Ten minutes tolerate a worker's clock that is ten minutes behind.
TOKEN_LIFETIME_S: Final = 600
# How much of a status is quoted.
_MAX_WORD_CHARS: Final = 40

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[_T]):
    """One request and how to decode its reply.

    :param doing: the subject of the sentence "... failed".
    :param decode: takes the JSON of a successful reply; raises ValueError, KeyError or TypeError if it is another one.
    :param starts_export: whether a repeat after a lost reply may leave one unused export.
    """

    doing: str
    method: str
    path: str
    decode: Callable[[Any], _T]
    body: Mapping[str, Any] | None = None
    starts_export: bool = False


def submit_channels(request: ChannelsRequest) -> Call[TaskId]:
    """Return the call that starts a channel export; the bounds of its window, if any, are padded."""
    bounds: dict[str, str] = {}
    if request.window is not None:
        padded = request.window.padded()
        bounds = {"messages_since": format_rfc3339(padded.since), "messages_until": format_rfc3339(padded.until)}
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
    """Return the call that starts a users export."""
    return Call(
        doing=f"starting an export of {_count(len(request.user_ids), 'user')}",
        method="POST",
        path="/api/v2/export/users",
        body={"user_ids": list(request.user_ids)},
        decode=_decode_submitted,
        starts_export=True,
    )


def export_user(user_id: UserId) -> Call[Mapping[str, Any]]:
    """Return the call that exports one user at once, without a task: ``{"user":..,"messages":[..],"reactions":[..]}``.

    ``ChatExportClient.export_user`` writes the reply to a file instead of decoding it.
    """
    return Call(
        doing=f"exporting user {user_id[:64]}",
        method="GET",
        path=f"/api/v2/users/{quote(user_id, safe='')}/export",
        decode=functools.partial(_mapping, what="the reply"),
    )


def get_task(task_id: TaskId, settings: ServiceSettings) -> Call[TaskState]:
    """Return the call for an export's status, with a fresh link once the export is completed.

    :param settings: their key and secret are hidden in the reason of a failed export.
    """
    return Call(
        doing=f"asking for the status of export {task_id[:64]}",
        method="GET",
        path=f"/api/v2/tasks/{quote(task_id, safe='')}",
        decode=functools.partial(_decode_task, settings=settings),
    )


def query_channels(page: ChannelPage) -> Call[tuple[FoundChannel, ...]]:
    """Return the call for one page of channels, without their messages and members."""
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


def retention_policy() -> Call[tuple[RetentionPolicy, ...]]:
    """Return the call for the app's retention policies; an app that keeps everything has none."""
    return Call(
        doing="asking for the retention policies",
        method="GET",
        path="/api/v2/chat/retention_policy",
        decode=_decode_retention_policies,
    )


def sign(call: Call[Any], settings: ServiceSettings, *, now_epoch_s: float) -> httpx.Request:
    """Return a call's HTTP request, with a new token."""
    token = server_token(settings.api_secret, expires_epoch_s=int(now_epoch_s) + TOKEN_LIFETIME_S)
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
    """Return the call's value from a reply.

    :raises ServiceError: the service answered with an error.
    :raises UnexpectedReplyError: the reply is a success, but not the documented one.
    """
    if not 200 <= reply.status < 300:
        raise error_from(reply, doing=call.doing, settings=settings, now_epoch_s=now_epoch_s)
    try:
        return call.decode(parse_json(reply.body))
    except ServiceError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        # The text of a KeyError is the missing key. The other texts are ours or the parser's. None quotes a long value.
        why = f"{type(error).__name__}: {scrub(str(error), settings)[:120]}"
        raise unexpected_reply_error(call, reply.status, settings, why) from None


def unexpected_reply_error(
    call: Call[Any], http_status: int, settings: ServiceSettings, why: str
) -> UnexpectedReplyError:
    """Return the error for a successful reply that is not the documented one."""
    return UnexpectedReplyError(
        f"{call.doing} failed: {settings.host} answered HTTP {http_status}, but not with the documented reply ({why}); "
        "check that this is the address of the chat API",
        http_status=http_status,
    )


def _type_and_id(cid: Cid) -> dict[str, str]:
    channel_type, _, channel_id = cid.partition(":")
    return {"type": channel_type, "id": channel_id}


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{what} is not an object")
    return value


def _text(value: Any, what: str) -> str:
    if not (isinstance(value, str) and value):
        raise TypeError(f"{what} is not text")
    return value


def _decode_submitted(value: Any) -> TaskId:
    return TaskId(_text(_mapping(value, "the reply")["task_id"], "task_id"))


def _decode_task(value: Any, settings: ServiceSettings) -> TaskState:
    """Decode a status reply.

    Times are RFC3339 text or unix nanoseconds. ``result`` and ``error`` are absent, null or empty until the task ends.
    """
    task = _mapping(value, "the reply")
    created_at = read_time(task.get("created_at")) or read_time(task.get("updated_at"))
    if created_at is None:
        raise ValueError("neither created_at nor updated_at is a time")
    result = _mapping(task.get("result") or {}, "result")
    url, word = result.get("url") or None, _text(task["status"], "status")
    error = _decode_task_error(task.get("error"), settings)
    return TaskState(
        task_id=TaskId(_text(task["task_id"], "task_id")),
        status=Status.from_wire(word, error=error, has_link=url is not None),
        created_at=created_at,
        url=None if url is None else _text(url, "result.url"),
        error=error,
        updated_at=read_time(task.get("updated_at")),
        word=scrub(word, settings)[:_MAX_WORD_CHARS],
    )


def _decode_task_error(value: Any, settings: ServiceSettings) -> str | None:
    """Decode why a task failed: an object with type and description (API description) or a string (older code).

    :return: None without an error. An object of empty values is none: Go writes an unset one so.
    """
    if not value:
        return None
    if isinstance(value, str):
        return scrub(value, settings) or None
    error = _mapping(value, "error")
    if not any(error.values()):
        return None
    parts = [part for part in (error.get("type"), error.get("description")) if isinstance(part, str) and part]
    return scrub(": ".join(parts), settings) or "no description"


def _decode_channels(value: Any) -> tuple[FoundChannel, ...]:
    channels = []
    for entry in _mapping(value, "the reply")["channels"]:
        channel = _mapping(_mapping(entry, "a channel")["channel"], "a channel")
        channels.append(
            FoundChannel(
                cid=Cid(_text(channel["cid"], "cid")),
                created_at=read_time(channel.get("created_at")),
                last_message_at=read_time(channel.get("last_message_at")),
            )
        )
    return tuple(channels)


def _decode_retention_policies(value: Any) -> tuple[RetentionPolicy, ...]:
    return tuple(_decode_retention_policy(entry) for entry in _mapping(value, "the reply")["policies"] or ())


def _decode_retention_policy(value: Any) -> RetentionPolicy:
    """Decode ``{"policy":..,"config":{"max_age_hours":..},"enabled_at":..,"app_pk":..}`` (SDK ``getstream`` 7.0.0).

    The form is that of the SDK; no real reply was seen. So the age may also be next to ``config``, as in the request
    that sets it. The docs know no disabled policy, because a policy that is removed is not listed. ``"enabled":false``,
    and an ``enabled_at`` that is null or Go's zero time, would mean one.

    :raises ValueError: the policy is unknown. To ignore it would be to ignore what the service deletes.
    """
    policy = _mapping(value, "a policy")
    name = _text(policy["policy"], "policy")
    try:
        target = RetentionTarget(name)
    except ValueError:
        raise ValueError(f"{name[:40]!r} is a policy that this version does not know") from None
    settings = {**policy, **_mapping(policy.get("config") or {}, "config")}
    hours = settings["max_age_hours"]
    if isinstance(hours, bool) or not isinstance(hours, int | float) or hours != int(hours):
        raise TypeError("max_age_hours is not a whole number")
    enabled_at = read_time(policy.get("enabled_at"))
    if enabled_at is not None and enabled_at <= EPOCH:
        enabled_at = None
    return RetentionPolicy(
        target=target,
        max_age_hours=int(hours),
        is_enabled=policy.get("enabled") is not False and ("enabled_at" not in policy or enabled_at is not None),
        enabled_at=enabled_at,
    )
