"""What the processes of an edge tell each other: their words, and what lead and worker make of them."""

from __future__ import annotations

import socket
from pathlib import Path
from random import Random
from typing import get_args

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from edge.channel import MAX_WAITING, Channel, ChannelEnded, pair
from edge.core.admission import Admission
from edge.core.crew import (
    Asked,
    Begin,
    CaughtUp,
    Chunk,
    Drain,
    Expect,
    Finish,
    Gained,
    Hold,
    Issuers,
    Loads,
    Lost,
    Meet,
    PublisherGone,
    Say,
    Stray,
    TrackerIs,
    Wanted,
    Watched,
    Word,
)
from edge.core.edge import BeginUpload, Edge, EdgeAction, PublisherLeft, TellWorkers
from edge.core.worker import TellLead, Worker, WorkerAction
from shared.core import messages
from shared.core.actions import Hangup, Send
from shared.core.errors import Reason
from shared.core.ids import Address, HostPort, InfoHash, Kind, Mode, NodeId
from shared.core.messages import PROTOCOL_VERSION, Hello, Refusal, Stage, Upload, UploadState
from shared.core.pauses import LONGEST_PAUSE_SECONDS, Pauses
from shared.core.rates import Rates
from shared.piece_store import PieceStore
from tests.films_in_store import PLENTY, filled, film

NOW = 1000.0
TRACKER = Address(NodeId(bytes(32)), HostPort("192.0.2.1", 4430))
ANN, BOB = NodeId(b"a" * 32), NodeId(b"b" * 32)
HOME, AWAY = HostPort("127.0.0.1", 7), HostPort("198.51.100.7", 7)
UPLOAD = Upload(3, "film.mp4", "A film", 1000, bytes(32))
HELLO = Hello(PROTOCOL_VERSION, Kind.TOOL, Mode.DIRECT, "", "test", str(HOME))
FILM = film(1)

RATES = st.builds(
    Rates,
    st.floats(0, 1e9), st.floats(0, 1e9), st.integers(0, 1 << 50), st.just(0), st.integers(0, 10_000),
)  # fmt: skip


# -- load -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 4), RATES | st.none()), max_size=30))
def test_what_was_uploaded_is_never_forgotten(happenings: list[tuple[int, Rates | None]]) -> None:
    """The node has uploaded all that any of its workers ever reported, and its other figures are of those
    who live."""
    loads, lives = Loads(), dict[int, Rates]()
    before = 0
    for worker, rates in happenings:
        if rates is None:
            loads.gone(worker)
            gone = lives.pop(worker, None)
            before += gone.uploaded_bytes if gone else 0
        else:
            loads.take(worker, rates)
            lives[worker] = rates
    own = Rates(1.0, 2.0, 3, 4, 5)
    whole = loads.with_own(own)
    assert whole.uploaded_bytes == 3 + before + sum(one.uploaded_bytes for one in lives.values())
    assert whole.connections == 5 + sum(one.connections for one in lives.values())
    assert whole.up_rate == pytest.approx(1.0 + sum(one.up_rate for one in lives.values()))
    assert whole.held_bytes == 4


def test_who_dies_once_is_back_at_once_and_who_dies_again_and_again_less_and_less_often() -> None:
    pauses = Pauses()
    assert [pauses.after(0.1) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, LONGEST_PAUSE_SECONDS]
    assert [pauses.after(3600.0), pauses.after(0.1)] == [0, 1]


# -- the lead's core -----------------------------------------------------------------------------------


def lead(**rule: bool) -> Edge:
    return Edge(TRACKER, Admission(frozenset({ANN}), rule.get("local", False)), Random(1))


def orders(core: Edge) -> list[EdgeAction]:
    found: list[EdgeAction] = []
    while (action := core.next_action()) is not None:
        found.append(action)
    return found


def test_a_publisher_at_a_worker_is_answered_there() -> None:
    core = lead()
    core.worker_came(4)
    orders(core)
    core.asked_elsewhere(4, ANN, AWAY, UPLOAD)
    assert orders(core) == [BeginUpload(ANN, UPLOAD)]
    state = UploadState(3, bytes(32), Stage.RECEIVING, 0, 0, "")
    core.say(ANN, state)
    assert orders(core) == [TellWorkers(Say(ANN, messages.encode(state)), 4)]


