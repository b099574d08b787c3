"""What an endpoint's task waits for: its socket, and a time that others may bring forward meanwhile.

trio can wait for a time, but it does so by cancelling a scope: an exception through every
frame, once per wake-up, and epoll's time-outs are rounded up to whole milliseconds. A sender that
is held to a few hundred kilobytes a second does little else than wake up. Where the
kernel has timers that are files (Linux), one of them stands in an epoll set beside the socket, and trio
waits for the set: no exception, microseconds of precision, and one task for everything.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from math import inf
from typing import Any, Protocol

import trio

from shared import clock

_CLOCK_BOOTTIME, _TIMER_FLAGS = 7, os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)  # linux/time.h, timerfd.h
_TIMES = struct.Struct("@4l")  # struct itimerspec: interval, then the time to go; seconds and nanoseconds
_SOONEST_SECONDS = 1e-9  # zero would switch the timer off
_LATER_SECONDS = 2e-6  # what the clock's floats cannot tell apart: early would mean twice
_LONGEST_SECONDS = 3600.0  # whoever wakes early looks again


class Alarm(Protocol):
    """Waits for a socket and a time at once; one task waits, others may hurry it."""

    async def wait(self, until: float, *, reads: bool, writes: bool) -> None:
        """Until then (`shared.clock`), or until the socket can be read or written, as asked."""

    def hurry(self, at: float) -> None:
        """Let the waiting task wake at that time, if it would sleep longer."""

    def close(self) -> None:
        """Nobody waits any more."""


def alarm(sock: socket.socket) -> Alarm:
    """The best that this system has for a non-blocking socket."""
    if _TIMERS is None:
        return ScopeAlarm(sock)
    make, set_timer = _TIMERS
    timer = make(_CLOCK_BOOTTIME, _TIMER_FLAGS)
    return ScopeAlarm(sock) if timer < 0 else TimerAlarm(sock, timer, set_timer)


class TimerAlarm:
    """By a timer of the kernel and an epoll set."""

    def __init__(self, sock: socket.socket, timer: int, set_timer: Callable[..., int]) -> None:
        """Takes over `timer`, a descriptor that the C library's `set_timer` takes."""
        self._socket = sock
        self._timer = timer
        self._set_timer = set_timer
        self._both = select.epoll()
        self._both.register(timer, select.EPOLLIN)
        self._both.register(sock, select.EPOLLIN)
        self._looks_for_room = False
        self._wakes_at = -inf  # nobody waits

    async def wait(self, until: float, *, reads: bool, writes: bool) -> None:
        if writes is not self._looks_for_room:
            self._both.modify(self._socket, select.EPOLLIN | (select.EPOLLOUT if writes else 0))
            self._looks_for_room = writes
        self._set(until)
        try:
            await trio.lowlevel.wait_readable(self._both if reads or writes else self._timer)
        finally:
            self._wakes_at = -inf

    def hurry(self, at: float) -> None:
        if at < self._wakes_at:
            self._set(at)

    def close(self) -> None:
        self._both.close()
        os.close(self._timer)

    def _set(self, at: float) -> None:
        self._wakes_at = at
        seconds = min(max(at - clock.now() + _LATER_SECONDS, _SOONEST_SECONDS), _LONGEST_SECONDS)
        whole = int(seconds)
        self._set_timer(self._timer, 0, _TIMES.pack(0, 0, whole, int((seconds - whole) * 1e9) or 1), None)


class ScopeAlarm:
    """By trio alone."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._scope = trio.CancelScope()

    async def wait(self, until: float, *, reads: bool, writes: bool) -> None:
        with trio.CancelScope(deadline=trio.current_time() + until - clock.now()) as self._scope:
            if writes:
                await trio.lowlevel.wait_writable(self._socket)
            elif reads:
                await trio.lowlevel.wait_readable(self._socket)
            else:
                await trio.sleep_forever()

    def hurry(self, at: float) -> None:
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + at - clock.now())

    def close(self) -> None:
        pass


def _timers() -> tuple[Any, Any] | None:
    """timerfd_create and timerfd_settime, where they are and times have the layout that we know."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        return None
    libc = ctypes.CDLL(None)
    libc.timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    return libc.timerfd_create, libc.timerfd_settime


_TIMERS = _timers()
