"""A player without a picture: reads a title through the door as HLS players do, at the speed of
the film, and notes what a viewer would notice.

It shows the first segment as soon as it is here, keeps up to `AHEAD_SECONDS` in its buffer, and
counts a stall whenever the next segment is not here when the one before has ended. All bytes
are hashed as they come; at the end the whole file must have the root of the signed manifest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2
import trio

from peer.door_client import door_client
from shared.core.errors import LocalError
from shared.core.ids import TitleId
from shared.core.merkle import layer_of_file
from shared.core.shape import PIECE_BYTES

AHEAD_SECONDS = 12.0
ANSWER_SECONDS = 60.0  # for one segment; then the source is given up
PATIENCE_SECONDS = 10.0  # while the peer looks for the tracker or a first source
TRIES = 5
PAUSE_SECONDS = 0.5

_EXTINF = re.compile(r"#EXTINF:([0-9.]+),")
_RANGE = re.compile(r'(?:#EXT-X-BYTERANGE:|BYTERANGE=")([0-9]+)@([0-9]+)')


@dataclass(frozen=True, slots=True)
class Part:
    """One stretch of the file: the header (0 s) or a segment."""

    offset: int
    length: int
    seconds: float


@dataclass(slots=True)
class Experience:
    """What a viewer noticed so far."""

    began_at: float
    startup_seconds: float | None = None
    stalls: int = 0
    stall_seconds: float = 0.0
    shown_seconds: float = 0.0
    total_seconds: float = 0.0
    received_bytes: int = 0
    total_bytes: int = 0
    verified: bool = False
    done: bool = False


@dataclass(slots=True)
class Screening:
    """One viewing of one title through the door at `base` (an http URL without a path)."""

    base: str
    title: TitleId
    changed: Callable[[Experience], object] = lambda experience: None
    experience: Experience = field(init=False)

    def __post_init__(self) -> None:
        self.experience = Experience(trio.current_time())

    async def watch(self) -> Experience:
        """Plays the title to its end. Raises LocalError if it cannot be played."""
        async with door_client(self.base, ANSWER_SECONDS) as client:
            rendition = await self._rendition(client)
            parts = parse_playlist(await read_text(client, f"{rendition}.m3u8"))
            self.experience.total_bytes = sum(part.length for part in parts)
            self.experience.total_seconds = sum(part.seconds for part in parts)
            film = await self._show(client, f"{rendition}.mp4", parts)
            root = await self._root(client, rendition.rpartition("/")[2])
            self.experience.verified = layer_of_file(_pieces(film), PIECE_BYTES).root.hex() == root
        self.experience.done = True
        self.changed(self.experience)
        return self.experience

    async def _rendition(self, client: httpx2.AsyncClient) -> str:
        """The path of the best rendition, without its ending."""
        master = await read_text(client, f"/titles/{self.title.hex()}/master.m3u8")
        names = [line for line in master.splitlines() if line and not line.startswith("#")]
        if not names:
            raise LocalError("the title has no rendition to play")
        return f"/titles/{self.title.hex()}/{names[0].rpartition('/')[2].removesuffix('.m3u8')}"

    async def _root(self, client: httpx2.AsyncClient, infohash: str) -> str:
        answer = await client.get(f"/api/v1/titles/{self.title.hex()}/statistics")
        renditions = answer.json()["renditions"]
        return str(next(one["pieces_root"] for one in renditions if one["infohash"] == infohash))

    async def _show(self, client: httpx2.AsyncClient, path: str, parts: list[Part]) -> bytearray:
        film = bytearray()
        shown_until = 0.0  # clock time at which what is buffered will have been shown
        for part in parts:
            await self._wait_for_room(shown_until)
            film += await _bytes(client, path, part)
            now = trio.current_time()
            self.experience.received_bytes = len(film)
            if part.seconds:
                shown_until = self._arrived(part, shown_until, now)
            self.changed(self.experience)
        await self._wait_for_room(shown_until, AHEAD_SECONDS)
        self.experience.shown_seconds = self.experience.total_seconds
        return film

    async def _wait_for_room(self, shown_until: float, room_seconds: float = 0.0) -> None:
        while (wait := shown_until - AHEAD_SECONDS + room_seconds - trio.current_time()) > 0:
            await trio.sleep(min(wait, 0.5))
            self._tick(shown_until)

    def _arrived(self, part: Part, shown_until: float, now: float) -> float:
        experience = self.experience
        if experience.startup_seconds is None:
            experience.startup_seconds = now - experience.began_at
            shown_until = now
        elif now > shown_until:
            experience.stalls += 1
            experience.stall_seconds += now - shown_until
            shown_until = now
        self._tick(shown_until + part.seconds)
        return shown_until + part.seconds

    def _tick(self, shown_until: float) -> None:
        if self.experience.startup_seconds is None:
            return
        first = self.experience.began_at + self.experience.startup_seconds + self.experience.stall_seconds
        shown = min(trio.current_time(), shown_until) - first
        self.experience.shown_seconds = max(0.0, min(shown, self.experience.total_seconds))
        self.changed(self.experience)


def parse_playlist(text: str) -> list[Part]:
    """The stretches of a byte-range media playlist, header first. Raises LocalError."""
    parts: list[Part] = []
    seconds = 0.0
    for line in text.splitlines():
        if found := _EXTINF.match(line):
            seconds = float(found[1])
        if found := _RANGE.search(line):
            parts.append(Part(int(found[2]), int(found[1]), seconds))
            seconds = 0.0
    if not parts:
        raise LocalError("the playlist names no byte ranges")
    return parts


async def read_text(client: httpx2.AsyncClient, path: str) -> str:
    """A playlist. Raises LocalError with the door's own words, at once or when patience ends."""
    give_up_at = trio.current_time() + PATIENCE_SECONDS
    while True:
        try:
            answer = await client.get(path)
        except httpx2.HTTPError as error:
            raise _unanswered(client, error) from None
        if answer.status_code == 200:
            return answer.text
        if answer.status_code != 503 or trio.current_time() > give_up_at:
            raise refusal(answer)
        await trio.sleep(PAUSE_SECONDS)  # the peer is still looking for the tracker or a source


async def _bytes(client: httpx2.AsyncClient, path: str, part: Part) -> bytes:
    span = {"Range": f"bytes={part.offset}-{part.offset + part.length - 1}"}
    failure = LocalError("the peer cuts its answers")
    for _ in range(TRIES):
        try:
            answer = await client.get(path, headers=span)
        except httpx2.HTTPError as error:
            failure = _unanswered(client, error)
        else:
            if answer.status_code == 206 and len(answer.content) == part.length:
                return answer.content
            failure = failure if answer.is_success else refusal(answer)
        await trio.sleep(PAUSE_SECONDS)
    raise failure


def refusal(answer: httpx2.Response) -> LocalError:
    """The error for an answer in which the door says, in one line, why it does not give the film."""
    return LocalError(answer.text.strip()[:300] or f"the peer answers with status {answer.status_code}")


def _unanswered(client: httpx2.AsyncClient, error: httpx2.HTTPError) -> LocalError:
    return LocalError(f"the peer at {client.base_url} does not answer: {error}")


def _pieces(film: bytearray) -> list[bytes]:
    return [bytes(film[start : start + PIECE_BYTES]) for start in range(0, len(film), PIECE_BYTES)]
