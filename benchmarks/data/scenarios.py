"""What is measured, each scenario with its figures; `goals.py` has what they are held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from benchmarks.data import goals, veth
from benchmarks.data.bench import COLUMNS, MEGA, Bench, Entry, Measured, progress, with_seconds
from benchmarks.data.children import Child, ChildFailed
from benchmarks.data.competitors import (
    GRACE_SECONDS,
    NGINX,
    PENSTOCK,
    STOCK,
    TORRENT_TCP,
    TORRENT_UTP,
    Competitor,
    outcome_of,
    start_sender,
)
from benchmarks.data.orders import Counts, Order, Outcome, Ready
from benchmarks.report import median, number

PIECE_BYTES = 256 * 1024
PATH_RATE = 40e6
WORKER_CONNECTIONS = 4
WORKER_RATE = 50e6
MOVING_CLIENTS = 20
EVERYBODY = (STOCK, PENSTOCK, TORRENT_TCP, TORRENT_UTP, NGINX)
OVER_UDP = (STOCK, PENSTOCK, TORRENT_UTP)
OURS = PENSTOCK.name


def one(bench: Bench) -> None:
    """One connection on loopback."""
    order = with_seconds(bench.scale.seconds)
    entries = _entries(EVERYBODY, order)
    pieces = f"{OURS}, a stream per 256 KiB"
    if not bench.is_quick:
        entries.append(Entry(pieces, PENSTOCK, replace(order, request_bytes=PIECE_BYTES)))
    found = bench.rounds(entries, bench.scale.rounds)
    bench.report.table("One connection, loopback", COLUMNS, found.rows())
    for who, name in ((STOCK, "aioquic"), (TORRENT_TCP, "libtorrent_tcp"), (TORRENT_UTP, "libtorrent_utp"),
                      (NGINX, "nginx")):  # fmt: skip
        bench.report.figure(f"{name}_mb_s", _mega(found.rate(who.name)))
        bench.report.ratio(f"one_vs_{name}", found.rate(OURS), found.rate(who.name))
        bench.report.ratio(f"one_core_vs_{name}", found.core_rate(OURS), found.core_rate(who.name))
        bench.report.ratio(f"one_cpu_vs_{name}", found.cpu_per_gb(OURS), found.cpu_per_gb(who.name))
    bench.report.figure("one_mb_s", _mega(found.rate(OURS)))
    bench.report.figure("one_cpu_seconds_per_gb", found.cpu_per_gb(OURS))
    if pieces in found.runs:
        bench.report.figure("one_by_piece_mb_s", _mega(found.rate(pieces)))


def many(bench: Bench) -> None:
    """1, 10 and 100 connections on loopback; a pair of libtorrent sessions has but one."""
    order = with_seconds(bench.scale.seconds)
    entries = []
    for count, others in ((1, ()), (10, (STOCK, TORRENT_TCP, TORRENT_UTP, NGINX)), (100, (STOCK, NGINX))):
        for who in (PENSTOCK, *(() if bench.is_quick else others)):
            entries.append(Entry(f"{who.name}, {count}", who, replace(order, connections=count)))
    found = bench.rounds(entries, bench.scale.few_rounds)
    bench.report.table("1, 10 and 100 connections, loopback", COLUMNS, found.rows())
    for count in (10, 100):
        rate = found.rate(f"{OURS}, {count}")
        bench.report.figure(f"connections_{count}_mb_s", _mega(rate))
        bench.report.ratio(f"connections_{count}_vs_one", rate, found.rate(f"{OURS}, 1"))


def cable(bench: Bench) -> None:
    """One connection over a cable of 1500-byte frames, beside loopback."""
    why_not = veth.missing()
    if why_not is not None:
        bench.report.skip(goals.OF["veth"], why_not)
        bench.report.note("One connection, veth with 1500-byte frames", f"skipped: {why_not}")
        return
    order = with_seconds(bench.scale.seconds)
    near, far = f"{OURS}, loopback", f"{OURS}, veth"
    with veth.cable() as ends:
        place = replace(
            bench.place,
            sender_inside=veth.inside(ends.sender),
            receiver_inside=veth.inside(ends.receiver),
        )
        others = () if bench.is_quick else (STOCK, TORRENT_TCP, TORRENT_UTP, NGINX)
        away = [
            Entry(f"{who.name}, veth", who, replace(order, host=veth.SENDER_HOST))
            for who in (PENSTOCK, *others)
        ]
        found = Measured({})
        for _ in range(bench.scale.few_rounds):
            found.add(bench.rounds([Entry(near, PENSTOCK, order)], 1))
            found.add(bench.rounds(away, 1, place))
    bench.report.table("One connection, veth with 1500-byte frames", COLUMNS, found.rows())
    bench.report.figure("veth_mb_s", _mega(found.rate(far)))
    bench.report.ratio("veth_vs_loopback", found.rate(far), found.rate(near))


def path(bench: Bench) -> None:
    """1 % random loss at 50 ms and 40 MB/s; then a shallow queue without other loss."""
    seconds = bench.scale.path_seconds
    order = _path_order(seconds, 0.05, 0.01)
    found = bench.rounds(_entries(OVER_UDP, order, relayed=True), bench.scale.few_rounds)
    title = "50 ms, 40 MB/s, 1 % loss each way (TCP: n/a, the relay takes UDP)"
    bench.report.table(title, COLUMNS, found.rows())
    bench.report.figure("path_mb_s", _mega(found.rate(OURS)))
    bench.report.ratio("path_vs_aioquic", found.rate(OURS), found.rate(STOCK.name))
    bench.report.ratio("path_vs_libtorrent_utp", found.rate(OURS), found.rate(TORRENT_UTP.name))
    shallow = replace(order, loss=0.0, queue_bytes=int(PATH_RATE * 0.05 / 4))
    found = bench.rounds(_entries([PENSTOCK], shallow, relayed=True), bench.scale.few_rounds)
    drops = [run.drops for run in found.runs[OURS] if run.drops is not None]
    share = median([one.dropped / max(1, one.dropped + one.passed) for one in drops])
    bench.report.table("50 ms, 40 MB/s, a queue of a quarter of the path's product", COLUMNS, found.rows())
    bench.report.figure("shallow_mb_s", _mega(found.rate(OURS)))
    bench.report.figure("shallow_dropped_share", share)


def grid(bench: Bench) -> None:
    """0, 0.5 and 1 % loss at 0, 30 and 100 ms, all at 40 MB/s."""
    cells = [(loss, rtt) for rtt in (0.0, 0.03, 0.1) for loss in (0.0, 0.005, 0.01)]
    entries = [
        Entry(f"{who.name}, {rtt * 1000:.0f} ms, {loss:.1%}", who, _path_order(2.5, rtt, loss), True)
        for loss, rtt in cells
        for who in OVER_UDP
    ]
    found = bench.rounds(entries, 1)
    bench.report.table("Paths of 40 MB/s (TCP: n/a)", COLUMNS, found.rows())
    for loss, rtt in cells:
        rate = found.rate(f"{OURS}, {rtt * 1000:.0f} ms, {loss:.1%}")
        bench.report.figure(f"path_{rtt * 1000:.0f}_ms_{loss:.1%}_mb_s".replace("%", "_percent"), _mega(rate))


def capped(bench: Bench) -> None:
    """What keeping to a cap costs; libtorrent's limit counts payload, ours every byte on the wire."""
    rates = (0.75, 5.0) if bench.is_quick else (0.25, 0.75, 1.0, 5.0, 20.0, 60.0)
    everybody = (PENSTOCK,) if bench.is_quick else (PENSTOCK, TORRENT_TCP)
    seconds = 2.0 if bench.is_quick else 3.0
    entries = [
        Entry(f"{who.name}, {rate:g} MB/s", who, with_seconds(seconds, rate=rate * MEGA))
        for rate in rates
        for who in everybody
    ]
    found = bench.rounds(entries, 1)
    columns = ["cap", "MB/s", "sender, of a core", "receiver, of a core"]
    rows = [
        [label, number(run.rate / MEGA), f"{run.sender_share:.1%}", f"{run.receiver_share:.1%}"]
        for label, runs in found.runs.items()
        for run in runs
    ]
    rows += [[line, "", "", ""] for line in found.failed()]
    bench.report.table("Capped", columns, rows)
    for rate in rates:
        label = f"{OURS}, {rate:g} MB/s"
        bench.report.figure(f"capped_{rate:g}_mb_s", _mega(found.rate(label)))
        bench.report.figure(f"capped_{rate:g}_sender_core", found.sender_share(label))


