"""Who wrote what, where and when: the past of a world as compact records, here those of a corpus in memory.

A chronicle does not know the service's objects; ``message_objects`` makes those from its records. ``generated`` has the
other chronicle, which computes its records from numbers. Both answer the same questions, so that 50,000 recorded
messages and millions of generated ones behave alike.
"""

from __future__ import annotations

import bisect
import collections
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from airflow_provider_chatexport.sandbox.chat.corpus import CorpusLine


class Record(NamedTuple):
    """What a corpus knows of a message.

    ``parent_id`` is the root of its thread (the service's threads have one level). ``answers_id`` is the message that
    it answers, if that is not the root. ``message_objects`` draws everything else from ``seed``.
    """

    cid: str
    id: str
    at_us: int
    user_id: str
    kind: str
    text: str
    parent_id: str | None
    answers_id: str | None
    seed: str


class Chronicle(Protocol):
    """What a world asks its past. All iterators ascend by time."""

    cids: tuple[str, ...]
    """The channels, the busiest first."""
    user_ids: tuple[str, ...]
    """All authors, sorted."""

    def records(self, cid: str, since_us: int, until_us: int) -> Iterator[Record]:
        """Yield the records of a channel in a half-open span of time."""

    def record(self, message_id: str) -> Record | None:
        """Return the record with this id."""

    def replies(self, message_id: str) -> Sequence[Record]:
        """Return the thread under a message."""

    def tail(self, cid: str, n: int) -> Sequence[Record]:
        """Return the last n records of a channel, or fewer."""

    def moment_us(self, cid: str, fraction: float) -> int:
        """Return when about this fraction of a channel's messages had been written."""

    def speakers(self, cid: str, n: int) -> Sequence[str]:
        """Return up to n authors of a channel, those who write most first."""

    def seeds(self) -> Iterator[str]:
        """Yield each seed that a record may have, once."""

    def seeded(self, seeds: Collection[str]) -> Iterator[Record]:
        """Yield the records with one of these seeds."""

    def count_by(self, user_id: str) -> int:
        """Return how many messages a user wrote."""

    def records_by(self, user_id: str) -> Iterator[Record]:
        """Yield what a user wrote, in all channels."""


class CorpusChronicle:
    """A corpus in memory.

    A line that answers a line of the same channel joins the thread under the first line of that chain.
    """

    def __init__(self, lines: Iterable[CorpusLine]) -> None:
        self._by_channel: dict[str, list[Record]] = {}
        self._by_id: dict[str, Record] = {}
        self._by_user: dict[str, list[Record]] = {}
        self._replies: dict[str, list[Record]] = {}
        for line in sorted(lines, key=lambda line: line.at_us):
            self._add(line)
        self._times_us = {cid: [record.at_us for record in records] for cid, records in self._by_channel.items()}
        self.cids = tuple(sorted(self._by_channel, key=lambda cid: (-len(self._by_channel[cid]), cid)))
        self.user_ids = tuple(sorted(self._by_user))

    def _add(self, line: CorpusLine) -> None:
        answered = self._by_id.get(line.reply_to) if line.reply_to else None
        if answered and (answered.cid != line.cid or "system" in (answered.kind, line.kind)):
            answered = None
        parent_id = (answered.parent_id or answered.id) if answered else None
        record = Record(
            cid=line.cid,
            id=line.id,
            at_us=line.at_us,
            user_id=line.author,
            kind=line.kind,
            text=line.text,
            parent_id=parent_id,
            answers_id=answered.id if answered and answered.id != parent_id else None,
            seed=line.id,
        )
        self._by_channel.setdefault(record.cid, []).append(record)
        self._by_user.setdefault(record.user_id, []).append(record)
        self._by_id[record.id] = record
        if parent_id:
            self._replies.setdefault(parent_id, []).append(record)

    def records(self, cid: str, since_us: int, until_us: int) -> Iterator[Record]:
        """Yield the records of a channel in a half-open span of time."""
        records, times_us = self._by_channel[cid], self._times_us[cid]
        for index in range(bisect.bisect_left(times_us, since_us), bisect.bisect_left(times_us, until_us)):
            yield records[index]

    def record(self, message_id: str) -> Record | None:
        """Return the record with this id."""
        return self._by_id.get(message_id)

    def replies(self, message_id: str) -> Sequence[Record]:
        """Return the thread under a message."""
        return self._replies.get(message_id, ())

    def tail(self, cid: str, n: int) -> Sequence[Record]:
        """Return the last n records of a channel, or fewer."""
        return self._by_channel[cid][-n:]

    def moment_us(self, cid: str, fraction: float) -> int:
        """Return when about this fraction of a channel's messages had been written."""
        times_us = self._times_us[cid]
        return times_us[min(int(len(times_us) * fraction), len(times_us) - 1)]

    def speakers(self, cid: str, n: int) -> Sequence[str]:
        """Return up to n authors of a channel, those who write most first."""
        n_messages = collections.Counter(record.user_id for record in self._by_channel[cid])
        return sorted(n_messages, key=lambda user_id: (-n_messages[user_id], user_id))[:n]

    def seeds(self) -> Iterator[str]:
        """Yield the seed of each record, which is its id."""
        return iter(self._by_id)

    def seeded(self, seeds: Collection[str]) -> Iterator[Record]:
        """Yield the records with one of these seeds."""
        records = (self._by_id[seed] for seed in seeds if seed in self._by_id)
        return iter(sorted(records, key=lambda record: record.at_us))

    def count_by(self, user_id: str) -> int:
        """Return how many messages a user wrote."""
        return len(self._by_user.get(user_id, ()))

    def records_by(self, user_id: str) -> Iterator[Record]:
        """Yield what a user wrote, in all channels."""
        return iter(self._by_user.get(user_id, ()))
