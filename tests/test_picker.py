"""Whom a piece is asked from, and what is believed of sources."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.core import picker
from peer.core.source import PEER_FIRST_RATE, SNUB_SECONDS, Source
from shared.core.bitfield import Bitfield
from shared.core.errors import ProtocolError
from shared.core.ids import HostPort, Kind, NodeId
from shared.core.shape import PIECE_BYTES

NOW = 5_000.0
TOTAL = 20
AT = HostPort("192.0.2.1", 4430)


def source(
    name: str, kind: Kind = Kind.PC, rate: float = 500_000.0, outstanding: int = 0, *pieces: int
) -> Source:
    made = Source(NodeId(name.encode() * 32), AT, kind, 4, connected=True, joined=True)
    made.rate = rate
    made.outstanding_bytes = outstanding
    made.held = Bitfield(TOTAL, pieces or range(TOTAL))
    return made


def edge(rate: float = 1_500_000.0, outstanding: int = 0) -> Source:
    return source("E", Kind.EDGE, rate, outstanding)


def choose(
    sources: list[Source], slack: float, window: float = picker.SHARED_WINDOW_SECONDS
) -> Source | None:
    return picker.choose(sources, 3, PIECE_BYTES, slack, window, NOW)


sources = st.lists(
    st.builds(
        source,
        st.sampled_from("ABCDEFGH"),
        st.sampled_from([Kind.PC, Kind.STB, Kind.EDGE]),
        st.floats(8_000, 5e6),
        st.integers(0, 8 * PIECE_BYTES),
        st.integers(0, TOTAL - 1),
        st.integers(0, TOTAL - 1),
    ),
    max_size=8,
)


def second(rate: float = 1_500_000.0) -> Source:
    made = source("F", Kind.EDGE, rate)
    made.is_second = True
    return made


def test_the_second_edge_is_asked_only_if_the_first_will_not_do() -> None:
    first, other = edge(), second(rate=5e6)
    assert choose([first, other], 0.0) is first
    first.busy_until = NOW + 1
    assert choose([first, other], 0.0) is other
    first.outstanding_bytes, first.progress_at = PIECE_BYTES, NOW - 0.5  # told to wait, and still served
    assert choose([first, other], 0.0) is None
    first.progress_at = NOW - 2
    assert choose([first, other], 0.0) is other
    assert choose([edge(rate=PIECE_BYTES / 3), other], 0.0) is not other
    assert choose([edge(rate=PIECE_BYTES / 5), other], 0.0) is other
    assert choose([edge(rate=PIECE_BYTES / 5), other], 5.5, window=8.0) is not other
    assert choose([other], 0.0) is other


def test_a_first_edge_has_a_second_to_let_us_in() -> None:
    first, other = edge(), second()
    first.joined, first.named_at = False, NOW - 0.9
    assert choose([first, other], 0.0) is None
    first.named_at = NOW - 1.1
    assert choose([first, other], 0.0) is other


@given(sources, st.integers(0, TOTAL - 1), st.floats(-10, 60), st.floats(0, 1))
def test_only_who_has_the_piece_and_room_is_asked(
    among: list[Source], piece: int, slack: float, luck: float
) -> None:
    """Who is chosen has the piece and room for it; beyond the window it is no edge; and within
    it nobody is chosen only if nobody can, but for an edge that has work of ours while there is time."""
    window = picker.edge_window(among, piece, 0, luck)
    chosen = picker.choose(among, piece, PIECE_BYTES, slack, window, NOW)
    able = [s for s in among if s.has(piece) and s.has_room(PIECE_BYTES, NOW)]
    if chosen is None:
        early = slack > picker.EDGE_WINDOW_SECONDS
        assert all(s.is_edge and (slack > window or (early and s.outstanding_bytes)) for s in able)
    else:
        assert chosen in able
        assert not (chosen.is_edge and slack > window)


@given(sources, st.floats(0, 1))
def test_the_edge_window_stays_within_its_bounds(among: list[Source], luck: float) -> None:
    """4 to 24 seconds, whoever is there and whatever was drawn."""
    low, high = picker.SHARED_WINDOW_SECONDS, picker.SHARED_WINDOW_SECONDS + picker.SPREAD_SECONDS
    assert low <= picker.edge_window(among, 3, 0, luck) <= high


def test_with_time_to_spare_only_peers_are_asked() -> None:
    slow = source("A", rate=50_000.0)
    assert choose([edge(), slow], slack=30.0) is slow
    assert choose([edge()], slack=30.0) is None


def test_near_its_deadline_a_piece_goes_to_a_peer_only_if_that_is_comfortable() -> None:
    peer = source("A", rate=PIECE_BYTES / 1.0)
    assert choose([edge(), peer], slack=2.5) is peer
    assert choose([edge(), peer], slack=1.5) is not peer
    assert choose([peer], slack=1.5) is peer  # better late than never


def test_the_quickest_counts_what_it_was_asked_already() -> None:
    idle = source("A", rate=300_000.0)
    loaded = source("B", rate=400_000.0, outstanding=PIECE_BYTES)
    assert choose([loaded, idle], slack=10.0) is idle


def test_the_window_depends_on_who_else_is_there() -> None:
    def window(*peers: Source, held: int = 10, luck: float = 0.5) -> float:
        return picker.edge_window([edge(), *peers], 3, held, luck)

    level = source("A", Kind.PC, 5e5, 0, *range(8, 18))
    assert window() == picker.EDGE_WINDOW_SECONDS
    assert window(source("A", Kind.PC, 5e5, 0, 3)) == picker.SHARED_WINDOW_SECONDS
    assert window(level, luck=0.0) == picker.SHARED_WINDOW_SECONDS
    assert window(level, luck=0.5) == picker.SHARED_WINDOW_SECONDS + picker.SPREAD_SECONDS / 2
    assert window(level, held=2) == picker.EDGE_WINDOW_SECONDS  # it is ahead: it will have it first


def test_a_download_uses_an_edge_only_for_what_no_peer_has() -> None:
    busy = source("A", outstanding=50 * PIECE_BYTES)
    lacking = source("B", Kind.PC, 5e5, 0, 9)
    first = edge()
    assert picker.choose_for_download([first, busy], 3, PIECE_BYTES, NOW) is None
    assert picker.choose_for_download([first, lacking], 3, PIECE_BYTES, NOW) is first


# -- what is believed of a source -------------------------------------------------------------


def test_two_chunks_that_travel_side_by_side_do_not_look_twice_as_fast() -> None:
    peer, now, true_rate = source("A", rate=200_000.0), NOW, 400_000.0
    for _ in range(12):
        peer.promised(2 * PIECE_BYTES, now)
        now += 2 * PIECE_BYTES / true_rate
        peer.leaf_arrived(2 * PIECE_BYTES - 1, now)
        peer.chunk_arrived(now)
        peer.leaf_arrived(1, now + 0.001)
        peer.chunk_arrived(now + 0.001)
        now += 5.0  # idle: says nothing
        assert peer.rate <= true_rate * 1.01
    assert peer.rate == pytest.approx(true_rate, rel=0.05)


@given(st.lists(st.tuples(st.integers(1, PIECE_BYTES), st.floats(0.0, 20.0)), min_size=1, max_size=30))
def test_the_estimate_stays_between_its_floor_and_the_fastest_that_was_seen(
    chunks: list[tuple[int, float]],
) -> None:
    """No sample, however short, lifts the estimate by more than its bytes over the memory."""
    peer, now = source("A", rate=100_000.0), NOW
    for size, seconds in chunks:
        before = peer.rate
        peer.promised(size, now)
        now += seconds
        peer.leaf_arrived(size, now)
        peer.chunk_arrived(now)
        assert 8_000.0 <= peer.rate <= before + size / 2.0 + 1e-6
        assert peer.outstanding_bytes == 0


def test_a_snub_halves_the_estimate_and_each_lasts_longer() -> None:
    peer = source("A", rate=400_000.0)
    peer.snub(NOW)
    assert (peer.rate, peer.busy_until) == (200_000.0, NOW + SNUB_SECONDS)
    assert not peer.has_room(1, NOW + SNUB_SECONDS - 0.1)
    assert peer.has_room(1, NOW + SNUB_SECONDS)
    peer.snub(NOW)
    assert peer.busy_until == NOW + 2 * SNUB_SECONDS
    for _ in range(20):
        peer.snub(NOW)
    assert (peer.rate, peer.busy_until) == (8_000.0, NOW + 4 * SNUB_SECONDS)


def test_a_slow_source_still_gets_two_pieces_to_work_on() -> None:
    slow = source("A", rate=8_000.0)
    assert slow.has_room(PIECE_BYTES, NOW)
    slow.promised(PIECE_BYTES, NOW)
    assert slow.has_room(PIECE_BYTES, NOW)
    slow.promised(PIECE_BYTES, NOW)
    assert not slow.has_room(PIECE_BYTES, NOW)


def test_first_beliefs_follow_what_a_peer_says_it_can_spare() -> None:
    rates = [Source(NodeId(b"A" * 32), AT, Kind.PC, spare).rate for spare in range(8)]
    assert rates == sorted(rates)
    assert rates[0] > 0
    assert rates[-1] == PEER_FIRST_RATE


def test_news_before_the_manifest_is_kept_and_impossible_news_refused_after() -> None:
    early = Source(NodeId(b"A" * 32), AT, Kind.PC, 4, raw_held=Bitfield(TOTAL, [0, 1]).to_wire())
    early.note((5, 10_000_000))
    early.note((1,), gone=True)
    assert not early.has(0)
    early.learn_total(TOTAL)
    assert [piece for piece in range(TOTAL) if early.has(piece)] == [0, 5]
    with pytest.raises(ProtocolError):
        early.note((TOTAL,))
