"""Records: bytes each, CPU time of a choice and an announce in small and large swarms, longest pause."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable
from hashlib import sha256
from random import Random

from benchmarks.report import Report, median, number
from shared.core.ids import HostPort, InfoHash, Kind, NodeId
from shared.core.messages import Announce, Event
from tracker.core.answers import PEERS_WANTED, Question, Viewer
from tracker.core.edges import Edges
from tracker.core.redirect import Field, choose, choose_many
from tracker.core.swarm import Swarms

SWARM = InfoHash(bytes(32))
REGIONS = ("north", "south", "east", "west")
WANTED = 30
RATE = 500_000.0
STARTED_AT = 1_000_000.0
SMALL = 1000
AT_ONCE = 64


def measure(report: Report, is_quick: bool) -> None:
    """Fill a small swarm and a large one, then choose from both by turns."""
    large = 100_000 if is_quick else 1_000_000
    small_field, _ = _filled(SMALL)
    before = _resident_bytes()
    field, pauses = _filled(large)
    resident = (_resident_bytes() - before) / large
    trials = 9 if is_quick else 31
    choices = _by_turns([lambda: _choose(small_field), lambda: _choose(field)], trials)
    batches = _by_turns([lambda: _choose_many(small_field), lambda: _choose_many(field)], trials)
    announces = _by_turns([lambda: _announce(small_field, SMALL), lambda: _announce(field, large)], trials)
    pauses |= _pauses_in_service(field, large)
    each = field.swarms.bytes / large
    report.table(
        f"CPU microseconds, medians of {trials} (one swarm, four regions, two kinds, seven classes)",
        ["", f"{SMALL:,} records", f"{large:,} records", "ratio"],
        [
            [f"choose {WANTED}, rank, two edges, reasons", *_cells(choices)],
            [f"the same of {PEERS_WANTED} and as tables, {AT_ONCE} at once, each", *_cells(batches)],
            ["announce, class changed every time", *_cells(announces)],
        ],
    )
    report.table(
        "Longest single pause, CPU milliseconds",
        ["while", "ms"],
        [[name, number(seconds * 1000)] for name, seconds in pauses.items()],
    )
    report.table(
        f"Memory of {large:,} records, each node in one swarm",
        ["", "bytes a record"],
        [["columns, indexes and buckets", number(each)], ["growth of the process", number(resident)]],
    )
    report.figure("record_bytes", each)
    report.figure("record_resident_bytes", resident)
    report.figure("choose_us", _of(choices[1]) * 1e6)
    report.figure("choose_many_us", _of(batches[1]) * 1e6)
    report.figure("announce_us", _of(announces[1]) * 1e6)
    report.ratio("choose_large_vs_small", _of(choices[1]), _of(choices[0]))
    report.ratio("choose_many_large_vs_small", _of(batches[1]), _of(batches[0]))
    report.ratio("announce_large_vs_small", _of(announces[1]), _of(announces[0]))
    report.figure("longest_pause_ms", max(pauses.values()) * 1000)
    report.goal("record_bytes", "<=", 110)
    report.goal("record_resident_bytes", "<=", 110)
    report.goal("choose_large_vs_small", "<=", 1.3)
    report.goal("longest_pause_ms", "<=", 20)
    if is_quick:
        report.skip(["record_bytes", "record_resident_bytes"], "needs a million records")


def _filled(size: int) -> tuple[Field, dict[str, float]]:
    """A field of two edges and `size` peers, and the longest announce while it grew."""
    field = Field(Swarms(60.0), Edges(5.0))
    for name in ("edge one", "edge two"):
        edge = NodeId(sha256(name.encode()).digest())
        field.edges.joined(edge, "north", HostPort("192.0.2.1", 4430), STARTED_AT)
        field.swarms.announce(Announce(SWARM, Event.UPDATE, 9, 9, 7), edge, Kind.EDGE, "north", STARTED_AT)
    gc.collect()
    longest = 0.0
    for peer in range(size):
        message, node, kind, region = _peer(peer)
        began = time.thread_time()
        field.swarms.announce(message, node, kind, region, STARTED_AT)
        longest = max(longest, time.thread_time() - began)
    return field, {"growing": longest}


def _peer(peer: int, turn: int = 0) -> tuple[Announce, NodeId, Kind, str]:
    node = NodeId(sha256(b"%d" % peer).digest())
    kind = Kind.STB if node[0] % 4 == 0 else Kind.PC
    message = Announce(SWARM, Event.UPDATE, 9, 9, 1 + (node[1] + turn) % 7)
    return message, node, kind, REGIONS[node[2] % len(REGIONS)]


def _choose(field: Field) -> float:
    """CPU seconds of a choice."""
    rng = Random(1)
    viewers = [Viewer(NodeId(rng.randbytes(32)), Kind.PC, rng.choice(REGIONS)) for _ in range(300)]
    began = time.thread_time()
    for turn, viewer in enumerate(viewers):
        choose(field, Question(SWARM, viewer, RATE, count=WANTED), rng, STARTED_AT + 20 * turn)
    return (time.thread_time() - began) / len(viewers)


def _choose_many(field: Field) -> float:
    """CPU seconds of a choice, with its sources as tables, of questions that came together."""
    rng = Random(1)
    viewers = [Viewer(NodeId(rng.randbytes(32)), Kind.PC, rng.choice(REGIONS)) for _ in range(10 * AT_ONCE)]
    began = time.thread_time()
    for turn in range(10):
        some = viewers[AT_ONCE * turn : AT_ONCE * (turn + 1)]
        questions = [Question(SWARM, viewer, RATE) for viewer in some]
        for _, wave in choose_many(field, questions, rng, STARTED_AT + 20 * turn).waves:
            wave.sources()
    return (time.thread_time() - began) / len(viewers)


def _announce(field: Field, size: int) -> float:
    """CPU seconds of an announce that changes the class."""
    rng = Random(2)
    said = [_peer(rng.randrange(size), turn=rng.randrange(7)) for _ in range(2000)]
    began = time.thread_time()
    for message, node, kind, region in said:
        field.swarms.announce(message, node, kind, region, STARTED_AT + 1)
    return (time.thread_time() - began) / len(said)


def _pauses_in_service(field: Field, size: int) -> dict[str, float]:
    """The longest step of expiry, of a garbage collection, and of everybody falling silent."""
    field.swarms.announce(*_peer(0), STARTED_AT + 1000)
    quiet = _longest(lambda: field.swarms.expire(STARTED_AT), 20)
    collection = _longest(gc.collect, 3)
    steps = min(200, size // 1000)
    mass = _longest(lambda: field.swarms.expire(STARTED_AT + 500), steps)
    return {"looking for the silent": quiet, "collecting garbage": collection, "clearing a crowd": mass}


def _longest(act: Callable[[], object], times: int) -> float:
    longest = 0.0
    for _ in range(times):
        began = time.thread_time()
        act()
        longest = max(longest, time.thread_time() - began)
    return longest


def _by_turns(acts: list[Callable[[], float]], trials: int) -> list[list[float]]:
    found: list[list[float]] = [[] for _ in acts]
    for _ in range(trials):
        for act, values in zip(acts, found, strict=True):
            values.append(act())
    return found


def _of(values: list[float]) -> float:
    return median(values) or 0.0


def _cells(pair: list[list[float]]) -> list[str]:
    small, large = _of(pair[0]), _of(pair[1])
    return [number(small * 1e6), number(large * 1e6), number(large / small)]


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # no path of ours
        return int(file.read().split()[1]) * resource.getpagesize()
