"""The short form of `make fuzz`: engines over a hostile network."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.courses import STOCK, Course, Weather, any_weather


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1 << 40), stock=st.sampled_from(STOCK))
def test_every_byte_arrives_once_and_in_order_or_the_stream_fails_cleanly(
    seed: int, stock: tuple[str, ...]
) -> None:
    Course(seed, any_weather(random.Random(seed)), stock).run()


def test_a_path_that_loses_a_third_is_slow_and_not_broken() -> None:
    """Ten courses: waits between probes that doubled without end would outlast the idle time-out in one."""
    for seed in range(10):
        assert Course(seed, Weather(loss=0.3)).run() in ("done", "closed")


def test_a_client_that_keeps_moving() -> None:
    """Whatever was written arrives, though its address changes every few round trips."""
    for seed in range(6):
        assert Course(seed, Weather(moves=0.02, doubled=0.05)).run() in ("done", "closed")
