"""Who said what, where and when: compact records, here those of a corpus held in memory.

A chronicle knows nothing of the service's objects; ``texture`` makes those. ``made`` has the other kind, computed from
numbers: it answers the same questions, so that 50,000 recorded messages and millions of made ones behave alike.
"""

from __future__ import annotations

import bisect
import collections
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from airflow_provider_chatexport.sandbox.chat.corpus import Line


class Record(NamedTuple):
    """A message before it has texture.

    ``parent_id`` is the root of its thread (the service's threads have one level), ``answers_id`` the message that it
    answers directly where that is another; all of its texture is drawn from ``seed``.
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
    """What a world asks of its past. All iterators ascend by time."""

    cids: tuple[str, ...]
    """Channels, the busiest first."""
    user_ids: tuple[str, ...]
    """Everyone who ever spoke, sorted."""

    def records(self, cid: str, since_us: int, until_us: int) -> Iterator[Record]:
        """Of one channel, half-open in time."""

    def record(self, message_id: str) -> Record | None:
        """The record with this id."""

    def replies(self, message_id: str) -> Sequence[Record]:
        """The thread under a message."""

    def tail(self, cid: str, n: int) -> Sequence[Record]:
        """The last n of a channel, or fewer."""

    def moment_us(self, cid: str, fraction: float) -> int:
        """When about this fraction of a channel's messages had been said."""

    def speakers(self, cid: str, n: int) -> Sequence[str]:
        """Up to n of those who speak in a channel, the most talkative first."""

    def seeds(self) -> Iterator[str]:
        """Each seed that a record may have, once."""

    def seeded(self, seeds: Collection[str]) -> Iterator[Record]:
        """The records with one of these seeds."""

    def count_by(self, user_id: str) -> int:
        """How many messages someone wrote."""

    def records_by(self, user_id: str) -> Iterator[Record]:
        """What someone wrote, in all channels."""


class CorpusChronicle:
    """A corpus in memory. A line that answers one of the same channel joins the thread under the first of the chain."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._by_channel: dict[str, list[Record]] = {}
        self._by_id: dict[str, Record] = {}
        self._by_user: dict[str, list[Record]] = {}
        self._replies: dict[str, list[Record]] = {}
        for line in sorted(lines, key=lambda line: line.at_us):
            self._add(line)
        self._times_us = {cid: [record.at_us for record in records] for cid, records in self._by_channel.items()}
        self.cids = tuple(sorted(self._by_channel, key=lambda cid: (-len(self._by_channel[cid]), cid)))
        self.user_ids = tuple(sorted(self._by_user))

    def _add(self, line: Line) -> None:
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
        records, times_us = self._by_channel[cid], self._times_us[cid]
        for index in range(bisect.bisect_left(times_us, since_us), bisect.bisect_left(times_us, until_us)):
            yield records[index]

    def record(self, message_id: str) -> Record | None:
        return self._by_id.get(message_id)

    def replies(self, message_id: str) -> Sequence[Record]:
        return self._replies.get(message_id, ())

    def tail(self, cid: str, n: int) -> Sequence[Record]:
        return self._by_channel[cid][-n:]

    def moment_us(self, cid: str, fraction: float) -> int:
        times_us = self._times_us[cid]
        return times_us[min(int(len(times_us) * fraction), len(times_us) - 1)]

    def speakers(self, cid: str, n: int) -> Sequence[str]:
        spoken = collections.Counter(record.user_id for record in self._by_channel[cid])
        return sorted(spoken, key=lambda user_id: (-spoken[user_id], user_id))[:n]

    def seeds(self) -> Iterator[str]:
        return iter(self._by_id)

    def seeded(self, seeds: Collection[str]) -> Iterator[Record]:
        found = (self._by_id[seed] for seed in seeds if seed in self._by_id)
        return iter(sorted(found, key=lambda record: record.at_us))

    def count_by(self, user_id: str) -> int:
        return len(self._by_user.get(user_id, ()))

    def records_by(self, user_id: str) -> Iterator[Record]:
        return iter(self._by_user.get(user_id, ()))
