"""Entities of an export and the line shapes that they may come in.

The service documents that a v2 file has one entity a line, and publishes neither the envelope nor the names. The five
shapes are the candidates, most probable first; reader and sandbox share this vocabulary.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final


class Shape(enum.Enum):
    """How one line of a v2 file wraps its entity."""

    TYPED = "typed"  # {"type":"message","data":{...}}, as in the import format
    KEYED = "keyed"  # {"message":{...}}
    BARE = "bare"  # the API object itself
    CHANNEL = "channel"  # {"channel":{...},"messages":[...],"members":[...],"reads":[...]}, an element of a v1 array
    ITEM = "item"  # {"type":"message","item":{...}}, as in the old import format


class ExportKind(enum.Enum):
    """Which of the service's two exports: of channels, or of users. The value is the word in a receipt."""

    CHANNELS = "channels"
    USERS = "users"


class Entity(enum.Enum):
    """Entities with a table of their own. Any other name is kept whole in ``other_entities``."""

    CHANNEL = "channel"
    MEMBER = "member"
    MESSAGE = "message"
    REACTION = "reaction"
    READ = "read"
    USER = "user"


ALIASES: Final[Mapping[str, Entity]] = {
    **{entity.value: entity for entity in Entity},
    "channels": Entity.CHANNEL,
    "channel_member": Entity.MEMBER,
    "members": Entity.MEMBER,
    "messages": Entity.MESSAGE,
    "message_reaction": Entity.REACTION,
    "reactions": Entity.REACTION,
    "reads": Entity.READ,
    "channel_read": Entity.READ,
    "users": Entity.USER,
}

# Names that occur in the API and have no table of their own.
OTHER_NAMES: Final = frozenset({"attachment", "poll", "poll_vote", "call", "device", "draft", "pin"})

ENVELOPE_NAME_KEYS: Final = ("type", "kind", "entity", "_type")
ENVELOPE_PAYLOAD_KEYS: Final = ("data", "item", "object", "payload")


def infer_bare(fields: Mapping[str, Any]) -> Entity | None:  # noqa: PLR0911 - a decision list reads best flat
    """The entity of an API object without an envelope, from the fields that only it has; None when nothing fits.

    The order matters: a reaction has ``user_id`` and ``type`` too, a channel's ``created_by`` looks like a user, and
    members and reads that carry a ``cid`` would pass for messages. A key that is a channel's may be a custom one of a
    message, which no channel looks like: it has a text and an author.
    """
    has = fields.__contains__
    is_written = has("user") and (has("text") or has("html"))
    if has("message_id") and has("user_id") and (has("type") or has("score")):
        return Entity.REACTION
    of_channels = has("config") or has("frozen") or has("member_count") or (has("created_by") and not has("text"))
    if has("cid") and of_channels and not is_written:
        return Entity.CHANNEL
    if has("user_id") and (has("channel_role") or has("is_moderator") or has("notifications_muted")):
        return Entity.MEMBER
    if has("last_read") and has("unread_messages"):
        return Entity.READ
    if has("text") or has("html") or (has("cid") and has("user")):
        return Entity.MESSAGE
    if has("id") and has("role") and (has("online") or has("banned") or has("last_active")):
        return Entity.USER
    return None
