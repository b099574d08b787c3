"""`make bench-swarm`: viewers of one film in virtual time, beside the fluid bound and beside pure edge."""

from __future__ import annotations

import sys
import time
from random import Random

from benchmarks.report import Report
from benchmarks.swarm.fluid import HOMES, POOR, Mix, bound
from shared.core.ids import Mode
from tests.world import COARSE, Line, World


def audience(count: int, mix: Mix, sharing: float, film_seconds: int) -> World:
    """As many viewers, who come within twenty seconds; the edge carries what all of them need."""
    world = World(1, film_seconds=film_seconds, bit_rate=4e6, edge_rate=6e5 * count, scale=COARSE)
    rng = Random(count)
    rates, weights = zip(*mix, strict=True)
    for number in range(count):
        line = Line(rng.choices(rates, weights)[0] / 8)
        mode = Mode.SHARED if rng.random() < sharing else Mode.DIRECT
        world.watch(world.add_peer(f"p{number}", line, mode=mode), 1.0 + rng.uniform(0, 20))
    world.run(film_seconds + 25)
    return world


def startup(world: World, share: float) -> float:
    """The quantile of start-up; who saw no picture waited a minute."""
    waited = sorted(60.0 if v.startup_seconds is None else v.startup_seconds for v in world.viewers)
    return waited[min(len(waited) - 1, int(share * len(waited)))]


def main() -> None:
    """Table, then one line of JSON."""
    quick = "--quick" in sys.argv
    report, rows, film_seconds = Report(), [], 30 if quick else 60
    for name, mix, sharing in (("half", HOMES, 0.5), ("poor", POOR, 1.0)):
        for count in (2, 10) if quick else (2, 5, 10, 50):
            began = time.process_time()
            world = audience(count, mix, sharing, film_seconds)
            cpu = time.process_time() - began
            alone = audience(count, mix, 0.0, film_seconds)
            shown = sum(v.shown_seconds for v in world.viewers)
            stalled = sum(v.stall_seconds for v in world.viewers)
            offload, best = world.offload(), bound(count, mix, sharing, live=False)
            report.figure(f"{name}_{count}_offload", offload)
            report.figure(f"{name}_{count}_bound", best)
            quantiles = [f"{startup(w, q):.2f}" for q in (0.5, 0.95) for w in (world, alone)]
            cells = [f"{offload:.2f}", f"{best:.2f}", f"{count * (1 - offload):.1f}", *quantiles]
            rows.append([f"{name} {count}", *cells, f"{stalled / max(1.0, shown):.2%}", f"{cpu:.1f}"])
    columns = ["", "offload", "bound", "copies", "p50", "edge", "p95", "edge", "rebuffer", "CPU s"]
    report.table("Viewers at 4 Mbit/s; start-up in seconds, beside pure edge", columns, rows)
    if not quick:
        report.goal("half_50_offload", ">=", 0.75)
    print(report.text())


if __name__ == "__main__":
    main()
