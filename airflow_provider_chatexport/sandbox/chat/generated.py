"""A chronicle of any length that takes no memory: each message follows from its number by arithmetic.

How it works. Message ``i`` of ``N`` follows from ``i`` alone, and every question has an inverse, so that nothing has to
be searched or kept:

* **Time.** The messages are spread evenly from 2025-01-01, each with a jitter inside its own gap, so they ascend and a
  window is a range of numbers.
* **Words.** A corpus of ``L`` lines is used once a round of ``L`` messages. In round ``r`` message ``i`` has line
  ``(stride * i + shift(r)) mod L``. The stride has no common factor with ``L``, so each line occurs once a round, and
  the inverse of the stride gives the messages of a line: that is how a user's messages are found from their lines.
* **Channels and threads.** Sixteen neighbours are one burst in one channel, and the first of them may have a thread.
* **Ids.** The first half of an id is ``i`` times an odd number modulo 2**64, which has an inverse too; the second half
  is a check, so that an id that was not generated here is not found.
* **Everything else** (reactions, edits, custom fields) is drawn from the corpus line's id. What users did to a line
  recurs every round, so "all reactions by this user" has an inverse as well.

A simpler generator would do for the tests. But benchmark files are generated here: another sequence of messages would
change all of them, and every figure that was measured on them.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from airflow_provider_chatexport.sandbox.chat.chronicle import Record
from airflow_provider_chatexport.sandbox.chat.corpus import CorpusLine
from airflow_provider_chatexport.sandbox.chat.timestamps import DAY_US, to_us

FIRST_DAY_US: Final = to_us(datetime(2025, 1, 1, tzinfo=UTC))

_MESSAGES_PER_DAY: Final = 20_000
_BURST: Final = 16
_U64: Final = 2**64 - 1
_ID_STRIDE: Final = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_ID_STRIDE_INVERSE: Final = pow(_ID_STRIDE, -1, 2**64)
# Out of 256 bursts.
_CHANNEL_SHARES: Final = (
    ("livestream:ubuntu", 112),
    ("messaging:ubuntu-support", 56),
    ("messaging:rust", 28),
    ("commerce:stripe", 24),
    ("team:mediawiki", 20),
    ("team:ubuntu-meeting", 16),
)
_CHANNEL_OF_BYTE: Final = tuple(cid for cid, share in _CHANNEL_SHARES for _ in range(share))


class GeneratedChronicle:
    """``n_messages`` that exist only as arithmetic, with the words and authors of ``lines``."""

    def __init__(self, n_messages: int, lines: Sequence[CorpusLine]) -> None:
        self._n = n_messages
        self._lines = lines
        self._span_us = max(3, math.ceil(n_messages / _MESSAGES_PER_DAY)) * DAY_US
        # A stride near the golden section, so that neighbours have lines from far apart.
        golden = int(len(lines) * 0.618)
        self._stride = next(golden + k for k in range(1, len(lines) + 2) if math.gcd(golden + k, len(lines)) == 1)
        self._stride_inverse = pow(self._stride, -1, len(lines)) if len(lines) > 1 else 0
        self._lines_of: dict[str, list[int]] = {}
        self._line_of_seed: dict[str, int] = {}
        for number, line in enumerate(lines):
            self._lines_of.setdefault(line.author, []).append(number)
            self._line_of_seed[line.id] = number
        self.cids = tuple(cid for cid, _ in _CHANNEL_SHARES)
        self.user_ids = tuple(sorted(self._lines_of))

    def records(self, cid: str, since_us: int, until_us: int) -> Iterator[Record]:
        """Yield the records of a channel in a half-open span of time."""
        numbers = range(self._n)
        first = bisect.bisect_left(numbers, since_us, key=self._at_us)
        end = bisect.bisect_left(numbers, until_us, key=self._at_us)
        for burst in range(first // _BURST, -(-end // _BURST)):
            digest = _digest(burst)
            if _CHANNEL_OF_BYTE[digest[0]] == cid:
                for i in range(max(first, burst * _BURST), min(end, (burst + 1) * _BURST)):
                    yield self._record(i, digest)

    def record(self, message_id: str) -> Record | None:
        """Return the record with this id."""
        i = self._number(message_id)
        return None if i is None else self._record(i, _digest(i // _BURST))

    def replies(self, message_id: str) -> Sequence[Record]:
        """Return the thread under a message."""
        root = self._number(message_id)
        if root is None or root % _BURST:
            return ()
        digest = _digest(root // _BURST)
        candidates = range(root + 1, min(root + _BURST, self._n))
        return [self._record(i, digest) for i in candidates if self._is_reply(i, digest)]

    def tail(self, cid: str, n: int) -> Sequence[Record]:
        """Return the last n records of a channel, or fewer."""
        records: list[Record] = []
        for burst in range((self._n - 1) // _BURST, -1, -1):
            if len(records) >= n:
                break
            digest = _digest(burst)
            if _CHANNEL_OF_BYTE[digest[0]] == cid:
                numbers = range(burst * _BURST, min((burst + 1) * _BURST, self._n))
                records = [self._record(i, digest) for i in numbers] + records
        return records[-n:]

    def moment_us(self, cid: str, fraction: float) -> int:  # noqa: ARG002 - all channels run at one pace
        """Return when about this fraction of the messages had been written."""
        return self._at_us(min(int(self._n * fraction), self._n - 1))

    def speakers(self, cid: str, n: int) -> Sequence[str]:
        """Return up to n authors of a channel, those who write most first."""
        # Every author writes in every channel sooner or later; each channel gets its own half of the busiest.
        busiest = sorted(self._lines_of, key=lambda user_id: (-len(self._lines_of[user_id]), user_id))[: 2 * n]
        return [user_id for user_id in busiest if _coin(f"{cid} {user_id}")][:n] or busiest[:n]

    def seeds(self) -> Iterator[str]:
        """Yield the seed of each record, which is the id of its line."""
        return iter(self._line_of_seed)

    def seeded(self, seeds: Collection[str]) -> Iterator[Record]:
        """Yield the records with one of these seeds."""
        return self._with_lines([self._line_of_seed[seed] for seed in seeds if seed in self._line_of_seed])

    def count_by(self, user_id: str) -> int:
        """Return how many messages a user wrote."""
        return sum(1 for _ in self._numbers_of(self._lines_of.get(user_id, [])))

    def records_by(self, user_id: str) -> Iterator[Record]:
        """Yield what a user wrote, in all channels."""
        return self._with_lines(self._lines_of.get(user_id, []))

    def _with_lines(self, lines: Sequence[int]) -> Iterator[Record]:
        return (self._record(i, _digest(i // _BURST)) for i in self._numbers_of(lines))

    def _numbers_of(self, lines: Sequence[int]) -> Iterator[int]:
        """Yield every i below N that has one of these lines, ascending: the inverse of ``_line_number``."""
        if not lines:
            return
        round_length = len(self._lines)
        for n_round in range(-(-self._n // round_length)):
            shift = _mixed(n_round)
            for place in sorted((line - shift) * self._stride_inverse % round_length for line in lines):
                i = n_round * round_length + place
                if i < self._n:
                    yield i

    def _line_number(self, i: int) -> int:
        n_round, place = divmod(i, len(self._lines))
        return (self._stride * place + _mixed(n_round)) % len(self._lines)

    def _at_us(self, i: int) -> int:
        earliest = i * self._span_us // self._n
        gap = (i + 1) * self._span_us // self._n - earliest
        return FIRST_DAY_US + earliest + (_mixed(i) % gap if gap else 0)

    def _is_reply(self, i: int, digest: bytes) -> bool:
        place = i % _BURST
        return bool(
            place
            and (digest[1 + place // 8] & digest[3 + place // 8]) >> place % 8 & 1
            and self._lines[self._line_number(i)].kind == "regular"
            and self._lines[self._line_number(i - place)].kind == "regular"
        )

    def _record(self, i: int, digest: bytes) -> Record:
        line = self._lines[self._line_number(i)]
        parent_id = answers_id = None
        if self._is_reply(i, digest):
            place = i % _BURST
            parent_id = _message_id(i - place)
            answers_id = _message_id(i - 1) if place > 1 else None
        return Record(
            cid=_CHANNEL_OF_BYTE[digest[0]],
            id=_message_id(i),
            at_us=self._at_us(i),
            user_id=line.author,
            kind=line.kind,
            text=line.text,
            parent_id=parent_id,
            answers_id=answers_id,
            seed=line.id,
        )

    def _number(self, message_id: str) -> int | None:
        try:
            scrambled = int(message_id.replace("-", "")[:16], 16)
        except ValueError:
            return None
        i = scrambled * _ID_STRIDE_INVERSE & _U64
        return i if i < self._n and _message_id(i) == message_id else None


def _message_id(i: int) -> str:
    """Return an id in the form of a UUID that contains its number: i times an odd number, then a check."""
    head = i * _ID_STRIDE & _U64
    digits = f"{head:016x}{_mixed(head):016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _mixed(number: int) -> int:
    """Return 64 well-mixed bits of a number: the finalizer of splitmix64."""
    number = (number + _ID_STRIDE) & _U64
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _U64
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _U64
    return number ^ number >> 31


def _digest(burst: int) -> bytes:
    return hashlib.blake2b(burst.to_bytes(8, "big"), digest_size=8, person=b"burst").digest()


def _coin(text: str) -> bool:
    return bool(hashlib.blake2b(text.encode(), digest_size=1, person=b"coin").digest()[0] % 2)
