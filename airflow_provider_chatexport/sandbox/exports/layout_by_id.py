"""The objects of an export file that names everything by id: the likely v2, after the service's old import format.

No v2 file of a real account has been seen, so each key here is a guess. In order of certainty:

* **About 80 %.** One public program reads v2 files as they come (L4VA-Technologies-Inc/l4va-api @ ce3d6beb,
  ``import-chat-data.ts``). It expects ``{"type":T,"item":{..}}``, ids in ``user`` and ``created_by``, and
  ``channel_type`` with ``channel_id`` in messages and members. It removes keys before it sends an object on. Six of
  those are in no import documentation, so they are most likely in real files: ``last_message_at`` of a channel;
  ``deleted_reply_count``, ``reaction_groups``, ``member`` and ``status`` of a message. It also removes times
  that an import cannot set. What ``status`` holds is not known; ``received`` is what the JavaScript SDK calls a message
  that arrived.
* **About 70 %.** The other keys and their names are those of the importer's structs (GetStream/stream-cli,
  ``validator/items.go``, removed in February 2026). Custom keys are flat there, and ``name`` and ``image`` of a user
  are custom. A member has ``last_read``, and reads have no lines.
* **About 60 %.** What the importer reserves is absent, because the program sends on what it does not remove, and the
  service refuses these keys: ``cid``, ``config`` and ``members`` of a channel; ``latest_reactions``, ``reply_count``,
  ``quoted_message``, ``pinned_by`` and their like of a message; ``online`` and ``last_active`` of a user.
* **Not known.** Whether keys that the structs lack are there as well (``silent``, ``i18n``, ``score`` of a reaction,
  ``deleted_at`` of a channel): they are left out. Null or absent: as in the one real v1 file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from airflow_provider_chatexport.sandbox.exports.layout import Fields

_USER: Final = (
    "id", "role", "invisible", "created_at", "updated_at", "deleted_at", "deactivated_at", "language", "teams",
    "channel_mutes", "user_mutes", "push_notifications", "name", "image",
)  # fmt: skip
_CHANNEL: Final = ("id", "type", "created_by", "frozen", "created_at", "updated_at", "last_message_at", "team")
_MEMBER: Final = (
    "channel_type", "channel_id", "user_id", "is_moderator", "invited", "last_read", "created_at", "hide_channel",
    "channel_role", "archived_at",
)  # fmt: skip
_MESSAGE: Final = (
    "id", "parent_id", "channel_type", "channel_id", "text", "html", "attachments", "user", "type", "show_in_channel",
    "created_at", "updated_at", "deleted_at", "mentioned_users_ids", "quoted_message_id", "pinned_at", "pinned_by_id",
    "pin_expires", "deleted_reply_count", "reaction_groups", "member", "status",
)  # fmt: skip
_REACTION: Final = ("message_id", "type", "user_id", "created_at")


class LayoutById:
    """Lays objects of the world out with ids in place of users and channels.

    :param members_of: returns the members of a channel; a message says what its author is there.
    """

    def __init__(self, members_of: Callable[[str], list[Fields]]) -> None:
        self._members_of = members_of
        self._memberships: dict[str, dict[str, Fields]] = {}

    def user(self, user: Fields) -> Fields:
        """Return a user, for a line of its own."""
        return _flat({**user, "channel_mutes": [], "user_mutes": [], "push_notifications": {"disabled": False}}, _USER)

    def channel(self, channel: Fields) -> Fields:
        """Return a channel, without its ``cid``."""
        return _flat({**channel, "created_by": _id_of(channel["created_by"])}, _CHANNEL)

    def member(self, member: Fields, *, cid: str, read: Fields) -> Fields:
        """Return a member of a channel, with the time of the last read."""
        is_moderator = member["channel_role"] == "channel_moderator"
        added = {"is_moderator": is_moderator, "invited": False, "hide_channel": False, "last_read": read["last_read"]}
        return _flat({**member, **_type_and_id(cid), **added}, _MEMBER)

    def message(self, message: Fields) -> Fields:
        """Return a message. Its reactions have lines of their own."""
        cid, author_id = message["cid"], _id_of(message["user"])
        fields = {
            **message,
            **_type_and_id(cid),
            "user": author_id,
            "attachments": [_flat(attachment, tuple(attachment)) for attachment in message["attachments"]],
            "mentioned_users_ids": [user["id"] for user in message["mentioned_users"]],
            "pinned_by_id": _id_of(message["pinned_by"]),
            "reaction_groups": _groups(message["reaction_groups"]),
            "status": "received",
        }
        membership = self._membership(cid).get(author_id or "")
        return _flat(fields if membership is None else {**fields, "member": membership}, _MESSAGE)

    def reaction(self, reaction: Fields) -> Fields:
        """Return a reaction. It names its message, and the message names the channel."""
        return _flat(reaction, _REACTION)

    def _membership(self, cid: str) -> dict[str, Fields]:
        memberships = self._memberships.get(cid)
        if memberships is None:
            memberships = self._memberships[cid] = {
                member["user_id"]: {key: member[key] for key in ("channel_role", "notifications_muted")}
                for member in self._members_of(cid)
            }
        return memberships


def _flat(fields: Fields, keys: tuple[str, ...]) -> Fields:
    """Return these keys of an object, as far as it has them, and its custom fields next to them."""
    known = {key: fields[key] for key in keys if key in fields and key != "custom"}
    return {**known, **{key: value for key, value in (fields.get("custom") or {}).items() if key not in known}}


def _type_and_id(cid: str) -> Fields:
    channel_type, _, channel_id = cid.partition(":")
    return {"channel_type": channel_type, "channel_id": channel_id}


def _id_of(user: Fields | None) -> str | None:
    return None if user is None else user["id"]


def _groups(groups: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return reaction groups without the users themselves; their ids are there too."""
    if groups is None:
        return None
    return {
        kind: {**group, "latest_reactions_by": [_without_user(by) for by in group["latest_reactions_by"]]}
        for kind, group in groups.items()
    }


def _without_user(fields: Fields) -> Fields:
    return {key: value for key, value in fields.items() if key != "user"}
