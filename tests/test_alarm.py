"""What wakes an endpoint's task: times, hurried times, a socket that can be read or written."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import trio

from shared import alarm as alarms
from shared import clock
from shared.alarm import Alarm, ScopeAlarm, alarm
from shared.core.lull import FULL_BYTES, LONGEST_SECONDS, SPACING_SECONDS, Lull

Waking = tuple[Alarm, socket.socket, Callable[[], object]]


@pytest.fixture(params=["kernel", "trio"])
def waking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waking]:
    if request.param == "trio":
        monkeypatch.setattr(alarms, "_TIMERS", None)
    elif alarms._TIMERS is None:
        pytest.skip("this system has no timers that are files")
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        with closing(alarm(sock)) as found:
            assert isinstance(found, ScopeAlarm) is (request.param == "trio")
            yield found, sock, lambda: sock.sendto(b"x", sock.getsockname())


async def test_a_time_is_waited_for_and_never_left_early(waking: Waking) -> None:
    found, _, _ = waking
    for seconds in (0.02, 0.0, -1.0, 0.003):
        began = clock.now()
        with trio.fail_after(5):
            await found.wait(began + seconds, reads=True, writes=False)
        assert clock.now() >= began + seconds - 1e-6


async def test_a_datagram_wakes_only_who_reads(waking: Waking) -> None:
    found, _, send = waking
    send()
    began = clock.now()
    await found.wait(began + 0.02, reads=False, writes=False)
    assert clock.now() >= began + 0.019
    with trio.fail_after(5):
        await found.wait(began + 3600, reads=True, writes=False)


async def test_room_to_write_wakes_who_asks_for_it(waking: Waking) -> None:
    found, _, _ = waking
    with trio.fail_after(5):
        await found.wait(clock.now() + 3600, reads=True, writes=True)
    with trio.move_on_after(0.02) as waited:
        await found.wait(clock.now() + 3600, reads=True, writes=False)
    assert waited.cancelled_caught


async def test_a_sleeper_is_hurried_but_never_delayed(waking: Waking) -> None:
    found, _, _ = waking
    began = clock.now()
    async with trio.open_nursery() as nursery:

        async def hurry() -> None:
            found.hurry(began + 7200)
            found.hurry(began + 0.01)
            found.hurry(began + 5)

        nursery.start_soon(hurry)
        with trio.fail_after(4):
            await found.wait(began + 3600, reads=True, writes=False)
    assert clock.now() >= began + 0.009


def test_single_datagrams_are_taken_at_once_and_trains_a_millisecond_at_a_time() -> None:
    lull, never = Lull(), float("inf")
    lull.took(100, 10.0)
    assert lull.until(never, 10.0) <= 10.0
    lull.took(100, 10.001)
    assert lull.until(never, 10.001) == 10.001 + SPACING_SECONDS
    lull.took(FULL_BYTES, 10.002)
    assert lull.until(never, 10.002) <= 10.002


def test_arrivals_wait_for_a_turn_that_comes_soon() -> None:
    lull = Lull()
    assert lull.until(10.0 + LONGEST_SECONDS / 2, 10.0) == 10.0 + LONGEST_SECONDS / 2
    assert lull.until(10.0 + LONGEST_SECONDS * 2, 10.0) <= 10.0


def test_nothing_waits_while_somebody_measures() -> None:
    """Neither in a train nor for a turn; afterwards as before."""
    lull, never = Lull(), float("inf")
    lull.look_at_once(10.2)
    lull.took(100, 10.0)
    lull.took(100, 10.001)
    assert lull.until(never, 10.001) <= 10.001
    assert lull.until(10.003, 10.001) <= 10.001
    lull.look_at_once(10.1)  # another, earlier
    lull.took(100, 10.1995)
    lull.took(100, 10.2)
    assert lull.until(never, 10.2) == 10.2 + SPACING_SECONDS
