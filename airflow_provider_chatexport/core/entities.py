"""The entities of an export, and the shapes that a line may have.

The service documents that a v2 file has one entity per line. It documents neither the envelope nor the names. The five
shapes are candidates, the most probable first. How an object names other objects is a second question, independent of
the envelope: by id or as whole objects. The reader and the sandbox share these names.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final


class Shape(enum.Enum):
    """How one line of a v2 file wraps its entity."""

    ITEM = "item"  # {"type":"message","item":{...}}, as in the old import format; the one public reader of files has it
    TYPED = "typed"  # {"type":"message","data":{...}}, as in the import format
    KEYED = "keyed"  # {"message":{...}}
    BARE = "bare"  # the API object itself
    CHANNEL = "channel"  # {"channel":{...},"messages":[...],"members":[...],"reads":[...]}, an element of a v1 array


class References(enum.Enum):
    """How an object of a v2 file names users and its channel."""

    ID = "id"  # "user":"u1","channel_type":"messaging","channel_id":"c1"
    OBJECT = "object"  # "user":{"id":"u1","name":...},"cid":"messaging:c1"

    @classmethod
    def usual_in(cls, shape: Shape) -> References:
        """Return the references that come with an envelope: ids in ``item``, objects in all others."""
        return cls.ID if shape is Shape.ITEM else cls.OBJECT


class ExportKind(enum.Enum):
    """The service's two kinds of export. The value is the word in receipts and in links to files."""

    CHANNELS = "channels"
    USERS = "users"


class Entity(enum.Enum):
    """Entities with a table of their own. All others go to ``other_entities``, whole."""

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

# Names of the API without a table of their own.
OTHER_NAMES: Final = frozenset({"attachment", "poll", "poll_vote", "call", "device", "draft", "pin"})

ENVELOPE_NAME_KEYS: Final = ("type", "kind", "entity", "_type")
ENVELOPE_PAYLOAD_KEYS: Final = ("data", "item", "object", "payload")


def infer_bare(fields: Mapping[str, Any]) -> Entity | None:  # noqa: PLR0911 - a decision list reads best flat
    """Return the entity of an API object without an envelope, or None if no rule matches.

    Each rule names fields that only this entity has. The order matters: a reaction also has ``user_id`` and ``type``, a
    channel's ``created_by`` looks like a user, and a member or read with a ``cid`` would match the rule of messages. A
    message may have a custom key that is named like a field of channels; it also has a text and an author, which no
    channel has.
    """
    has = fields.__contains__
    is_written = has("user") and (has("text") or has("html"))
    if has("message_id") and has("user_id") and (has("type") or has("score")):
        return Entity.REACTION
    is_created = has("created_by") and not has("text")
    has_channel_fields = has("config") or has("frozen") or has("member_count") or is_created
    # With references by id, a channel has no ``cid``, and a message has an author but no object in it.
    is_named = has("cid") or (has("id") and has("type") and has("created_by"))
    if is_named and has_channel_fields and not is_written:
        return Entity.CHANNEL
    if has("user_id") and (has("channel_role") or has("is_moderator") or has("notifications_muted")):
        return Entity.MEMBER
    if has("last_read") and has("unread_messages"):
        return Entity.READ
    if has("text") or has("html") or ((has("cid") or has("channel_id")) and has("user")):
        return Entity.MESSAGE
    if has("id") and has("role") and any(map(has, ("online", "banned", "last_active", "invisible", "teams"))):
        return Entity.USER
    return None
