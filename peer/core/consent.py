"""Whether this peer may upload now: what its user agreed to, and when that ends or begins again.

Seven things can forbid it; the first of them that does is the one that is shown. Acknowledgements,
requests and messages are never forbidden: with every one of these, downloads go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf

from shared.core.ids import Mode

DAY_SECONDS = 86_400.0


class Why(StrEnum):
    """Why nothing is uploaded, or that it is."""

    SHARED = "shared"  # it is
    DIRECT = "direct"
    PAUSED = "paused"
    METERED = "metered"
    QUIET_HOURS = "quiet hours"
    DAY_BUDGET = "day's budget used up"
    MONTH_BUDGET = "month's budget used up"
    UNKNOWN_USE = "the ledger cannot be written"  # so a budget could not be kept


@dataclass(frozen=True, slots=True)
class Terms:
    """What the settings say."""

    quiet_hours: tuple[tuple[float, float], ...] = ()  # seconds of the local day; may pass midnight
    day_budget: int | None = None  # bytes
    month_budget: int | None = None
    metered: frozenset[str] = frozenset()  # names of networks, or of their interfaces


@dataclass(frozen=True, slots=True)
class Use:
    """What has left, everything counted, and where and when we are."""

    day_bytes: int
    month_bytes: int
    local_seconds: float  # since local midnight
    network: str
    is_kept: bool = True  # the figures survive a restart


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user chose while it ran; survives restarts."""

    mode: Mode
    paused_until: float = 0.0  # a time; infinite until it is taken back
    metered: frozenset[str] = frozenset()  # networks beside those of the settings


@dataclass(frozen=True, slots=True)
class Verdict:
    """`until`: when it ends by itself; infinite if it does not."""

    why: Why
    until: float = inf

    @property
    def may_upload(self) -> bool:
        """Data of pieces may leave."""
        return self.why is Why.SHARED


def judge(terms: Terms, choice: Choice, use: Use, now: float) -> Verdict:
    """Whether to upload at `now`."""
    midnight = now + max(0.0, DAY_SECONDS - use.local_seconds)
    if choice.mode is not Mode.SHARED:
        return Verdict(Why.DIRECT)
    if now < choice.paused_until:
        return Verdict(Why.PAUSED, choice.paused_until)
    if _is_metered(use.network, terms.metered | choice.metered):
        return Verdict(Why.METERED)
    for begin, end in terms.quiet_hours:
        if (left := _seconds_left(begin, end, use.local_seconds)) > 0:
            return Verdict(Why.QUIET_HOURS, now + left)
    if terms.month_budget is not None and use.month_bytes >= terms.month_budget:
        return Verdict(Why.MONTH_BUDGET)
    if terms.day_budget is not None and use.day_bytes >= terms.day_budget:
        return Verdict(Why.DAY_BUDGET, midnight)
    if not use.is_kept and (terms.day_budget is not None or terms.month_budget is not None):
        return Verdict(Why.UNKNOWN_USE)
    return Verdict(Why.SHARED)


def left_bytes(terms: Terms, use: Use) -> float:
    """What the tighter of the two budgets leaves; infinite without one."""
    day = inf if terms.day_budget is None else terms.day_budget - use.day_bytes
    month = inf if terms.month_budget is None else terms.month_budget - use.month_bytes
    return max(0.0, min(day, month))


def _is_metered(network: str, metered: frozenset[str]) -> bool:
    return bool(network) and (network in metered or network.split(" ")[0] in metered)


def _seconds_left(begin: float, end: float, at: float) -> float:
    """Until a stretch of the day ends; 0 outside of it."""
    length = (end - begin) % DAY_SECONDS
    into = (at - begin) % DAY_SECONDS
    return length - into if into < length else 0.0
