"""The dictionaries inside messages: titles as the catalogue knows them, sources and their reasons."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from shared.core.codec import Limit
from shared.core.fields import U32, Bytes, Hash, Node, Title
from shared.core.ids import Kind

MAX_USES = 32  # renditions in one Report


class Why(StrEnum):
    """Why a source stands in a redirect."""

    NEAR_PC = "near-pc"  # a PC in the viewer's region with spare upload
    NEAR_STB = "near-stb"  # a set-top box in the viewer's region
    FAR_PC = "far-pc"
    FAR_STB = "far-stb"
    EDGE_FIRST = "edge-first"  # first in the title's rendezvous order
    EDGE_LIGHTER = "edge-lighter"  # the less loaded of two that share a title in demand
    EDGE_SPARE = "edge-spare"  # second: takes over when the first is busy or gone
    CENTRAL_EDGE = "central-edge"  # of another region, named by the central tier


@dataclass(frozen=True, slots=True)
class Rendition:
    """One encoding of a title, as the catalogue knows it."""

    infohash: Hash
    name: Annotated[str, Limit(1, 255, "file name")]
    length: Bytes  # of the file
    bandwidth: Annotated[int, Limit(0, 1 << 40, "peak bits per second; 0 for a plain file")]
    codecs: Annotated[str, Limit(0, 100, "RFC 6381")]
    width: Annotated[int, Limit(0, 65535, "pixels")]
    height: Annotated[int, Limit(0, 65535, "pixels")]
    duration_ms: Annotated[int, Limit(0, U32, "milliseconds")]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue."""

    title_id: Title
    title: Annotated[str, Limit(1, 800, "display title")]
    signer: Node
    renditions: Annotated[tuple[Rendition, ...], Limit(1, 16, "best first")]


@dataclass(frozen=True, slots=True)
class Source:
    """Somebody a piece can be asked from, and why."""

    node: Node
    at: Annotated[str, Limit(3, 300, "host:port to dial")]
    kind: Annotated[Kind, Limit(1, 16, "kind of node")]
    region: Annotated[str, Limit(0, 32, "region")]
    spare: Annotated[int, Limit(0, 7, "class of spare upload, 0 none to 7 most")]
    why: Annotated[Why, Limit(1, 16, "reason")]


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes taken from one source so far."""

    node: Node
    taken_bytes: Bytes  # from this node


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes of one rendition since the node's start."""

    infohash: Hash
    edge_bytes: Bytes  # taken from edges
    peer_bytes: Bytes  # taken from peers
    uploaded_bytes: Bytes  # given to others, counted when they have the piece
