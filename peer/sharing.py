"""The shell of consent: asks `peer.core.consent` often, stops and resumes uploads, keeps the ledger."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf, isinf

import trio

from peer.config import PeerConfig
from peer.core.consent import Choice, Terms, Use, Verdict, judge, left_bytes
from peer.core.peer import Peer
from peer.core.worst_windows import WorstWindows
from peer.ledger import Ledger, Upload
from shared import clock
from shared.core.errors import LocalError
from shared.core.ids import InfoHash, Mode
from shared.core.units import parse_hours
from shared.serving import Serving

JUDGE_SECONDS = 0.05  # so that nothing leaves 100 ms after consent has ended
KEEP_SECONDS = 1.0
JSON = Mapping[str, "None | bool | int | float | str | list[str]"]

_LOG = logging.getLogger("penstock.sharing")


@dataclass(frozen=True, slots=True)
class Line:
    """What the line tells: bytes sent since start, what it carries, its network's name."""

    sent_bytes: int
    rate: float
    network: str


class Sharing:
    """Whether to upload, while the peer runs. `line` reads the line; `pump` carries out orders."""

    def __init__(
        self,
        config: PeerConfig,
        ledger: Ledger,
        core: Peer,
        serving: Serving,
        line: Callable[[], Line],
        pump: Callable[[], None],
    ) -> None:
        self._setting = Mode(config.mode.value)
        self._terms = Terms(
            tuple(parse_hours(hours) for hours in config.quiet_hours),
            config.day_budget,
            config.month_budget,
            frozenset(config.metered),
        )
        self._ledger = ledger
        self._core = core
        self._serving = serving
        self._line = line
        self._pump = pump
        self._choice = ledger.choice(self._setting)
        self._day = _day(clock.now())
        self._sent = {"day": ledger.sent_since(self._day), "month": ledger.sent_since(self._day[:7])}
        self._counted = line().sent_bytes
        self._unkept = Upload()
        self._worst = WorstWindows()
        self._is_kept = True
        self._choosing = trio.Lock()
        self.verdict: Verdict = self._judge(clock.now())
        self._apply()

    # -- running --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Task: judge often, write now and then."""
        keep_at = clock.now()
        while True:
            self.look()
            if clock.now() >= keep_at:
                keep_at = clock.now() + KEEP_SECONDS
                await self.keep()
            await trio.sleep(JUDGE_SECONDS)

    def look(self) -> None:
        """Count what has left since the last time, and act on what that means."""
        now, line = clock.now(), self._line()
        self._roll(now)
        passed = max(0, line.sent_bytes - self._counted)
        self._counted = line.sent_bytes
        self._unkept.sent_bytes += passed
        for span in self._sent:
            self._sent[span] += passed
        self._worst.add(now, line.sent_bytes, line.rate)
        before, self.verdict = self.verdict, self._judge(now)
        if self.verdict.why is not before.why:
            _LOG.info("uploading: %s", self.verdict.why.value)
            self._apply()

    async def keep(self) -> None:
        """Write the ledger. A disk that refuses ends uploading where a budget is to be kept."""
        unkept, self._unkept = self._unkept, Upload()
        unkept.worst_second, unkept.worst_ten_seconds = self._worst.take()
        unkept.titles = self._serving.take_served()
        if not (unkept.sent_bytes or unkept.titles):
            return
        names = self._names(unkept.titles)
        try:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._ledger.add, self._day, unkept, names)
            self._is_kept = True
        except LocalError as error:
            if self._is_kept:
                _LOG.warning("%s", error)
            self._is_kept = False
            self._unkept.sent_bytes += unkept.sent_bytes
            self._worst.give_back(unkept.worst_second, unkept.worst_ten_seconds)
            self._serving.give_back(unkept.titles)

    def _names(self, titles: Mapping[InfoHash, int]) -> dict[InfoHash, str]:
        manifests = {name: fetch.manifest for name, fetch in self._core.fetches.items() if name in titles}
        return {name: manifest.title for name, manifest in manifests.items() if manifest is not None}

    def _roll(self, now: float) -> None:
        """Another day begins; a clock that was set back does not give a day anew."""
        day = _day(now)
        if day <= self._day:
            return
        if day[:7] != self._day[:7]:
            self._sent["month"] = 0
        self._sent["day"] = 0
        self._day = day

    def _judge(self, now: float) -> Verdict:
        return judge(self._terms, self._choice, self._use(now), now)

    def _use(self, now: float) -> Use:
        local = time.localtime(now)
        seconds = local.tm_hour * 3600.0 + local.tm_min * 60.0 + local.tm_sec + now % 1
        return Use(self._sent["day"], self._sent["month"], seconds, self._line().network, self._is_kept)

    def _apply(self) -> None:
        now = clock.now()
        if self.verdict.may_upload:
            self._core.seeding.resume_sharing(now)
        else:
            self._core.seeding.stop_sharing(now)
            self._serving.stop()
        self._pump()

    # -- what the user does ---------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """What the user chose last."""
        return self._choice.mode

    async def choose(
        self,
        *,
        mode: Mode | None = None,
        pause_seconds: float | None = None,
        metered_here: bool | None = None,
    ) -> None:
        """Changes what is given; a pause of 0 ends it, an infinite one lasts until then.

        It counts at once, and is on the disk when this returns. Raises LocalError if it cannot be kept; it
        counts all the same while this process runs.
        """
        choice = self._choice if mode is None else replace(self._choice, mode=mode)
        if pause_seconds is not None:
            choice = replace(choice, paused_until=clock.now() + pause_seconds if pause_seconds > 0 else 0.0)
        if metered_here is not None:
            choice = self._metered(choice, metered_here)
        self._choice = choice
        self.look()
        with trio.CancelScope(shield=True):  # whoever asked may be gone already
            async with self._choosing:  # of two wishes at once the later one is written last
                await trio.to_thread.run_sync(self._ledger.choose, self._choice, self._setting)

    def _metered(self, choice: Choice, is_metered: bool) -> Choice:
        network = self._line().network
        if not network:
            raise LocalError("this machine's network has no name yet; a default route tells it")
        here = {network}
        return replace(choice, metered=choice.metered | here if is_metered else choice.metered - here)

    def statistics(self) -> JSON:
        """For the page and the JSON door; infinite times are None."""
        until = self.verdict.until
        left = left_bytes(self._terms, self._use(clock.now()))
        return {
            "uploading": self.verdict.may_upload,
            "why": self.verdict.why.value,
            "until": None if isinf(until) else until,
            "paused": self._choice.paused_until > clock.now(),
            "network": self._line().network,
            "metered": sorted(self._choice.metered | self._terms.metered),
            "day": self._day,
            "day_bytes": self._sent["day"],
            "month_bytes": self._sent["month"],
            "left_bytes": None if left == inf else int(left),
        }


def _day(now: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(now))
