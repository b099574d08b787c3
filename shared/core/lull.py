"""When an endpoint looks at its socket again: at once, or together with what comes soon.

Waking up costs more than a datagram does: a processor that has slept finds nothing of ours in its
caches. So what can wait a moment is taken together.

* Datagrams that come one after the other, as a paced sender's do, are taken a millisecond at a time.
  The first after a pause never waits, nor does a stream so fast that reads are full anyway.
* While data of ours waits for its turn at the gate, and the turn comes soon, what comes in waits for it:
  most of it is acknowledgements of what the gate let out, and they cannot make it let out more.

Who measures how fast something comes asks for no lull, for a while.

The price is latency: up to a millisecond, or LONGEST_SECONDS at an endpoint whose upload is held back.
"""

from __future__ import annotations

from math import inf

SPACING_SECONDS = 0.001
TRAIN_SECONDS = 0.002  # datagrams that follow each other within this come in a row
FULL_BYTES = 65536  # so much in one go is a batch already
LONGEST_SECONDS = 0.012


class Lull:
    """From when on arrivals are looked at."""

    def __init__(self) -> None:
        self._took_at = -inf
        self._until = -inf
        self._at_once_until = -inf

    def look_at_once(self, until: float) -> None:
        """Till then nothing that arrives waits."""
        self._at_once_until = max(self._at_once_until, until)

    def took(self, count: int, now: float) -> None:
        """`count` bytes, not 0, were taken from the socket."""
        is_train = now < self._took_at + TRAIN_SECONDS
        self._took_at = now
        self._until = now + SPACING_SECONDS if is_train and count < FULL_BYTES else now

    def until(self, turn_at: float, now: float) -> float:
        """Until when the socket is let be; `turn_at` is when the gate gives its next turn."""
        if now < self._at_once_until:
            return now
        return turn_at if now < turn_at <= now + LONGEST_SECONDS else self._until
