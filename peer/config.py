"""The peer's settings: `[peer]` in the settings file, explained where they are defined."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from shared.core.errors import LocalError
from shared.core.ids import Kind, Mode
from shared.core.units import Size, Uplink, parse_rate, parse_size, parse_uplink
from shared.setting_types import AddressText, HostPortText, HoursText, LogLevel

LEAST_UPLINK = parse_rate("256 kbit/s")  # below it two datagrams are too much for one moment


class PeerKind(StrEnum):
    """What a peer runs on."""

    PC = Kind.PC
    STB = Kind.STB


class Sharing(StrEnum):
    """Whether this peer uploads to others."""

    SHARED = Mode.SHARED
    DIRECT = Mode.DIRECT


class PeerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a viewer chooses."""

    tracker: Annotated[
        AddressText | None,
        Meta(
            description="The tracker's address string, as it prints it when it starts. Whoever gave you "
            "a title's address gave you this, too: it is the same without the last part. Several, with "
            "commas between: when the first is gone, the next takes its place.",
            examples=["penstock://" + "0f" * 32 + "@tracker.example.org:4430"],
        ),
    ] = None

    kind: Annotated[PeerKind, Meta(description="What this peer runs on: pc, or stb for a set-top box.")] = (
        PeerKind.PC
    )

    mode: Annotated[
        Sharing,
        Meta(
            description="shared: give others what you watched, under the cap. direct: never upload; "
            "everything comes from others all the same."
        ),
    ] = Sharing.SHARED

    uplink: Annotated[
        Uplink,
        Meta(
            description="What your line can upload. Everything this peer sends, headers and "
            "acknowledgements included, stays strictly under 60 % of what your household leaves of it. "
            '"estimate" if you do not know: then it is used with care, as a line of 2 Mbit/s or what '
            'it is seen to carry when full. "measure" finds out by short trains of bytes to an edge, which '
            "take at most 2 % of the day's budget and never over 1 MB a day; until then it is an estimate. "
            "You give more if you say what your line can do.",
            examples=["40 Mbit/s", "estimate", "measure"],
        ),
    ] = parse_uplink("10 Mbit/s")

    day_budget: Annotated[
        Size | None,
        Meta(
            description="What may leave in a day (by local time), everything counted; then nothing is "
            "uploaded until midnight. Without it there is no such limit.",
            examples=["10 GB"],
        ),
    ] = None

    month_budget: Annotated[
        Size | None,
        Meta(description="The same for a calendar month.", examples=["200 GB"]),
    ] = None

    quiet_hours: Annotated[
        tuple[HoursText, ...],
        Meta(
            description="Stretches of every day, by local time, in which nothing is uploaded.",
            examples=[["22:00-07:00"]],
        ),
    ] = ()

    metered: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks on which nothing is uploaded, as the peer's page names them: "
            "the interface, or the interface and its router.",
            examples=[["wwan0", "wlan0 c0:ff:ee:00:00:01"]],
        ),
    ] = ()

    region: Annotated[
        str, Meta(description="Where this peer is, if its tracker names regions; else empty.", max_length=32)
    ] = ""

    listen: Annotated[
        HostPortText,
        Meta(description="Where other peers reach this one: one UDP port, 0 for any that is free."),
    ] = HostPortText("[::]:0")

    player: Annotated[
        HostPortText,
        Meta(description="Where players and the browser find this peer; this machine's loopback only."),
    ] = HostPortText("127.0.0.1:8480")

    data: Annotated[Path, Meta(description="The folder of this peer's key and pieces.")] = Path(
        "~/.local/share/penstock/peer"
    )

    quota: Annotated[
        Size, Meta(description="The disk space that pieces may take; what is worth least goes first.")
    ] = parse_size("20 GB")

    upload_slots: Annotated[
        int, Meta(description="How many pieces are sent at the same time.", ge=1, le=64)
    ] = 8

    log_level: Annotated[LogLevel, Meta(description="How much is logged, to standard error.")] = LogLevel.INFO

    def __post_init__(self) -> None:
        if 0 < self.uplink < LEAST_UPLINK:
            raise LocalError('uplink: a line under 256 kbit/s cannot share; use mode = "direct" on it')
