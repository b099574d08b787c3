"""`penstock play` and `penstock fetch`: a door to the title, and somebody to go through it."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import webbrowser
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import trio
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from peer.config import PeerConfig
from peer.daemon import serve
from peer.door_client import door_client
from peer.headless import Experience, Screening, read_text, refusal
from shared.core.errors import ConfigError, LocalError, Reason, Refused
from shared.core.ids import Address, TitleId, parse_address
from shared.core.merkle import layer_of_file
from shared.core.shape import PIECE_BYTES
from shared.setting_types import HostPortText

PLAYERS = ("mpv", "vlc", "browser")
ASK_SECONDS = 2.0
DOWNLOAD_SECONDS = 60.0  # without a byte
PLAYER_FAILED = (1, 2)  # mpv: not started, nothing played; what a viewer's own leaving gives is no error


def title_of(address: str) -> Address:
    """A title's address. Raises LocalError, also for an address without a title."""
    parsed = parse_address(address)
    if parsed.title is None:
        raise LocalError(f"{address[:200]!r} names a tracker; a title's address ends in /TITLE-ID")
    return parsed


@dataclass(frozen=True, slots=True)
class Door:
    """Where the peer is that plays, as an http URL without a path."""

    base: str
    ours: bool  # it lives as long as this command


@asynccontextmanager
async def open_door(tracker: Address, settings: PeerConfig) -> AsyncIterator[Door]:
    """The door of a peer of this tracker: the one that runs here, or one for this command."""
    running = await _running(tracker, settings)
    if running is not None:
        yield Door(running, ours=False)
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
            yield Door(ready.player, ours=True)
            nursery.cancel_scope.cancel()


async def _running(tracker: Address, settings: PeerConfig) -> str | None:
    base = f"http://{settings.player}"
    try:
        async with door_client(base, ASK_SECONDS) as client:
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
    name = _choose(player)
    async with open_door(title, settings) as door:
        if name == "headless":
            await _play_headless(door.base, title.title, as_json)
        else:
            await _play_in(name, door, title.title)


def _choose(player: str) -> str:
    if player in ("mpv", "vlc") and shutil.which(player) is None:
        raise LocalError(f"{player} is not installed; use --player browser, or none for the addresses alone")
    if player != "auto":
        return player
    return next((name for name in ("mpv", "vlc") if shutil.which(name)), "browser")


async def _play_in(name: str, door: Door, title: TitleId) -> None:
    stream = f"/titles/{title.hex()}/master.m3u8"
    page = f"{door.base}/watch/{title.hex()}"
    async with door_client(door.base, DOWNLOAD_SECONDS) as client:
        await read_text(client, stream)  # players say only that it fails, the door says why
    print(f"{page}\n{door.base}{stream}", flush=True)
    if name in ("mpv", "vlc"):
        done = await trio.run_process([name, f"{door.base}{stream}"], check=False)
        if done.returncode in PLAYER_FAILED:
            raise LocalError(f"{name} did not play it, see above; try --player browser")
        return
    if name == "browser" and not await trio.to_thread.run_sync(webbrowser.open, page):
        print("no browser was found: open the first address in one", file=sys.stderr)
    if door.ours:
        print("the peer runs on for the player; Ctrl-C ends it", file=sys.stderr)
        await trio.sleep_forever()


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
    part = _begin(output)
    try:
        async with open_door(title, settings) as door, door_client(door.base, DOWNLOAD_SECONDS) as client:
            await _download(client, title.title, part, output)
    finally:
        part.unlink(missing_ok=True)  # what it had is in the peer's store; the next time is quicker


def _begin(output: Path) -> Path:
    """The file to write into until all is verified, made now: nobody waits to hear that it cannot be."""
    if output.is_dir():
        raise LocalError(f"{output} is a folder; name the file to write in it")
    part = output.with_name(f"{output.name}.part")
    try:
        part.touch()
    except OSError as error:
        raise _unwritable(output, error) from None
    return part


def _unwritable(output: Path, error: OSError) -> LocalError:
    return LocalError(f"{output} cannot be written: {error.strerror}; name another file with -o")


async def _download(client: httpx2.AsyncClient, title: TitleId, part: Path, output: Path) -> None:
    await read_text(client, f"/titles/{title.hex()}/master.m3u8")
    try:
        infohash = str((await _rendition(client, title))["infohash"])
        await _save(client, f"/titles/{title.hex()}/{infohash}.mp4?download", part, output.name)
        root = await trio.to_thread.run_sync(_root_of, part)
        if root != (await _rendition(client, title))["pieces_root"]:
            raise Refused(Reason.BAD_DATA, "what came is not what was published; run this again")
        size = await trio.to_thread.run_sync(_finish, part, output)
    except httpx2.HTTPError as error:
        raise LocalError(
            f"the peer at {client.base_url} stopped answering: {error}; run this again"
        ) from None
    except OSError as error:
        raise _unwritable(output, error) from None
    print(f"{output}: {size} bytes, verified")


async def _rendition(client: httpx2.AsyncClient, title: TitleId) -> Mapping[str, Any]:
    statistics = (await client.get(f"/api/v1/titles/{title.hex()}/statistics")).json()
    rendition: Mapping[str, Any] = statistics["renditions"][0]
    return rendition


async def _save(client: httpx2.AsyncClient, url: str, part: Path, name: str) -> None:
    with part.open("wb") as file, _bar() as bar:
        async with client.stream("GET", url) as answer:
            if answer.status_code != 200:
                await answer.aread()
                raise refusal(answer)
            task = bar.add_task(name, total=int(answer.headers["content-length"]))
            async for data in answer.aiter_bytes(1 << 18):
                await trio.to_thread.run_sync(file.write, data)
                bar.advance(task, len(data))


def _bar() -> Progress:
    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _finish(part: Path, output: Path) -> int:
    part.rename(output)
    return output.stat().st_size


def _root_of(path: Path) -> str:
    with path.open("rb") as file:
        return layer_of_file(iter(partial(file.read, PIECE_BYTES), b""), PIECE_BYTES).root.hex()
