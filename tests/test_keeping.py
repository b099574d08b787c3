"""What a second held is kept once the ledger can be written again, and choices are on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from peer.config import PeerConfig
from peer.core.consent import Choice
from peer.ledger import Ledger, Upload
from peer.sharing import Line, Sharing
from shared import clock
from shared.core.errors import LocalError
from shared.core.ids import InfoHash, Mode

FILM = InfoHash(b"f" * 32)


class Counted:
    """An upload of one title, and a line of 1000 bytes/s."""

    def __init__(self) -> None:
        self.served: dict[InfoHash, int] = {}
        self.sent_bytes = 0

    def line(self) -> Line:
        return Line(self.sent_bytes, 1000.0, "wlan0")

    def take_served(self) -> dict[InfoHash, int]:
        served, self.served = self.served, {}
        return served

    def give_back(self, served: dict[InfoHash, int]) -> None:
        self.served = served

    def stop(self) -> None:
        pass


def sharing(ledger: Ledger, counted: Counted) -> Sharing:
    seeding = SimpleNamespace(resume_sharing=lambda now: None, stop_sharing=lambda now: None)
    core: Any = SimpleNamespace(seeding=seeding, fetches={})
    serving: Any = counted
    return Sharing(PeerConfig(), ledger, core, serving, counted.line, lambda: None)


async def test_a_disk_that_refuses_for_a_while_loses_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_795_000_000.0
    monkeypatch.setattr(clock, "now", lambda: now)
    ledger, counted = Ledger(tmp_path / "uploads.db"), Counted()
    shared = sharing(ledger, counted)
    for _ in range(120):  # ten seconds idle, then two at 500 bytes/s
        now += 0.1
        counted.sent_bytes += 0 if now < 1_795_000_010.0 else 50
        shared.look()
    counted.served[FILM] = 700

    def refuse(day: str, upload: Upload, names: Mapping[InfoHash, str]) -> None:
        raise LocalError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(ledger, "add", refuse)
        await shared.keep()
    await shared.keep()
    (day,) = ledger.month(str(shared.statistics()["day"])[:7])
    assert (day.sent_bytes, day.titles) == (counted.sent_bytes, {FILM: 700})
    assert day.worst_second == pytest.approx(0.5, rel=0.06)
    assert day.worst_ten_seconds == pytest.approx(0.1, rel=0.06)


async def test_of_choices_at_once_the_last_is_on_the_disk(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "uploads.db")
    shared = sharing(ledger, Counted())
    async with trio.open_nursery() as nursery:
        for mode in (Mode.DIRECT, Mode.SHARED) * 5:

            async def choose(mode: Mode = mode) -> None:
                await shared.choose(mode=mode)

            nursery.start_soon(choose)
    assert ledger.choice(Mode.SHARED) == Choice(shared.mode)
