"""`python -m benchmarks.tracker`: see benchmarks/README.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks.report import Report, machine
from benchmarks.tracker import announce, live, pause, sealed, simulation, slabs, workers

SCENARIOS: dict[str, Callable[[Report, bool], None]] = {
    "slabs": slabs.measure,
    "simulation": simulation.measure,
    "announce": announce.measure,
    "live": live.measure,
    "pause": pause.measure,
    "sealed": sealed.measure,
    "workers": workers.measure,
}


def main() -> None:
    """Run the scenarios asked for, then print tables and the line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracker", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller, for a first look")
    parser.add_argument("--only", metavar="NAME", action="append", choices=SCENARIOS, help="repeatable")
    chosen = parser.parse_args()
    report = Report()
    for name in chosen.only or SCENARIOS:
        SCENARIOS[name](report, chosen.quick)
    print(f"{machine(('numpy', 'msgspec'))}\n\n{report.text()}")


if __name__ == "__main__":
    main()
