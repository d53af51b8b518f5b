"""The service's endpoints: what each answers to a request whose key, token, limit and body are in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.sandbox.chat.api_family import Family
from airflow_provider_chatexport.sandbox.chat.world import World
from airflow_provider_chatexport.sandbox.exports.render import (
    export_user,
    render_channels_export,
    render_users_export,
)
from airflow_provider_chatexport.sandbox.exports.signed_links import RenewLinks
from airflow_provider_chatexport.sandbox.exports.tasks import ExportFailedError, ExportFile, Failure, Task
from airflow_provider_chatexport.sandbox.service import Service
from airflow_provider_chatexport.sandbox.web.channel_query import ChannelsQuery, query_channels
from airflow_provider_chatexport.sandbox.web.export_requests import read_channels_export, read_users_export
from airflow_provider_chatexport.sandbox.web.rate_limits import PER_MINUTE, PLATFORMS
from airflow_provider_chatexport.sandbox.web.request_body import RequestBody
from airflow_provider_chatexport.sandbox.web.responses import ApiCode, ApiError, not_found

# "Exporting Data": up to 10,000 messages a user.
MAX_MESSAGES_PER_USER: Final = 10_000
# The API description of ExportUser: no user with more than 10,000 messages or reactions.
MAX_REACTIONS_PER_USER: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to an endpoint. ``body`` is empty where the endpoint takes none."""

    service: Service
    family: Family
    request: Request
    body: RequestBody

    @property
    def origin(self) -> str:
        """Scheme and host as the client wrote them, so that links work from wherever the API does."""
        return f"{self.request.url.scheme}://{self.request.url.netloc}"

    @property
    def renew_links(self) -> RenewLinks | None:
        """What puts links to attachments into messages: new ones, from now on; None if the settings want none."""
        if not self.service.settings.attachment_links:
            return None
        return self.service.links.attachment_links(self.origin)


async def export_channels(call: Call) -> dict[str, Any]:
    """Start an export of channels."""
    service = call.service
    job = read_channels_export(call.body, service.world, service.settings, renew_links=call.renew_links)
    suffix = {"v1": ".json", "v2": ".jsonl"}[job.flags.version] + (".gz" if job.gzip else "")
    return _accept(call, ExportKind.CHANNELS, f"export{suffix}", lambda: render_channels_export(service.world, job))


async def export_users(call: Call) -> dict[str, Any]:
    """Start an export of users."""
    service, settings = call.service, call.service.settings
    user_ids, renew_links = read_users_export(call.body, service.world), call.renew_links

    def render() -> Iterator[bytes]:
        _refuse_prolific(service.world, user_ids)
        return render_users_export(
            service.world,
            user_ids,
            shape=settings.shape,
            references=settings.references,
            gzip=settings.gzip,
            renew_links=renew_links,
        )

    return _accept(call, ExportKind.USERS, "export.jsonl.gz" if settings.gzip else "export.jsonl", render)


async def get_task(call: Call) -> dict[str, Any]:
    """Return the state of a task."""
    return _task_reply(call, kinds=frozenset(ExportKind))


async def get_channels_export(call: Call) -> dict[str, Any]:
    """Return the state of a channels export: the former status endpoint, which does not know exports of users."""
    return _task_reply(call, kinds=frozenset({ExportKind.CHANNELS}))


async def export_one_user(call: Call) -> dict[str, Any]:
    """Return everything of one user, at once."""
    user_id, world, renew_links = call.request.path_params["user_id"], call.service.world, call.renew_links
    if world.user(user_id) is None:
        raise not_found(f"Can't find user with id {user_id}")

    def read() -> dict[str, Any]:
        if world.count_messages_of(user_id) > MAX_MESSAGES_PER_USER:
            raise ApiError(400, ApiCode.INPUT, _too_many(user_id))
        if world.has_more_reactions_by(user_id, MAX_REACTIONS_PER_USER):
            raise ApiError(400, ApiCode.INPUT, f"user {user_id} has more than {MAX_REACTIONS_PER_USER} reactions")
        reply: dict[str, Any] = call.family.encode(export_user(world, user_id, renew_links))
        return reply

    return await call.service.readers.read(read)


async def channels(call: Call) -> dict[str, Any]:
    """Return a page of the channels that match a query."""
    query = ChannelsQuery.from_body(call.body)
    world, family = call.service.world, call.family
    renew_links = call.renew_links
    return {
        "channels": await call.service.readers.read(lambda: family.encode(query_channels(world, query, renew_links)))
    }


async def rate_limits(call: Call) -> dict[str, Any]:
    """Return what is left of each limit, without using any of it."""
    query = call.request.query_params
    wanted = {name for name in query.get("endpoints", "").split(",") if name}
    endpoints = [name for name in PER_MINUTE if not wanted or name in wanted]
    platforms = [name for name in PLATFORMS if query.get(name) == "true"] or PLATFORMS
    used = {name: call.service.limits.quota(name).to_json() for name in endpoints}
    # Only servers call the sandbox, so the limits of all other platforms are untouched.
    unused = {name: {**quota, "remaining": quota["limit"]} for name, quota in used.items()}
    return {platform: used if platform == "server_side" else unused for platform in platforms}


async def retention_policy(call: Call) -> dict[str, Any]:
    """Return the app's retention policies, in the form of the official SDK ``getstream`` 7.0.0."""
    return {
        "policies": [
            {
                "app_pk": 1,
                "policy": policy.target.value,
                "config": {"max_age_hours": policy.max_age_hours},
                "enabled_at": call.family.time(policy.enabled_at) if policy.enabled_at else None,
            }
            for policy in call.service.retention.policies()
        ]
    }


def _accept(call: Call, kind: ExportKind, file_name: str, render: Callable[[], Iterator[bytes]]) -> dict[str, Any]:
    fate = call.service.faults.take_fate(call.request.method, call.request.url.path)
    return {"task_id": call.service.tasks.create(kind, file_name, render, fate).id}


def _task_reply(call: Call, *, kinds: frozenset[ExportKind]) -> dict[str, Any]:
    task_id = call.request.path_params["task_id"]
    task = call.service.tasks.find(task_id)
    if task is None or task.kind not in kinds:
        raise not_found(f'Can\'t find task with id "{task_id}"')
    progress = call.service.tasks.progress(task)
    reply: dict[str, Any] = {
        "task_id": task.id,
        "status": progress.status,
        "created_at": call.family.time(task.created_at),
        "updated_at": call.family.time(progress.updated_at),
    }
    match progress.outcome:
        case ExportFile():
            # Without "error": tests of the Ruby and Python SDKs assert that a completed task has none.
            return {**reply, "result": _result_reply(call, task)}
        case Failure() as failure:
            return {**reply, "result": None, "error": {"type": failure.type, "description": failure.description}}
        case None:
            return {**reply, "result": None, "error": None}


def _result_reply(call: Call, task: Task) -> dict[str, str]:
    return {
        "url": call.service.links.sign(call.origin, task.link_path),
        "path": task.link_path.removeprefix("/download/"),
        "s3_bucket_name": "sandbox",
    }


def _refuse_prolific(world: World, user_ids: tuple[str, ...]) -> None:
    for user_id in user_ids:
        if world.count_messages_of(user_id) > MAX_MESSAGES_PER_USER:
            raise ExportFailedError("ValidationError", _too_many(user_id))


def _too_many(user_id: str) -> str:
    return f"user {user_id} has more than {MAX_MESSAGES_PER_USER} messages; contact support to export them"
