"""A chronicle of any length that takes no memory: each message follows from its number by arithmetic."""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from airflow_provider_chatexport.sandbox.chat.chronicle import Record
from airflow_provider_chatexport.sandbox.chat.corpus import Line
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


class MadeChronicle:
    """N messages that exist only as arithmetic: message ``i`` follows from ``i``, and every question has an inverse.

    Time runs evenly with jitter from 2025-01-01, so a window is a range of numbers. Words and authors come from corpus
    line ``(stride * i + shift) mod L``, another shift every L messages: each line is said once a round, so a person's
    messages are found from their lines without a search. Sixteen neighbours are one burst in one channel, and the first
    of them may have a thread under it.

    The texture's seed is the line's id: what people did to a line recurs every round, which is what gives "all
    reactions by this user" an inverse as well.
    """

    def __init__(self, n_messages: int, lines: Sequence[Line]) -> None:
        self._n = n_messages
        self._lines = lines
        self._span_us = max(3, math.ceil(n_messages / _MESSAGES_PER_DAY)) * DAY_US
        # A stride near the golden section, so that neighbours say lines from far apart.
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
        numbers = range(self._n)
        first = bisect.bisect_left(numbers, since_us, key=self._at_us)
        end = bisect.bisect_left(numbers, until_us, key=self._at_us)
        for burst in range(first // _BURST, -(-end // _BURST)):
            dice = _dice(burst)
            if _CHANNEL_OF_BYTE[dice[0]] == cid:
                for i in range(max(first, burst * _BURST), min(end, (burst + 1) * _BURST)):
                    yield self._record(i, dice)

    def record(self, message_id: str) -> Record | None:
        i = self._number(message_id)
        return None if i is None else self._record(i, _dice(i // _BURST))

    def replies(self, message_id: str) -> Sequence[Record]:
        root = self._number(message_id)
        if root is None or root % _BURST:
            return ()
        dice = _dice(root // _BURST)
        candidates = range(root + 1, min(root + _BURST, self._n))
        return [self._record(i, dice) for i in candidates if self._is_reply(i, dice)]

    def tail(self, cid: str, n: int) -> Sequence[Record]:
        found: list[Record] = []
        for burst in range((self._n - 1) // _BURST, -1, -1):
            if len(found) >= n:
                break
            dice = _dice(burst)
            if _CHANNEL_OF_BYTE[dice[0]] == cid:
                numbers = range(burst * _BURST, min((burst + 1) * _BURST, self._n))
                found = [self._record(i, dice) for i in numbers] + found
        return found[-n:]

    def moment_us(self, cid: str, fraction: float) -> int:  # noqa: ARG002 - all channels run at one pace
        return self._at_us(min(int(self._n * fraction), self._n - 1))

    def speakers(self, cid: str, n: int) -> Sequence[str]:
        # Everyone speaks everywhere sooner or later; each channel gets its own half of the talkative.
        talkative = sorted(self._lines_of, key=lambda user_id: (-len(self._lines_of[user_id]), user_id))[: 2 * n]
        return [user_id for user_id in talkative if _coin(f"{cid} {user_id}")][:n] or talkative[:n]

    def seeds(self) -> Iterator[str]:
        return iter(self._line_of_seed)

    def seeded(self, seeds: Collection[str]) -> Iterator[Record]:
        return self._said([self._line_of_seed[seed] for seed in seeds if seed in self._line_of_seed])

    def count_by(self, user_id: str) -> int:
        return sum(1 for _ in self._numbers_saying(self._lines_of.get(user_id, [])))

    def records_by(self, user_id: str) -> Iterator[Record]:
        return self._said(self._lines_of.get(user_id, []))

    def _said(self, lines: Sequence[int]) -> Iterator[Record]:
        return (self._record(i, _dice(i // _BURST)) for i in self._numbers_saying(lines))

    def _numbers_saying(self, lines: Sequence[int]) -> Iterator[int]:
        """The inverse of ``_line_number``: every i below N that says one of these lines, ascending."""
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

    def _is_reply(self, i: int, dice: bytes) -> bool:
        place = i % _BURST
        return bool(
            place
            and (dice[1 + place // 8] & dice[3 + place // 8]) >> place % 8 & 1
            and self._lines[self._line_number(i)].kind == "regular"
            and self._lines[self._line_number(i - place)].kind == "regular"
        )

    def _record(self, i: int, dice: bytes) -> Record:
        line = self._lines[self._line_number(i)]
        parent_id = answers_id = None
        if self._is_reply(i, dice):
            place = i % _BURST
            parent_id = _message_id(i - place)
            answers_id = _message_id(i - 1) if place > 1 else None
        return Record(
            cid=_CHANNEL_OF_BYTE[dice[0]],
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
    """A UUID-shaped id that holds its number: the first half is i times an odd stride, the second half its check."""
    head = i * _ID_STRIDE & _U64
    digits = f"{head:016x}{_mixed(head):016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _mixed(number: int) -> int:
    """64 well-mixed bits of a number: the finaliser of splitmix64."""
    number = (number + _ID_STRIDE) & _U64
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _U64
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _U64
    return number ^ number >> 31


def _dice(burst: int) -> bytes:
    return hashlib.blake2b(burst.to_bytes(8, "big"), digest_size=8, person=b"burst").digest()


def _coin(text: str) -> bool:
    return bool(hashlib.blake2b(text.encode(), digest_size=1, person=b"coin").digest()[0] % 2)
