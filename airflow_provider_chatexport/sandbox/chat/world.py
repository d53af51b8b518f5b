"""The chat that the sandbox serves: a past that never changes, and over it what control calls have changed since.

Objects are complete API objects as plain dicts, with times as the service writes them and custom fields under
``custom``. They are built on demand and share their parts (a user is the same dict everywhere): do not change them in
place.

Where they come from: ``corpus`` reads the file; a ``Chronicle`` (``chronicle`` or ``generated``) says who wrote what
and when; ``message_objects`` and ``people`` make complete objects of that; ``changes`` holds the control calls.
"""

from __future__ import annotations

import copy
import enum
import functools
import hashlib
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
from airflow_provider_chatexport.errors import CallError, InputError
from airflow_provider_chatexport.sandbox.chat import message_objects, people
from airflow_provider_chatexport.sandbox.chat.changes import Changes, NewUsers, delete_patch, edit_patch, new_message
from airflow_provider_chatexport.sandbox.chat.chronicle import Chronicle, CorpusChronicle, Record
from airflow_provider_chatexport.sandbox.chat.corpus import SHIPPED, CorpusLine, read_corpus
from airflow_provider_chatexport.sandbox.chat.generated import GeneratedChronicle
from airflow_provider_chatexport.sandbox.chat.timestamps import HOUR_US, stamp, to_us
from airflow_provider_chatexport.sandbox.chat.validation import check_message

_N_RETIRED: Final = 60
_MAX_MEMBERS: Final = 200
_MAX_UNREAD: Final = 40
_TRUNCATED_FRACTION: Final = 0.1
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


class _Authors:
    """Everyone who wrote a message of the past. Each user object is built once."""

    def __init__(self, user_ids: Sequence[str], *, world_ends_us: int) -> None:
        self.user_ids = user_ids
        self._ids = frozenset(user_ids)
        self._world_ends_us = world_ends_us
        self._users: dict[str, dict[str, Any]] = {}

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._ids

    def known_user(self, user_id: str) -> dict[str, Any]:
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = people.user(user_id, world_ends_us=self._world_ends_us)
        return user


