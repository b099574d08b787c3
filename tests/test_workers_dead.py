"""What dies in an edge of several processes, or loses touch: nobody outside misses it for long."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from edge import supervisor
from edge.core.crew import Meet
from edge.supervisor import Child, Supervisor
from shared.core.errors import ConnectionLost, LocalError
from shared.core.ids import InfoHash
from shared.core.messages import Leave
from shared.core.pauses import FIRST_PAUSE_SECONDS
from shared.node import IDLE_SECONDS
from shared.steering import LEAD_BERTH
from tests.house_parts import wait_until
from tests.node_parts import (
    Published,
    Stranger,
    alone,
    new_clip,
    open_house,
    published,
    published_once,
    stranger,
)
from tests.test_workers import (
    FIRST,
    WORKERS,
    aim,
    all_there,
    crewed,
    edges,
    ended,
    fetch,
    processes,
    published_film,
)

LONGER_THAN_THE_PAUSE_SECONDS = FIRST_PAUSE_SECONDS + 1.0


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published_once(tmp_path_factory)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_clip(tmp_path_factory)


async def test_a_worker_that_is_killed_is_started_again_and_its_viewers_come_back(
    tmp_path: Path, film: Published
) -> None:
    async with crewed(tmp_path, film) as house:
        lead, *workers = processes()
        viewer = await house.start_peer("viewer")
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        assert await viewer.download(film) == film.data
        await ended(*workers)
        assert processes()[0] == lead
        await wait_until(all_there, seconds=10)
        await house.assert_serves(film)


async def test_clients_of_a_dead_process_hear_of_it_at_their_next_packet(
    tmp_path: Path, film: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the berth after it knows its tokens; without a reset it takes 12 silent seconds."""
    async with crewed(tmp_path, film) as house:
        before = processes()
        aim(monkeypatch, FIRST)
        async with stranger(house.edge.ready.address) as kept:
            await kept.join(house, film)
            os.kill(os.getpid(), signal.SIGHUP)
            await ended(before[0])
            async with stranger(house.edge.ready.address) as new:
                await new.join(house, film)
                leaving = await the_last_of(before)  # it stays for the one it has
                os.kill(leaving, signal.SIGKILL)  # and nobody starts it again
                await ended(leaving)
                assert "started anew" in await told_that_it_is_gone(kept)
                assert await fetch(new, film) == len(film.data)
                for pid in processes()[:WORKERS]:  # the lead is the youngest
                    os.kill(pid, signal.SIGKILL)
                assert "started anew" in await told_that_it_is_gone(new)


async def the_last_of(before: list[int]) -> int:
    """The only one of these processes that still lives, as soon as the others have ended."""
    with trio.fail_after(IDLE_SECONDS):
        while len(left := set(processes()) & set(before)) > 1:  # noqa: ASYNC110 - nobody sets an event
            await trio.sleep(0.05)
    (last,) = left
    return last


async def told_that_it_is_gone(one: Stranger) -> str:
    """How its connection ended, well before it would have timed out."""
    with trio.fail_after(IDLE_SECONDS / 2), pytest.raises(ConnectionLost) as lost:
        while True:
            await one.say(Leave(InfoHash(bytes(32))))
            await trio.sleep(0.1)
    return lost.value.detail


@dataclass(slots=True)
class Channels:
    """The workers' ends of their channels to the lead, by the worker's name."""

    ends: dict[int, socket.socket] = field(default_factory=dict)

    def introduce(self, lead: Child, worker: Child) -> None:
        """As the supervisor does it."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends[worker.name] = far.dup()
        lead.channel.send(Meet(worker.name), near)
        worker.channel.send(Meet(lead.name), far)

    def close(self) -> None:
        """When they are needed no more."""
        for end in self.ends.values():
            end.close()


async def test_a_worker_that_loses_the_lead_which_lives_is_replaced(
    tmp_path: Path, film: Published, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody but the supervisor can tell; its viewers stay, and the new one hears of new titles."""
    monkeypatch.setattr(supervisor, "END_SECONDS", 1.0)
    with closing(Channels()) as channels:
        monkeypatch.setattr(supervisor, "_introduce", channels.introduce)
        await lose_one(tmp_path, film, clip, monkeypatch, channels)