def idle(bench: Bench) -> None:
    """Connections that only say every 20 s that they are there: the sender's memory and CPU for them."""
    count = bench.scale.idle_connections
    order = Order(connections=count, warm_seconds=1.0, seconds=2.0 if bench.is_quick else 20.0)
    try:
        bench.check_time()
        made, held, memory = _held(bench, order)
    except ChildFailed as error:
        bench.report.note("Idle connections", f"failed: {error}")
        return
    share = held.sender_cpu_seconds / held.seconds
    rows = [[f"{held.count:,}", number(memory.count / count / 1000), f"{share:.1%}", number(made.seconds)]]
    columns = ["held", "kB each", "of a core", "seconds to make them"]
    bench.report.table("Idle connections, kept alive every 20 s", columns, rows)
    bench.report.figure("idle_connections", held.count - 1)
    bench.report.figure("idle_connection_bytes", memory.count / count)
    bench.report.figure(f"idle_{count}_core", share)


def _held(bench: Bench, order: Order) -> tuple[Outcome, Outcome, Outcome]:
    progress(f"  {order.connections} connections")
    limit_seconds = 4 * GRACE_SECONDS + order.seconds
    order = replace(order, limit_seconds=limit_seconds)
    with ExitStack() as running:
        _, order = start_sender(running, PENSTOCK, order, bench.place)
        mine = replace(order, core=bench.place.receiver_core)
        holder = running.enter_context(Child(PENSTOCK.module, "hold", mine))
        made = holder.hear(Outcome, limit_seconds)
        held = holder.hear(Outcome, order.seconds + GRACE_SECONDS)
        return made, held, holder.hear(Outcome)


