"""What the data plane is held against, by scenario; all but the last two rows are ratios within one run."""

from __future__ import annotations

from benchmarks.report import Goal, Report

OF: dict[str, dict[str, Goal]] = {
    "one": {
        "one_vs_aioquic": (">=", 8.0),
        "one_vs_libtorrent_utp": (">=", 2.0),
        "one_vs_libtorrent_tcp": (">=", 0.9),
        "one_cpu_vs_libtorrent_tcp": ("<=", 1.5),
    },
    "many": {"connections_100_vs_one": (">=", 0.6)},
    "veth": {"veth_vs_loopback": (">=", 0.6)},
    "path": {
        "path_vs_aioquic": (">=", 20.0),
        "path_vs_libtorrent_utp": (">=", 10.0),
        "shallow_dropped_share": ("<=", 0.03),
    },
    # Shares of a core: what a sender on a 10 Mbit/s line, and on a fast one, may cost its household.
    "capped": {"capped_0.75_sender_core": ("<=", 0.08), "capped_5_sender_core": ("<=", 0.15)},
    "handshakes": {"handshakes_per_core": (">=", 700.0)},
    "workers": {
        "two_workers_cpu_vs_one": ("<=", 1.05),
        "workers_datagrams_astray": ("<=", 0.0),
        "workers_moved_clients_lost": ("<=", 0.0),
    },
    "idle": {"idle_connection_bytes": ("<=", 90_000.0), "idle_10000_core": ("<=", 0.10)},
}
NOT_QUICK = {"idle_10000_core": "--quick holds fewer connections"}


def set_goals(report: Report, scenario: str, is_quick: bool) -> None:
    """Hold what a scenario will find against its goals."""
    for name, (direction, bound) in OF.get(scenario, {}).items():
        report.goal(name, direction, bound)
        if is_quick and name in NOT_QUICK:
            report.skip([name], NOT_QUICK[name])
