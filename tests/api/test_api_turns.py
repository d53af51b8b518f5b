"""Who asks next: the queue of turns, driven by a clock that the tests move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.api.turns import Turn, TurnQueue

PAUSES = st.dictionaries(st.integers(0, 30), st.floats(0.05, 60.0), min_size=1)


class Clockwork:
    """Waits that enter a queue again as soon as they had their turn. ``given`` has the time and the wait of each."""

    def __init__(self, queue: TurnQueue) -> None:
        self.queue = queue
        self.now_s = 100.0
        self.given: list[tuple[float, object]] = []
        self._pauses: dict[object, float] = {}
        self._waits: dict[Turn, object] = {}

    def start(self, pauses: Mapping[object, float]) -> None:
        """Let waits enter for the first time, each with the pause that it always asks for."""
        for wait, pause_s in pauses.items():
            self._pauses[wait] = pause_s
            self._waits[self.queue.enter(self.now_s, pause_s=pause_s, is_first=True)] = wait

    def run(self, seconds: float) -> Counter[object]:
        """Run for some seconds; return how many turns each wait had."""
        until_s, n_before = self.now_s + seconds, len(self.given)
        while self.now_s <= until_s:
            if (turn := self.queue.give(self.now_s)) is None:
                self.now_s = self.queue.next_look_s(self.now_s) or until_s + 1
                continue
            wait = self._waits.pop(turn)
            self.given.append((self.now_s, wait))
            self.queue.end(self.now_s, turn)
            self._waits[self.queue.enter(self.now_s, pause_s=self._pauses[wait])] = wait
        self.now_s = until_s
        return Counter(wait for _, wait in self.given[n_before:])


def test_turns_are_given_as_the_module_draws_them() -> None:
    """With more waits than turns, those that ask for short pauses have most of the turns, and none starves."""
    clockwork = Clockwork(TurnQueue(per_second=1.0, n_at_once=1))
    clockwork.start({"A": 1.0, "B": 4.0, "C": 4.0})
    clockwork.run(9.5)
    assert "ABCAAABCAA" == "".join(str(wait) for _, wait in clockwork.given)


@given(st.floats(0.05, 60.0))
def test_a_single_wait_has_its_turn_when_its_pause_is_over(pause_s: float) -> None:
    """The queue delays a wait only because of others: the first turn comes at once, the next after the pause."""
    clockwork = Clockwork(TurnQueue(per_second=100.0, n_at_once=1))
    clockwork.start({"A": pause_s})
    clockwork.run(10 * pause_s)
    times_s = [at_s for at_s, _ in clockwork.given]
    assert times_s[0] == 100.0
    assert [pause_s] * (len(times_s) - 1) == pytest.approx([later - earlier for earlier, later in pairwise(times_s)])


@given(PAUSES, st.floats(0.5, 100.0))
def test_turns_never_exceed_the_pace(pauses: dict[int, float], per_second: float) -> None:
    """The service counts requests per app: however many waits there are, they keep the pace together."""
    clockwork = Clockwork(TurnQueue(per_second=per_second, n_at_once=5))
    clockwork.start(pauses)
    clockwork.run(20.0)
    times_s = [at_s for at_s, _ in clockwork.given]
    for first, at_s in enumerate(times_s):
        # What a late timer makes up for is a tenth of a second of turns.
        n_within_1_s = sum(each < at_s + 1.0 - 1e-6 for each in times_s[first:])
        assert n_within_1_s <= 1.1 * per_second + 1


@given(PAUSES, st.floats(0.5, 100.0), st.floats(1.0, 300.0))
def test_all_pauses_grow_by_the_same_factor(pauses: dict[int, float], per_second: float, seconds: float) -> None:
    """Every wait has had the turns that its pauses allow by the queue's clock, whatever the pace: none starves."""
    clockwork = Clockwork(TurnQueue(per_second=per_second, n_at_once=1000))
    clockwork.start(pauses)
    n_turns = clockwork.run(seconds)
    # By the queue's clock, the n-th turn of a wait is due after n - 1 pauses.
    least_s = max((n_turns[wait] - 1) * pause_s for wait, pause_s in pauses.items())
    most_s = min(n_turns[wait] * pause_s for wait, pause_s in pauses.items())
    assert least_s <= most_s + 1e-6


def test_a_young_wait_does_not_stand_behind_ten_thousand_old_ones() -> None:
    """After a restart of the triggerer all want their first turn at once: a run that began just now goes on at once."""
    clockwork = Clockwork(TurnQueue(per_second=80.0, n_at_once=50))
    clockwork.start({f"old {n}": 60.0 for n in range(10_000)})
    clockwork.run(10.0)
    clockwork.start({"young": 1.0})
    n_turns = clockwork.run(120.0)
    first_s = next(at_s for at_s, wait in clockwork.given if wait == "young")
    assert first_s < 100.0 + 10.0 + 5.0
    assert n_turns["young"] > 40
    n_old = clockwork.run(130.0) + n_turns
    assert sum(str(wait).startswith("old") for wait in n_old) > 9_900


def test_a_wait_at_its_deadline_comes_next() -> None:
    """Its last request must be at the deadline, not behind the requests of all others."""
    queue = TurnQueue(per_second=1.0, n_at_once=10)
    others = [queue.enter(0.0, pause_s=0.0) for _ in range(100)]
    late = queue.enter(0.0, pause_s=60.0)
    queue.expedite(0.0, late)
    assert queue.give(0.0) is late
    queue.expedite(0.0, late)  # it was given already
    assert queue.give(5.0) is others[0]


def test_no_more_requests_are_under_way_than_there_are_connections() -> None:
    """A slow service must not make requests queue up for a connection: there they would time out."""
    queue = TurnQueue(per_second=1000.0, n_at_once=2)
    turns = [queue.enter(0.0, pause_s=0.0) for _ in range(4)]
    assert [queue.give(1.0) for _ in range(3)] == [*turns[:2], None]
    assert queue.next_look_s(1.0) is None
    queue.end(2.0, turns[0])
    assert queue.next_look_s(2.0) == 2.0
    assert queue.give(2.0) is turns[2]


def test_a_wait_that_leaves_costs_no_turn() -> None:
    """A cancelled trigger must neither delay the others nor keep its place, before or after its turn."""
    queue = TurnQueue(per_second=1.0, n_at_once=1)
    gone, cancelled, other = (queue.enter(0.0, pause_s=0.0) for _ in range(3))
    queue.end(0.0, gone)
    assert queue.give(0.0) is cancelled
    queue.end(0.5, cancelled)
    assert queue.next_look_s(0.5) == pytest.approx(0.9)
    assert queue.give(1.0) is other


def test_a_pause_that_the_service_asks_for_holds_all_waits() -> None:
    """The limit is the app's: if each wait had to be refused by itself, thousands would ask too early."""
    queue = TurnQueue(per_second=10.0, n_at_once=10)
    turn = queue.enter(0.0, pause_s=0.0)
    queue.hold(30.0)
    queue.hold(20.0)
    assert queue.give(29.0) is None
    assert queue.next_look_s(29.0) == 30.0
    assert queue.give(30.0) is turn
