"""While a peer uploads at its cap, the household's ping rises by at most 5 ms at the 95th percentile.

And a TCP upload of the household gets all that is left of the line, 40 % and more. Beside it, on the same
line in the same run, libtorrent with its own limit at 60 %.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.cap.bench import LINES, Found, measure, ping
from benchmarks.cap.clients import Libtorrent, Penstock, make_payload
from benchmarks.report import Goal, Report
from tests.lab.lab import open_lab
from tests.lab.windows import percent

GOALS: dict[str, Goal] = {
    "delay_penstock_rise_ms": ("<=", 5.0),
    "delay_penstock_tcp_share": (">=", 0.40),
}


def run(report: Report, *, is_quick: bool) -> None:
    """See above."""
    seconds = 6.0 if is_quick else 20.0
    found: dict[str, Found] = {}
    with open_lab(*LINES, seed=1) as lab, tempfile.TemporaryDirectory(prefix="penstock-lab-") as folder:
        make_payload(lab, Path(folder))
        idle = ping(lab, min(5.0, seconds))
        for client in (Penstock(),) if is_quick else (Penstock(), Libtorrent()):
            found[client.name] = measure(client, lab, Path(folder), seconds, tcp_seconds=seconds)
    rows = [["nobody", f"{1000 * idle.percentile(0.5):.1f}", f"{1000 * idle.percentile(0.95):.1f}", "-"]]
    for name, each in found.items():
        rise = 1000 * (each.pings.percentile(0.95) - idle.percentile(0.95))
        report.figure(f"delay_{name}_rise_ms", rise)
        report.figure(f"delay_{name}_tcp_share", each.tcp_share)
        times = (f"{1000 * each.pings.percentile(share):.1f}" for share in (0.5, 0.95))
        rows.append([name, *times, percent(each.tcp_share)])
    report.table("Uploading at the cap", ["", "ping median ms", "p95 ms", "share of a TCP upload"], rows)
