"""What has changed since the start, laid over records that stay: edits, deletions, additions, retention."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.sandbox.chat import message_objects, people
from airflow_provider_chatexport.sandbox.chat.chronicle import Record
from airflow_provider_chatexport.sandbox.chat.timestamps import stamp, to_us
from airflow_provider_chatexport.sandbox.chat.validation import (
    AttachmentFields,
    MessageFields,
    parse_time,
    with_service_times,
)

# Who wrote a message, when and where: an edit cannot change these.
_FIXED_FIELDS: Final = frozenset({"id", "cid", "created_at", "user", "user_id", "parent_id"})
# Fields whose values are completed: users, reactions and attachments are objects of their own.
_COMPLETED_FIELDS: Final = frozenset({"attachments", "mentioned_users", "pinned_by", "latest_reactions", "custom"})
_TIME_FIELDS: Final = frozenset({"updated_at", "deleted_at", "message_text_updated_at", "pinned_at", "pin_expires"})
_COPIED_FIELDS: Final = frozenset(
    MessageFields.__annotations__.keys() - _FIXED_FIELDS - _COMPLETED_FIELDS | _TIME_FIELDS | {"parent_id"}
)
_COUNTED_FIELDS: Final = frozenset(
    {
        "own_reactions", "reaction_counts", "reaction_scores", "reaction_groups", "reply_count", "deleted_reply_count",
        "thread_participants", "quoted_message",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """All changes so far. A new change makes a new value, so that a running export goes on reading one state.

    ``removed`` and ``purged_cids`` are messages and channels that were deleted for good, and so is every message of
    before ``purged_before_us``.
    """

    patches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    purged_cids: frozenset[str] = frozenset()
    purged_before_us: int = -(2**62)
    added: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    replies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    users: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def with_patch(self, message_id: str, patch: Mapping[str, Any]) -> Changes:
        """Return these changes and a patch of one message. Custom fields are added to those that it has."""
        old = self.patches.get(message_id, {})
        merged = {**old, **patch, "custom": {**old.get("custom", {}), **patch.get("custom", {})}}
        return replace(self, patches={**self.patches, message_id: merged})

    def without_message(self, message_id: str) -> Changes:
        """Return these changes and a hard deletion."""
        return replace(self, removed=self.removed | {message_id})

    def without_old(self, before_us: int, cids: Collection[str]) -> Changes:
        """Return these changes, and the hard deletion of all messages of before a time, and of whole channels."""
        return replace(
            self, purged_before_us=max(before_us, self.purged_before_us), purged_cids=self.purged_cids.union(cids)
        )

    def with_message(self, message: Mapping[str, Any]) -> Changes:
        """Return these changes and an added message, which must be complete."""
        replies = dict(self.replies)
        if message.get("parent_id"):
            replies[message["parent_id"]] = (*replies.get(message["parent_id"], ()), message["id"])
        return replace(self, added={**self.added, message["id"]: message}, replies=replies)

    def with_users(self, users: Mapping[str, Mapping[str, Any]]) -> Changes:
        """Return these changes and new users, who must be complete."""
        return replace(self, users={**self.users, **users}) if users else self

    def apply(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return a message as it is after its edits: always a new object."""
        patch = self.patches.get(message["id"])
        if patch is None:
            return dict(message)
        return {**message, **patch, "custom": {**message["custom"], **patch["custom"]}}

    def keep(self, record: Record) -> bool:
        """Return whether a message of the past has not been deleted for good."""
        return self._keep(record.id, record.cid, record.at_us)

    def keep_added(self, message: Mapping[str, Any]) -> bool:
        """Return whether an added message has not been deleted for good."""
        return self._keep(message["id"], message["cid"], _created_us(message))

    def _keep(self, message_id: str, cid: str, at_us: int) -> bool:
        return at_us >= self.purged_before_us and message_id not in self.removed and cid not in self.purged_cids

    def is_deleted(self, message_id: str) -> bool:
        """Return whether a control call has soft-deleted the message."""
        return self.patches.get(message_id, {}).get("type") == "deleted"

    def added_where(self, matches: Callable[[Mapping[str, Any]], bool]) -> list[tuple[int, Mapping[str, Any]]]:
        """Return (microseconds, message) of added messages that still exist, ascending."""
        present = [message for message in self.added.values() if self.keep_added(message) and matches(message)]
        return sorted(((_created_us(message), message) for message in present), key=lambda entry: entry[0])