class World:
    """Channels, users and messages. Any thread may read and change it."""

    def __init__(self, live: Chronicle, retired: Chronicle) -> None:
        self._live, self._retired = live, retired
        self._cids: tuple[str, ...] = (*live.cids, *retired.cids)
        ends_us = max(record.at_us for cid in live.cids for record in live.tail(cid, 1))
        self._authors = _Authors(live.user_ids, world_ends_us=ends_us)
        # The second busiest channel is truncated: the busiest is what people look at first, and should not puzzle them.
        self._truncated_us = {cid: live.moment_us(cid, _TRUNCATED_FRACTION) for cid in live.cids[1:2]}
        self._known, self._deleted = frozenset(self._cids), frozenset(retired.cids)
        self._channels: dict[str, tuple[Changes, dict[str, Any]]] = {}
        self._members: dict[str, list[dict[str, Any]]] = {}
        self._seeds_by_reactor: dict[str, list[str]] | None = None
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
        if messages is not None and messages < 1:
            raise CallError(f"a world cannot have {messages} messages; give --messages 1 or more")
        lines = list(read_corpus(path or SHIPPED))
        if not lines:
            raise InputError(f"{path} holds no messages; give --data a corpus file with at least one line")
        live: Chronicle = CorpusChronicle(lines) if messages is None else GeneratedChronicle(messages, lines)
        return cls(live, CorpusChronicle(_retired_lines(lines, taken=frozenset(live.cids))))

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
        return tuple(cid for cid in self._cids if cid not in self._changes.purged_cids)

    def channel(self, cid: str) -> dict[str, Any] | None:
        """Return the complete ChannelResponse; None for a channel that never existed, or is gone for good."""
        changes = self._changes
        if cid not in self._known or cid in changes.purged_cids:
            return None
        # A query over thousands of channels looks at all of them for each page: each is built once between changes.
        cached = self._channels.get(cid)
        if cached is None or cached[0] is not changes:
            cached = self._channels[cid] = (changes, self._build_channel(cid, changes))
        return cached[1]

    def _build_channel(self, cid: str, changes: Changes) -> dict[str, Any]:
        chronicle = self._chronicle(cid)
        recent_us = [record.at_us for record in self._tail(cid, changes) if changes.keep(record)]
        last_us = max([at_us for at_us, _ in self._added_to(cid, changes)] + recent_us, default=None)
        channel = people.channel(
            cid,
            members=self.members(cid),
            born_us=chronicle.moment_us(cid, 0),
            truncated_us=self._truncated_us.get(cid),
            deleted_us=chronicle.tail(cid, 1)[0].at_us + HOUR_US if self.channel_is_deleted(cid) else None,
        )
        return channel if last_us is None else {**channel, "last_message_at": stamp(last_us)}

    def channel_is_deleted(self, cid: str) -> bool:
        """Return whether the channel is soft-deleted."""
        return cid in self._deleted

    def members(self, cid: str) -> list[dict[str, Any]]:
        """Return complete ChannelMemberResponses: at most 200, those who write most first; the first is the owner.

        :raises KeyError: no such channel.
        """
        if cid not in self._members:
            chronicle = self._chronicle(cid)
            born_us = chronicle.moment_us(cid, 0)
            self._members[cid] = [
                people.member(cid, self._authors.known_user(user_id), is_owner=place == 0, born_us=born_us)
                for place, user_id in enumerate(chronicle.speakers(cid, _MAX_MEMBERS))
            ]
        return list(self._members[cid])

    def reads(self, cid: str) -> list[dict[str, Any]]:
        """Return complete ReadStateResponses, one per member.

        :raises KeyError: no such channel.
        """
        changes, born_us = self._changes, self._chronicle(cid).moment_us(cid, 0)
        tail = self._tail(cid, changes)
        n_recent = min(len(tail), _MAX_UNREAD)
        return [
            people.read(cid, member["user"], tail, n_recent=n_recent, is_present=changes.keep, born_us=born_us)
            for member in self.members(cid)
        ]

    def user(self, user_id: str) -> dict[str, Any] | None:
        """Return the complete UserResponse; None for an unknown user."""
        if user_id in self._authors:
            return dict(self._authors.known_user(user_id))
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
        return (*self._authors.user_ids, *self._changes.users)

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
        since_us, until_us = self._span_us(cid, since, until, bounds, include_truncated=include_truncated)
        records = self._chronicle(cid).records(cid, max(since_us, changes.purged_before_us), until_us)
        added = [entry for entry in self._added_to(cid, changes) if since_us <= _AT(entry) < until_us]
        messages = self._in_order(records, added, changes)
        return map(_without_deleted_text, messages) if clear_deleted_text else messages

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
        since_us, until_us = self._span_us(cid, since, until, bounds, include_truncated=include_truncated)
        records = self._chronicle(cid).records(cid, max(since_us, changes.purged_before_us), until_us)
        added = (m["user"]["id"] for at_us, m in self._added_to(cid, changes) if since_us <= at_us < until_us)
        return {record.user_id for record in records if changes.keep(record)}.union(added)

    def message(self, message_id: str) -> dict[str, Any] | None:
        """Return the complete MessageResponse, truncated or not; None if it never existed or is hard-deleted."""
        changes = self._changes
        if not self._exists(message_id):
            return None
        added = changes.added.get(message_id)
        if added is not None:
            return self._with_thread(changes.apply(added), (), changes)
        record = self._record(message_id)
        return None if record is None else self._complete(record, changes)

    def reactions_of(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return all reactions to a message, oldest first; the message itself holds at most the newest ten."""
        latest: list[dict[str, Any]] = message["latest_reactions"]
        if sum(message["reaction_counts"].values()) <= len(latest):
            return latest[::-1]
        record = self._record(message["id"])
        return latest[::-1] if record is None else message_objects.reactions(record, self._authors)

    def count_messages_of(self, user_id: str) -> int:
        """Return how many messages a user has written, without the hard-deleted ones."""
        changes = self._changes
        if changes.purged_cids or changes.purged_before_us > _BEFORE_ALL_US:
            records = itertools.chain(self._live.records_by(user_id), self._retired.records_by(user_id))
            n_past = sum(map(changes.keep, records))
        else:
            removed = [record for record in map(self._record, changes.removed) if record and record.user_id == user_id]
            n_past = self._live.count_by(user_id) + self._retired.count_by(user_id) - len(removed)
        return n_past + len(self._added_by(user_id, changes))

    def messages_of(self, user_id: str) -> Iterator[dict[str, Any]]:
        """Yield what a user has written, in all channels, ascending."""
        changes = self._changes
        past = heapq.merge(self._live.records_by(user_id), self._retired.records_by(user_id), key=_record_at)
        return self._in_order(past, self._added_by(user_id, changes), changes)

    def reactions_by(self, user_id: str) -> Iterator[dict[str, Any]]:
        """Yield a user's reactions, ascending by the time of the message."""
        changes = self._changes
        # A control call may have replaced the reactions of a message, and then anyone may be among them.
        seeds = {*self._seeds_with_reaction_of(user_id)}
        replaced = (self._record(message_id) for message_id, p in changes.patches.items() if "latest_reactions" in p)
        also = sorted((r for r in replaced if r is not None and r.seed not in seeds), key=_record_at)
        past = heapq.merge(self._live.seeded(seeds), self._retired.seeded(seeds), also, key=_record_at)
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
            if message_id in changes.added or self._record(message_id) is not None:
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

    def _chronicle(self, cid: str) -> Chronicle:
        if cid not in self._known:
            raise KeyError(cid)
        return self._retired if cid in self._deleted else self._live

    def _tail(self, cid: str, changes: Changes) -> Sequence[Record]:
        """Return a channel's last records, removed ones included.

        They are all that a member may have unread, and before that at least one record that is not removed, unless the
        channel begins first.
        """
        chronicle, n = self._chronicle(cid), _MAX_UNREAD
        while True:
            tail = chronicle.tail(cid, n)
            is_purged = cid in changes.purged_cids or any(last.at_us < changes.purged_before_us for last in tail[-1:])
            if len(tail) < n or is_purged or any(map(changes.keep, tail[: 1 - _MAX_UNREAD])):
                return tail
            n *= 2

    def _record(self, message_id: str) -> Record | None:
        return self._live.record(message_id) or self._retired.record(message_id)

    def _exists(self, message_id: str) -> bool:
        changes = self._changes
        added, record = changes.added.get(message_id), self._record(message_id)
        return changes.keep_added(added) if added is not None else record is not None and changes.keep(record)

    def _span_us(
        self, cid: str, since: datetime | None, until: datetime | None, bounds: Bounds, *, include_truncated: bool
    ) -> tuple[int, int]:
        since_us, until_us = bounds.span_us(since, until)
        if not include_truncated:
            since_us = max(since_us, self._truncated_us.get(cid, _BEFORE_ALL_US))
        return since_us, until_us

    def _in_order(
        self, records: Iterable[Record], added: Sequence[tuple[int, Mapping[str, Any]]], changes: Changes
    ) -> Iterator[dict[str, Any]]:
        """Yield messages of the past and added ones, both ascending, as they are after all changes."""
        past = ((record.at_us, self._complete(record, changes)) for record in records if changes.keep(record))
        late = [(at_us, self._with_thread(changes.apply(message), (), changes)) for at_us, message in added]
        return (message for _, message in (heapq.merge(past, late, key=_AT) if late else past))

    def _complete(self, record: Record, changes: Changes) -> dict[str, Any]:
        message = changes.apply(message_objects.message(record, self._authors))
        if record.answers_id and message_objects.quotes(record):
            quoted = self._record(record.answers_id)
            if quoted is not None and changes.keep(quoted):
                message["quoted_message_id"] = quoted.id
                message["quoted_message"] = changes.apply(message_objects.message(quoted, self._authors))
        if record.parent_id:
            return message
        return self._with_thread(message, self._chronicle(record.cid).replies(record.id), changes)

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

    def _seeds_with_reaction_of(self, user_id: str) -> Sequence[str]:
        with self._lock:
            if self._seeds_by_reactor is None:
                self._seeds_by_reactor = {}
                for seed in itertools.chain(self._live.seeds(), self._retired.seeds()):
                    for reactor in message_objects.reactors(seed, self._authors.user_ids):
                        self._seeds_by_reactor.setdefault(reactor, []).append(seed)
            return self._seeds_by_reactor.get(user_id, ())


@functools.cache
def _shipped_world() -> World:
    return World.load()


def _without_deleted_text(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message without the words of what is deleted: its own in every language, and those that it quotes."""
    quoted = message.get("quoted_message")
    cleared = {**message, "quoted_message": _without_deleted_text(quoted)} if quoted else message
    if message["type"] != "deleted":
        return cleared
    cleared = {name: value for name, value in cleared.items() if name != "i18n"}
    cleared |= {name: "" for name in ("text", "html", "mml") if name in cleared}
    if message.get("moderation"):
        cleared["moderation"] = {**message["moderation"], "original_text": ""}
    return cleared


def _record_at(record: Record) -> int:
    return record.at_us


def _retired_lines(lines: Sequence[CorpusLine], *, taken: Collection[str]) -> Iterator[CorpusLine]:
    """Yield the messages of the soft-deleted channel: some of the first lines again, with ids of their own."""
    cid = next(name for n in itertools.count() if (name := "messaging:retired" + "-again" * n) not in taken)
    candidates = [line for line in lines[:1200] if line.kind == "regular"] or list(lines[:1])
    previous_id: str | None = None
    for place, line in enumerate(candidates[:: max(1, len(candidates) // _N_RETIRED)][:_N_RETIRED]):
        digest = hashlib.blake2b(line.id.encode(), digest_size=16, person=b"retired").digest()
        own_id = str(uuid.UUID(bytes=digest))
        yield line._replace(cid=cid, id=own_id, reply_to=previous_id if place % 5 == 4 else None)
        previous_id = own_id
