"""The fields that the service's API description requires, with their types, and the optional ones of the sandbox."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{0,8}[1-9])?Z")

REQUIRED: dict[str, dict[str, str]] = {
    "message": {
        "cid": "str", "html": "str", "id": "str", "text": "str", "type": "str", "created_at": "time",
        "updated_at": "time", "mentioned_channel": "bool", "mentioned_here": "bool", "pinned": "bool",
        "shadowed": "bool", "silent": "bool", "deleted_reply_count": "int", "reply_count": "int",
        "restricted_visibility": "strs", "attachments": "attachments", "latest_reactions": "reactions",
        "own_reactions": "reactions", "mentioned_users": "users", "user": "user", "custom": "map",
        "reaction_counts": "counts", "reaction_scores": "counts",
    },
    "channel": {
        "cid": "str", "id": "str", "type": "str", "created_at": "time", "updated_at": "time", "disabled": "bool",
        "frozen": "bool", "custom": "map",
    },
    "member": {
        "channel_role": "str", "created_at": "time", "updated_at": "time", "banned": "bool",
        "notifications_muted": "bool", "shadow_banned": "bool", "custom": "map",
    },
    "user": {
        "id": "str", "language": "str", "role": "str", "created_at": "time", "updated_at": "time", "banned": "bool",
        "invisible": "bool", "online": "bool", "shadow_banned": "bool", "blocked_user_ids": "strs", "teams": "strs",
        "custom": "map",
    },
    "reaction": {
        "message_id": "str", "type": "str", "user_id": "str", "score": "int", "created_at": "time",
        "updated_at": "time", "user": "user", "custom": "map",
    },
    "group": {
        "count": "int", "sum_scores": "int", "first_reaction_at": "time", "last_reaction_at": "time",
        "latest_reactions_by": "bys",
    },
    "by": {"user_id": "str", "created_at": "time"},
    "read": {"last_read": "time", "unread_messages": "int", "user": "user"},
    "attachment": {"custom": "map"},
    "moderation": {"action": "str", "original_text": "str"},
}  # fmt: skip

OPTIONAL: dict[str, dict[str, str]] = {
    "message": {
        "parent_id": "str", "quoted_message_id": "str", "deleted_at": "time", "message_text_updated_at": "time",
        "pin_expires": "time", "pinned_at": "time", "show_in_channel": "bool", "thread_participants": "users",
        "pinned_by": "user", "quoted_message": "message", "moderation": "moderation", "reaction_groups": "groups",
        "i18n": "map",
    },
    "channel": {
        "auto_translation_language": "str", "team": "str", "deleted_at": "time", "last_message_at": "time",
        "truncated_at": "time", "member_count": "int", "config": "map", "created_by": "user", "truncated_by": "user",
    },
    "member": {
        "role": "str", "status": "str", "user_id": "str", "archived_at": "time", "pinned_at": "time", "user": "user",
    },
    "user": {"image": "str", "name": "str", "last_active": "time", "last_engaged_at": "time"},
    "by": {"user": "user"},
    "read": {"last_read_message_id": "str"},
    "attachment": {
        "type": "str", "title": "str", "title_link": "str", "og_scrape_url": "str", "image_url": "str",
        "asset_url": "str", "thumb_url": "str", "text": "str", "fallback": "str", "author_name": "str",
        "original_width": "int", "original_height": "int",
    },
    "moderation": {"text_harms": "strs", "platform_circumvented": "bool"},
}  # fmt: skip


def misfits(fields: Mapping[str, Any], kind: str, where: str = "") -> list[str]:
    """Return what is wrong with an object of the service: missing, unknown and mistyped fields, at any depth."""
    where = where or kind
    required, optional = REQUIRED.get(kind, {}), OPTIONAL.get(kind, {})
    problems = [f"{where}.{name} is missing" for name in required if name not in fields]
    problems += [
        f"{where}.{name} is not a field of {kind}" for name in fields if name not in required and name not in optional
    ]
    for name, value in fields.items():
        if value is not None or name in required:
            problems += _misfits_of_value(value, required.get(name) or optional.get(name, ""), f"{where}.{name}")
    return problems


def _misfits_of_value(value: Any, kind: str, where: str) -> list[str]:
    match kind:
        case "str" | "bool" | "int":
            fits = type(value) is {"str": str, "bool": bool, "int": int}[kind]
        case "time":
            fits = isinstance(value, str) and TIME.fullmatch(value) is not None
        case "map":
            fits = isinstance(value, dict)
        case "strs":
            fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        case "counts":
            fits = isinstance(value, dict) and all(type(count) is int for count in value.values())
        case "groups":
            return [wrong for name, group in value.items() for wrong in misfits(group, "group", f"{where}.{name}")]
        case "attachments" | "reactions" | "users" | "bys":
            return [wrong for item in value for wrong in misfits(item, kind[:-1], f"{where}[]")]
        case "user" | "message" | "moderation":
            return misfits(value, kind, where)
        case _:
            return []  # misfits() has reported that there is no such field
    return [] if fits else [f"{where} is not a {kind}: {type(value).__name__}"]
