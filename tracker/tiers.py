"""The shell of the two tiers: which core a tracker runs, and what that core asks of the machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from shared import fellows_file
from shared.core.actions import Remember
from shared.core.ids import Address, parse_address
from tracker.config import Tier, TrackerConfig
from tracker.core.central import Central, Note
from tracker.core.regional import Regional
from tracker.core.tracker import Tracker

log = logging.getLogger("penstock.tracker")

Core = Tracker | Regional | Central


class FellowView(msgspec.Struct, frozen=True):
    """A tracker of the same platform."""

    address: str
    region: str
    up: bool | None = None  # connected; None: not ours to know
    titles: int = 0  # registered there
    swarms: int = 0
    edges: int = 0  # that hold something


class TierView(msgspec.Struct, frozen=True):
    """How the tiers stand, seen from one tracker."""

    tier: str
    central: str  # its address; empty for a tracker without one
    central_up: bool
    alone: bool  # the central tier is not reached: only this region's titles are found
    seeks: int
    found: int
    unanswered: int
    borrowed: int  # titles of other regions that are known here
    fellows: list[FellowView]


def core_of(config: TrackerConfig, tracker: Tracker, rng: Random) -> Core:
    """The core that the settings ask for, with `tracker` inside."""
    if config.tier is Tier.REGIONAL:
        assert config.central is not None, "checked when the settings were read"
        fellows = fellows_file.load(config.data)
        at = config.public or ""
        return Regional(tracker, parse_address(config.central), rng, at=at, fellows=fellows)
    if config.tier is Tier.CENTRAL:
        return Central(config.regional_ids(), fellows_file.load(config.data))
    return tracker


def act(folder: Path, otherwise: Callable[[Any], None], action: Any) -> None:
    """Carries out what only cores of tiers order; `otherwise` gets the rest."""
    match action:
        case Note():
            log.log(logging.WARNING if action.is_trouble else logging.INFO, "%s", action.text)
        case Remember():
            fellows_file.save(folder, action.fellows)
        case _:
            otherwise(action)


def view(core: Core) -> TierView:
    """For the API."""
    match core:
        case Regional():
            counts = core.statistics()
            fellows = [FellowView(f"penstock://{f.node.hex()}@{f.at}", f.region) for f in counts.fellows]
            central = core.link.tracker
            return TierView(
                "regional", str(Address(central.node, central.at)), counts.up, not counts.up,
                counts.seeks, counts.found, counts.unanswered, counts.borrowed, fellows,
            )  # fmt: skip
        case Central():
            regions = [
                FellowView(
                    f"penstock://{one.node.hex()}@{one.at}", one.name, one.up,
                    len(one.told.entries), len(one.told.swarms), len(one.told.edges),
                )
                for one in core.regions.values()
            ]  # fmt: skip
            return TierView("central", "", True, False, core.seeks, core.seeks - core.misses, 0, 0, regions)
        case _:
            return TierView("single", "", False, False, 0, 0, 0, 0, [])
