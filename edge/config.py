"""The edge's settings: `[edge]` in the settings file, explained where they are defined."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from edge.core.admission import MAX_WORKERS
from shared.core.errors import LocalError
from shared.core.ids import NodeId, parse_node_id
from shared.core.units import Duration, Rate, Size, parse_duration, parse_rate, parse_size
from shared.setting_types import AddressText, HostPortText, LogLevel


class EdgeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator of an edge chooses."""

    tracker: Annotated[
        AddressText | None,
        Meta(
            description="The tracker's address string, as it prints it when it starts. Its operator must "
            "name this edge in the tracker's `edges`. Several, with commas between: when the first is "
            "gone, the next takes its place.",
            examples=["penstock://" + "0f" * 32 + "@tracker.example.org:4430"],
        ),
    ] = None

    listen: Annotated[
        HostPortText,
        Meta(
            description="Where viewers and publishers reach this edge, one UDP port.",
            examples=["0.0.0.0:4431"],
        ),
    ] = HostPortText("[::]:4431")

    http: Annotated[
        HostPortText | None,
        Meta(
            description="A TCP port where stock BitTorrent clients may fetch titles that are for everybody, "
            "as from a web seed (BEP 19), if the tracker has its setting `bittorrent`; left out, there is "
            "none. What is sent there is not encrypted. With several workers the process that takes uploads "
            "serves it.",
            examples=["[::]:8440"],
        ),
    ] = None

    http_rate: Annotated[
        Rate | None,
        Meta(
            description="What stock clients may take together; left out, as much as the line carries, beside "
            "viewers.",
            examples=["200 Mbit/s"],
        ),
    ] = None

    region: Annotated[
        str, Meta(description="Where this edge is, if its tracker names regions; else empty.", max_length=32)
    ] = ""

    data: Annotated[
        Path,
        Meta(
            description="The folder of this edge's key, pieces and uploads.",
            examples=["/var/lib/penstock/edge"],
        ),
    ] = Path("~/.local/share/penstock/edge")

    quota: Annotated[
        Size,
        Meta(
            description="The disk space that titles may take: those published here, which stay, and those "
            "that the tracker orders, which make room for each other."
        ),
    ] = parse_size("100 GB")

    capacity: Annotated[
        Rate,
        Meta(
            description="What this edge's line can send. The tracker shares viewers out by it: an edge "
            "of twice the capacity is given twice as many. State what the line really carries, or what "
            "may be used of it; it is no limit."
        ),
    ] = parse_rate("1 Gbit/s")

    publishers: Annotated[
        tuple[str, ...],
        Meta(
            description="Who may publish here, by node id; `penstock publish --print-id` shows one's own.",
            examples=["0f" * 32],
        ),
    ] = ()

    local_publishers: Annotated[
        bool, Meta(description="Whether everybody on this machine may publish here.")
    ] = True

    max_upload: Annotated[Size, Meta(description="The largest file that may be uploaded.")] = parse_size(
        "50 GB"
    )

    media_memory: Annotated[
        Size, Meta(description="Memory that preparing one film may take; a film that wants more is refused.")
    ] = parse_size("2 GB")

    media_time: Annotated[
        Duration,
        Meta(description="Time that preparing one film may take; a film that wants more is refused."),
    ] = parse_duration("6 h")

    workers: Annotated[
        int,
        Meta(
            description="How many processes serve viewers, all on the one port; with more than one, "
            "another process takes the uploads and speaks with the tracker. As many as there are cores "
            "to give. SIGHUP replaces them one after the other, and no viewer loses its connection.",
            ge=1,
            le=MAX_WORKERS,
        ),
    ] = 1

    worker_grace: Annotated[
        Duration,
        Meta(
            description="How long a worker that is replaced goes on serving those who are connected to "
            "it; who stays longer is sent to the new one between two pieces."
        ),
    ] = parse_duration("10 min")

    log_level: Annotated[LogLevel, Meta(description="How much is logged, to standard error.")] = LogLevel.INFO

    def __post_init__(self) -> None:
        self.publisher_ids()
        if self.http_rate is not None and not self.http_rate > 0:
            raise LocalError("http_rate: must be more than 0; leave `http` out to give stock clients nothing")

    def publisher_ids(self) -> frozenset[NodeId]:
        """Who may publish. Raises LocalError that starts with the setting's name."""
        try:
            return frozenset(parse_node_id(text.strip().lower()) for text in self.publishers)
        except LocalError as error:
            raise LocalError(f"publishers: {error}") from None
