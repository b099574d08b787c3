"""`python -m benchmarks.cap`: see benchmarks/README.md."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.cap.bench import LINES, UPLINK, Found, measure, ping
from benchmarks.cap.clients import CLIENTS, make_payload, missing
from benchmarks.report import Report, machine
from tests.lab import system
from tests.lab.lab import open_lab
from tests.lab.line import LabError, mbit
from tests.lab.traffic import RoundTrips
from tests.lab.windows import COLUMNS, goals, percent

MOST_RISE_MS = 5.0
SECONDS, QUICK_SECONDS = 30.0, 11.0


def main() -> None:
    """Measure, then print tables and the line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cap", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute instead of three")
    chosen = parser.parse_args()
    reason = system.unavailable()
    if reason:
        sys.exit(f"the laboratory cannot be built: {reason}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces and children go, too
    report = Report()
    for name, (sign, bound) in goals("penstock", mbit(UPLINK)).items():
        report.goal(name, sign, bound)
    report.goal("penstock_ping_rise_ms", "<=", MOST_RISE_MS)
    try:
        run(report, QUICK_SECONDS if chosen.quick else SECONDS)
    except KeyboardInterrupt:
        sys.exit(130)
    print(machine(("aioquic", "trio", "libtorrent")))
    print()
    print(report.text())


def run(report: Report, seconds: float) -> None:
    """Every client in turn in one laboratory."""
    found: dict[str, Found] = {}
    with open_lab(*LINES, seed=1) as lab, tempfile.TemporaryDirectory(prefix="penstock-lab-") as folder:
        make_payload(lab, Path(folder))
        idle = ping(lab, min(seconds, 5.0))
        for client in CLIENTS:
            why = missing(client)
            if why:
                report.note(client.name, f"skipped: {why}")
                continue
            print(client.name, file=sys.stderr, flush=True)
            try:
                found[client.name] = measure(client, lab, Path(folder), seconds)
            except LabError as error:
                report.note(client.name, f"failed: {error}")
        overruns = lab.delay_statistics().overruns
    tell(report, idle, found)
    report.figure("delay_overruns", overruns)


def tell(report: Report, idle: RoundTrips, found: dict[str, Found]) -> None:
    """The table and the figures."""
    columns = [*COLUMNS, "100 ms over 60 %", "ping mean", "ping p95"]
    rows: list[list[str]] = [["nobody", *["-"] * 5, *_pings(idle)]]
    for name, each in found.items():
        rows.append([*each.shares.row(name), percent(each.over), *_pings(each.pings)])
        for figure, value in each.shares.figures(name).items():
            report.figure(figure, value)
        report.figure(f"{name}_over_100ms", each.over)
        report.figure(f"{name}_ping_p95_ms", 1000 * each.pings.percentile(0.95))
        rise = each.pings.percentile(0.95) - idle.percentile(0.95)
        report.figure(f"{name}_ping_rise_ms", 1000 * rise)
    title = (
        f"Five leechers, {UPLINK:g} Mbit/s up, limits at 60 %; shares of the line at the modem, pings in ms"
    )
    report.table(title, columns, rows)


def _pings(trips: RoundTrips) -> list[str]:
    answered = trips.answered
    mean = sum(answered) / len(answered)
    return [f"{1000 * mean:.0f}", f"{1000 * trips.percentile(0.95):.0f}"]


if __name__ == "__main__":
    main()
