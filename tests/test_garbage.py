"""What is over is gone at once: no collector is needed to free a connection."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from tests.quic_pair import FAR, joined


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_a_connection_that_is_over_is_freed_without_the_collector() -> None:
    """Both ends' engines are gone as soon as nobody holds the connections any more."""
    with without_collector():
        engines = []
        async with joined(idle_timeout_seconds=1.0) as pair:  # as long the timers remember it
            far = pair.far_endpoint
            near = await pair.near_endpoint.connect(FAR.id, far.local)
            other = await far.accept()
            engines = [weakref.ref(near._engine), weakref.ref(other._engine)]
            stream = near.open_stream()
            await stream.send_all(b"some" * 10_000)
            got = await other.accept_stream()
            assert await got.receive_some()
            near.close()
            await other.wait_closed()
            del near, other, stream, got
            with trio.move_on_after(5):
                while any(engine() for engine in engines):
                    pair.near.open_stream().send_eof()  # or the endpoints' tasks look at nothing else
                    await trio.sleep(0.05)
            assert [engine() for engine in engines] == [None, None]
