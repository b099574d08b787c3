"""Invariant: a counter is taken once, and never again; one that is older than the window is not taken.

The window of a place is compared with a set that forgets nothing.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.ids import HostPort, Kind, Mode, NodeId
from tracker.core.nodes import Node
from tracker.core.seals import LIFE_SECONDS, WINDOW, Seals, Window, counters_of

NOW = 1_800_000_000.0
STEPS = st.one_of(st.integers(-WINDOW - 70, 3), st.integers(0, 400), st.sampled_from([63, 64, 65, 1 << 20]))


class Remembers:
    """What the window stands for."""

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.following = 0

    def take(self, counter: int) -> bool:
        if counter in self.taken or self.following - counter > WINDOW:
            return False
        self.taken.add(counter)
        self.following = max(self.following, counter + 1)
        return True


@given(st.lists(STEPS, max_size=120), st.integers(0, 1 << 31))
@settings(max_examples=300, deadline=None)
def test_the_window_takes_what_a_memory_without_end_would(steps: list[int], start: int) -> None:
    window, model = Window(3), Remembers()
    for step in steps:
        counter = max(0, (model.following or start) + step)
        expected = counter not in model.taken and model.following - counter <= WINDOW
        (seen,) = window.may_take(np.array([1]), np.array([counter], np.uint64))
        assert bool(seen) is expected
        assert window.take(1, counter) is expected
        assert model.take(counter) is expected
    assert not window._ring[[0, 2]].any()  # others' windows are not touched


def node(number: int) -> Node:
    at = HostPort("192.0.2.1", 1)
    return Node(NodeId(number.to_bytes(32, "big")), at, Kind.PC, Mode.SHARED, "", "", NOW, NOW)


def head(number: bytes, counter: int = 0) -> np.ndarray:
    return np.frombuffer(b"\x08" + number + counter.to_bytes(8, "big"), np.uint8).reshape(1, 16)


def is_good(seals: Seals, number: bytes, now: float = NOW) -> bool:
    return bool(seals.find(head(number), now)[2][0])


def test_a_seal_is_found_until_it_ends() -> None:
    seals = Seals(bytes(32))
    assert not is_good(seals, bytes(7))
    made = seals.make(node(1), NOW)
    assert made is not None
    number, ask_key, answer_key = made
    assert len({ask_key, answer_key, bytes(16)}) == 3
    assert is_good(seals, number, NOW + LIFE_SECONDS - 1)
    places, known, good = seals.find(head(number), NOW + LIFE_SECONDS)
    assert (places[0], known[0], good[0]) == (0, True, False)


@pytest.mark.parametrize("at", range(7))
def test_a_number_is_good_in_all_its_bytes(at: int) -> None:
    seals = Seals(bytes(32))
    made = seals.make(node(1), NOW)
    assert made is not None
    wrong = bytearray(made[0])
    wrong[at] ^= 1
    assert not is_good(seals, bytes(wrong))


def test_one_more_seal_ends_the_one_before_and_has_other_keys() -> None:
    seals, who = Seals(bytes(32)), node(1)
    first, second = seals.make(who, NOW), seals.make(who, NOW)
    assert first is not None
    assert second is not None
    assert not set(first) & set(second)
    assert not is_good(seals, first[0])
    assert is_good(seals, second[0])
    assert len(seals) == 1


def test_a_full_table_gives_up_what_has_ended_and_nothing_else() -> None:
    seals, nodes = Seals(bytes(32), capacity=2), [node(n) for n in range(4)]
    first, second = seals.make(nodes[0], NOW), seals.make(nodes[1], NOW + 10)
    assert first is not None
    assert second is not None
    assert seals.make(nodes[2], NOW + 20) is None
    assert seals.make(nodes[2], NOW + LIFE_SECONDS) is not None  # the oldest has ended
    assert nodes[0].seal is None
    assert not is_good(seals, first[0])
    assert is_good(seals, second[0], NOW + 20)
    seals.end(nodes[1])
    assert not is_good(seals, second[0], NOW + 20)
    third = seals.make(nodes[3], NOW + 20)
    assert third is not None
    assert is_good(seals, third[0], NOW + 20)
    seals.end(nodes[0])  # twice is once
    assert len(seals) == 2


def test_counters_are_read_whole_and_bounded() -> None:
    heads = np.concatenate([head(bytes(7), n) for n in (0, 1, (1 << 32) - 1, 1 << 32, (1 << 64) - 1)])
    counters, small = counters_of(heads)
    assert counters.tolist() == [0, 1, (1 << 32) - 1, 1 << 32, (1 << 64) - 1]
    assert small.tolist() == [True, True, True, False, False]
