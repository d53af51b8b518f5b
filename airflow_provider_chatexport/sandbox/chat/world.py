"""The chat that the sandbox serves: a past that never changes, and over it what control calls have changed since.

Objects are complete API objects as plain dicts, with times as the service writes them and custom fields under
``custom``. They are built on demand and share their parts (a user is the same dict everywhere): do not change them in
place.

Where they come from: ``corpus`` reads the file; a ``Chronicle`` (``chronicle`` or ``generated``) says who wrote what
and when; ``past`` has two of those; ``message_objects`` and ``people`` make complete objects of that; ``changes`` holds
the control calls.
"""

from __future__ import annotations

import copy
import enum
import functools
import heapq
import itertools
import operator
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.sandbox.chat import message_objects, people
from airflow_provider_chatexport.sandbox.chat.changes import Changes, NewUsers, delete_patch, edit_patch, new_message
from airflow_provider_chatexport.sandbox.chat.chronicle import Record
from airflow_provider_chatexport.sandbox.chat.past import Past, record_at
from airflow_provider_chatexport.sandbox.chat.timestamps import HOUR_US, stamp, to_us
from airflow_provider_chatexport.sandbox.chat.validation import check_message

_MAX_MEMBERS: Final = 200
_MAX_UNREAD: Final = 40
_BEFORE_ALL_US: Final = -(2**62)
_AFTER_ALL_US: Final = 2**62
# The namespace of ids for messages that are added without one: the same calls make the same ids.
_ADDED: Final = uuid.UUID("5f0e2c0a-6a54-4b0e-9a6c-0d6a1c1d7e57")
_AT: Final = operator.itemgetter(0)


class Bounds(enum.Enum):
    """Which ends of messages_since and messages_until are inside; the service's documents do not say."""

    HALF_OPEN = "half-open"
    INCLUSIVE = "inclusive"
    EXCLUSIVE = "exclusive"

    def span_us(self, since: datetime | None, until: datetime | None) -> tuple[int, int]:
        """Return the same span, half-open. It is exact, because messages lie on whole microseconds."""
        since_us = _BEFORE_ALL_US if since is None else to_us(since) + (self is Bounds.EXCLUSIVE)
        until_us = _AFTER_ALL_US if until is None else to_us(until) + (self is Bounds.INCLUSIVE)
        return since_us, until_us


