"""Sealed redirects with 12 ranked sources and two edges: CPU of the tracker per answer, beside opentracker's
plain announce with 30 peers, which is neither encrypted, nor ranked, nor safe from replays."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.report import Report, median
from benchmarks.tracker import announce
from benchmarks.tracker.processes import build_load, cpu_seconds, missing_tools, opentracker

NODES, SWARMS, EDGES = 1000, 10, 6
SOURCES = 14
IN_FLIGHT = 256
RATE = 8_000  # bits/s of a title; with more, the load would have promised everybody away in a second
GOAL = 1.8
SOURCE = Path(__file__).with_name("sealed_load.c")
DOOR = "from benchmarks.tracker.sealed import serve; serve()"
ROWS = {"sealed_redirect_cpu_vs_opentracker": 0, "sealed_redirect_with_ticket_cpu_vs_opentracker": 1}


def measure(report: Report, is_quick: bool) -> None:
    """Adds a table, a ratio for locates of nodes that hold a ticket, and one for those that want one."""
    report.goal("sealed_redirect_cpu_vs_opentracker", "<=", GOAL)
    missing = missing_tools()
    if not missing and not Path("/usr/include/openssl/evp.h").exists():
        missing = ["OpenSSL's headers (libssl-dev)"]
    if missing:
        report.skip(ROWS, f"not installed: {', '.join(missing)}")
        return
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        ours, theirs = _compare(folder, rounds=3 if is_quick else 7)
    for name, ticket in ROWS.items():
        report.ratio(name, median(ours[ticket]), median(theirs))
    rows = [
        ["opentracker, announce", *announce.figures(theirs)],
        ["Penstock, locate", *announce.figures(ours[0])],
        ["Penstock, locate with a new ticket", *announce.figures(ours[1])],
    ]
    title = f"Redirects to {SOURCES} sources of {NODES}, {IN_FLIGHT} in flight, one core for the tracker"
    report.table(title, ["asked", "CPU us an answer", "least", "most"], rows)


def _compare(folder: Path, rounds: int) -> tuple[list[list[float]], list[float]]:
    """CPU microseconds an answer, of us without and with a new ticket, and of opentracker, in turns."""
    plain, sealed = build_load(folder), folder / "sealed_load"
    subprocess.run(["cc", "-O2", "-o", sealed, SOURCE, "-lcrypto"], check=True)
    ours: list[list[float]] = [[], []]
    found: list[float] = []
    torrents = announce.torrent_names(announce.TORRENTS)
    with _door(folder) as (us, our_port), opentracker(folder, torrents) as (them, port):
        for process in (us, them):
            os.sched_setaffinity(process.pid, {0})
        for turn in range(rounds):
            found.append(announce.cost_of(plain, them.pid, port, IN_FLIGHT))
            for ticket in ROWS.values():
                first = 2 * turn + ticket << 20  # counters are used once
                ours[ticket].append(_one(sealed, us.pid, our_port, folder, ticket, first))
    return ours, found


@contextmanager
def _door(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", DOOR, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as door:
        try:
            assert door.stdout is not None
            yield door, door.stdout.readline().strip()
        finally:
            door.kill()


def _one(load: Path, tracker: int, port: str, folder: Path, ticket: int, first: int) -> float:
    before = cpu_seconds(tracker)
    files = [str(folder / "keys"), str(folder / "swarms")]
    words = [port, str(IN_FLIGHT), "2", *files, str(ticket), str(SOURCES), str(first)]
    command = ["taskset", "-c", "1", str(load), *words]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    answered, wrong, _ = said.split()
    if int(wrong) or not int(answered):
        raise RuntimeError(f"{wrong} answers were wrong, {answered} right")
    return (cpu_seconds(tracker) - before) * 1e6 / int(answered)


# -- the tracker that is measured --------------------------------------------------------------


def serve() -> None:
    """A tracker with its sealed door and nodes under seals; prints its port, and serves until killed."""
    import trio

    from shared import garbage
    from shared.core.ids import HostPort
    from shared.core.sealed import LOCATE_BYTES
    from shared.sockets import bind
    from tracker.mmsg import BatchSocket
    from tracker.sealed_door import run_sealed_door

    core = _tracker(Path(sys.argv[1]))

    def pump() -> None:
        while core.next_action() is not None:
            pass

    async def run() -> None:
        with await bind(HostPort("127.0.0.1", 0), "listen") as sock:
            garbage.settle()
            print(sock.getsockname()[1], flush=True)
            with suppress(KeyboardInterrupt):
                await run_sealed_door(core.sealed, BatchSocket(sock, LOCATE_BYTES), pump)

    trio.run(run)


def _tracker(folder: Path):  # type: ignore[no-untyped-def]
    """Nodes that hold all swarms in part, edges that hold them whole, and files of keys and swarms."""
    from hashlib import sha256
    from random import Random

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from shared.core.ids import HostPort, InfoHash, Kind, Mode, NodeId, TitleId
    from shared.core.messages import PROTOCOL_VERSION, Announce, Entry, Event, Hello, Load, Rendition, Seal
    from tracker.core.tracker import Tracker, TrackerSettings

    now = time.time()
    swarms = [InfoHash(sha256(b"swarm %d" % n).digest()) for n in range(SWARMS)]
    edges = [NodeId(sha256(b"edge %d" % n).digest()) for n in range(EDGES)]
    entries = [
        Entry(TitleId(swarm[:16]), "Film", edges[0],
              (Rendition(swarm, "film.mp4", 1 << 30, RATE, "", 1280, 720, 3_600_000),))
        for swarm in swarms
    ]  # fmt: skip
    settings = TrackerSettings(announce_seconds=3600, report_seconds=3600, edges=frozenset(edges))
    core = Tracker(Ed25519PrivateKey.generate(), settings, entries, Random(1))
    core.sealed.open(os.urandom(32))
    seals = []
    nodes = [NodeId(sha256(b"node %d" % n).digest()) for n in range(NODES)]
    for number, node in enumerate(edges + nodes):
        is_edge = number < EDGES
        kind, region = Kind.EDGE if is_edge else Kind.PC, f"region {number % 3}"
        at = HostPort(f"198.51.{number >> 8}.{number & 255}", 4430)
        core.connected(node, at, Hello(PROTOCOL_VERSION, kind, Mode.SHARED, region, "", str(at)), now)
        for swarm in swarms:
            held = 1 << 12 if is_edge else 1 + number
            core.receive(Announce(swarm, Event.UPDATE, held, 1 << 12, 1 + number % 7), node, now)
        if is_edge:
            core.receive(Load(1_250_000_000, 0, 0, 0, int(now * 1000)), node, now)
            continue
        seal = core.sealed.make(core.nodes[node], 1, now)
        assert isinstance(seal, Seal)
        seals.append(seal)
    lines = [f"{seal.number.hex()} {seal.ask_key.hex()} {seal.answer_key.hex()}\n" for seal in seals]
    (folder / "keys").write_text("".join(lines))
    (folder / "swarms").write_text("".join(f"{swarm.hex()}\n" for swarm in swarms))
    return core