@pytest.mark.parametrize(("node", "at", "local", "allowed"), [
    (ANN, AWAY, False, True), (BOB, AWAY, True, False), (BOB, HOME, True, True), (BOB, HOME, False, False),
])  # fmt: skip
def test_the_rule_for_publishers_holds_at_workers(
    node: NodeId, at: HostPort, local: bool, allowed: bool
) -> None:
    core = lead(local=local)
    core.asked_elsewhere(4, node, at, UPLOAD)
    (action,) = orders(core)
    assert isinstance(action, BeginUpload if allowed else TellWorkers)
    if isinstance(action, TellWorkers):
        assert isinstance(action.word, Say)
        refusal = messages.decode(action.word.body)
        assert isinstance(refusal, Refusal)
        assert refusal.reason is Reason.NOT_ALLOWED


def test_a_publisher_leaves_when_its_connection_or_its_worker_does_unless_it_is_at_another() -> None:
    core = lead()
    core.asked_elsewhere(4, ANN, AWAY, UPLOAD)
    core.asked_elsewhere(5, ANN, AWAY, UPLOAD)
    orders(core)
    core.left_elsewhere(4, ANN)
    core.worker_gone(4)
    assert orders(core) == []
    core.worker_gone(5)
    assert orders(core) == [PublisherLeft(ANN)]


def test_who_comes_late_is_told_all_and_who_is_there_what_changes() -> None:
    core = lead()
    core.hold(FILM.manifest, frozenset({0}), NOW)
    assert orders(core) == []
    core.worker_came(4)
    infohash = FILM.manifest.infohash
    words = [Hold(infohash), Issuers((core.link.tracker.node,)), TrackerIs(False), CaughtUp()]
    assert orders(core) == [TellWorkers(word, 4) for word in words]  # type: ignore[arg-type]
    core.lost(infohash, 0, NOW)
    assert orders(core) == [TellWorkers(Hold(infohash))]
    core.worker_gone(4)
    core.lost(infohash, 0, NOW)
    assert orders(core) == []


# -- a worker's core -----------------------------------------------------------------------------------


def worker() -> Worker:
    core = Worker(TRACKER.node)
    core.lead_came()
    core.connected(ANN, AWAY, HELLO, NOW)
    return core


def wishes(core: Worker) -> list[WorkerAction]:
    found: list[WorkerAction] = []
    while (action := core.next_action()) is not None:
        found.append(action)
    return found


def test_a_worker_passes_on_what_publishers_and_the_lead_say() -> None:
    core = worker()
    core.receive(UPLOAD, ANN, NOW)
    assert wishes(core) == [TellLead(Asked(ANN, AWAY.host, AWAY.port, messages.encode(UPLOAD)))]
    answer = Refusal(3, Reason.BUSY, "")
    core.say(ANN, answer)
    core.say(BOB, answer)  # nobody of that name is here
    assert wishes(core) == [Send(ANN, answer)]
    core.disconnected(ANN, Reason.NONE, NOW)
    assert wishes(core) == [TellLead(PublisherGone(ANN))]


def test_publishers_are_sent_away_to_come_back_when_the_lead_is_gone() -> None:
    core = worker()
    core.receive(UPLOAD, ANN, NOW)
    wishes(core)
    core.lead_gone()
    (first,) = wishes(core)
    core.receive(UPLOAD, ANN, NOW)
    (second,) = wishes(core)
    for action in (first, second):
        assert isinstance(action, Hangup)
        assert (action.node, action.reason) == (ANN, Reason.SHUTDOWN)


def test_a_worker_never_announces() -> None:
    core = worker()
    core.hold(FILM.manifest, frozenset(range(FILM.manifest.piece_count)), NOW)
    core.tracker_is(up=True, now=NOW)
    core.handle_timer(NOW + 1000)
    core.forget(FILM.manifest.infohash)
    assert wishes(core) == []
    assert core.get_timer() == float("inf")


def test_what_may_not_be_said_to_a_worker_costs_the_connection() -> None:
    core = worker()
    core.receive(Refusal(1, Reason.NONE, ""), ANN, NOW)
    (action,) = wishes(core)
    assert isinstance(action, Hangup)
    assert action.reason is Reason.UNEXPECTED


def test_a_damaged_piece_is_reported_and_held_again_when_it_is_mended() -> None:
    core = worker()
    pieces = frozenset(range(FILM.manifest.piece_count))
    core.hold(FILM.manifest, pieces, NOW)
    core.lost(FILM.manifest.infohash, 1, NOW)
    assert wishes(core) == [TellLead(Lost(FILM.manifest.infohash, 1))]
    held = core.seeding.holdings[FILM.manifest.infohash].held
    assert 1 not in held
    core.hold(FILM.manifest, pieces - {2}, NOW)
    assert (1 in held, 2 in held) == (True, False)


