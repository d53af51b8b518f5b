"""Who asks next: the turns of all waits of one app. Pure: no socket, no clock, no sleep.

How it works. A *turn* is the permission to send one status request. A wait enters the queue with a pause: how many
seconds later it wants its turn. These are seconds of the queue's own clock. That clock runs with real time, but it
stands still while a turn is due and cannot be given: the last one was given too short a time ago, too many requests are
under way, or the service asked for a pause. Turns are given in the order in which they are due.

With few waits, a turn is given as soon as its pause is over. With more waits than the pace allows, the clock slows
down, and all pauses grow by the same factor. Here A wants a turn every second, B and C want one every 4 seconds, and
the pace is one turn a second:

    real time        0   1   2   3   4   5   6   7   8   9
    queue's clock    0   0   0   1   2   3   4   4   4   5
    turn of          A   B   C   A   A   A   B   C   A   A

So a young wait, which asks for short pauses, has most of the turns. An old one has few, and none starves: the clock
reaches every turn after a limited number of other turns. Nothing has to be known about the service's speed, because the
clock follows what could be given.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from typing import Final

# Timers fire late by milliseconds. So many seconds of turns may be made up for at once.
_CATCH_UP_S: Final = 0.1
# Two clocks are read with different roundings: what is due within a microsecond is due.
_ROUNDING_S: Final = 1e-6
# If more waits than these have yet to get their first turn, a triggerer has just started.
_CROWD: Final = 40


class Turn:
    """A wait's place in the queue, or its request that is under way."""

    __slots__ = ("is_first", "is_given", "place")

    def __init__(self, *, is_first: bool) -> None:
        self.is_first = is_first
        self.is_given = False
        self.place: int | None = None


class TurnQueue:
    """Hands out turns, each once. Times are seconds of any clock that never goes back.

    :param per_second: how many turns are given in a second.
    :param n_at_once: how many requests may be under way.
    """

    def __init__(self, *, per_second: float, n_at_once: int) -> None:
        self.per_second = per_second
        self._n_at_once = n_at_once
        # Due time by the queue's clock, place, turn. An entry whose place is not its turn's any more is void.
        self._entries: list[tuple[float, int, Turn]] = []
        self._places = itertools.count()
        self._clock_s = 0.0
        self._clock_read_at_s: float | None = None
        self._next_turn_at_s = -math.inf
        self._held_until_s = -math.inf
        self._n_under_way = 0
        self._n_first = 0

    def enter(self, now_s: float, *, pause_s: float, is_first: bool = False) -> Turn:
        """Return a turn that is due after a pause, by the queue's clock.

        :param is_first: it is the first turn of its wait, and due at once. But when a triggerer starts, thousands of
            waits want their first turn. Then each is due somewhere within its pause, so that those that began a minute
            ago do not stand behind all that are hours old.
        """
        turn = Turn(is_first=is_first)
        if is_first:
            is_crowded = self._n_first >= _CROWD
            pause_s = random.uniform(0.0, pause_s) if is_crowded else 0.0  # noqa: S311 - spreads load, guards nothing
            self._n_first += 1
        self._put(turn, now_s, pause_s)
        return turn

    def expedite(self, now_s: float, turn: Turn) -> None:
        """Let a turn that was not given yet be the next: its wait is at its deadline."""
        if turn.place is not None:
            self._put(turn, now_s, -math.inf)

    def give(self, now_s: float) -> Turn | None:
        """Give the next turn, if one is due and may be given now. ``end`` ends it."""
        self._read_clock(now_s)
        entry = self._first_entry()
        if entry is None or entry[0] > self._clock_s + _ROUNDING_S or now_s < self._may_give_at_s():
            return None
        turn = heapq.heappop(self._entries)[2]
        turn.place, turn.is_given = None, True
        self._n_under_way += 1
        self._next_turn_at_s = max(self._next_turn_at_s, now_s - _CATCH_UP_S) + 1.0 / self.per_second
        self._count_first(turn)
        return turn

    def end(self, now_s: float, turn: Turn) -> None:
        """End a turn: its request was answered, or its wait left the queue."""
        self._read_clock(now_s)
        self._n_under_way -= turn.is_given
        turn.place, turn.is_given = None, False
        self._count_first(turn)

    def hold(self, until_s: float) -> None:
        """Give no turn before a moment, because the service asks for a pause."""
        self._held_until_s = max(self._held_until_s, until_s)

    def next_look_s(self, now_s: float) -> float | None:
        """Return when ``give`` may give a turn; None if only ``enter`` or ``end`` can change that."""
        self._read_clock(now_s)
        entry = self._first_entry()
        if entry is None or self._n_under_way >= self._n_at_once:
            return None
        return max(now_s + max(0.0, entry[0] - self._clock_s), self._may_give_at_s())

    def _put(self, turn: Turn, now_s: float, pause_s: float) -> None:
        self._read_clock(now_s)
        turn.place = next(self._places)
        heapq.heappush(self._entries, (self._clock_s + pause_s, turn.place, turn))

    def _may_give_at_s(self) -> float:
        if self._n_under_way >= self._n_at_once:
            return math.inf
        return max(self._next_turn_at_s, self._held_until_s)

    def _read_clock(self, now_s: float) -> None:
        """Move the queue's clock on, at most to the first turn that is due."""
        passed_s = 0.0 if self._clock_read_at_s is None else now_s - self._clock_read_at_s
        self._clock_read_at_s = now_s
        entry = self._first_entry()
        due_s = math.inf if entry is None else entry[0]
        self._clock_s = max(self._clock_s, min(self._clock_s + passed_s, due_s))

    def _first_entry(self) -> tuple[float, int, Turn] | None:
        while self._entries and self._entries[0][2].place != self._entries[0][1]:
            heapq.heappop(self._entries)
        return self._entries[0] if self._entries else None

    def _count_first(self, turn: Turn) -> None:
        self._n_first -= turn.is_first
        turn.is_first = False
