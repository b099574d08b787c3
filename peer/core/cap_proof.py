"""What a recording of the interface proves about the upload cap.

The interface counts everything that this machine sends. The peer says what it sent itself; the
rest is others'. A window of all is never less than the peer's own, so windows of all that stay under
the cap prove it, whoever sent. One that does not proves something only when others sent next to nothing.

Some devices cut large packets after they were counted, so that headers are missing. Then the peer says
that it sent more than was counted, and everything is taken to be as much more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from peer.core.upload_cap import CAP_SHARE, FAST_LINE
from shared.core.windows import Fullest, fullest

WINDOWS = (0.1, 1.0, 10.0)  # seconds
LOADED_SHARE = 0.3  # of the line: less than half of what it may send was no test
SLACK_SHARE = 0.04  # of a window that samples may be apart from its end; more, and it was not seen
LEAST_SEEN = 0.5  # of the windows
OTHERS_SHARE = 0.02  # of all that was sent: the peer can be blamed for the rest


class Verdict(Enum):
    """What the recording proves, and the exit status that says so."""

    KEPT = ("the cap was kept under load", 0)
    BROKEN = ("the cap was not kept", 3)
    IDLE = ("nothing went over the cap, but the peer hardly uploaded: no proof of what happens under load", 4)
    OTHERS = ("other programs sent too much to tell; repeat it while the machine is quiet", 4)
    BUSY = ("this machine was too busy to look often enough; repeat it when it is not", 4)
    NO_PEER = ("no peer runs here; this is what other programs sent", 4)

    def __init__(self, text: str, status: int) -> None:
        self.text = text
        self.status = status


@dataclass(frozen=True, slots=True)
class Compared:
    """IP bytes that passed the interface between the peer's two answers, and what it says it sent of them."""

    counted_bytes: int
    peer_bytes: int | None  # None: no peer answers

    @property
    def more(self) -> float:
        """How many times too little was counted."""
        if not self.peer_bytes or not self.counted_bytes:
            return 1.0
        return max(1.0, self.peer_bytes / self.counted_bytes)

    @property
    def peer_share(self) -> float:
        """Of all that was sent."""
        return (self.peer_bytes or 0) / max(1, self.peer_bytes or 0, self.counted_bytes)


@dataclass(frozen=True, slots=True)
class Proof:
    """Bytes are those of IP packets; `worst` is by seconds."""

    interfaces: tuple[str, ...]
    seconds: float
    line_rate: float
    worst: dict[float, Fullest]
    sent_bytes: int
    peer_bytes: int | None  # None: no peer answers
    verdict: Verdict

    @property
    def mean_rate(self) -> float:
        """Of everything, bytes per second."""
        return self.sent_bytes / self.seconds

    @property
    def other_bytes(self) -> int | None:
        """What the peer did not send."""
        return None if self.peer_bytes is None else self.sent_bytes - self.peer_bytes


def prove(
    interfaces: tuple[str, ...],
    times: Sequence[float],
    totals: Sequence[int],
    line_rate: float,
    compared: Compared,
) -> Proof:
    """From samples of what was sent so far, in IP bytes. Raises ValueError if they span under ten seconds."""
    seconds = times[-1] - times[0]
    sent = round(compared.more * (totals[-1] - totals[0]))
    peer_bytes = None if compared.peer_bytes is None else round(compared.peer_share * sent)
    worst = {}
    for length in WINDOWS:
        found = fullest(times, totals, length, SLACK_SHARE * length)
        worst[length] = Fullest(compared.more * found.rate, found.seen_share)
    judged = [each for length, each in worst.items() if counts(length, line_rate)]
    over = any(each.rate >= CAP_SHARE * line_rate for each in judged)
    verdict = _verdict(over, sent, seconds * line_rate, peer_bytes)
    if verdict is Verdict.KEPT and min(each.seen_share for each in judged) < LEAST_SEEN:
        verdict = Verdict.BUSY
    return Proof(interfaces, seconds, line_rate, worst, sent, peer_bytes, verdict)


def counts(window: float, line_rate: float) -> bool:
    """Whether the cap is promised for windows of that length on such a line."""
    return window >= WINDOWS[1] or line_rate >= FAST_LINE


def _verdict(over: bool, sent: int, line_bytes: float, peer_bytes: int | None) -> Verdict:
    if peer_bytes is None:
        return Verdict.NO_PEER
    if over:
        return Verdict.OTHERS if sent - peer_bytes > OTHERS_SHARE * sent else Verdict.BROKEN
    return Verdict.KEPT if peer_bytes >= LOADED_SHARE * line_bytes else Verdict.IDLE
