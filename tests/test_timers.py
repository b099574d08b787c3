from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from shared.timers import Timers

STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.integers(0, 5)), max_size=60)


@given(STEPS)
def test_everybody_is_woken_in_time_and_not_before(steps: list[tuple[str, int, int]]) -> None:
    """An owner comes up when the time it set last has come, once per setting, and never earlier."""
    timers: Timers[str] = Timers()
    wanted: dict[str, float] = {}
    now = 0
    for owner, delay, passed in steps:
        wanted[owner] = inf if delay == 20 else now + delay
        timers.set(owner, wanted[owner])
        assert timers.next_at() <= min(wanted.values())
        now += passed
        due = set()
        while (woken := timers.pop_due(now)) is not None:
            due.add(woken)
            assert wanted[woken] <= now
            wanted[woken] = inf
            timers.set(woken, inf)
        assert all(wake_at > now for wake_at in wanted.values()), (due, wanted)


def test_who_is_gone_is_not_woken() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)
    timers.set("b", 2.0)
    timers.discard("a")
    assert timers.pop_due(3.0) == "b"
    assert timers.pop_due(3.0) is None
    assert timers.next_at() == inf


def test_an_owner_that_is_put_off_again_and_again_leaves_nothing_behind() -> None:
    timers: Timers[str] = Timers()
    for step in range(1000):
        timers.set("waits", 100.0 + step)
        timers.set("waits", inf)
    assert len(timers._heap) == 1
