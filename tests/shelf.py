"""Films on a shelf: a `Titles` that reads prepared files, and can be told to wait or to fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

import httpx2
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from peer import m3u8
from peer.player import serve_player
from peer.titles import JSON
from shared.core.entries import entry_of
from shared.core.errors import PenstockError, Reason, Refused
from shared.core.ids import InfoHash, Mode, TitleId
from shared.core.manifest import Manifest, build, parse, sign
from shared.core.merkle import layer_of_file
from shared.core.messages import Entry
from shared.core.segments import Media, lay_out
from shared.core.shape import PIECE_BYTES
from shared.file_response import Reader

TITLE = "Mill race, 12 seconds"


def make_film(folder: Path, seconds: int = 12, width: int = 640, height: int = 360) -> Path:
    """A prepared film with its description beside it (`.json`), made as an edge makes it."""
    source, target = folder / "source.mp4", folder / "film.mp4"
    size = ["--seconds", str(seconds), "--width", str(width), "--height", str(height)]
    _media("clip", str(source), *size)
    lines = _media("prepare", str(source), str(target)).splitlines()
    target.with_suffix(".json").write_text(json.dumps(json.loads(lines[-1])["result"]))
    return target


def _media(*arguments: str) -> str:
    command = [sys.executable, "-m", "edge.media", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def manifest_of(path: Path, *, title: str = TITLE, number: int = 1, plain: bool = False) -> Manifest:
    """The signed manifest of a prepared film; of any file if `plain`."""
    media = None
    if not plain:
        told = json.loads(path.with_suffix(".json").read_text())
        told["segments"] = lay_out(told["init_bytes"], [(size, ms) for size, ms in told["segments"]])
        media = Media(**told)
    with path.open("rb") as file:
        tree = layer_of_file(iter(lambda: file.read(PIECE_BYTES), b""), PIECE_BYTES)
    key = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\1")
    draft = build(path.name, tree, title=title, title_id=TitleId(bytes([number]) * 16), media=media)
    return parse(sign(draft, key))


@dataclass
class Shelf:
    """Titles out of files. `refusal` fails what comes from the network; `cut_at` fails a read there."""

    films: dict[InfoHash, tuple[Manifest, Path]] = field(default_factory=dict)
    refusal: PenstockError | None = None
    reading: PenstockError | None = None
    cut_at: int | None = None  # reads from here on raise `reading`
    hold_at: int | None = None  # reads from here on wait for ever
    playing: list[bool] = field(default_factory=list)  # what each reader was opened for
    chosen: list[tuple[Mode | None, float | None, bool | None]] = field(default_factory=list)
    largest_read: int = 0
    reads: int = 0
    opened: int = 0
    closed: int = 0
    waiting: trio.Event = field(default_factory=trio.Event)  # set when a read waits
    refused: trio.Event = field(default_factory=trio.Event)  # set when a read has failed
    left: trio.Event = field(default_factory=trio.Event)  # set when a reader is closed
    taken: dict[InfoHash, set[int]] = field(default_factory=dict)

    def add(self, path: Path, **told: str | int | bool) -> Manifest:
        manifest = manifest_of(path, **told)  # type: ignore[arg-type]
        self.films[manifest.infohash] = (manifest, path)
        return manifest

    @property
    def first(self) -> Manifest:
        return next(manifest for manifest, _ in self.films.values())

    @property
    def master_path(self) -> str:
        return m3u8.master_path(self.first.title_id)

    @property
    def film_path(self) -> str:
        return m3u8.film_path(self.first.title_id, self.first.infohash)

    @property
    def page_path(self) -> str:
        return f"/watch/{self.first.title_id.hex()}"

    def _entries(self) -> Iterator[Entry]:
        return (entry_of(manifest) for manifest, _ in self.films.values())

    async def catalogue(self) -> list[Entry]:
        await trio.lowlevel.checkpoint()
        if self.refusal:
            raise self.refusal
        return list(self._entries())

    async def open_title(self, title_id: TitleId) -> Entry:
        for entry in await self.catalogue():
            if entry.title_id == title_id:
                return entry
        raise Refused(Reason.UNKNOWN_TITLE, f"no title {title_id.hex()}")

    async def manifest(self, infohash: InfoHash) -> Manifest:
        await trio.lowlevel.checkpoint()
        return self.films[infohash][0]

    def open_reader(self, infohash: InfoHash, *, playing: bool) -> Reader:
        self.playing.append(playing)
        return ShelfReader(self, infohash)

    async def choose(self, mode: Mode | None, pause_seconds: float | None, metered_here: bool | None) -> None:
        await trio.lowlevel.checkpoint()
        self.chosen.append((mode, pause_seconds, metered_here))

    def statistics(self) -> Mapping[str, JSON]:
        return {
            "node": "ab" * 32,
            "kind": "pc",
            "mode": "shared",
            "tracker_up": True,
            "up_rate": 412_000,
            "down_rate": 1_240_000,
            "cap_rate": 750_000,
            "connections": 4,
            "stalls": 0,
            "cap": {
                "uplink_rate": 1_250_000,
                "grounds": "corrected",
                "confidence": 1.0,
                "household_rate": 250_000,
                "household_seen": True,
                "guard_share": 1.0,
                "cap_rate": 586_000,
                "up_rate": 412_000,
            },
            "sharing": self.sharing(),
        }

    def sharing(self) -> Mapping[str, JSON]:
        paused = bool(self.chosen) and bool(self.chosen[-1][1])
        return {
            "uploading": not paused,
            "why": "paused" if paused else "shared",
            "until": None,
            "paused": paused,
            "network": "wlan0 c0:ff:ee:00:00:01",
            "metered": [],
            "day": "2026-11-24",
            "day_bytes": 3_200_000_000,
            "month_bytes": 41_000_000_000,
            "left_bytes": 6_800_000_000,
        }

    def title_statistics(self, infohash: InfoHash) -> Mapping[str, JSON]:
        manifest, _ = self.films[infohash]
        taken = self.taken.get(infohash, set())
        by_edge = {piece for piece in taken if piece % 4 == 0}
        names: list[tuple[str, str, set[int]]] = [
            ("edge", "edge 1", by_edge),
            ("pc", "anna", {piece for piece in taken - by_edge if piece % 3}),
            ("stb", "living-room", {piece for piece in taken - by_edge if piece % 3 == 0}),
        ]
        sizes = [sum(manifest.piece_size(piece) for piece in pieces) for _, _, pieces in names]
        return {
            "held": "".join(
                "." if piece not in taken else "e" if piece in by_edge else "p"
                for piece in range(manifest.piece_count)
            ),
            "edge_bytes": sizes[0],
            "peer_bytes": sizes[1] + sizes[2],
            "uploaded_bytes": sizes[1] // 2,
            "down_rate": 1_240_000,
            "up_rate": 412_000,
            "stalls": 0,
            "sources": [
                {
                    "node": name * 8,
                    "kind": kind,
                    "name": f"{kind} {name}",
                    "taken_bytes": size,
                    "rate": size / 12,
                }
                for (kind, name, _), size in zip(names, sizes, strict=True)
            ],
        }


class ShelfReader:
    """Reads a file of the shelf."""

    def __init__(self, shelf: Shelf, infohash: InfoHash) -> None:
        self.shelf, self.infohash = shelf, infohash

    async def __aenter__(self) -> ShelfReader:
        self.shelf.opened += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shelf.closed += 1
        self.shelf.left.set()

    async def read(self, offset: int, max_bytes: int) -> bytes:
        shelf = self.shelf
        await trio.lowlevel.checkpoint()
        shelf.reads += 1
        shelf.largest_read = max(shelf.largest_read, max_bytes)
        if shelf.reading is not None and shelf.cut_at is not None and offset >= shelf.cut_at:
            shelf.refused.set()
            raise shelf.reading
        if shelf.hold_at is not None and offset >= shelf.hold_at:
            shelf.waiting.set()
            await trio.sleep_forever()
        manifest, path = shelf.films[self.infohash]
        shelf.taken.setdefault(self.infohash, set()).update(manifest.pieces_of(offset, max_bytes))
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(max_bytes)


@asynccontextmanager
async def open_door(shelf: Shelf) -> AsyncIterator[tuple[httpx2.AsyncClient, str]]:
    """A client of a player's door on the shelf, and the door's base address."""
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(partial(serve_player, shelf, "127.0.0.1", 0))
        base = f"http://{host}:{port}"
        async with httpx2.AsyncClient(base_url=base, timeout=30, trust_env=False) as client:
            yield client, base
        nursery.cancel_scope.cancel()
