"""The laboratory's film and file scenarios in virtual time, told in the same words.

`python -m tests.world_scenarios [SEEDS]` prints a row for each. A viewer's start-up here ends when the first
segment is whole, as `peer.headless` has it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from tests.world import Host, Line, World

TEN_MBIT = 1_250_000.0
NEVER = 99.0  # the start-up of who saw nothing
LIFTED = 1.6  # see `tests.lab.swarm`


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of one run; shares are of all that the viewers got."""

    startups: tuple[float, ...]  # seconds, in the order of their coming
    stalls: int
    stall_seconds: float
    offload: float
    twice: float
    last_seconds: float  # until the last had it all
    first_seconds: float
    failed: float  # share of requests that peers did not answer in whole

    def row(self, name: str) -> str:
        """For people."""
        starts = self.startups or (0.0,)
        mean = sum(starts) / len(starts)
        return (
            f"{name:14} start {mean:5.2f} max {max(starts):5.2f}  "
            f"stalls {self.stalls:3} {self.stall_seconds:5.1f} s  "
            f"offload {self.offload:6.1%}  twice {self.twice:5.2%}  "
            f"first {self.first_seconds:5.1f} last {self.last_seconds:5.1f} s  failed {self.failed:5.1%}"
        )


def _peers(world: World, count: int, uplink: float, told: float) -> list[Host]:
    return [world.add_peer(f"p{n}", Line(uplink), told_rate=told) for n in range(count)]


def film(
    seed: int,
    *,
    edge_rate: float = 2_500_000.0,
    told: float = TEN_MBIT,
    viewers: int = 10,
    gap_seconds: float = 3.0,
    film_seconds: int = 60,
) -> tuple[Figures, World]:
    """Viewers of a film of 4 Mbit/s, one after the other."""
    world = World(seed, film_seconds=film_seconds, bit_rate=4_000_000.0, edge_rate=edge_rate)
    world.audience.picture_seconds = 4.0
    hosts = _peers(world, viewers, TEN_MBIT, told)
    for number, host in enumerate(hosts):
        world.watch(host, 2.0 + gap_seconds * number)
    world.run(2.0 + gap_seconds * viewers + film_seconds * 1.6)
    return figures(world), world


def bulk(
    seed: int,
    *,
    edge_rate: float = 2_500_000.0,
    told: float = TEN_MBIT,
    peers: int = 10,
    film_seconds: int = 136,
) -> tuple[Figures, World]:
    """Downloaders of a file of 68 MB who start at once."""
    world = World(seed, film_seconds=film_seconds, bit_rate=4_000_000.0, edge_rate=edge_rate)
    for host in _peers(world, peers, TEN_MBIT, told):
        world.download(host, 2.0)
    world.run(200.0)
    return figures(world), world


def figures(world: World) -> Figures:
    """Of a world that ran."""
    viewers = world.viewers
    got = sum(v.host.core.statistics().edge_bytes + v.host.core.statistics().peer_bytes for v in viewers)
    received = sum(v.host.received_bytes for v in viewers)
    ends = [(v.whole_at or world.clock.now) - v.began_at for v in viewers]
    asked = sum(" asks p" in line for line in world.clock.trace)
    failed = sum(
        " declines " in line or " gives up " in line and " at p" in line for line in world.clock.trace
    )
    return Figures(
        tuple(v.startup_seconds or NEVER for v in viewers if not v.downloads),
        sum(v.stalls for v in viewers),
        sum(v.stall_seconds for v in viewers),
        1 - world.edge.sent_bytes / max(1, got),
        (received - got) / max(1, got),
        max(ends),
        min(ends),
        failed / max(1, asked),
    )


def main(seeds: int) -> None:
    """All of them."""
    for seed in range(seeds):
        print(bulk(seed)[0].row("bulk kept"), flush=True)
        print(bulk(seed, told=TEN_MBIT * LIFTED)[0].row("bulk lifted"), flush=True)
        print(film(seed)[0].row("film kept"), flush=True)
        print(film(seed, told=TEN_MBIT * LIFTED)[0].row("film lifted"), flush=True)
        print(film(seed, edge_rate=12_500_000.0)[0].row("film ample"), flush=True)
        print(film(seed, gap_seconds=0.0)[0].row("film together"), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
