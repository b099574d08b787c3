"""A house of real processes for tests: its film, what its doors say, and commands beside it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from peer.demo.house import PENSTOCK, House, environment, open_house
from shared.core.ids import Address
from shared.core.merkle import HASH_BYTES, LEAF_BYTES

COMMAND_SECONDS = 90.0  # a busy machine is no failure, a command that hangs is


def small_film(folder: Path, seconds: int, height: int = 270) -> Path:
    """A film of moving picture and sound at 25 frames a second; a few pieces, more if it is higher."""
    film = folder / "small.mp4"
    size = [
        "--seconds",
        str(seconds),
        "--width",
        str(height * 16 // 9),
        "--height",
        str(height),
        "--fps",
        "25",
    ]
    command = [sys.executable, "-P", "-m", "edge.media", "clip", str(film), *size]
    subprocess.run(command, check=True, capture_output=True, timeout=COMMAND_SECONDS)
    return film


async def furnish(house: House, film: Path, *peers: str, **settings: Any) -> Address:
    """Starts a tracker with these settings, an edge and peers; the address of the published film."""
    await house.start_tracker(**settings)
    await house.start_edge()
    async with trio.open_nursery() as nursery:
        for name in peers:
            nursery.start_soon(house.start_peer, name)
        return await house.publish(film, "The small film")
    raise AssertionError("a nursery swallows nothing")


async def ask(url: str, path: str) -> Any:
    """The JSON at an address."""
    async with httpx2.AsyncClient(base_url=url, timeout=30, trust_env=False, verify=False) as client:
        answer = await client.get(path)
    assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
    return answer.json()


async def fetch_bytes(url: str) -> bytes:
    """The body at an address."""
    async with httpx2.AsyncClient(timeout=60, trust_env=False, verify=False) as client:
        answer = await client.get(url)
    assert answer.status_code == 200, f"{url}: {answer.status_code} {answer.text}"
    return answer.content


async def peer_says(door: str, title: Address) -> Mapping[str, Any]:
    """What a peer tells of the one rendition of a title that it has opened."""
    assert title.title is not None
    told = await ask(door, f"/api/v1/titles/{title.title.hex()}/statistics")
    rendition: Mapping[str, Any] = told["renditions"][0]
    return rendition


async def open_title(door: str, title: Address) -> str:
    """Opens a title at a peer; the path of its film as MP4."""
    assert title.title is not None
    master = (await fetch_bytes(f"{door}/titles/{title.title.hex()}/master.m3u8")).decode()
    infohash = re.search(r"([0-9a-f]{64})\.m3u8", master)
    assert infohash is not None, master
    return f"/titles/{title.title.hex()}/{infohash[1]}.mp4"


async def holders(house: House) -> set[str]:
    """The nodes that the tracker believes to hold all of the one film."""
    swarms = (await ask(house.api, "/api/v1/swarms"))["swarms"]
    return {one["node"] for swarm in swarms for one in swarm["holders"] if one["held"] == one["total"] > 0}


async def node_of(door: str) -> str:
    """A peer's node id."""
    return str((await ask(door, "/api/v1/statistics"))["node"])


async def wait_until(holds: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Waits for something that another process must bring about, and fails if it does not."""
    with trio.fail_after(seconds):
        while not await holds():  # noqa: ASYNC110  # another process has no event to wait for
            await trio.sleep(0.05)


# -- commands ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


def run(*arguments: object, **variables: str) -> Done:
    """Runs a `penstock` command to its end, with settings from `variables`, without a terminal."""
    command = [*PENSTOCK, *map(str, arguments)]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        env=environment() | variables,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def says_one_line(done: Done, status: int, pattern: str) -> None:
    """Asserts that a command failed with this status, and said why in one line that matches."""
    assert (done.status, done.out) == (status, ""), done
    lines = [line for line in done.err.splitlines() if line]
    errors = [line for line in lines if line.startswith("penstock: error: ")]
    assert len(errors) == 1, done.err
    assert errors == lines[-1:], done.err
    assert "Traceback" not in done.err
    assert re.search(pattern, errors[0]), errors[0]


def stored_film(data: Path) -> bytes:
    """The one rendition in a node's data folder, read from its store's files behind its back."""
    (folder,) = (data / "pieces").iterdir()
    pieces = sorted(
        (path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)
    )
    return b"".join(map(_without_hashes, pieces))


def _without_hashes(piece: Path) -> bytes:
    content = piece.read_bytes()
    leaves = -(-len(content) // (LEAF_BYTES + HASH_BYTES))
    return content[leaves * HASH_BYTES :]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- a house that stands while commands are tried ------------------------------------------------------


@dataclass(slots=True)
class Standing:
    """A running house with one tracker, one edge, one peer, and a published film."""

    folder: Path
    film: Path
    tracker: str = ""
    edge: str = ""
    title: str = ""
    api: str = ""
    door: str = ""
    _token: list[trio.lowlevel.TrioToken] = field(default_factory=list)
    _leave: list[trio.Event] = field(default_factory=list)

    async def _stand(self, ready: threading.Event) -> None:
        async with open_house(self.folder) as house:
            title = await furnish(house, self.film, "viewer")
            self.tracker, self.edge, self.title = str(house.tracker), str(house.edge), str(title)
            self.api, self.door = house.api, house.doors["viewer"]
            leave = trio.Event()
            self._token.append(trio.lowlevel.current_trio_token())
            self._leave.append(leave)
            ready.set()
            await leave.wait()

    def leave(self) -> None:
        """Ends it."""
        self._token[0].run_sync_soon(self._leave[0].set)


@contextmanager
def standing_house(folder: Path, film: Path) -> Iterator[Standing]:
    """A house in a thread of its own, for tests that wait for commands to end."""
    standing, ready, failures = Standing(folder, film), threading.Event(), list[BaseException]()

    def live() -> None:
        try:
            trio.run(standing._stand, ready)
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=live)
    thread.start()
    ready.wait()
    if failures:
        thread.join()
        pytest.fail(f"the house did not start: {failures[0]!r}")
    try:
        yield standing
    finally:
        standing.leave()
        thread.join()
    assert failures == []


def last_json(out: str) -> Any:
    """The JSON of the last line."""
    return json.loads(out.splitlines()[-1])
