"""`penstock play` and `penstock fetch`: a door to the title, and somebody to go through it."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx2
import msgspec
import trio
from rich.console import Console
from rich.progress import Progress

from peer.config import PeerConfig
from peer.daemon import serve
from peer.headless import Experience, Screening
from shared.core.errors import ConfigError, LocalError, Reason, Refused
from shared.core.ids import Address, TitleId, parse_address
from shared.core.merkle import layer_of_file
from shared.core.shape import PIECE_BYTES
from shared.setting_types import HostPortText

PLAYERS = ("mpv", "vlc", "browser")
ASK_SECONDS = 2.0
DOWNLOAD_SECONDS = 60.0  # without a byte


def title_of(address: str) -> Address:
    """A title's address. Raises LocalError, also for an address without a title."""
    parsed = parse_address(address)
    if parsed.title is None:
        raise LocalError(f"{address[:200]!r} names a tracker; a title's address ends in /TITLE-ID")
    return parsed


@asynccontextmanager
async def open_door(tracker: Address, settings: PeerConfig) -> AsyncIterator[str]:
    """The http URL of a peer of this tracker: the one that runs here, or one for this command."""
    running = await _running(tracker, settings)
    if running is not None:
        yield running
        return
    with tempfile.TemporaryDirectory(prefix="penstock-") as scratch:
        own = {"player": HostPortText("127.0.0.1:0"), "listen": HostPortText("[::]:0")}
        async with trio.open_nursery() as nursery:
            try:
                ready = await nursery.start(serve, msgspec.structs.replace(settings, **own))
            except LocalError as error:
                if "in use by another process" not in str(error):
                    raise
                # A peer of another tracker holds the data folder: this one keeps nothing.
                lonely = msgspec.structs.replace(settings, **own, data=Path(scratch))
                ready = await nursery.start(serve, lonely)
            yield ready.player
            nursery.cancel_scope.cancel()


async def _running(tracker: Address, settings: PeerConfig) -> str | None:
    base = f"http://{settings.player}"
    try:
        async with httpx2.AsyncClient(base_url=base, timeout=ASK_SECONDS) as client:
            answer = await client.get("/api/v1/statistics")
            address = parse_address(answer.json()["tracker_address"])
    except (httpx2.HTTPError, ValueError, KeyError, TypeError, LocalError):
        return None  # nobody there, or somebody else's server
    return base if address.node == tracker.node else None


# -- playing ----------------------------------------------------------------------------------------


async def play(title: Address, settings: PeerConfig, player: str, as_json: bool) -> None:
    """Plays a title in `player`. Raises PenstockError."""
    assert title.title is not None
    if player not in (*PLAYERS, "auto", "none", "headless"):
        raise ConfigError(f"--player: {player!r} is not known; allowed: auto, {', '.join(PLAYERS)}, none")
    async with open_door(title, settings) as base:
        stream = f"{base}/titles/{title.title.hex()}/master.m3u8"
        page = f"{base}/watch/{title.title.hex()}"
        if player == "headless":
            await _play_headless(base, title.title, as_json)
            return
        name = _choose(player)
        print(f"{page}\n{stream}", flush=True)
        if name in ("mpv", "vlc"):
            await trio.run_process([name, stream], check=False)
        elif name == "browser":
            await trio.to_thread.run_sync(webbrowser.open, page)
            await trio.sleep_forever()  # the peer must live while the browser plays
        else:
            await trio.sleep_forever()


def _choose(player: str) -> str:
    if player in ("mpv", "vlc") and shutil.which(player) is None:
        raise LocalError(f"{player} is not installed; use --player browser, or none for the addresses alone")
    if player != "auto":
        return player
    return next((name for name in ("mpv", "vlc") if shutil.which(name)), "browser")


async def _play_headless(base: str, title: TitleId, as_json: bool) -> None:
    experience = await Screening(base, title).watch()
    if as_json:
        print(json.dumps(_told(experience)))
    else:
        print(
            f"start-up {experience.startup_seconds:.2f} s, {experience.stalls} stalls "
            f"({experience.stall_seconds:.1f} s), {experience.received_bytes} bytes, "
            f"{'verified' if experience.verified else 'NOT the published bytes'}"
        )
    if not experience.verified:
        raise Refused(Reason.BAD_DATA, "what was played is not what was published")


def _told(experience: Experience) -> dict[str, object]:
    return {
        "startup_seconds": round(experience.startup_seconds or 0.0, 3),
        "stalls": experience.stalls,
        "stall_seconds": round(experience.stall_seconds, 3),
        "bytes": experience.received_bytes,
        "verified": experience.verified,
    }


# -- downloading ------------------------------------------------------------------------------------


async def fetch(title: Address, settings: PeerConfig, output: Path) -> None:
    """Downloads a title's best rendition into `output`. Raises PenstockError."""
    assert title.title is not None
    async with (
        open_door(title, settings) as base,
        httpx2.AsyncClient(base_url=base, timeout=DOWNLOAD_SECONDS) as client,
    ):
        try:
            await _download(client, title.title, output)
        except httpx2.HTTPError as error:
            raise LocalError(f"the peer at {base} stopped answering: {error}; run this again") from None


async def _download(client: httpx2.AsyncClient, title: TitleId, output: Path) -> None:
    master = await client.get(f"/titles/{title.hex()}/master.m3u8")
    if master.status_code != 200:
        reason = Reason.UNKNOWN_TITLE if master.status_code == 404 else Reason.TIMEOUT
        raise Refused(reason, master.text.strip()[:300])
    statistics = (await client.get(f"/api/v1/titles/{title.hex()}/statistics")).json()
    infohash = str(statistics["renditions"][0]["infohash"])
    part = output.with_name(f"{output.name}.part")
    try:
        await _save(client, f"/titles/{title.hex()}/{infohash}.mp4?download", part, output.name)
        statistics = (await client.get(f"/api/v1/titles/{title.hex()}/statistics")).json()
        root = await trio.to_thread.run_sync(_root_of, part)
        if root != statistics["renditions"][0]["pieces_root"]:
            raise Refused(Reason.BAD_DATA, f"{part} is not what was published; delete it and try again")
        size = await trio.to_thread.run_sync(_finish, part, output)
    except OSError as error:
        raise LocalError(f"{output} cannot be written: {error.strerror}") from None
    print(f"{output}: {size} bytes, verified")


async def _save(client: httpx2.AsyncClient, url: str, part: Path, name: str) -> None:
    with part.open("wb") as file, Progress(console=Console(file=sys.stderr), transient=True) as bar:
        async with client.stream("GET", url) as answer:
            if answer.status_code != 200:
                await answer.aread()
                raise Refused(Reason.TIMEOUT, answer.text.strip()[:300])
            total = int(answer.headers["content-length"])
            task = bar.add_task(name, total=total)
            async for data in answer.aiter_bytes(1 << 18):
                await trio.to_thread.run_sync(file.write, data)
                bar.advance(task, len(data))


def _finish(part: Path, output: Path) -> int:
    part.rename(output)
    return output.stat().st_size


def _root_of(path: Path) -> str:
    with path.open("rb") as file:
        return layer_of_file(iter(partial(file.read, PIECE_BYTES), b""), PIECE_BYTES).root.hex()
