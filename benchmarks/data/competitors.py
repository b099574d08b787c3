"""Who takes part, and one measured transfer of one of them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.data.children import Child
from benchmarks.data.orders import Order, Outcome, Ready
from benchmarks.data.relay import Drops

GRACE_SECONDS = 30.0  # for starting, connecting and warming up, beyond what is measured


@dataclass(frozen=True, slots=True)
class Competitor:
    """A program that can move bytes; its module has the roles."""

    name: str
    module: str
    suffix: str = ""  # of its roles' names
    warm_seconds: float = 0.0  # it needs so long at least to get up to speed


PENSTOCK = Competitor("Penstock", "ours")
STOCK = Competitor("aioquic, asyncio", "stock")
TORRENT_TCP = Competitor("libtorrent TCP", "torrent", "_tcp")
TORRENT_UTP = Competitor("libtorrent uTP", "torrent", "_utp", warm_seconds=1.0)
NGINX = Competitor("nginx TLS + curl", "nginx")


@dataclass(frozen=True, slots=True)
class Place:
    """Where processes run: cores, folders, and what stands before their commands."""

    folder: Path
    sender_core: int | None
    receiver_core: int | None
    sender_inside: Sequence[str] = ()
    receiver_inside: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Transfer:
    """One measurement."""

    rate: float  # bytes/s, or handshakes/s
    sender_share: float  # CPU seconds per second: of a core
    receiver_share: float
    drops: Drops | None = None

    @property
    def sender_per_gb(self) -> float:
        """CPU seconds per 10^9 bytes."""
        return self.sender_share / self.rate * 1e9

    @property
    def receiver_per_gb(self) -> float:
        """CPU seconds per 10^9 bytes."""
        return self.receiver_share / self.rate * 1e9


def transfer(who: Competitor, order: Order, place: Place, *, relayed: bool = False) -> Transfer:
    """Start sender, relay if asked for, and receiver; measure once. Raises ChildFailed."""
    with ExitStack() as running:
        order = replace(
            order,
            folder=str(place.folder),
            warm_seconds=max(order.warm_seconds, who.warm_seconds),
            limit_seconds=order.seconds + 2 * GRACE_SECONDS,
        )
        save = running.enter_context(tempfile.TemporaryDirectory(dir=place.folder))
        ready, order = start_sender(running, who, order, place)
        relay = None
        if relayed:
            relay = running.enter_context(Child("relay", "relay", replace(order, port=ready.port, core=None)))
            order = replace(order, port=relay.hear(Ready).port)
        mine = replace(order, core=place.receiver_core, save_folder=save)
        receiver = running.enter_context(
            Child(who.module, "receive" + who.suffix, mine, place.receiver_inside)
        )
        outcome = receiver.hear(Outcome, order.seconds + GRACE_SECONDS)
        return outcome_of(outcome, relay.ask(Drops) if relay is not None else None)


def start_sender(running: ExitStack, who: Competitor, order: Order, place: Place) -> tuple[Ready, Order]:
    """A sender that listens, and the order with which it can be reached."""
    theirs = replace(order, core=place.sender_core)
    sender = running.enter_context(Child(who.module, "send" + who.suffix, theirs, place.sender_inside))
    ready = sender.hear(Ready)
    return ready, replace(order, port=ready.port, node=ready.node, sender_pid=ready.pid)


def outcome_of(outcome: Outcome, drops: Drops | None = None) -> Transfer:
    """Per second, from what was counted."""
    seconds = outcome.seconds
    return Transfer(
        max(outcome.count, 1) / seconds,  # nothing at all is a rate, too: a very low one
        outcome.sender_cpu_seconds / seconds,
        outcome.receiver_cpu_seconds / seconds,
        drops,
    )
