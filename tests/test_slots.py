"""How many pieces an edge sends at once, against lines and guests of every speed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.slots import FIRST_SLOTS, REST_SECONDS, Slots

MOST = 64
PIECE = 262_144


def run(slots: Slots, line_rate: float, guest_rate: float, seconds: float, now: float = 0.0) -> float:
    """Turns on a line of so many bytes/s, each no faster than its guest takes it; all slots are always
    wanted. The time afterwards."""
    end = now + seconds
    while now < end:
        count = slots.count
        now += PIECE * count / min(line_rate, guest_rate * count)
        for _ in range(count):
            slots.ended(PIECE)
        slots.look(is_short=True, now=now)
    return now


def test_on_a_narrow_line_few_pieces_are_under_way_nearly_always() -> None:
    slots = Slots(MOST)
    now, counts = 0.0, []
    for _ in range(200):
        now = run(slots, 2_500_000.0, 6_250_000.0, 0.5, now)
        counts.append(slots.count)
    assert max(counts) <= 9
    assert sum(count == FIRST_SLOTS for count in counts) > 150


@pytest.mark.parametrize("guest_rate", [125_000.0, 1_250_000.0])
def test_a_wide_line_is_filled_however_slow_each_guest_is(guest_rate: float) -> None:
    slots = Slots(MOST)
    run(slots, 125_000_000.0, guest_rate, 120.0)
    assert slots.count == MOST


def test_what_brought_nothing_is_tried_again_later() -> None:
    slots = Slots(MOST)
    now = run(slots, 2_500_000.0, 6_250_000.0, 10.0)
    assert slots.count == FIRST_SLOTS
    run(slots, 125_000_000.0, 1_250_000.0, REST_SECONDS + 30.0, now)
    assert slots.count > 2 * FIRST_SLOTS


@given(
    st.integers(1, MOST),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, PIECE), st.floats(0.0, 30.0), st.booleans())),
)
def test_the_number_stays_within_its_bounds(most: int, steps: list[tuple[int, int, float, bool]]) -> None:
    """Whatever ends and whenever it is looked at, there are no fewer than at first, and at most `most`."""
    slots, now = Slots(most), 0.0
    for turns, size, seconds, is_short in steps:
        for _ in range(turns):
            slots.ended(size)
        now += seconds
        slots.look(is_short=is_short, now=now)
        assert min(FIRST_SLOTS, most) <= slots.count <= most
