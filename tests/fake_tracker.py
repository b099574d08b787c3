"""A tracker's API without a socket, for tests of what reads it."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import msgspec

from shared.core.ids import Address, HostPort, Kind, Mode
from shared.core.messages import Report, Share
from tests.tracker_parts import NOW, TRACKER_ID, announce, ask, entry, infohash, join, node, tracker
from tracker import views
from tracker.core.tracker import Tracker

EDGE, PC, BOX, PHONE = node("edge"), node("pc"), node("box"), node("phone")
AT = Address(TRACKER_ID, HostPort("192.0.2.7", 4430))
API = "http://127.0.0.1:8430"
EVIL = "[red]film[/red] [@click=quit]x[/]"


def swarm_tracker() -> Tracker:
    """An edge, a PC that gives, a box that stalled, a phone that never reported; two swarms."""
    core = tracker(entry("film", EDGE), entry("evil", EDGE, title=EVIL), edges=frozenset({EDGE}))
    kinds = (("edge", Kind.EDGE), ("pc", Kind.PC), ("box", Kind.STB))
    for name, kind in kinds:
        join(core, name, kind, "north")
        ask(core, announce(infohash("film"), held=10 if kind is Kind.EDGE else 5), node(name))
    join(core, "phone", Kind.MOBILE, mode=Mode.DIRECT)
    ask(core, announce(infohash("evil")), EDGE)
    shares = (Share(EDGE, 30_000_000), Share(BOX, 90_000_000))
    ask(core, Report(500_000, 1_000_000, 1_000_000, 30_000_000, 90_000_000, 7_650_000, 1, 2, 0, shares), PC)
    ask(core, Report(250_000, 125_000, 0, 10_000, 20_000, 999_600, 1, 2, 3), BOX)
    return core


class FakeTracker:
    """Answers from a core; can be switched off, or answer something else."""

    def __init__(self, core: Tracker) -> None:
        self.core = core
        self.is_on = True
        self.body: bytes | None = None
        self.status = 200
        self.asked = 0

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        if not self.is_on:
            raise httpx2.ConnectError("Connection refused")
        if self.body is not None or self.status != 200:
            return httpx2.Response(self.status, content=self.body or b"")
        limit = int(request.url.params.get("limit", "0"))
        answers: dict[str, Callable[[], msgspec.Struct]] = {
            "/api/v1/overview": lambda: views.overview(self.core, AT, "penstock 1", NOW, NOW + 200),
            "/api/v1/nodes": lambda: views.node_page(self.core, 0, limit),
            "/api/v1/swarms": lambda: views.swarm_page(self.core, 0, limit),
        }
        return httpx2.Response(200, content=msgspec.json.encode(answers[request.url.path]()))

    def transport(self) -> httpx2.MockTransport:
        return httpx2.MockTransport(self.answer)
