"""How fast the path delivers: rate samples from acknowledgements, and when not to trust them.

Every packet takes along, in its `Departure`, what had been delivered when it left. When it is
acknowledged, the difference is what the path delivered meanwhile, over the longer of two times: how
long sending that took and how long acknowledging it took. The longer one, because acknowledgements that
pile up on the way back would make the path look faster than it is.

A sample shows the path's rate only if the path was what held the sender back. If the sender had nothing
to send, or another gate stood before it, the sample shows the sender's rate and is marked `app_limited`.
Nobody has to say so: a sender that had room in its window and stayed well behind the pace it was allowed
was plainly held back by something else.

Source: draft-ietf-ccwg-bbr, "Delivery Rate Samples"; the behind-pace rule is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

# Who keeps to nine tenths of the pace is paced, with late timers; who does not is held back elsewhere.
PACED_SHARE = 0.9
# A pause this long between "may send" and "sent" is no timer's fault: they come up 1 to 2 ms late.
PAUSE_SECONDS = 0.004


@dataclass(frozen=True, slots=True)
class Departure:
    """What was known when a packet (or a burst sent in one go) left; kept with it until its fate is known."""

    number: int  # order of leaving, across packet number spaces
    sent_at: float
    first_sent_at: float  # when the newest packet acknowledged by then had left
    delivered_at: float  # when it was acknowledged
    delivered_bytes: int  # acknowledged by then, ever
    lost_bytes: int  # lost by then, ever
    in_flight_bytes: int  # with this one
    app_limited: bool  # the path was not what held the sender back


@dataclass(frozen=True, slots=True)
class RateSample:
    """What one batch of acknowledgements tells; `newest` is the last to leave among the acknowledged."""

    now: float
    newest: Departure
    acked_bytes: int  # in this batch
    delivered_bytes: int  # since `newest` left
    lost_bytes: int  # since `newest` left
    rate: float  # bytes/s; 0: too short a time to tell
    rtt_seconds: float
    app_limited: bool


class DeliveryMeter:
    """Counts what leaves, arrives and is lost, and makes rate samples of it."""

    def __init__(self, datagram_bytes: int) -> None:
        self.in_flight_bytes = 0
        self.delivered_bytes = 0
        self.lost_bytes = 0
        self._datagram_bytes = datagram_bytes
        self._departures = 0
        self._newest_acked = 0
        self._delivered_at = 0.0
        self._first_sent_at = 0.0
        self._limited_until = 0  # samples are app-limited until so many bytes are delivered; 0: they are not
        self._window_is_full = False
        self._was_full = [False, False]  # the window, in this round trip and the one before
        self._may_send_at: float | None = None  # by window and pace, a tenth of grace included

    def set_datagram_bytes(self, count: int) -> None:
        """Datagrams are of this size from now on."""
        self._datagram_bytes = count

    @property
    def app_limited(self) -> bool:
        """Packets that leave now give samples of the sender's rate, not the path's."""
        return self._limited_until > 0

    @property
    def window_limited(self) -> bool:
        """The window, not the pace, held the sender back in this round trip or the one before."""
        return any(self._was_full)

    def next_round(self) -> None:
        """A round trip ended."""
        self._was_full = [self._window_is_full, self._was_full[0]]

    def departed(self, now: float, size: int, window_bytes: int, pacing_rate: float) -> Departure:
        """`size` bytes leave under these limits."""
        self._look_for_pause(now)
        if self.in_flight_bytes <= 0:
            self._first_sent_at = self._delivered_at = now
        self.in_flight_bytes += size
        self._departures += 1
        allowed_at = now if self._may_send_at is None else max(self._may_send_at, now - PAUSE_SECONDS)
        self._may_send_at = allowed_at + size / (PACED_SHARE * pacing_rate)
        if self.in_flight_bytes + self._datagram_bytes > window_bytes:
            self._window_is_full = self._was_full[0] = True
        return Departure(
            number=self._departures,
            sent_at=now,
            first_sent_at=self._first_sent_at,
            delivered_at=self._delivered_at,
            delivered_bytes=self.delivered_bytes,
            lost_bytes=self.lost_bytes,
            in_flight_bytes=self.in_flight_bytes,
            app_limited=self.app_limited,
        )

    def acknowledged(self, now: float, size: int, newest: Departure, min_rtt: float) -> RateSample:
        """`size` bytes arrived; of what they came in, `newest` was the last to leave."""
        self.in_flight_bytes -= size
        self.delivered_bytes += size
        self._delivered_at = now
        if self._limited_until and self.delivered_bytes > self._limited_until:
            self._limited_until = 0
        if newest.number > self._newest_acked:
            self._newest_acked = newest.number
            self._first_sent_at = newest.sent_at
        seconds = max(newest.sent_at - newest.first_sent_at, now - newest.delivered_at)
        delivered = self.delivered_bytes - newest.delivered_bytes
        return RateSample(
            now=now,
            newest=newest,
            acked_bytes=size,
            delivered_bytes=delivered,
            lost_bytes=self.lost_bytes - newest.lost_bytes,
            # Less than the shortest round trip cannot be right: something was acknowledged twice over.
            rate=delivered / seconds if seconds > 0 and seconds >= min_rtt else 0.0,
            rtt_seconds=max(0.0, now - newest.sent_at),
            app_limited=newest.app_limited,
        )

    def lost(self, size: int) -> None:
        """`size` bytes will not arrive."""
        self.in_flight_bytes -= size
        self.lost_bytes += size

    def expired(self, size: int) -> None:
        """Nobody will know what became of `size` bytes."""
        self.in_flight_bytes -= size

    def look_for_room(self, now: float, window_bytes: int) -> None:
        """After the window or what fills it has changed: from now on a pause may be the sender's own."""
        if self._window_is_full and self.in_flight_bytes + self._datagram_bytes <= window_bytes:
            self._window_is_full = False
            if self._may_send_at is None or self._may_send_at < now:
                self._may_send_at = now

    def note_app_limited(self) -> None:
        """What leaves until all in flight now has arrived shows the sender's rate, not the path's."""
        self._limited_until = max(self.delivered_bytes + self.in_flight_bytes, 1)

    def _look_for_pause(self, now: float) -> None:
        if self._window_is_full or self._may_send_at is None:
            return
        if now - self._may_send_at > PAUSE_SECONDS:
            self.note_app_limited()