# -- the store that two processes share ----------------------------------------------------------------


def test_a_store_that_only_reads_knows_what_it_looked_at_and_deletes_nothing(tmp_path: Path) -> None:
    writer = filled(tmp_path, FILM)
    (tmp_path / f".{1}-{1}.part").write_bytes(b"being written")
    reader = PieceStore(tmp_path, PLENTY, reads_only=True)
    infohash = FILM.manifest.infohash
    assert reader.infohashes() == []
    reader.look_again(infohash)
    assert reader.held(infohash) == writer.held(infohash)
    assert reader.read(infohash, 1) == writer.read(infohash, 1)
    assert (tmp_path / ".1-1.part").exists()
    writer.remove(infohash)
    reader.look_again(infohash)
    assert reader.infohashes() == []
    reader.look_again(infohash)  # it never was
    (tmp_path / infohash.hex()).mkdir()  # the other process is about to fill it
    reader.look_again(infohash)
    assert (reader.infohashes(), (tmp_path / infohash.hex()).is_dir()) == ([], True)


# -- the channel ---------------------------------------------------------------------------------------

WORDS: list[Word] = [
    Begin(True, 1, 5, b"config"),
    Meet(7),
    Finish(),
    Hold(FILM.manifest.infohash),
    Expect(FILM.manifest.infohash, ended=True),
    Gained(FILM.manifest.infohash, 1),
    Wanted(FILM.manifest.infohash, 1, NOW + 0.25),
    Watched(FILM.manifest.infohash, is_open=True),
    Drain(True),
    Asked(ANN, "::1", 4, b"body"),
    Chunk(ANN, b"header"),
    Stray(("::1", 4433, 0, 0), bytes(65_000)),
    Rates(0.5, 1e9, 1 << 60, 0, 3),
]


async def test_words_and_sockets_arrive_as_they_were_sent() -> None:
    near, sock = pair()
    far = Channel(sock)
    a, b = socket.socketpair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.write_forever)
        for word in WORDS:
            near.send(word)
        near.send(Meet(1), a)
        assert [(await far.receive()) for _ in WORDS] == [(word, None) for word in WORDS]
        word, given = await far.receive()
        assert word == Meet(1)
        assert given is not None
        given.send(b"through")
        assert b.recv(10) == b"through"
        near.close()
        with pytest.raises(ChannelEnded):
            await far.receive()
        given.close()
        b.close()
        far.close()


async def test_a_socket_that_was_to_be_given_to_somebody_who_is_gone_is_closed() -> None:
    """Its other end hears so, however much waited before it."""
    near, far = pair()
    far.close()
    (a, b), (c, d) = socket.socketpair(), socket.socketpair()
    for sock in (a, c):
        near.send(Meet(1), sock)
    await near.write_forever()
    for kept in (b, d):
        assert kept.recv(10) == b""
        kept.close()
    near.close()


@given(st.binary(min_size=1, max_size=200))
def test_what_is_no_word_ends_the_channel(packet: bytes) -> None:
    """Any packet is a word of ours, or ends the channel with the one error that says so."""

    async def hear() -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel = Channel(far)
        with near:
            near.send(packet)
            try:
                word, _ = await channel.receive()
                assert isinstance(word, get_args(Word))
            except ChannelEnded:
                pass
        channel.close()

    trio.run(hear)


async def test_only_strangers_datagrams_are_dropped_when_the_other_side_is_slow() -> None:
    """Whatever strangers send, a worker hears of each of 5,000 titles, and that these were all."""
    near, sock = pair()
    far = Channel(sock)
    stray = Stray(("127.0.0.1", 4000), b"initial")
    told: list[Word] = [*(Hold(InfoHash(n.to_bytes(32))) for n in range(5000)), TrackerIs(True), CaughtUp()]
    assert [near.send(stray) for _ in range(MAX_WAITING)] == [True] * MAX_WAITING
    assert near.send(stray) is False
    assert all(near.send(word) for word in told)
    assert near.send(stray) is False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.write_forever)
        heard = [(await far.receive())[0] for _ in range(MAX_WAITING + len(told))]
        assert heard[:MAX_WAITING] == [stray] * MAX_WAITING
        assert heard[MAX_WAITING:] == told
        assert near.send(stray) is True
        nursery.cancel_scope.cancel()
    near.close()
    far.close()
    assert near.send(Finish()) is False
