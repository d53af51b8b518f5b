"""The past of a world, which never changes: a chronicle of its live channels, and one of a soft-deleted channel."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from airflow_provider_chatexport.errors import CallError, InputError
from airflow_provider_chatexport.sandbox.chat import message_objects, people
from airflow_provider_chatexport.sandbox.chat.chronicle import Chronicle, CorpusChronicle, Record
from airflow_provider_chatexport.sandbox.chat.corpus import SHIPPED, CorpusLine, read_corpus
from airflow_provider_chatexport.sandbox.chat.generated import GeneratedChronicle

_N_RETIRED: Final = 60
_TRUNCATED_FRACTION: Final = 0.1


class Authors:
    """Everyone who wrote a message of the past. Each user object is built once."""

    def __init__(self, user_ids: Sequence[str], *, world_ends_us: int) -> None:
        self.user_ids = user_ids
        self._ids = frozenset(user_ids)
        self._world_ends_us = world_ends_us
        self._users: dict[str, dict[str, Any]] = {}

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._ids

    def known_user(self, user_id: str) -> dict[str, Any]:
        """Return the complete UserResponse of an author."""
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = people.user(user_id, world_ends_us=self._world_ends_us)
        return user


class Past:
    """All messages that were there before any control call, and their authors. Any thread may read it."""

    def __init__(self, live: Chronicle, retired: Chronicle) -> None:
        self._live, self._retired = live, retired
        self.cids: tuple[str, ...] = (*live.cids, *retired.cids)
        """The channels, the busiest first, the soft-deleted one last."""
        ends_us = max(record.at_us for cid in live.cids for record in live.tail(cid, 1))
        self.authors = Authors(live.user_ids, world_ends_us=ends_us)
        # The second busiest channel is truncated: the busiest is what people look at first, and should not puzzle them.
        self._truncated_us = {cid: live.moment_us(cid, _TRUNCATED_FRACTION) for cid in live.cids[1:2]}
        self._known, self._deleted = frozenset(self.cids), frozenset(retired.cids)
        self._seeds_by_reactor: dict[str, list[str]] | None = None
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path | None, messages: int | None) -> Past:
        """Return the past of a corpus file, or of so many generated messages; parameters as in ``World.load``.

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

    def __contains__(self, cid: str) -> bool:
        return cid in self._known

    def is_deleted(self, cid: str) -> bool:
        """Return whether the channel is soft-deleted."""
        return cid in self._deleted

    def truncated_us(self, cid: str) -> int | None:
        """Return before when the channel is truncated; None for a channel that is not."""
        return self._truncated_us.get(cid)

    def chronicle(self, cid: str) -> Chronicle:
        """Return the chronicle that has the channel.

        :raises KeyError: no such channel.
        """
        if cid not in self._known:
            raise KeyError(cid)
        return self._retired if cid in self._deleted else self._live

    def record(self, message_id: str) -> Record | None:
        """Return the record of a message; None for an unknown id."""
        return self._live.record(message_id) or self._retired.record(message_id)

    def records_by(self, user_id: str) -> Iterator[Record]:
        """Yield what a user wrote, in all channels, ascending."""
        return heapq.merge(self._live.records_by(user_id), self._retired.records_by(user_id), key=record_at)

    def count_by(self, user_id: str) -> int:
        """Return how many messages a user wrote."""
        return self._live.count_by(user_id) + self._retired.count_by(user_id)

    def seeded(self, seeds: Collection[str]) -> Iterator[Record]:
        """Yield the records with one of these seeds, ascending."""
        return heapq.merge(self._live.seeded(seeds), self._retired.seeded(seeds), key=record_at)

    def message(self, record: Record) -> dict[str, Any]:
        """Return the message object of a record, without thread and quoted message."""
        return message_objects.message(record, self.authors)

    def reactions(self, record: Record) -> list[dict[str, Any]]:
        """Return all reactions to a message, oldest first."""
        return message_objects.reactions(record, self.authors)

    def seeds_with_reaction_of(self, user_id: str) -> Sequence[str]:
        """Return the seeds of the messages to which a user reacted."""
        with self._lock:
            if self._seeds_by_reactor is None:
                self._seeds_by_reactor = {}
                for seed in itertools.chain(self._live.seeds(), self._retired.seeds()):
                    for reactor in message_objects.reactors(seed, self.authors.user_ids):
                        self._seeds_by_reactor.setdefault(reactor, []).append(seed)
            return self._seeds_by_reactor.get(user_id, ())


def record_at(record: Record) -> int:
    """Return when a record was written, in microseconds: the order of all iterators."""
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
