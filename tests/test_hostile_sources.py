"""Sources that lie: a viewer sees every byte right, in time, and leaves them alone afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from peer.core import fetch
from shared.connection import Stream
from shared.core import bencode, manifest, messages
from shared.core.bulk import PieceRequest
from shared.core.errors import Reason, Refused
from shared.core.ids import InfoHash, Kind, TitleId
from shared.core.merkle import HASH_BYTES, LEAF_BYTES, layer_of_file, leaves_of
from shared.core.messages import Catalogue, Describe, Gone, Have, HaveMore, Refusal, Register
from shared.core.units import parse_size
from shared.piece_store import PieceStore
from tests.liars import Answer, Liar, honest, lurking
from tests.node_parts import Published, Viewer, full_after, open_house, published_once, stranger


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published_once(tmp_path_factory)


# -- bytes ----------------------------------------------------------------------------------------


async def wrong_bytes(stream: Stream, request: PieceRequest, film: Published) -> None:
    piece = film.piece(request.piece)
    await stream.send_all(b"\0" + leaves_of(piece) + bytes(len(piece)))
    stream.send_eof()


async def wrong_last_leaf(stream: Stream, request: PieceRequest, film: Published) -> None:
    piece = film.piece(request.piece)
    await stream.send_all(b"\0" + leaves_of(piece) + piece[:-1] + bytes([piece[-1] ^ 1]))
    stream.send_eof()


async def wrong_leaves(stream: Stream, request: PieceRequest, film: Published) -> None:
    zeros = bytes(len(film.piece(request.piece)))
    await stream.send_all(b"\0" + leaves_of(zeros) + zeros)
    stream.send_eof()


async def another_piece(stream: Stream, request: PieceRequest, film: Published) -> None:
    piece = film.piece((request.piece + 1) % film.manifest.piece_count)
    await stream.send_all(b"\0" + leaves_of(piece) + piece)
    stream.send_eof()


async def one_leaf_and_the_end(stream: Stream, request: PieceRequest, film: Published) -> None:
    piece = film.piece(request.piece)
    await stream.send_all(b"\0" + leaves_of(piece) + piece[:LEAF_BYTES])
    stream.send_eof()


async def one_leaf_and_silence(stream: Stream, request: PieceRequest, film: Published) -> None:
    piece = film.piece(request.piece)
    await stream.send_all(b"\0" + leaves_of(piece) + piece[:LEAF_BYTES])
    await trio.sleep_forever()


async def nothing(stream: Stream, request: PieceRequest, film: Published) -> None:
    await trio.sleep_forever()


async def a_trickle(stream: Stream, request: PieceRequest, film: Published) -> None:
    for byte in b"\0" + leaves_of(film.piece(request.piece)):
        await stream.send_all(bytes([byte]))
        await trio.sleep(0.02)


async def not_held(stream: Stream, request: PieceRequest, film: Published) -> None:
    await stream.send_all(bytes([Reason.NOT_HELD]))
    stream.send_eof()


async def no_answer(stream: Stream, request: PieceRequest, film: Published) -> None:
    await stream.send_all(b"\xc8")
    stream.send_eof()


async def a_reset(stream: Stream, request: PieceRequest, film: Published) -> None:
    stream.reset(Reason.INTERNAL)


@pytest.mark.parametrize("answer", [wrong_bytes, wrong_last_leaf, wrong_leaves, another_piece])
async def test_a_source_of_wrong_bytes_is_banned(tmp_path: Path, film: Published, answer: Answer) -> None:
    async with open_house(tmp_path, film) as house, lurking(house, Liar(film, answer)) as liar:
        viewer = await house.start_peer("viewer")
        assert await viewer.download(film) == film.data
        with trio.fail_after(5):  # the last byte may be here before the goodbye is there
            await liar.closed.wait()
        assert liar.closed_with == [Reason.BAD_DATA]
        told = await viewer.statistics(film)
        assert told["edge_bytes"] + told["peer_bytes"] == len(film.data)  # nothing was fetched twice
        assert_all_held_is_right(tmp_path / "viewer", film)


SLUGGARDS = (one_leaf_and_the_end, one_leaf_and_silence, nothing, a_trickle, not_held, no_answer, a_reset)


async def test_sources_that_do_not_deliver_are_gone_around(tmp_path: Path, film: Published) -> None:
    async with trio.open_nursery() as nursery:
        for answer in SLUGGARDS:
            folder = tmp_path / answer.__name__
            await trio.Path(folder).mkdir()
            nursery.start_soon(assert_goes_around, folder, film, answer)


async def assert_goes_around(folder: Path, film: Published, answer: Answer) -> None:
    async with open_house(folder, film) as house, lurking(house, Liar(film, answer)) as liar:
        viewer = await house.start_peer("viewer")
        with trio.fail_after(15):  # a reader that nobody helps gives up after 20
            assert await viewer.download(film) == film.data
        assert liar.requests
        assert (await viewer.statistics(film))["edge_bytes"] > len(film.data) / 2


async def test_the_lies_above_are_told_by_a_source_that_would_be_believed(
    tmp_path: Path, film: Published
) -> None:
    async with open_house(tmp_path, film) as house, lurking(house, Liar(film, honest)) as liar:
        viewer = await house.start_peer("viewer")
        assert await viewer.download(film) == film.data
        assert liar.requests
        assert (await viewer.statistics(film))["peer_bytes"] > 0


@pytest.mark.parametrize("bitfield", [b"", b"\xff", b"\xff" * 1000, bytes(128 * 1024)])
async def test_a_bitfield_of_another_length_is_refused(
    tmp_path: Path, film: Published, bitfield: bytes
) -> None:
    assert film.manifest.piece_count not in (0, 8)  # so that each of them is wrong
    async with open_house(tmp_path, film) as house, lurking(house, Liar(film, bitfield=bitfield)) as liar:
        viewer = await house.start_peer("viewer")
        assert await viewer.download(film) == film.data
        await liar.closed.wait()
        assert liar.closed_with[0] in (Reason.MALFORMED, Reason.BAD_DATA)


OUTBURSTS: dict[str, tuple[Callable[[Published], messages.Message], Reason]] = {
    "a piece beyond the last": (lambda film: HaveMore(film.infohash, (6, 7, 1 << 31)), Reason.MALFORMED),
    "another bitfield": (lambda film: Have(1, film.infohash, bytes(99)), Reason.MALFORMED),
    "word of a tracker": (lambda film: messages.Schedule(1, 1), Reason.UNEXPECTED),
    "word of an edge": (lambda film: messages.Registered(1), Reason.UNEXPECTED),
    "an upload": (lambda film: messages.Upload(1, "a", "a", 1, bytes(32)), Reason.UNEXPECTED),
}


@pytest.mark.parametrize("name", OUTBURSTS)
async def test_a_source_that_breaks_the_rules_is_hung_up_on(
    tmp_path: Path, film: Published, name: str
) -> None:
    make, reason = OUTBURSTS[name]
    liar = Liar(film, nothing, outburst=(make(film),))
    async with open_house(tmp_path, film) as house, lurking(house, liar):
        viewer = await house.start_peer("viewer")
        assert await viewer.download(film) == film.data
        assert liar.closed_with[0] is reason


async def test_news_of_swarms_and_pieces_nobody_asked_for_change_nothing(
    tmp_path: Path, film: Published
) -> None:
    elsewhere = InfoHash(bytes(32))
    outburst = (
        HaveMore(elsewhere, (1, 2, 3)),
        Gone(film.infohash, (0, 1 << 31)),
        Have(7, elsewhere, bytes(100)),
        messages.Refusal(99, Reason.INTERNAL),
    )
    liar = Liar(film, honest, outburst=outburst)
    async with open_house(tmp_path, film) as house, lurking(house, liar):
        viewer = await house.start_peer("viewer")
        assert await viewer.download(film) == film.data
        assert not liar.closed_with
        assert (await viewer.statistics(film))["peer_bytes"] > 0


def assert_all_held_is_right(folder: Path, film: Published) -> None:
    store = PieceStore(folder / "pieces", 1 << 30)
    for index in store.held(film.infohash):
        assert store.read(film.infohash, index)[1] == film.piece(index)


# -- manifests ------------------------------------------------------------------------------------


def resigned(film: Published) -> bytes:
    """All as it should be, but signed by somebody else."""
    top = bencode.loads(film.manifest.raw, max_bytes=manifest.MAX_MANIFEST_BYTES)
    assert isinstance(top, dict)
    draft = manifest.Draft({key: top[key] for key in (b"info", b"penstock", b"piece layers")})
    return manifest.sign(draft, Ed25519PrivateKey.generate())


def of_another_film(film: Published) -> bytes:
    tree = layer_of_file([b"x" * 100], 32768)
    draft = manifest.build("x.mp4", tree, title="x", title_id=film.manifest.title_id)
    return manifest.sign(draft, Ed25519PrivateKey.generate())


def other_root(film: Published) -> bytes:
    at = film.manifest.raw.index(film.manifest.layer)
    return film.manifest.raw[:at] + bytes(HASH_BYTES) + film.manifest.raw[at + HASH_BYTES :]


MANIFESTS: dict[str, Callable[[Published], bytes]] = {
    "signature": lambda film: film.manifest.raw.replace(b"9:signature64:", b"9:signature64:\0")[:-2] + b"e",
    "signer": resigned,
    "another film": of_another_film,
    "root": other_root,
    "cut short": lambda film: film.manifest.raw[:-1],
    "hang": lambda film: b"d0:i1e-6:e",
    "empty": lambda film: b"",
}


@pytest.mark.parametrize("name", MANIFESTS)
async def test_a_wrong_manifest_is_refused_and_another_source_asked(
    tmp_path: Path, film: Published, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(fetch, "LOCATE_AGAIN_SECONDS", 0.2)
    liar = Liar(film, manifest=MANIFESTS[name](film))
    async with open_house(tmp_path, film) as house, lurking(house, liar):
        await house.edge.stop()
        viewer = await house.start_peer("viewer")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(assert_plays, viewer, film)
            await liar.asked.wait()  # there was nobody else to ask
            await house.start_edge()
        assert PieceStore(tmp_path / "viewer" / "pieces", 1 << 30).manifest(film.infohash) == film.manifest


async def assert_plays(viewer: Viewer, film: Published) -> None:
    assert await viewer.download(film) == film.data


# -- edges ----------------------------------------------------------------------------------------


async def test_an_edge_that_is_not_named_registers_nothing(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house:
        house.edge = await house.another_edge("rogue")
        with pytest.raises(Refused) as caught:
            await house.publish(film.clip, "A film of my own")
        assert caught.value.reason is Reason.NOT_ALLOWED
        assert str(caught.value) == (
            "not allowed: the tracker: this edge is not in the tracker's `edges` setting"
        )
        # The file stays: once the tracker's operator names the edge, nothing is uploaded again.
        assert [path.name for path in (tmp_path / "rogue" / "quarantine").glob("*/*")] == ["source"]
        assert not PieceStore(tmp_path / "rogue" / "pieces", 1 << 30).infohashes()


async def test_a_title_of_another_edge_cannot_be_taken_over(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house:
        await house.tracker.stop()
        await house.start_tracker(open_to_edges=True)
        async with stranger(house.tracker.ready.address, Kind.EDGE) as thief:
            await thief.say(Describe(1, film.manifest.title_id))
            entry = (await thief.hear(Catalogue)).entries[0]
            for title_id in (entry.title_id, TitleId(bytes(16))):
                await thief.say(Register(2, title_id, "Mine", entry.renditions))
                assert (await thief.hear(Refusal)).reason is Reason.NOT_ALLOWED
            await thief.say(Describe(3, film.manifest.title_id))
            assert (await thief.hear(Catalogue)).entries == (entry,)


# -- the viewer's own disk ----------------------------------------------------------------------------


@pytest.mark.parametrize("writes", [0, 1, 3])
async def test_a_full_disk_stops_no_playback(
    tmp_path: Path, film: Published, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    async with open_house(tmp_path, film) as house:
        full_after(monkeypatch, tmp_path / "viewer", writes)
        viewer = await house.start_peer("viewer")
        assert await viewer.download(film) == film.data
        assert await viewer.download(film) == film.data
        assert_all_held_is_right(tmp_path / "viewer", film)
        await house.assert_serves(film)


@pytest.mark.parametrize("quota", ["10 kB", "300 kB", "800 kB"])
async def test_a_quota_smaller_than_the_film_stops_no_playback(
    tmp_path: Path, film: Published, quota: str
) -> None:
    async with open_house(tmp_path, film) as house:
        viewer = await house.start_peer("viewer", quota=parse_size(quota))
        assert await viewer.download(film) == film.data
        assert await viewer.download(film) == film.data
        assert_all_held_is_right(tmp_path / "viewer", film)
        assert await trio.to_thread.run_sync(bytes_below, tmp_path / "viewer" / "pieces") <= parse_size(quota)


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def test_a_title_whose_manifest_was_given_up_with_it_is_stored_again(
    tmp_path: Path, film: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, removed = PieceStore.put, set[PieceStore]()

    def put_after_removal(store: PieceStore, infohash: InfoHash, index: int, data: bytes) -> None:
        if store not in removed:
            removed.add(store)
            store.remove(infohash)
        put(store, infohash, index, data)

    async with open_house(tmp_path, film) as house:
        viewer = await house.start_peer("viewer")
        monkeypatch.setattr(PieceStore, "put", put_after_removal)
        assert await viewer.download(film) == film.data
        assert removed
        await viewer.service.stop()
        store = PieceStore(tmp_path / "viewer" / "pieces", 1 << 30)
        assert store.held(film.infohash) == frozenset(range(film.manifest.piece_count))


async def test_sources_of_a_whole_film_are_remembered_with_what_they_gave(
    tmp_path: Path, film: Published
) -> None:
    async with open_house(tmp_path, film) as house:
        viewer = await house.start_peer("viewer")
        assert await viewer.download(film) == film.data
        told = await viewer.statistics(film)
        assert told["whole"]
        assert [(s["kind"], s["taken_bytes"], s["joined"]) for s in told["sources"]] == [
            ("edge", len(film.data), False)
        ]
