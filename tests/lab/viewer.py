"""Somebody before a peer's door: `python -m tests.lab.viewer DOOR TITLE play|download`.

Says `ready` once everything is imported, begins when its input has a line, plays the title as a player
without a picture does or downloads it, and says what it noticed as a line of JSON, with the door's counts.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import httpx2
import trio

from peer.door_client import door_client
from peer.headless import Experience, Screening, read_text
from shared.core.errors import LocalError
from shared.core.ids import TitleId, parse_title_id

PATIENCE_SECONDS = 120.0


async def play(door: str, title: TitleId) -> dict[str, Any]:
    """What a viewer notices; a title that cannot be played to its end is an answer, too."""
    stalled_at: list[float] = []

    def changed(experience: Experience) -> None:
        if experience.stalls > len(stalled_at):
            stalled_at.append(trio.current_time() - experience.began_at)

    screening = Screening(door, title, changed)
    failure = ""
    try:
        await screening.watch()
    except LocalError as error:
        failure = str(error)
    return {**asdict(screening.experience), "stalled_at": stalled_at, "failure": failure}


async def download(door: str, title: TitleId) -> dict[str, Any]:
    """How long the whole file took, from the first question on."""
    began_at = trio.current_time()
    received = 0
    async with door_client(door, PATIENCE_SECONDS) as client:
        await read_text(client, f"/titles/{title.hex()}/master.m3u8")
        infohash = (await _counts(client, title))["infohash"]
        async with client.stream("GET", f"/titles/{title.hex()}/{infohash}.mp4?download") as answer:
            async for part in answer.aiter_bytes(1 << 18):
                received += len(part)
    return {"seconds": trio.current_time() - began_at, "received_bytes": received, "failure": ""}


async def _counts(client: httpx2.AsyncClient, title: TitleId) -> dict[str, Any]:
    rendition: dict[str, Any] = (await client.get(f"/api/v1/titles/{title.hex()}/statistics")).json()[
        "renditions"
    ][0]
    return rendition


async def _main(door: str, title: TitleId, what: str) -> None:
    print("ready", flush=True)
    await trio.to_thread.run_sync(sys.stdin.readline)
    began_at = trio.current_time()
    try:
        noticed = await (play if what == "play" else download)(door, title)
    except (LocalError, httpx2.HTTPError) as error:
        noticed = {"failure": f"{type(error).__name__} {error}", "seconds": trio.current_time() - began_at}
    async with door_client(door, PATIENCE_SECONDS) as client:
        noticed["peer"] = (await client.get("/api/v1/statistics")).json()
        noticed["title"] = await _counts(client, title)
    print(json.dumps(noticed), flush=True)


if __name__ == "__main__":
    trio.run(_main, sys.argv[1], parse_title_id(sys.argv[2]), sys.argv[3])
