"""What control calls have made of the past: edits, deletions and additions, as values laid over records that stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.sandbox.chat import message_objects, people
from airflow_provider_chatexport.sandbox.chat.timestamps import stamp, to_us
from airflow_provider_chatexport.sandbox.chat.validation import ATTACHMENT, REACTION, USER, moment, spelled

_PLAIN_FIELDS: Final = frozenset(
    {
        "text", "html", "type", "mml", "command", "poll_id", "parent_id", "quoted_message_id", "show_in_channel",
        "silent", "shadowed", "pinned", "deleted_for_me", "mentioned_channel", "mentioned_here", "mentioned_roles",
        "mentioned_group_ids", "restricted_visibility", "i18n", "image_labels", "moderation", "poll", "shared_location",
    }
)  # fmt: skip
_TIME_FIELDS: Final = frozenset({"updated_at", "deleted_at", "message_text_updated_at", "pinned_at", "pin_expires"})
_RESOLVED_FIELDS: Final = frozenset({"attachments", "mentioned_users", "pinned_by", "latest_reactions", "custom"})
_FIXED_FIELDS: Final = frozenset({"id", "cid", "created_at", "user", "user_id", "parent_id"})
_COUNTED_FIELDS: Final = frozenset(
    {
        "own_reactions", "reaction_counts", "reaction_scores", "reaction_groups", "reply_count", "deleted_reply_count",
        "thread_participants", "quoted_message",
    }
)  # fmt: skip
_ATTACHMENT_FIELDS: Final = frozenset(
    {
        "type", "title", "title_link", "og_scrape_url", "image_url", "asset_url", "thumb_url", "text", "fallback",
        "author_name", "author_link", "author_icon", "color", "footer", "footer_icon", "pretext", "original_height",
        "original_width", "actions", "fields", "giphy",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """All changes so far. A new one makes a new value, so that who has begun to read goes on reading one state."""

    patches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    added: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    replies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    users: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def patched(self, message_id: str, patch: Mapping[str, Any]) -> Changes:
        """With a message changed; custom fields are added to those it has."""
        old = self.patches.get(message_id, {})
        merged = {**old, **patch, "custom": {**old.get("custom", {}), **patch.get("custom", {})}}
        return replace(self, patches={**self.patches, message_id: merged})

    def without(self, message_id: str) -> Changes:
        """With a message gone for good."""
        return replace(self, gone=self.gone | {message_id})

    def with_message(self, message: Mapping[str, Any]) -> Changes:
        """With a complete message more."""
        replies = dict(self.replies)
        if message.get("parent_id"):
            replies[message["parent_id"]] = (*replies.get(message["parent_id"], ()), message["id"])
        return replace(self, added={**self.added, message["id"]: message}, replies=replies)

    def with_users(self, users: Mapping[str, Mapping[str, Any]]) -> Changes:
        """With people more."""
        return replace(self, users={**self.users, **users}) if users else self

    def apply(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message as it stands after its edits: always a new object."""
        patch = self.patches.get(message["id"])
        if patch is None:
            return dict(message)
        return {**message, **patch, "custom": {**message["custom"], **patch["custom"]}}

    def is_deleted(self, message_id: str) -> bool:
        """Whether a control call has soft-deleted it."""
        return self.patches.get(message_id, {}).get("type") == "deleted"

    def added_where(self, belongs: Callable[[Mapping[str, Any]], bool]) -> list[tuple[int, Mapping[str, Any]]]:
        """(microseconds, message) of added messages that are still there, ascending."""
        there = [message for message in self.added.values() if message["id"] not in self.gone and belongs(message)]
        return sorted(((_created_us(message), message) for message in there), key=lambda entry: entry[0])


class Newcomers:
    """Turns ids and partial users into complete ones, and remembers whom nobody knew before."""

    def __init__(self, known: Callable[[str], dict[str, Any] | None], at: datetime) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self._known = known
        self._at = stamp(to_us(at))

    def user(self, given: Any) -> dict[str, Any]:
        """The user with an id, or described by an object with one.

        :raises ValueError: neither, or a value in the object cannot be understood.
        """
        fields = given if isinstance(given, Mapping) else {"id": given}
        USER.check(fields)
        user_id = fields.get("id")
        if not isinstance(user_id, str) or not user_id:
            raise ValueError("a user is neither an id nor an object with an id")
        found = self.users.get(user_id) or self._known(user_id)
        if found is None:
            found = self.users[user_id] = people.new_user(user_id, fields, at=self._at)
        return found


def edit_patch(message_id: str, fields: Mapping[str, Any], newcomers: Newcomers, at: datetime) -> dict[str, Any]:
    """An edit as the service records it: ``updated_at``, and ``message_text_updated_at`` when the text changes.

    ``latest_reactions`` replaces all reactions (at most ten): that is how a reaction comes late, or goes.

    :raises ValueError: the edit would move the message or change its author, or a value cannot be understood.
    """
    fixed = sorted(_FIXED_FIELDS & fields.keys())
    if fixed:
        raise ValueError(f"{', '.join(fixed)} of a message cannot be edited")
    edited_at = stamp(to_us(at))
    patch = {"updated_at": edited_at, **_understood(message_id, fields, newcomers, at)}
    if "text" in fields:
        patch = {"html": message_objects.to_html(fields["text"]), "message_text_updated_at": edited_at, **patch}
    return patch


