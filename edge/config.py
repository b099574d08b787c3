"""The edge's settings: `[edge]` in the settings file, explained where they are defined."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from edge.core.admission import MAX_WORKERS
from shared.core.errors import LocalError
from shared.core.ids import NodeId, parse_node_id
from shared.core.units import Duration, Size, parse_duration, parse_size
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

    quota: Annotated[Size, Meta(description="The disk space that published titles may take.")] = parse_size(
        "100 GB"
    )

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

    def publisher_ids(self) -> frozenset[NodeId]:
        """Who may publish. Raises LocalError that starts with the setting's name."""
        try:
            return frozenset(parse_node_id(text.strip().lower()) for text in self.publishers)
        except LocalError as error:
            raise LocalError(f"publishers: {error}") from None
