"""Users, channels, members and reads as complete API objects. Everything follows from hashes of their ids."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.sandbox.chat.chronicle import Record
from airflow_provider_chatexport.sandbox.chat.timestamps import DAY_US, MINUTE_US, SECOND_US, stamp, to_us
from airflow_provider_chatexport.sandbox.chat.validation import with_service_times

_FIRST_ACCOUNT_US: Final = to_us(datetime(2021, 3, 1, tzinfo=UTC))
_LAST_ACCOUNT_US: Final = to_us(datetime(2024, 12, 1, tzinfo=UTC))
_CONFIG_CREATED_AT: Final = "2021-03-01T19:29:10.634629Z"
_CONFIG_UPDATED_AT: Final = "2024-12-19T12:08:48.048363Z"

_FIRST_NAMES: Final = (
    "Ada", "Bram", "Chidi", "Dunya", "Emeka", "Fien", "Goran", "Hana", "Ines", "Jun", "Kofi", "Lotte",
    "Mira", "Nils", "Oya", "Pim", "Quinn", "Rosa", "Sven", "Tove", "Uma", "Vik", "Wen", "Zoë",
)  # fmt: skip
_LAST_NAMES: Final = (
    "Achterberg", "Bakker", "Castillo", "Demir", "Eriksen", "Fofana", "García", "Haddad", "Ito", "Jansen",
    "Kowalski", "Lindqvist", "Moreau", "Nguyen", "O'Brien", "Petrov", "Rossi", "Santos", "Tanaka", "van Dijk",
)  # fmt: skip
_PLACES: Final = ("", "Rotterdam", "Bogotá", "Ōsaka", "Lagos", "Gdańsk")
_LANGUAGES: Final = ("en", "en", "en", "nl", "de", "es", "")
_TEAMS: Final = ("blue", "red", "green")
_PUSH_PROVIDERS: Final = ("firebase", "apn", "huawei", "xiaomi")


def user(user_id: str, *, world_ends_us: int) -> dict[str, Any]:
    """Return the complete UserResponse of an author, who was last active within a day after the last message."""
    digest = _hash("user", user_id)
    created_us = _FIRST_ACCOUNT_US + _number(digest[0:8]) % (_LAST_ACCOUNT_US - _FIRST_ACCOUNT_US)
    fields: dict[str, Any] = {
        "id": user_id,
        "role": "admin" if digest[8] < 3 else "moderator" if digest[8] < 10 else "user",
        "created_at": stamp(created_us),
        "updated_at": stamp(created_us + _number(digest[9:14]) % (20 * DAY_US)),
    }
    if digest[14] < 240:
        active_us = world_ends_us + _number(digest[15:20]) % DAY_US
        fields["last_active"] = stamp(active_us, extra_ns=1 + _number(digest[15:20]) % 999)
        fields["last_engaged_at"] = stamp(active_us // DAY_US * DAY_US + _number(digest[20:24]) % (3600 * SECOND_US))
    fields |= {
        "banned": digest[24] < 2,
        "online": digest[25] < 10,
        "name": f"{_FIRST_NAMES[digest[26] % len(_FIRST_NAMES)]} {_LAST_NAMES[digest[27] % len(_LAST_NAMES)]}",
    }
    if digest[28] < 160:
        fields["image"] = f"https://cdn.example.com/u/{user_id}.png"
    fields |= {
        "language": _LANGUAGES[digest[29] % len(_LANGUAGES)],
        "teams": [_TEAMS[digest[30] % 3]] if digest[30] < 64 else [],
        "invisible": digest[31] == 0,
        "shadow_banned": digest[31] == 1,
        "blocked_user_ids": [],
        "custom": _user_custom(digest),
    }
    return fields


def _user_custom(digest: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if digest[32] < 128:
        fields["birthland"] = _PLACES[digest[33] % len(_PLACES)]
    if digest[32] % 4 == 0:
        fields["preferences"] = {"theme": "dark" if digest[34] % 2 else "light", "digest": {"hour": digest[34] % 24}}
    if digest[32] % 16 == 1:
        fields["karma"] = digest[34] * 17
    return fields


def devices(person: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the push devices of a user: none, one or two. Each was added after the account was created."""
    digest = _hash("device", person["id"])
    created_us = to_us(parse_rfc3339(person["created_at"]))
    fields: list[dict[str, Any]] = []
    for number in range(digest[0] % 3):
        is_disabled = digest[1 + number] < 16
        fields.append(
            {
                "id": f"{digest[16 * (1 + number) : 16 * (2 + number)].hex()}:push",
                "user_id": person["id"],
                "created_at": stamp(created_us + _number(digest[4 : 9 + number]) % (200 * DAY_US)),
                "disabled": is_disabled,
                **({"disabled_reason": "provider creds are not valid"} if is_disabled else {}),
                "push_provider_type": _PUSH_PROVIDERS[digest[9 + number] % len(_PUSH_PROVIDERS)],
            }
        )
    return fields


def new_user(user_id: str, fields: Mapping[str, Any], *, at: str) -> dict[str, Any]:
    """Return the complete UserResponse of a user who comes with a control call.

    :param fields: what the call says about them, checked by ``validation.check_message``.
    :raises ValueError: a time is not a time.
    """
    defaults: dict[str, Any] = {
        "id": user_id,
        "role": "user",
        "created_at": at,
        "updated_at": at,
        "last_active": at,
        "banned": False,
        "online": False,
        "name": user_id,
        "language": "",
        "teams": [],
        "invisible": False,
        "shadow_banned": False,
        "blocked_user_ids": [],
        "custom": {},
    }
    known = {*defaults, "image", "last_engaged_at"}
    given = {key: value for key, value in fields.items() if key in known - {"id", "custom"} and value is not None}
    extra = {key: value for key, value in fields.items() if key not in known}
    custom = {**(fields.get("custom") or {}), **extra}
    return {**defaults, **with_service_times(given), "custom": custom}