class World:
    """Channels, users and messages. Any thread may read and change it."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._channels: dict[str, tuple[Changes, dict[str, Any]]] = {}
        self._members: dict[str, list[dict[str, Any]]] = {}
        self._changes = Changes()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path | None = None, messages: int | None = None) -> World:
        """Return the world of a corpus file, or of so many generated messages with its words and authors.

        The messages of a soft-deleted channel, ``messaging:retired``, come on top.

        :param path: None is the corpus that ships with the package.
        :raises CallError: no such file, or fewer than one message.
        :raises InputError: the file is not in the corpus format, or is empty.
        """
        return cls(Past.load(path, messages))

    @classmethod
    def shipped(cls) -> World:
        """Return a new world of the shipped corpus, which a process reads only once.

        Reading takes half a second, which every test with a sandbox of its own would spend.
        """
        # Changes replace a world's state and never reach into its past, so a shallow copy is a world of its own.
        return copy.copy(_shipped_world())

    # Channels and people.

    @property
    def cids(self) -> tuple[str, ...]:
        """The channels, the busiest first, soft-deleted ones last, without those deleted for good."""
        return tuple(cid for cid in self._past.cids if cid not in self._changes.purged_cids)

    def channel(self, cid: str) -> dict[str, Any] | None:
        """Return the complete ChannelResponse; None for a channel that never existed, or is gone for good."""
        changes = self._changes
        if cid not in self._past or cid in changes.purged_cids:
            return None
        # A query over thousands of channels looks at all of them for each page: each is built once between changes.
        cached = self._channels.get(cid)
        if cached is None or cached[0] is not changes:
            cached = self._channels[cid] = (changes, self._build_channel(cid, changes))
        return cached[1]

    def _build_channel(self, cid: str, changes: Changes) -> dict[str, Any]:
        chronicle = self._past.chronicle(cid)
        recent_us = [record.at_us for record in self._tail(cid, changes) if changes.keep(record)]
        last_us = max([at_us for at_us, _ in self._added_to(cid, changes)] + recent_us, default=None)
        channel = people.channel(
            cid,
            members=self.members(cid),
            born_us=chronicle.moment_us(cid, 0),
            truncated_us=self._past.truncated_us(cid),
            deleted_us=chronicle.tail(cid, 1)[0].at_us + HOUR_US if self.channel_is_deleted(cid) else None,
        )
        return channel if last_us is None else {**channel, "last_message_at": stamp(last_us)}

    def channel_is_deleted(self, cid: str) -> bool:
        """Return whether the channel is soft-deleted."""
        return self._past.is_deleted(cid)

    def members(self, cid: str) -> list[dict[str, Any]]:
        """Return complete ChannelMemberResponses: at most 200, those who write most first; the first is the owner.

        :raises KeyError: no such channel.
        """
        if cid not in self._members:
            chronicle = self._past.chronicle(cid)
            born_us = chronicle.moment_us(cid, 0)
            self._members[cid] = [
                people.member(cid, self._past.authors.known_user(user_id), is_owner=place == 0, born_us=born_us)
                for place, user_id in enumerate(chronicle.speakers(cid, _MAX_MEMBERS))
            ]
        return list(self._members[cid])

    def reads(self, cid: str) -> list[dict[str, Any]]:
        """Return complete ReadStateResponses, one per member.

        :raises KeyError: no such channel.
        """
        changes, born_us = self._changes, self._past.chronicle(cid).moment_us(cid, 0)
        tail = self._tail(cid, changes)
        n_recent = min(len(tail), _MAX_UNREAD)
        return [
            people.read(cid, member["user"], tail, n_recent=n_recent, is_present=changes.keep, born_us=born_us)
            for member in self.members(cid)
        ]

    def user(self, user_id: str) -> dict[str, Any] | None:
        """Return the complete UserResponse; None for an unknown user."""
        if user_id in self._past.authors:
            return dict(self._past.authors.known_user(user_id))
        added = self._changes.users.get(user_id)
        return None if added is None else dict(added)

    def devices(self, user_id: str) -> list[dict[str, Any]]:
        """Return the push devices of a user, as exports of users have them.

        :raises KeyError: no such user.
        """
        user = self.user(user_id)
        if user is None:
            raise KeyError(user_id)
        return people.devices(user)

    def user_ids(self) -> Collection[str]:
        """Return the ids of all authors, sorted, then those of users who came with control calls."""
        return (*self._past.authors.user_ids, *self._changes.users)

    # Messages and reactions.

    def messages(
        self,
        cid: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        bounds: Bounds = Bounds.HALF_OPEN,
        include_truncated: bool = False,
        clear_deleted_text: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Yield complete MessageResponses of a channel in a span of ``created_at``, ascending.

        The iterator shows the world of the moment of the call, whatever changes meanwhile.

        :raises KeyError: no such channel.
        """
        changes = self._changes
        span_us = self._span_us(cid, since, until, bounds, include_truncated=include_truncated)
        messages = self._in_order(*self._in_span(cid, span_us, changes), changes)
        return map(message_objects.without_deleted_text, messages) if clear_deleted_text else messages

    def author_ids(
        self,
        cid: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        bounds: Bounds = Bounds.HALF_OPEN,
        include_truncated: bool = False,
    ) -> set[str]:
        """Return the authors of what ``messages`` yields for the same arguments, at a fraction of its cost."""
        changes = self._changes
        span_us = self._span_us(cid, since, until, bounds, include_truncated=include_truncated)
        records, added = self._in_span(cid, span_us, changes)
        return {each.user_id for each in records if changes.keep(each)} | {each["user"]["id"] for _, each in added}

    def message(self, message_id: str) -> dict[str, Any] | None:
        """Return the complete MessageResponse, truncated or not; None if it never existed or is hard-deleted."""
        changes = self._changes
        if not self._exists(message_id):
            return None
        added = changes.added.get(message_id)
        if added is not None:
            return self._with_thread(changes.apply(added), (), changes)
        record = self._past.record(message_id)
        return None if record is None else self._complete(record, changes)

    def reactions_of(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return all reactions to a message, oldest first; the message itself holds at most the newest ten."""
        latest: list[dict[str, Any]] = message["latest_reactions"]
        if sum(message["reaction_counts"].values()) <= len(latest):
            return latest[::-1]
        record = self._past.record(message["id"])
        return latest[::-1] if record is None else self._past.reactions(record)

    def count_messages_of(self, user_id: str) -> int:
        """Return how many messages a user has written, without the hard-deleted ones."""
        changes = self._changes
        if changes.purged_cids or changes.purged_before_us > _BEFORE_ALL_US:
            n_past = sum(map(changes.keep, self._past.records_by(user_id)))
        else:
            removed = [
                record for record in map(self._past.record, changes.removed) if record and record.user_id == user_id
            ]
            n_past = self._past.count_by(user_id) - len(removed)
        return n_past + len(self._added_by(user_id, changes))

    def messages_of(self, user_id: str) -> Iterator[dict[str, Any]]:
        """Yield what a user has written, in all channels, ascending."""
        changes = self._changes
        return self._in_order(self._past.records_by(user_id), self._added_by(user_id, changes), changes)

    def reactions_by(self, user_id: str) -> Iterator[dict[str, Any]]:
        """Yield a user's reactions, ascending by the time of the message."""
        changes = self._changes
        # A control call may have replaced the reactions of a message, and then anyone may be among them.
        seeds = {*self._past.seeds_with_reaction_of(user_id)}
        replaced = (
            self._past.record(message_id) for message_id, p in changes.patches.items() if "latest_reactions" in p
        )
        also = sorted((r for r in replaced if r is not None and r.seed not in seeds), key=record_at)
        past = heapq.merge(self._past.seeded(seeds), also, key=record_at)
        messages = self._in_order(past, changes.added_where(lambda _: True), changes)
        reactions = (reaction for message in messages for reaction in self.reactions_of(message))
        return (reaction for reaction in reactions if reaction["user_id"] == user_id)

    def has_more_reactions_by(self, user_id: str, n: int) -> bool:
        """Return whether a user has given more than ``n`` reactions, without counting them all."""
        return next(itertools.islice(self.reactions_by(user_id), n, None), None) is not None

    # Changes.

    def edit_message(self, message_id: str, changes: Mapping[str, Any], at: datetime) -> bool:
        """Set fields of a message, unknown ones as custom fields. Return False if there is no such message.

        ``latest_reactions`` replaces all its reactions: so a reaction comes late, or goes.

        :param at: when, by the sandbox's clock.
        :raises ValueError: the edit would move the message or change its author, or a value has the wrong type.
        """
        check_message(changes)
        with self._lock:
            if not self._exists(message_id):
                return False
            new_users = NewUsers(self.user, at)
            patch = edit_patch(message_id, changes, new_users, at)
            self._changes = self._changes.with_users(new_users.users).with_patch(message_id, patch)
            return True

    def delete_message(self, message_id: str, hard: bool, at: datetime) -> bool:  # noqa: FBT001 - as control calls say it
        """Delete a message. Return False if there is no such message.

        :param hard: remove it, with its reactions; otherwise its ``type`` becomes deleted, and its text stays.
        :param at: when, by the sandbox's clock.
        """
        with self._lock:
            if not self._exists(message_id):
                return False
            changes = self._changes
            self._changes = (
                changes.without_message(message_id) if hard else changes.with_patch(message_id, delete_patch(at))
            )
            return True

    def add_message(self, fields: Mapping[str, Any], at: datetime) -> dict[str, Any]:
        """Add a message and return it, complete. An unknown author becomes a user.

        :param fields: at least ``cid``.
        :param at: when, by the sandbox's clock.
        :raises KeyError: no ``cid``, or no such channel.
        :raises ValueError: a message with this id exists or existed, or a value has the wrong type.
        """
        check_message(fields)
        cid = fields["cid"]
        if cid not in self.cids:
            raise KeyError(cid)
        with self._lock:
            changes = self._changes
            message_id = fields.get("id") or str(uuid.uuid5(_ADDED, f"{cid} {len(changes.added)}"))
            if message_id in changes.added or self._past.record(message_id) is not None:
                raise ValueError(f"a message with the id {message_id} exists or existed already")
            new_users = NewUsers(self.user, at)
            author = new_users.complete(fields.get("user") or fields.get("user_id") or self.members(cid)[0]["user_id"])
            message = new_message(message_id, fields, author, new_users, at)
            self._changes = changes.with_users(new_users.users).with_message(message)
        return dict(message)

    def delete_old(self, messages_before: datetime | None, channels_unused_since: datetime | None) -> None:
        """Delete for good what retention policies no longer keep. What was deleted before stays so.

        :param messages_before: delete the messages of before it.
        :param channels_unused_since: delete the channels in which nothing has happened since then, with their messages.
        """
        with self._lock:
            changes = self._changes
            before_us = changes.purged_before_us if messages_before is None else to_us(messages_before)
            unused = () if channels_unused_since is None else self._unused_channels(to_us(channels_unused_since))
            if before_us > changes.purged_before_us or unused:
                self._changes = changes.without_old(before_us, unused)

    def reset(self) -> None:
        """Undo all changes."""
        with self._lock:
            self._changes = Changes()

    # Behind the above.

    def _unused_channels(self, since_us: int) -> list[str]:
        times = ("created_at", "updated_at", "last_message_at")
        channels = [channel for channel in map(self.channel, self.cids) if channel is not None]
        return [
            channel["cid"]
            for channel in channels
            if max(to_us(parse_rfc3339(channel[name])) for name in times if name in channel) < since_us
        ]

    def _tail(self, cid: str, changes: Changes) -> Sequence[Record]:
        """Return a channel's last records, removed ones included.

        They are all that a member may have unread, and before that at least one record that is not removed, unless the
        channel begins first.
        """
        chronicle, n = self._past.chronicle(cid), _MAX_UNREAD
        while True:
            tail = chronicle.tail(cid, n)
            is_purged = cid in changes.purged_cids or any(last.at_us < changes.purged_before_us for last in tail[-1:])
            if len(tail) < n or is_purged or any(map(changes.keep, tail[: 1 - _MAX_UNREAD])):
                return tail
            n *= 2

    def _exists(self, message_id: str) -> bool:
        changes = self._changes
        added, record = changes.added.get(message_id), self._past.record(message_id)
        return changes.keep_added(added) if added is not None else record is not None and changes.keep(record)

    def _span_us(
        self, cid: str, since: datetime | None, until: datetime | None, bounds: Bounds, *, include_truncated: bool
    ) -> tuple[int, int]:
        since_us, until_us = bounds.span_us(since, until)
        if not include_truncated:
            since_us = max(since_us, self._past.truncated_us(cid) or _BEFORE_ALL_US)
        return since_us, until_us

    def _in_span(
        self, cid: str, span_us: tuple[int, int], changes: Changes
    ) -> tuple[Iterator[Record], list[tuple[int, Mapping[str, Any]]]]:
        """Return the records of a channel in a span, and the messages that were added there, both ascending."""
        since_us, until_us = span_us
        records = self._past.chronicle(cid).records(cid, max(since_us, changes.purged_before_us), until_us)
        return records, [entry for entry in self._added_to(cid, changes) if since_us <= _AT(entry) < until_us]

    def _in_order(
        self, records: Iterable[Record], added: Sequence[tuple[int, Mapping[str, Any]]], changes: Changes
    ) -> Iterator[dict[str, Any]]:
        """Yield messages of the past and added ones, both ascending, as they are after all changes."""
        past = ((record.at_us, self._complete(record, changes)) for record in records if changes.keep(record))
        late = [(at_us, self._with_thread(changes.apply(message), (), changes)) for at_us, message in added]
        return (message for _, message in (heapq.merge(past, late, key=_AT) if late else past))

    def _complete(self, record: Record, changes: Changes) -> dict[str, Any]:
        message = changes.apply(self._past.message(record))
        if record.answers_id and message_objects.quotes(record):
            quoted = self._past.record(record.answers_id)
            if quoted is not None and changes.keep(quoted):
                message["quoted_message_id"] = quoted.id
                message["quoted_message"] = changes.apply(self._past.message(quoted))
        if record.parent_id:
            return message
        return self._with_thread(message, self._past.chronicle(record.cid).replies(record.id), changes)

    def _with_thread(self, message: dict[str, Any], replies: Sequence[Record], changes: Changes) -> dict[str, Any]:
        """Set the counts and participants of a thread.

        Soft-deleted replies have a count of their own; removed ones do not count.
        """
        added = [changes.added[reply_id] for reply_id in changes.replies.get(message["id"], ())]
        thread = [
            (reply.id, reply.user_id, message_objects.is_deleted(message_objects.seed_digest(reply.seed)))
            for reply in replies
            if changes.keep(reply)
        ]
        thread += [(r["id"], r["user"]["id"], r["type"] == "deleted") for r in added if changes.keep_added(r)]
        present = [(user_id, was_deleted or changes.is_deleted(reply_id)) for reply_id, user_id, was_deleted in thread]
        if present:
            authors = [user_id for user_id, is_deleted in present if not is_deleted]
            message["reply_count"] = len(authors)
            message["deleted_reply_count"] = len(present) - len(authors)
            message["thread_participants"] = [self.user(user_id) for user_id in dict.fromkeys(authors)]
        return message

    def _added_to(self, cid: str, changes: Changes) -> list[tuple[int, Mapping[str, Any]]]:
        return changes.added_where(lambda message: message["cid"] == cid)

    def _added_by(self, user_id: str, changes: Changes) -> list[tuple[int, Mapping[str, Any]]]:
        return changes.added_where(lambda message: message["user"]["id"] == user_id)


@functools.cache
def _shipped_world() -> World:
    return World.load()
