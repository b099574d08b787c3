"""Small builders for tests of serving: a swarm, its guests, their tickets and requests."""

from __future__ import annotations

from functools import cache

from shared.core import tickets
from shared.core.actions import Action, Send
from shared.core.bitfield import Bitfield
from shared.core.bulk import PieceRequest
from shared.core.ids import NodeId
from shared.core.messages import Have, Join
from shared.core.seeding import Seeding
from shared.core.tickets import TICKET_SECONDS, UNLIMITED, Ticket
from tests.tracker_parts import KEY, NOW, TRACKER_ID, infohash, node

SWARM = infohash("film")
TOTAL = 40
ANN, BOB, EVE = node("ann"), node("bob"), node("eve")
SIZE = 1000


@cache
def ticket(viewer: NodeId, quota: int = UNLIMITED, expires_at: int = int(NOW) + TICKET_SECONDS) -> bytes:
    return tickets.issue(KEY, Ticket(viewer, SWARM, expires_at, quota))


def seeding(*, slots: int = 2, sharing: bool = True, pieces: tuple[int, ...] = tuple(range(20))) -> Seeding:
    core = Seeding(TRACKER_ID, slots, sharing=sharing)
    core.hold(SWARM, Bitfield(TOTAL, pieces), NOW)
    return core


def orders(core: Seeding) -> list[Action]:
    taken: list[Action] = []
    while (action := core.next_action()) is not None:
        taken.append(action)
    return taken


def join(core: Seeding, viewer: NodeId, raw: bytes | None = None, now: float = NOW) -> object:
    """What a Join is answered with."""
    core.join(Join(7, SWARM, raw if raw is not None else ticket(viewer)), viewer, now)
    (action,) = orders(core)
    assert isinstance(action, Send)
    assert action.to == viewer
    return action.message


def serving(*guests: NodeId, slots: int = 2) -> Seeding:
    core = seeding(slots=slots)
    for guest in guests:
        assert isinstance(join(core, guest), Have)
    return core


def ask(
    core: Seeding, number: int, viewer: NodeId, piece: int = 1, slack_ms: int = 1000, now: float = NOW
) -> list[Action]:
    core.requested(number, PieceRequest(SWARM, piece, 0, 1, slack_ms), viewer, SIZE, now)
    return orders(core)
