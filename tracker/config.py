"""The tracker's settings: `[tracker]` in the settings file, explained where they are defined."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from shared.core.errors import LocalError
from shared.core.ids import SCHEME, NodeId, parse_address, parse_node_id
from shared.setting_types import AddressText, HostPortText, LogLevel


class Tier(StrEnum):
    """What part a tracker has in a platform of several regions."""

    SINGLE = "single"
    REGIONAL = "regional"
    CENTRAL = "central"


MAX_WORKERS = 32


class TrackerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator of a tracker chooses."""

    listen: Annotated[
        HostPortText,
        Meta(
            description="Where edges and peers reach this tracker, one UDP port. [::] answers IPv4 and IPv6 "
            "alike, so that no viewer is left out; write 0.0.0.0:4430 on a machine without IPv6.",
            examples=["0.0.0.0:4430"],
        ),
    ] = HostPortText("[::]:4430")

    public: Annotated[
        HostPortText | None,
        Meta(
            description="The address that others dial, if it is not the one listened on: a DNS name, or the "
            "outside of a router. It stands in every address string that this tracker prints.",
            examples=["tracker.example.org:4430"],
        ),
    ] = None

    api: Annotated[
        HostPortText,
        Meta(
            description="Where the JSON API and the pages are served, over HTTP. It shows every node's "
            "address: only this machine may ask, unless you choose another address here.",
            examples=["0.0.0.0:8430"],
        ),
    ] = HostPortText("127.0.0.1:8430")

    data: Annotated[
        Path,
        Meta(
            description="The folder of this tracker's key and database. Keep it: the key is the tracker's "
            "id, which every viewer's address names.",
            examples=["/var/lib/penstock/tracker"],
        ),
    ] = Path("~/.local/share/penstock/tracker")

    tier: Annotated[
        Tier,
        Meta(
            description="single: this tracker is the whole platform. regional: it serves one region, and "
            "asks the central tracker for what its region has not. central: it serves regional trackers only."
        ),
    ] = Tier.SINGLE

    central: Annotated[
        AddressText | None,
        Meta(
            description="The central tracker's address string, for a regional one. Its operator must name "
            "this tracker in `regionals`.",
            examples=["penstock://" + "0f" * 32 + "@central.example.org:4430"],
        ),
    ] = None

    regionals: Annotated[
        tuple[str, ...],
        Meta(
            description="For a central tracker: the regional ones that it serves, each by its node id or "
            "address string. All of them issue tickets that count at every edge. Where two claim one title, "
            "the one named first is believed.",
            examples=["0f" * 32],
        ),
    ] = ()

    region: Annotated[
        str,
        Meta(description="The region that a regional tracker serves, for other trackers.", max_length=32),
    ] = ""

    edges: Annotated[
        tuple[str, ...],
        Meta(
            description="The edges that may publish titles here, each by its node id or by the address "
            "string that it prints when it starts.",
            examples=["0f" * 32],
        ),
    ] = ()

    open_to_edges: Annotated[
        bool,
        Meta(description="Whether any edge may publish titles here. For a network of your own only."),
    ] = False

    regions: Annotated[
        Path | None,
        Meta(
            description="A file that says which region an address is in: an ALTO network map (RFC 7285) in "
            "JSON, or lines `prefix,region`. The longest prefix wins, and the table before what nodes say of "
            "themselves. It is read again when it changes, or on SIGHUP; with an error in it, the old table "
            "stays in use.",
            examples=["/etc/penstock/regions.csv"],
        ),
    ] = None

    redirect_log: Annotated[
        Path | None,
        Meta(
            description="A file for every redirect and its grounds, one line of JSON each, for `penstock "
            "tracker explain`. At 64 MiB it is renamed to NAME.1 and begun anew. It says who watched what: "
            "keep it only while you need it.",
            examples=["/var/log/penstock/redirects.jsonl"],
        ),
    ] = None

    bittorrent: Annotated[
        HostPortText | None,
        Meta(
            description="A port for stock BitTorrent clients and titles that are for everybody: announces "
            "over UDP (BEP 15) and over HTTP (BEP 3), and /torrents/INFOHASH.torrent, which names edges with "
            "an HTTP door as web seeds; left out, there is none. What is said there is not encrypted. The "
            "names in .torrent files are those of `public`, if that is set.",
            examples=["[::]:6969"],
        ),
    ] = None

    workers: Annotated[
        int,
        Meta(
            description="How many processes answer stock BitTorrent clients at `bittorrent`, each with the "
            "torrents of its own; with 1, the tracker does it itself. Peers and edges are always served by "
            "one process.",
            ge=1,
            le=MAX_WORKERS,
        ),
    ] = 1

    sealed_datagrams: Annotated[
        bool,
        Meta(
            description="Whether nodes that are connected may announce and locate by single encrypted "
            "datagrams at the same port, which costs less than the same over their connection. Where the "
            "system cannot (it takes 64-bit Linux), or datagrams get lost, the connection is used."
        ),
    ] = True

    announce_seconds: Annotated[
        int,
        Meta(
            description="How often nodes must say again what they hold; they are forgotten after two and a "
            "half times this.",
            ge=1,
            le=3600,
        ),
    ] = 60

    report_seconds: Annotated[
        int,
        Meta(description="How often nodes report rates and counters, for operators' screens.", ge=1, le=3600),
    ] = 5

    log_level: Annotated[LogLevel, Meta(description="How much is logged, to standard error.")] = LogLevel.INFO

    def __post_init__(self) -> None:
        self.edge_ids()
        self.regional_ids()
        if self.tier is Tier.REGIONAL and (self.central is None or "," in self.central):
            raise LocalError("central: must be set to one address for a regional tracker")
        if self.tier is Tier.CENTRAL and not self.regionals:
            raise LocalError("regionals: must name the regional trackers that a central one serves")

    def edge_ids(self) -> frozenset[NodeId]:
        """The edges that may publish. Raises LocalError that starts with the setting's name."""
        return frozenset(_ids("edges", self.edges))

    def regional_ids(self) -> tuple[NodeId, ...]:
        """The regional trackers, in order. Raises LocalError that starts with the setting's name."""
        return tuple(_ids("regionals", self.regionals))


def _ids(setting: str, texts: tuple[str, ...]) -> list[NodeId]:
    try:
        return [_id(text.strip().lower()) for text in texts]
    except LocalError as error:
        raise LocalError(f"{setting}: {error}") from None


def _id(text: str) -> NodeId:
    return parse_address(text).node if text.startswith(f"{SCHEME}:") else parse_node_id(text)