def channel(
    cid: str, *, members: Sequence[Mapping[str, Any]], born_us: int, truncated_us: int | None, deleted_us: int | None
) -> dict[str, Any]:
    """Return the complete ChannelResponse without ``last_message_at``, which moves with its messages.

    ``config.commands`` is a list of objects, as in the API; an export file has their names.
    """
    channel_type, _, channel_id = cid.partition(":")
    digest = _hash("channel", cid)
    created_at = stamp(born_us - _number(digest[0:6]) % (20 * DAY_US) - MINUTE_US)
    fields: dict[str, Any] = {
        "cid": cid,
        "id": channel_id,
        "type": channel_type,
        "created_by": members[0]["user"] if members else None,
        "created_at": created_at,
        "updated_at": created_at,
        "frozen": False,
        "disabled": False,
        "member_count": len(members),
        "config": config(channel_type),
        "custom": {
            "name": channel_id.replace("-", " ").title(),
            "topic": {"text": f"All about {channel_id}", "set_by": members[0]["user_id"] if members else None},
            "archive_after_days": 30 + digest[6],
        },
        "auto_translation_language": "",
    }
    if digest[7] % 2:
        fields["team"] = _TEAMS[digest[7] % 3]
    if truncated_us is not None:
        fields["truncated_at"] = stamp(truncated_us)
        fields["truncated_by"] = fields["created_by"]
    if deleted_us is not None:
        fields["deleted_at"] = stamp(deleted_us)
    return fields


def config(channel_type: str) -> dict[str, Any]:
    """Return ChannelConfigWithInfo: the values of a real export of January 2025, then the flags that are newer."""
    return {
        "name": channel_type,
        "typing_events": True,
        "read_events": True,
        "connect_events": True,
        "search": True,
        "reactions": True,
        "replies": True,
        "quotes": True,
        "mutes": True,
        "uploads": True,
        "url_enrichment": True,
        "custom_events": True,
        "push_notifications": True,
        "reminders": False,
        "mark_messages_pending": False,
        "polls": True,
        "message_retention": "infinite",
        "max_message_length": 5000,
        "automod": "AI",
        "automod_behavior": "flag",
        "blocklist_behavior": "flag",
        "automod_thresholds": {
            "explicit": {"flag": 0.85, "block": 0.9},
            "spam": {"flag": 0.85, "block": 0.9},
            "toxic": {"flag": 0.85, "block": 0.9},
        },
        "skip_last_msg_update_for_system_msgs": False,
        "created_at": _CONFIG_CREATED_AT,
        "updated_at": _CONFIG_UPDATED_AT,
        "commands": [
            {"name": name, "description": f"{name.title()} by typing it", "args": "[text]", "set": f"{name}_set"}
            for name in ("giphy", "mute", "unmute", "ban", "unban")
        ],
        "count_messages": False,
        "delivery_events": False,
        "shared_locations": False,
        "user_message_reminders": False,
    }


def member(cid: str, person: Mapping[str, Any], *, is_owner: bool, born_us: int) -> dict[str, Any]:
    """Return the complete ChannelMemberResponse.

    It does not name its channel: members of a real export have no ``cid``.
    """
    digest = _hash("member", f"{cid} {person['id']}")
    joined_at = stamp(born_us - _number(digest[0:6]) % MINUTE_US)
    return {
        "user_id": person["id"],
        "user": dict(person),
        "status": "member",
        "created_at": joined_at,
        "updated_at": joined_at,
        "banned": digest[6] < 3,
        "shadow_banned": False,
        "archived_at": None,
        "pinned_at": None,
        "role": "owner" if is_owner else "moderator" if digest[7] < 10 else "member",
        "channel_role": "channel_moderator" if digest[7] < 10 else "channel_member",
        "notifications_muted": digest[8] < 20,
        "custom": {"nickname": f"@{person['id'][-4:]}", "seat": digest[10]} if digest[9] < 40 else {},
    }


def read(
    cid: str,
    person: Mapping[str, Any],
    last_messages: Sequence[Record],
    *,
    n_recent: int,
    is_present: Callable[[Record], bool],
    born_us: int,
) -> dict[str, Any]:
    """Return the complete ReadStateResponse of a member.

    The member has read up to one of the channel's ``n_recent`` last messages, or nothing yet. Removed messages are not
    unread and cannot be named; when they were read does not change.

    :param last_messages: the channel's last records, removed ones included.
    :param is_present: whether a record has not been removed.
    :param born_us: when the channel began; a member who has read nothing has read up to there.
    """
    digest = _hash("read", f"{cid} {person['id']}")
    n_seen = len(last_messages) - (digest[0] % n_recent if n_recent else 0)
    fields: dict[str, Any] = {
        "user": dict(person),
        "last_read": stamp(born_us),
        "unread_messages": sum(map(is_present, last_messages[n_seen:])),
    }
    if last_messages:
        fields["last_read"] = stamp(last_messages[n_seen - 1].at_us + 1 + _number(digest[1:4]))
    seen_id = next((message.id for message in reversed(last_messages[:n_seen]) if is_present(message)), None)
    return fields if seen_id is None else {**fields, "last_read_message_id": seen_id}


def _hash(kind: str, text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=48, person=kind.encode()).digest()


def _number(some: bytes) -> int:
    return int.from_bytes(some, "big")
