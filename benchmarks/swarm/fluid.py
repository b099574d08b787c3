"""The fluid bound: the largest share that peers could carry if bytes were water and all was known."""

from __future__ import annotations

from random import Random

CAP_SHARE, USABLE_SHARE = 0.60, 0.85
Mix = tuple[tuple[float, float], ...]  # uplink in bits/s, share of the viewers
HOMES: Mix = ((5e6, 0.20), (10e6, 0.30), (20e6, 0.25), (50e6, 0.15), (200e6, 0.10))
POOR: Mix = ((1e6, 0.40), (3e6, 0.40), (10e6, 0.20))


def bound(
    count: int, mix: Mix, sharing: float, *, live: bool, bit_rate: float = 4e6, draws: int = 0
) -> float:
    """The mean over `draws` audiences of `count`, of whom a part is `sharing`.

    Live: one copy must come from the edge, and nobody feeds itself. Without: each is
    fed by those who came before, who keep nothing but what they watch.
    """
    rng = Random(count)
    draws = draws or max(200, 20_000 // count)
    return sum(_share(rng, count, mix, sharing, live, bit_rate) for _ in range(draws)) / draws


def _share(rng: Random, count: int, mix: Mix, sharing: float, live: bool, bit_rate: float) -> float:
    rates, weights = zip(*mix, strict=True)
    uplinks = rng.choices(rates, weights, k=count)
    given = [CAP_SHARE * USABLE_SHARE * up if rng.random() < sharing else 0.0 for up in uplinks]
    if live:
        most = sum(min(up, (count - 1) * bit_rate) for up in given)
        return min(1 - 1 / count, most / (count * bit_rate))
    left = got = 0.0
    for up in given:
        taken = min(bit_rate, left)
        got += taken
        left += up - taken
    return got / (count * bit_rate)
