"""From the bodies of the export endpoints to jobs. Wrong ones are refused as the service refuses them.

The service documents 25 channels and 25 users a request ("Exporting Data"). It is an assumption that one missing
channel or user refuses the whole request, and with which number: the service's tests show only the words "Can't find
channel".
"""

from __future__ import annotations

from datetime import datetime

from airflow_provider_chatexport.core.plan import MAX_CHANNELS_PER_EXPORT, MAX_USERS_PER_EXPORT, ExportFlags, parse_cid
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.sandbox.chat.world import World
from airflow_provider_chatexport.sandbox.exports.render import ExportJob
from airflow_provider_chatexport.sandbox.exports.signed_links import RenewLinks
from airflow_provider_chatexport.sandbox.settings import SandboxSettings
from airflow_provider_chatexport.sandbox.web.request_body import RequestBody, objects
from airflow_provider_chatexport.sandbox.web.responses import input_error, not_found


def read_channels_export(
    body: RequestBody, world: World, settings: SandboxSettings, *, renew_links: RenewLinks | None
) -> ExportJob:
    """Return the job of an ExportChannels body.

    :raises ApiError: 400 for a wrong body, 404 for a channel that does not exist.
    """
    items = body.required_items("channels")
    if len(items) > MAX_CHANNELS_PER_EXPORT:
        raise input_error(
            f"channels must contain maximum {MAX_CHANNELS_PER_EXPORT} items, not {len(items)}", field="channels"
        )
    entries = objects(items, path="channels")
    flags = _read_flags(body)
    _refuse_csv(body)
    cids = tuple(_read_cid(entry) for entry in entries)
    windows = tuple(_read_window(entry) for entry in entries)
    for cid in cids:
        deleted = world.channel_is_deleted(cid)
        if world.channel(cid) is None or (deleted and not flags.include_soft_deleted_channels):
            raise not_found(f"Can't find channel with id {cid}")
    return ExportJob(
        cids=cids,
        windows=windows,
        flags=flags,
        bounds=settings.bounds,
        shape=settings.shape,
        references=settings.references,
        gzip=settings.gzip,
        renew_links=renew_links,
    )


def read_users_export(body: RequestBody, world: World) -> tuple[str, ...]:
    """Return the user ids of an ExportUsers body.

    :raises ApiError: 400 for a wrong body, 404 for a user who does not exist.
    """
    user_ids = tuple(body.texts("user_ids"))
    if len(user_ids) > MAX_USERS_PER_EXPORT:
        raise input_error(
            f"user_ids must contain maximum {MAX_USERS_PER_EXPORT} items, not {len(user_ids)}", field="user_ids"
        )
    for user_id in user_ids:
        if world.user(user_id) is None:
            raise not_found(f"Can't find user with id {user_id}")
    return user_ids


def _read_flags(body: RequestBody) -> ExportFlags:
    version = body.text("version") or "v1"
    if version not in ("v1", "v2"):
        raise input_error("version must be one of v1, v2", field="version")
    return ExportFlags(
        version="v2" if version == "v2" else "v1",
        include_truncated_messages=body.flag("include_truncated_messages"),
        include_soft_deleted_channels=body.flag("include_soft_deleted_channels"),
        clear_deleted_message_text=body.flag("clear_deleted_message_text"),
        export_users=body.flag("export_users"),
    )


def _refuse_csv(body: RequestBody) -> None:
    chosen = body.text("format") or "json"
    if chosen not in ("json", "csv"):
        raise input_error("format must be one of json, csv", field="format")
    if chosen == "csv":
        # The columns are not published, and an invented table would prove nothing.
        raise input_error("the sandbox does not write the format csv; use json", field="format")
    if body.items("include_fields"):
        raise input_error("include_fields is only allowed with format csv", field="include_fields")


def _read_cid(entry: RequestBody) -> str:
    cid, channel_type, channel_id = entry.text("cid"), entry.text("type"), entry.text("id")
    if not cid and not (channel_type and channel_id):
        field = entry.name_of("cid")
        raise input_error(f"either {field} or both type and id are required", field=field)
    spelled = cid or f"{channel_type}:{channel_id}"
    try:
        parsed = parse_cid(spelled)
    except CallError:
        raise input_error(f"{entry.name_of('cid')} must have the form type:id", field=entry.name_of("cid")) from None
    if channel_type and channel_id and parsed != f"{channel_type}:{channel_id}":
        raise input_error(f"{entry.name_of('cid')} names another channel than type and id", field=entry.name_of("cid"))
    return parsed


def _read_window(entry: RequestBody) -> tuple[datetime | None, datetime | None]:
    since, until = entry.time("messages_since"), entry.time("messages_until")
    if since is not None and until is not None and since > until:
        field = entry.name_of("messages_since")
        raise input_error(f"{field} must be before messages_until", field=field)
    return since, until
