"""How large a datagram the path carries: found by trying (RFC 8899, RFC 9000 section 14.3).

Connections begin with datagrams of LEAST_BYTES, which every path must carry. Once there is bulk data
to send, a probe of the next step of STEPS goes out: a packet that holds nothing but padding, so
nothing is missed if it is lost. Acknowledged, it is the new size; lost three times, the search is
over, and is taken up again after ten minutes.

    step    why
    1350    passes PPPoE and most tunnels, and whatever has 1400 left
    1452    Ethernet's 1500 less the headers of IPv6 and UDP; also for IPv4, so that two sizes suffice
    8900    jumbo frames and loopback: a sixth of the packets, which is what costs time

A path can come to carry less later, silently: a black hole. It shows in two ways. Either large
packets are lost while small ones pass: losses that no later large packet disproves, reported
three times. Or nothing at all is answered, since everything that was sent was large: two time-outs in a row.
Then the size falls to LEAST_BYTES and the search begins anew. That is right for a path that only
was down, too: looking again costs three packets.

Trade-off: a search by halves would find the last byte of a tunnel's odd size, for a gain of a few percent
and more lost packets. Three steps find what nearly all paths are.
"""

from __future__ import annotations

LEAST_BYTES = 1200  # RFC 9000 section 14
STEPS = (1350, 1452, 8900)
TRIES = 3  # RFC 8899 section 5.1.2, MAX_PROBES
AGAIN_SECONDS = 600.0  # as there, PMTU_RAISE_TIMER
SUSPICIOUS_REPORTS = 3
SILENT_TIMEOUTS = 2


class PathMtu:
    """The size of datagrams, UDP payload in bytes. Packet numbers say which packet left later."""

    def __init__(self, most_bytes: int = STEPS[-1]) -> None:
        """`most_bytes`: larger ones are not looked for."""
        self.size = LEAST_BYTES
        self._most_bytes = most_bytes
        self._under_way: int | None = None  # the probe's size
        self._tries = 0  # of the next step
        self._is_over = False  # the search
        self._over_at: float | None = None  # since when; noted when it is next looked at
        self._large_acked = -1  # the highest number of an acknowledged packet above LEAST_BYTES
        self._suspicious = 0  # reports of losses since then

    def probe_bytes(self, now: float) -> int | None:
        """The size of a probe that should leave now; None if there is nothing to find out."""
        if self._under_way is not None:
            return None
        if self._is_over:
            if self._over_at is None:
                self._over_at = now
            if now < self._over_at + AGAIN_SECONDS:
                return None
            self._begin()
        return next((step for step in STEPS if self.size < step <= self._most_bytes), None)

    def probe_sent(self, size: int) -> None:
        """A probe left."""
        self._under_way = size

    def probe_acked(self, size: int) -> None:
        """The path carries a probe's size; one from before a fall or a move says nothing."""
        if size == self._under_way:
            self.size = size
            self._under_way, self._tries, self._suspicious = None, 0, 0

    def probe_lost(self, size: int) -> None:
        """It may not; or the probe was lost for other reasons."""
        if size != self._under_way:
            return
        self._under_way = None
        self._tries += 1
        self._is_over = self._tries == TRIES

    def refused(self, size: int) -> None:
        """Our own system says that it cannot send datagrams of this size."""
        self._fit_into(size - 1)
        self._is_over = True

    def limit(self, most_bytes: int) -> None:
        """From now on no datagrams above `most_bytes`."""
        if most_bytes != self._most_bytes:
            self._most_bytes = most_bytes
            self._fit_into(most_bytes)

    def moved(self) -> None:
        """The path is another one: nothing is known of it."""
        self._fit_into(LEAST_BYTES)

    def large_acked(self, number: int) -> None:
        """A packet above LEAST_BYTES arrived: what was lost before it was not lost for its size."""
        if number > self._large_acked:
            self._large_acked = number
            self._suspicious = 0

    def large_lost(self, number: int) -> None:
        """Packets above LEAST_BYTES were reported lost; `number` is the highest."""
        if number > self._large_acked and self.size > LEAST_BYTES:
            self._suspicious += 1
            if self._suspicious >= SUSPICIOUS_REPORTS:
                self.moved()

    def timed_out(self, in_a_row: int) -> None:
        """Nothing that was sent is answered, and that has been so for so many time-outs."""
        if in_a_row >= SILENT_TIMEOUTS and self.size > LEAST_BYTES:
            self.moved()

    def _fit_into(self, most_bytes: int) -> None:
        if self.size > most_bytes:
            self.size = max(step for step in (LEAST_BYTES, *STEPS) if step <= max(most_bytes, LEAST_BYTES))
        self._begin()

    def _begin(self) -> None:
        """Look for the next step as if for the first time."""
        self._under_way, self._tries, self._suspicious = None, 0, 0
        self._is_over, self._over_at = False, None
