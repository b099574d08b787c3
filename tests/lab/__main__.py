"""Run the network laboratory's scenarios; print tables, then one line of JSON."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any

from benchmarks.report import Report, machine
from tests.lab import scenarios, system
from tests.lab.line import LabError


def main() -> None:
    """The scenarios asked for, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the shortest run that still shows the same")
    known = scenarios.names()
    parser.add_argument("--only", metavar="NAME", action="append", choices=known, help="repeatable")
    chosen = parser.parse_args()
    reason = system.unavailable()
    if reason:
        sys.exit(f"the laboratory cannot be built: {reason}")
    signal.signal(signal.SIGTERM, _stop)  # so that namespaces and children go, too
    report = Report()
    try:
        run(chosen.only or known, report, is_quick=chosen.quick)
    except KeyboardInterrupt:
        sys.exit(130)
    print(machine(("aioquic", "trio")))
    print()
    print(report.text())


def run(wanted: list[str], report: Report, *, is_quick: bool) -> None:
    """One scenario after the other; one that fails is noted, its goals count as not met."""
    for name in wanted:
        scenario = scenarios.load(name)
        for figure, (direction, bound) in scenario.GOALS.items():
            report.goal(figure, direction, bound)
        print(f"{name}: {(scenario.__doc__ or '').strip().splitlines()[0]}", file=sys.stderr, flush=True)
        try:
            scenario.run(report, is_quick=is_quick)
        except LabError as error:
            report.note(name, f"failed: {error}")


def _stop(*_: Any) -> None:
    sys.exit(143)


if __name__ == "__main__":
    main()