def handshakes(bench: Bench) -> None:
    """Handshakes in which both sides prove who they are, per second of the accepting side's CPU."""
    order = Order(warm_seconds=0.5, seconds=bench.scale.seconds * 2, limit_seconds=2 * GRACE_SECONDS)
    try:
        bench.check_time()
        with ExitStack() as running:
            _, order = start_sender(running, PENSTOCK, order, bench.place)
            mine = replace(order, core=bench.place.receiver_core)
            greeter = running.enter_context(Child(PENSTOCK.module, "greet", mine))
            found = outcome_of(greeter.hear(Outcome, order.seconds + GRACE_SECONDS))
    except ChildFailed as error:
        bench.report.note("Handshakes", f"failed: {error}")
        return
    per_core = found.rate / found.sender_share
    rows = [[number(found.rate), number(per_core), number(found.rate / found.receiver_share)]]
    bench.report.table("Handshakes", ["a second", "a core, accepting", "a core, dialling"], rows)
    bench.report.figure("handshakes_per_core", per_core)


def workers(bench: Bench) -> None:
    """Two workers on one port beside one, all on one core; then clients that change their port.

    Each worker is held to a rate, so that two carry twice as much as one, as on cores of their own.
    Unheld, they share the core and the receiver: half the bytes for as many passes.
    """
    order = replace(with_seconds(bench.scale.seconds), rate=WORKER_RATE)
    entries = {
        f"{count} {'unheld' if rate is None else f'at {rate / MEGA:.0f} MB/s each'}": replace(
            order, workers=count, connections=WORKER_CONNECTIONS * count, rate=rate
        )
        for rate in (WORKER_RATE, None)
        for count in (1, 2)
    }
    found = Measured({label: [] for label in entries})
    counts: list[Counts] = []
    try:
        for _ in range(bench.scale.rounds):
            for label, entry in entries.items():
                bench.check_time()
                run, seen = _worked(bench, entry, "receive")
                found.runs[label].append(outcome_of(run))
                counts.append(seen)
        clients = replace(order, connections=MOVING_CLIENTS, workers=2, rate=None)
        steered, seen = _worked(bench, clients, "move")
        counts.append(seen)
        hashed, _ = _worked(bench, replace(clients, steered=False), "move")
    except ChildFailed as error:
        bench.report.note("Workers", f"failed: {error}")
        return
    title = f"Workers on one port and one core, {WORKER_CONNECTIONS} connections each, loopback"
    bench.report.table(title, COLUMNS, found.rows())
    received, astray = sum(one.received for one in counts), sum(one.astray for one in counts)
    rows = [
        ["steered by connection id", f"{steered.count} of {MOVING_CLIENTS}", f"{astray} of {received:,}"],
        ["SO_REUSEPORT alone", f"{hashed.count} of {MOVING_CLIENTS}", "-"],
    ]
    columns = ["two workers", "moved clients that go on", "datagrams astray"]
    bench.report.table("Clients that change their port", columns, rows)
    one, two, one_unheld, two_unheld = (
        median([run.sender_per_gb for run in runs]) for runs in found.runs.values()
    )
    bench.report.ratio("two_workers_cpu_vs_one", two, one)
    bench.report.ratio("two_workers_on_one_core_cpu_vs_one", two_unheld, one_unheld)
    bench.report.figure("workers_datagrams_astray", astray)
    bench.report.figure("workers_moved_clients_lost", MOVING_CLIENTS - steered.count)
    bench.report.figure("workers_moved_clients_lost_unsteered", MOVING_CLIENTS - hashed.count)