class NewUsers:
    """Turns ids and partial users into complete users, and collects those whom the world does not know yet."""

    def __init__(self, known: Callable[[str], dict[str, Any] | None], at: datetime) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self._known = known
        self._at = stamp(to_us(at))

    def complete(self, user: Any) -> dict[str, Any]:
        """Return the user with this id, or the one that this object with an id describes.

        :raises ValueError: it is neither, or a time in the object is not a time.
        """
        fields = user if isinstance(user, Mapping) else {"id": user}
        user_id = fields.get("id")
        if not user_id:
            raise ValueError("a user is neither an id nor an object with an id")
        known = self.users.get(user_id) or self._known(user_id)
        if known is None:
            known = self.users[user_id] = people.new_user(user_id, fields, at=self._at)
        return known


def edit_patch(message_id: str, fields: Mapping[str, Any], new_users: NewUsers, at: datetime) -> dict[str, Any]:
    """Return an edit as the service records it.

    It sets ``updated_at``, and ``message_text_updated_at`` if the text changes. ``latest_reactions`` replaces all
    reactions (at most ten): so a reaction comes late, or goes.

    :param fields: checked by ``validation.check_message``.
    :raises ValueError: the edit would move the message or change its author, or a time is not a time.
    """
    fixed = sorted(_FIXED_FIELDS & fields.keys())
    if fixed:
        raise ValueError(f"{', '.join(fixed)} of a message cannot be edited")
    edited_at = stamp(to_us(at))
    patch = {"updated_at": edited_at, **_completed(message_id, fields, new_users, at)}
    if "text" in fields:
        patch = {"html": message_objects.to_html(fields["text"]), "message_text_updated_at": edited_at, **patch}
    return patch


def delete_patch(at: datetime) -> dict[str, Any]:
    """Return a soft deletion as the service records it: the text stays."""
    deleted_at = stamp(to_us(at))
    return {"type": "deleted", "deleted_at": deleted_at, "updated_at": deleted_at}


def new_message(
    message_id: str, fields: Mapping[str, Any], user: Mapping[str, Any], new_users: NewUsers, at: datetime
) -> dict[str, Any]:
    """Return a complete message. Fields that the service does not know become custom fields.

    :param fields: checked by ``validation.check_message``.
    :param at: when it is created, unless ``fields`` say so.
    :raises ValueError: a field cannot be set, or a time is not a time.
    """
    created = parse_time("created_at", fields.get("created_at")) or at
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
        **_completed(message_id, fields, new_users, created),
    }


def _completed(message_id: str, fields: Mapping[str, Any], new_users: NewUsers, at: datetime) -> dict[str, Any]:
    """Return fields as the world keeps them: service's times, complete users, the rest under ``custom``."""
    counted = sorted(_COUNTED_FIELDS & fields.keys())
    if counted:
        raise ValueError(f"{', '.join(counted)} of a message follow from other things and cannot be set")
    completed = with_service_times({key: value for key, value in fields.items() if key in _COPIED_FIELDS})
    if "attachments" in fields:
        completed["attachments"] = [_attachment(attachment) for attachment in fields["attachments"]]
    if "mentioned_users" in fields:
        completed["mentioned_users"] = [new_users.complete(user) for user in fields["mentioned_users"]]
    if fields.get("pinned_by"):
        completed["pinned_by"] = new_users.complete(fields["pinned_by"])
    if "latest_reactions" in fields:
        reactions = _reactions(message_id, fields["latest_reactions"] or [], new_users, at)
        completed |= message_objects.reaction_summary(reactions)
    known = _COPIED_FIELDS | _COMPLETED_FIELDS | _FIXED_FIELDS
    extra = {key: value for key, value in fields.items() if key not in known}
    return {**completed, "custom": {**fields.get("custom", {}), **extra}}


def _reactions(
    message_id: str, reactions: list[Mapping[str, Any]], new_users: NewUsers, at: datetime
) -> list[dict[str, Any]]:
    """Return complete reactions, oldest first."""
    if len(reactions) > message_objects.MAX_LATEST_REACTIONS:
        raise ValueError(f"a message holds at most {message_objects.MAX_LATEST_REACTIONS} latest_reactions")
    completed = []
    for reaction in reactions:
        user = new_users.complete(reaction.get("user") or reaction.get("user_id"))
        created_at = stamp(to_us(parse_time("created_at", reaction.get("created_at")) or at))
        completed.append(
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
    return sorted(completed, key=_created_us)


def _attachment(fields: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: value for key, value in fields.items() if key in AttachmentFields.__annotations__}
    extra = {key: value for key, value in fields.items() if key not in known}
    custom = known.pop("custom", None) or {}
    return {**with_service_times(known), "custom": {**custom, **extra}}


def _created_us(fields: Mapping[str, Any]) -> int:
    return to_us(parse_rfc3339(fields["created_at"]))
