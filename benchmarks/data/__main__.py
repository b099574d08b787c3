"""`python -m benchmarks.data`: see benchmarks/README.md."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from typing import Any

from benchmarks.data import nginx
from benchmarks.data.bench import FULL, QUICK, Weather, prepared, progress
from benchmarks.data.children import ROOT
from benchmarks.data.goals import set_goals
from benchmarks.data.scenarios import NOT_QUICK, SCENARIOS
from benchmarks.report import Report, machine

PACKAGES = ("aioquic", "trio", "cryptography", "libtorrent")


def main() -> None:
    """Run the scenarios asked for, then print tables and the line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes instead of twelve")
    parser.add_argument("--only", metavar="NAME", action="append", choices=SCENARIOS, help="repeatable")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)  # so that children and folders go, too
    wanted = chosen.only or [name for name in SCENARIOS if not (chosen.quick and name in NOT_QUICK)]
    report = Report()
    try:
        print(run(wanted, chosen.quick, report))
    except KeyboardInterrupt:
        sys.exit(130)


def run(wanted: list[str], is_quick: bool, report: Report) -> str:
    """The text of a whole run."""
    before = Weather.now()
    with prepared(QUICK if is_quick else FULL, report, is_quick) as bench:
        for name in wanted:
            set_goals(report, name, is_quick)
            progress(f"{name}: {(SCENARIOS[name].__doc__ or '').strip().splitlines()[0]}")
            SCENARIOS[name](bench)
    others = before.others_share(Weather.now())
    facts = f"{machine(PACKAGES, _versions())}\nOther programs used {others:.0%} of the cores meanwhile."
    if others > 0.1:
        facts += " Compare ratios and CPU seconds; MB/s say little in this run."
    return f"{facts}\n\n{report.text()}"


def _versions() -> dict[str, str]:
    found = {} if nginx.missing() else {"nginx": nginx.version()}
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # not a clone, or no git
        return found
    return found | {"commit": commit.stdout.strip()}


def _stop(*_: Any) -> None:
    sys.exit(143)


if __name__ == "__main__":
    main()