def delete_patch(at: datetime) -> dict[str, Any]:
    """A soft deletion as the service records it: the text stays."""
    deleted_at = stamp(to_us(at))
    return {"type": "deleted", "deleted_at": deleted_at, "updated_at": deleted_at}


def new_message(
    message_id: str, fields: Mapping[str, Any], user: Mapping[str, Any], newcomers: Newcomers, at: datetime
) -> dict[str, Any]:
    """A complete message from what is given of it; keys that the service does not know become custom fields.

    :raises ValueError: a value cannot be understood.
    """
    created = moment("created_at", fields.get("created_at")) or at
    created_at = stamp(to_us(created))
    return {
        "id": message_id,
        "text": "",
        "html": message_objects.to_html(fields.get("text") or ""),
        "type": "reply" if fields.get("parent_id") else "regular",
        "user": user,
        "attachments": [],
        **message_objects.reaction_summary([]),
        "reply_count": 0,
        "deleted_reply_count": 0,
        "cid": fields["cid"],
        "created_at": created_at,
        "updated_at": created_at,
        "shadowed": False,
        "mentioned_users": [],
        "silent": False,
        "pinned": False,
        "pinned_at": None,
        "pinned_by": None,
        "pin_expires": None,
        "mentioned_channel": False,
        "mentioned_here": False,
        "restricted_visibility": [],
        **_understood(message_id, fields, newcomers, created),
    }


def _understood(message_id: str, fields: Mapping[str, Any], newcomers: Newcomers, at: datetime) -> dict[str, Any]:
    """Given fields as the world keeps them: times in the service's spelling, people complete, the rest ``custom``."""
    counted = sorted(_COUNTED_FIELDS & fields.keys())
    if counted:
        raise ValueError(f"{', '.join(counted)} of a message follow from other things and cannot be set")
    if not isinstance(fields.get("text", ""), str):
        raise ValueError("text of a message is not a string")  # noqa: TRY004 - the caller's words, not a program's types
    made = spelled({key: value for key, value in fields.items() if key in _PLAIN_FIELDS | _TIME_FIELDS})
    if "attachments" in fields:
        made["attachments"] = [_attachment(item) for item in _objects(fields, "attachments")]
    if "mentioned_users" in fields:
        made["mentioned_users"] = [newcomers.user(given) for given in fields["mentioned_users"] or []]
    if fields.get("pinned_by"):
        made["pinned_by"] = newcomers.user(fields["pinned_by"])
    if "latest_reactions" in fields:
        made |= message_objects.reaction_summary(
            _reactions(message_id, _objects(fields, "latest_reactions"), newcomers, at)
        )
    known = _PLAIN_FIELDS | _TIME_FIELDS | _RESOLVED_FIELDS | _FIXED_FIELDS
    extra = {key: value for key, value in fields.items() if key not in known}
    return {**made, "custom": {**(fields.get("custom") or {}), **extra}}


def _objects(fields: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    items = fields[name] or []
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise ValueError(f"{name} of a message is not a list of objects")
    return items


def _reactions(
    message_id: str, given: list[Mapping[str, Any]], newcomers: Newcomers, at: datetime
) -> list[dict[str, Any]]:
    """Reactions from what is said of them (``user_id`` or ``user`` at least), oldest first."""
    if len(given) > message_objects.MAX_LATEST_REACTIONS:
        raise ValueError(f"a message holds at most {message_objects.MAX_LATEST_REACTIONS} latest_reactions")
    made = []
    for reaction in given:
        REACTION.check(reaction)
        user = newcomers.user(reaction.get("user") or reaction.get("user_id"))
        created_at = stamp(to_us(moment("created_at", reaction.get("created_at")) or at))
        made.append(
            {
                "message_id": message_id,
                "user_id": user["id"],
                "user": user,
                "type": reaction.get("type", "like"),
                "score": reaction.get("score", 1),
                "created_at": created_at,
                "updated_at": created_at,
                "custom": reaction.get("custom") or {},
            }
        )
    return sorted(made, key=_created_us)


def _attachment(given: Mapping[str, Any]) -> dict[str, Any]:
    ATTACHMENT.check(given)
    extra = {key: value for key, value in given.items() if key not in _ATTACHMENT_FIELDS and key != "custom"}
    known = spelled({key: value for key, value in given.items() if key in _ATTACHMENT_FIELDS})
    return {**known, "custom": {**(given.get("custom") or {}), **extra}}


def _created_us(made: Mapping[str, Any]) -> int:
    return to_us(parse_rfc3339(made["created_at"]))
