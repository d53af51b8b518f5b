"""The objects of an export file: which keys in which order, and where the custom fields are.

v1 is known from one real export of January 2025: its keys, their order, custom fields flat in the object. The documents
say that v2 follows the regular API, so it has all keys. Where its custom fields are is not known: so most objects have
them flat, some under ``custom``, and a few in both places. An id always has the same place.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Final

import orjson

Fields = dict[str, Any]

_V1_USER: Final = (
    "id", "role", "teams", "created_at", "updated_at", "last_active", "last_engaged_at", "banned", "online", "name",
    "image",
)  # fmt: skip
_V1_CHANNEL: Final = (
    "cid", "id", "type", "last_message_at", "created_by", "created_at", "updated_at", "deleted_at", "truncated_at",
    "truncated_by", "frozen", "disabled", "member_count", "config", "auto_translation_language", "team",
)  # fmt: skip
_V1_MESSAGE: Final = (
    "id", "text", "html", "type", "user", "attachments", "latest_reactions", "own_reactions", "reaction_counts",
    "reaction_scores", "reaction_groups", "parent_id", "show_in_channel", "quoted_message_id", "quoted_message",
    "reply_count", "deleted_reply_count", "thread_participants", "cid", "created_at", "updated_at", "deleted_at",
    "message_text_updated_at", "shadowed", "mentioned_users", "i18n", "moderation", "silent", "pinned", "pinned_at",
    "pinned_by", "pin_expires",
)  # fmt: skip
_V1_MEMBER: Final = (
    "user_id", "user", "status", "created_at", "updated_at", "banned", "shadow_banned", "archived_at", "pinned_at",
    "role", "channel_role", "notifications_muted",
)  # fmt: skip
# Keys that are newer than the real export, whose config ends with its commands.
_NEWER_CONFIG: Final = ("count_messages", "delivery_events", "shared_locations", "user_message_reminders")


class Layout:
    """Lays objects of the world out for one version of the export file. Users are encoded once and kept as bytes."""

    def __init__(self, *, version: str) -> None:
        self._is_v1 = version == "v1"
        self._users: dict[str, orjson.Fragment] = {}

    def user(self, user: Fields | None) -> Any:
        """Return a user, for a line of its own or inside another object."""
        if user is None:
            return None
        laid_out = self._users.get(user["id"])
        if laid_out is None:
            fields = _only(user, _V1_USER) if self._is_v1 else user
            if self._is_v1 and not user["teams"]:
                del fields["teams"]
            laid_out = self._users[user["id"]] = orjson.Fragment(to_json(self._with_custom(fields, user, user["id"])))
        return laid_out

    def channel(self, channel: Fields) -> Fields:
        """Return a channel, with the names of its commands instead of objects."""
        fields = _only(channel, _V1_CHANNEL) if self._is_v1 else channel.copy()
        config = {k: v for k, v in channel["config"].items() if not (self._is_v1 and k in _NEWER_CONFIG)}
        fields["config"] = config | {"commands": [command["name"] for command in config["commands"]]}
        self._embed_users(fields, "created_by", "truncated_by")
        return self._with_custom(fields, channel, channel["cid"])

    def member(self, member: Fields) -> Fields:
        """Return a member."""
        fields = _only(member, _V1_MEMBER) if self._is_v1 else member.copy()
        self._embed_users(fields, "user")
        return self._with_custom(fields, member, member["user_id"])

    def read(self, read: Fields) -> Fields:
        """Return a read state."""
        return {**read, "user": self.user(read["user"])}

    def reaction(self, reaction: Fields) -> Fields:
        """Return a reaction."""
        fields = {key: value for key, value in reaction.items() if key != "custom"}
        fields["user"] = self.user(reaction["user"])
        return self._with_custom(fields, reaction, reaction["user_id"])

    def message(self, message: Fields) -> Fields:
        """Return a message, with everything that it contains."""
        fields = _only(message, _V1_MESSAGE) if self._is_v1 else message.copy()
        self._embed_users(fields, "user", "pinned_by")
        if message["attachments"]:
            fields["attachments"] = _each(self._attachment, message["attachments"])
        if message["latest_reactions"]:
            fields["latest_reactions"] = _each(self.reaction, message["latest_reactions"])
        if message["reaction_groups"]:
            fields["reaction_groups"] = {kind: self._group(g) for kind, g in message["reaction_groups"].items()}
        for several in ("mentioned_users", "thread_participants"):
            if message.get(several):
                fields[several] = _each(self.user, message[several])
        if message.get("quoted_message"):
            fields["quoted_message"] = self.message(message["quoted_message"])
        return self._with_custom(fields, message, message["id"])

    def _group(self, group: Fields) -> Fields:
        latest = [{**by, "user": self.user(by["user"])} for by in group["latest_reactions_by"]]
        return {**group, "latest_reactions_by": latest}

    def _attachment(self, attachment: Fields) -> Fields:
        return self._with_custom(attachment.copy(), attachment, attachment.get("og_scrape_url") or "")

    def _embed_users(self, fields: Fields, *names: str) -> None:
        for name in names:
            if fields.get(name):
                fields[name] = self.user(fields[name])

    def _with_custom(self, fields: Fields, source: Fields, identity: str) -> Fields:
        """Return ``fields`` with the custom fields of ``source`` where this version and this object have them."""
        custom = source.get("custom") or {}
        place = 0 if self._is_v1 else zlib.crc32(identity.encode()) % 32
        if place < 24:  # flat
            return {**_without_custom(fields), **_new(custom, fields)}
        if place < 30:  # nested
            return {**fields, "custom": custom}
        # Both: every other one flat, the rest nested; a single one in both places.
        flat = dict(list(custom.items())[::2])
        nested = custom if len(custom) == 1 else {key: value for key, value in custom.items() if key not in flat}
        return {**_without_custom(fields), **_new(flat, fields), "custom": nested}


def to_json(value: Any) -> bytes:
    """Return compact JSON, escaped as Go's encoder escapes HTML (seen in a real export), with integers of any size."""
    try:
        encoded = orjson.dumps(value)
    except orjson.JSONEncodeError:
        encoded = orjson.dumps(_with_raw_integers(value))
    # JSON has these characters inside strings only, so replacing bytes replaces inside strings.
    if b"<" in encoded or b">" in encoded or b"&" in encoded:
        encoded = encoded.replace(b"<", rb"\u003c").replace(b">", rb"\u003e").replace(b"&", rb"\u0026")
    return encoded.replace(b"\xe2\x80\xa8", rb"\u2028").replace(b"\xe2\x80\xa9", rb"\u2029")


def _with_raw_integers(value: Any) -> Any:
    """Return the value with integers past 64 bits as raw JSON, because orjson refuses them."""
    if isinstance(value, dict):
        return {key: _with_raw_integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_raw_integers(item) for item in value]
    return orjson.Fragment(str(value)) if type(value) is int and value.bit_length() > 63 else value


def _only(fields: Fields, keys: tuple[str, ...]) -> Fields:
    return {key: fields[key] for key in keys if key in fields}


def _without_custom(fields: Fields) -> Fields:
    return {key: value for key, value in fields.items() if key != "custom"} if "custom" in fields else fields


def _new(custom: Fields, fields: Fields) -> Fields:
    return {key: value for key, value in custom.items() if key not in fields}


def _each(lay_out: Callable[[Fields], Any], items: list[Fields]) -> list[Any]:
    return [lay_out(item) for item in items]