async def lose_one(
    tmp_path: Path, film: Published, clip: Path, monkeypatch: pytest.MonkeyPatch, channels: Channels
) -> None:
    """See above."""
    async with crewed(tmp_path, film) as house:
        before = set(processes())
        lead = min(before)
        aim(monkeypatch, FIRST)
        async with stranger(house.edge.ready.address) as viewer:
            await viewer.join(house, film)
            name = min(channels.ends)  # the lead has none
            channels.ends[name].shutdown(socket.SHUT_RDWR)
            assert await fetch(viewer, film) == len(film.data)
            await wait_until(all_there_and_one_more, seconds=20)
            assert before < set(processes())
            assert await fetch(viewer, film) == len(film.data)
        await wait_until(nobody_too_many, seconds=20)
        assert before - set(processes()), "who lost the lead has ended"
        address = await house.publish(clip, "New")
        new = published_film(house, clip, address.title)
        for where in (FIRST, FIRST + 1):
            aim(monkeypatch, where)
            async with stranger(house.edge.ready.address) as viewer:
                await viewer.join(house, new)
                assert await fetch(viewer, new) == len(new.data)
        assert lead in processes()


async def nobody_too_many() -> bool:
    """Whether who was to leave has left."""
    return len(processes()) == 1 + WORKERS


async def all_there_and_one_more() -> bool:
    """Whether one who leaves and one who comes are both there."""
    return len(processes()) == 2 + WORKERS


async def test_workers_of_a_lead_that_died_are_kept(
    tmp_path: Path, film: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long after, too: they follow the next one."""
    monkeypatch.setattr(supervisor, "END_SECONDS", 0.5)
    async with crewed(tmp_path, film) as house:
        lead, *workers = processes()
        os.kill(lead, signal.SIGKILL)
        await ended(lead)
        await wait_until(all_there, seconds=10)
        await trio.sleep(3 * 0.5)
        assert set(workers) < set(processes())
        assert len(processes()) == 1 + WORKERS
        await house.assert_serves(film)


async def test_a_worker_replaced_while_it_waits_to_be_started_again_is_not_started_twice(
    tmp_path: Path, film: Published
) -> None:
    """A berth never has two processes, whoever starts one there."""
    async with crewed(tmp_path, film) as house:
        _, worker, _ = processes()
        os.kill(worker, signal.SIGKILL)  # the first time it is back at once
        await ended(worker)
        await wait_until(all_there, seconds=10)
        await house.assert_serves(film)
        before = processes()
        os.kill(before[-1], signal.SIGKILL)  # the second time after a pause
        await ended(before[-1])
        os.kill(os.getpid(), signal.SIGHUP)
        await ended(*before)
        await trio.sleep(LONGER_THAN_THE_PAUSE_SECONDS)
        assert len(processes()) == 1 + WORKERS
        await house.assert_serves(film)


async def test_a_new_lead_that_dies_before_it_begins_is_followed_by_another(
    tmp_path: Path, film: Published, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers meet the one that lives."""
    spawn = Supervisor._spawn
    doomed: list[int] = []

    async def spawn_and_kill(self: Supervisor, berth: int) -> Child:
        child = await spawn(self, berth)
        if berth == LEAD_BERTH and not doomed:
            doomed.append(child.process.pid)
            child.process.kill()
            await child.gone.wait()
        return child

    async with crewed(tmp_path, film) as house:
        before = processes()
        monkeypatch.setattr(Supervisor, "_spawn", spawn_and_kill)
        os.kill(os.getpid(), signal.SIGHUP)
        await ended(*before)
        await wait_until(all_there, seconds=10)
        assert doomed
        assert len(processes()) == 1 + WORKERS
        address = await house.publish(clip, "New")
        assert address.title in published(house.folder / "edge")
        await house.assert_serves(film)


async def test_a_lead_that_is_killed_is_started_again_and_nobody_who_watches_notices(
    tmp_path: Path, film: Published, clip: Path
) -> None:
    async with crewed(tmp_path, film) as house:
        lead, *workers = processes()
        async with stranger(house.edge.ready.address) as viewer:
            await viewer.join(house, film)
            os.kill(lead, signal.SIGKILL)
            assert await fetch(viewer, film) == len(film.data)
            await ended(lead)
            assert await fetch(viewer, film) == len(film.data)
            assert viewer.connection.loss is None
            assert set(workers) < set(processes())
            address = await house.publish(clip, "New")
        assert address.title in published(house.folder / "edge")
        assert len(await edges(house)) == 1


async def test_an_edge_that_ends_leaves_no_process_and_no_port(tmp_path: Path, film: Published) -> None:
    async with crewed(tmp_path, film) as house:
        at = house.edge.ready.address.at
        assert len(processes()) == 1 + WORKERS
        await house.edge.stop()
        assert processes() == []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((at.host, at.port))


async def test_a_child_that_cannot_begin_is_named_in_one_line(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house:
        await house.edge.stop()
        pieces = tmp_path / "edge" / "pieces"
        pieces.rename(tmp_path / "elsewhere")
        pieces.write_text("no folder")
        with pytest.raises(LocalError, match=r"pieces.*store's folder"), alone():
            await house.start_edge(workers=WORKERS)
