"""Who is served when more comes than can be: each prefix the same, before anything dear is done.

Asks are counted per /24 of IPv4 and /48 of IPv6, which is what one household, office or attacker has.
The room is dealt out max-min fair: whoever wants less than an equal part gets all they want, and what
they leave is shared by the others. A flood from one prefix is then cut to what others leave it, at the
price of a few numpy operations for the whole batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAPPED = int.from_bytes(b"\0\0\xff\xff", "big")

Bytes = NDArray[np.uint8]


def prefixes(addresses: Bytes) -> NDArray[np.uint64]:
    """A number for the prefix of each address, (n, 16) bytes with IPv4 mapped into IPv6."""
    halves = np.ascontiguousarray(addresses).view(">u8").astype(np.uint64)
    is_four = (halves[:, 0] == 0) & (halves[:, 1] >> np.uint64(32) == _MAPPED)
    found: NDArray[np.uint64] = np.where(
        is_four, halves[:, 1] >> np.uint64(8), halves[:, 0] >> np.uint64(16) | np.uint64(1 << 63)
    )
    return found


def served(groups: NDArray[Any], room: int) -> NDArray[np.bool_]:
    """Which of these are served: at most `room`, of each group as many as is fair, the first to come."""
    if len(groups) <= room:
        return np.ones(len(groups), bool)
    _, members, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(members, kind="stable")
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen: NDArray[np.bool_] = ranks < level(counts, room)
    return chosen


def level(counts: NDArray[Any], room: int) -> int:
    """The most that each group may have, so that all together have at most `room`; at least one each."""
    left, groups = room, len(counts)
    for count in np.sort(counts).tolist():
        if count * groups > left:
            return max(1, left // groups)
        left -= count
        groups -= 1
    return int(counts.max(initial=0))