def _worked(bench: Bench, order: Order, role: str) -> tuple[Outcome, Counts]:
    """What a receiver of this role measured at a sender with workers, and what these counted."""
    order = replace(order, limit_seconds=order.seconds + 4 * GRACE_SECONDS)
    with ExitStack() as running:
        sender = running.enter_context(Child("workers", "send", replace(order, core=bench.place.sender_core)))
        ready = sender.hear(Ready)
        reached = replace(order, port=ready.port, node=ready.node, worker_pids=ready.pids)
        receiver = running.enter_context(
            Child("workers", role, replace(reached, core=bench.place.receiver_core))
        )
        outcome = receiver.hear(Outcome, order.seconds + 3 * GRACE_SECONDS)
        progress(f"  {role}, {order.workers} on one port: {outcome.count:,}")
        return outcome, sender.ask(Counts)


Scenario = Callable[[Bench], None]
SCENARIOS: dict[str, Scenario] = {
    "one": one,
    "many": many,
    "veth": cable,
    "path": path,
    "capped": capped,
    "handshakes": handshakes,
    "workers": workers,
    "idle": idle,
    "grid": grid,
}
NOT_QUICK = {"grid"}


def _entries(everybody: Sequence[Competitor], order: Order, relayed: bool = False) -> list[Entry]:
    return [Entry(who.name, who, order, relayed) for who in everybody]


def _path_order(seconds: float, rtt_seconds: float, loss: float) -> Order:
    """A queue of one product of rate and round trip, a megabyte at least."""
    queue_bytes = max(1 << 20, int(PATH_RATE * rtt_seconds))
    order = with_seconds(seconds, warm_seconds=1.0, rtt_seconds=rtt_seconds, loss=loss)
    return replace(order, path_rate=PATH_RATE, queue_bytes=queue_bytes)


def _mega(rate: float | None) -> float | None:
    return None if rate is None else rate / MEGA
