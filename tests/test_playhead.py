"""The playhead: where playback is, judged from what the player reads."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.core.playhead import IDLE_SECONDS, SEEK_SECONDS, Playhead
from tests.world_parts import film

NOW = 5_000.0
FILM, _ = film(seconds=60, bit_rate=2_000_000.0)
RATE = 250_000.0  # bytes per second of film
offsets = st.integers(0, FILM.length - 1)


def reading(offset: int = 0) -> Playhead:
    playhead = Playhead(FILM)
    playhead.read(offset, NOW)
    return playhead


@given(offsets, offsets)
def test_media_time_never_runs_backwards(one: int, other: int) -> None:
    """A later byte has the same media time or a later one, within the film."""
    playhead = Playhead(FILM)
    early, late = playhead.media_seconds(min(one, other)), playhead.media_seconds(max(one, other))
    assert 0.0 <= early <= late <= 60.0


@given(st.lists(st.tuples(offsets, st.floats(0.0, 40.0)), min_size=1, max_size=20))
def test_deadlines_grow_with_the_offset_and_never_lie_before_the_read(
    reads: list[tuple[int, float]],
) -> None:
    """However a player reads, the byte it just asked for is not due yet, later bytes are due
    later, and as much later as they are in the film."""
    playhead, now = Playhead(FILM), NOW
    for offset, pause in reads:
        now += pause
        playhead.read(offset, now)
        assert playhead.deadline(offset) >= now
        ahead = playhead.media_seconds(FILM.length) - playhead.media_seconds(offset)
        assert playhead.deadline(FILM.length) - playhead.deadline(offset) == pytest.approx(ahead)


def test_reading_ahead_does_not_move_the_deadlines() -> None:
    playhead = reading()
    later = int(30 * RATE)
    due = playhead.deadline(later)
    assert due == pytest.approx(NOW + 30, abs=0.1)
    for second in range(1, 12):
        playhead.read(int(second * RATE), NOW + second / 3)
    assert playhead.deadline(later) == due


@pytest.mark.parametrize("seconds", [-SEEK_SECONDS - 5, SEEK_SECONDS + 5])
def test_a_read_far_away_is_a_seek(seconds: float) -> None:
    playhead = reading(int(30 * RATE))
    target = int((30 + seconds) * RATE)
    playhead.read(target, NOW + 1)
    assert playhead.deadline(target) == NOW + 1


def test_a_read_after_its_own_deadline_follows_a_pause() -> None:
    playhead = reading()
    playhead.read(int(2 * RATE), NOW + 10)
    assert playhead.deadline(int(2 * RATE)) == NOW + 10


def test_a_wait_at_the_start_is_no_stall_and_a_late_piece_is_one() -> None:
    playhead = reading()
    playhead.waited(0, NOW, NOW + 0.8)
    assert playhead.stalls == 0
    assert playhead.deadline(0) == NOW + 0.8
    offset = int(5 * RATE)
    playhead.read(offset, NOW + 3)
    playhead.waited(offset, NOW + 3, NOW + 5)
    assert playhead.stalls == 0  # it came before it was due
    offset = int(8 * RATE)
    playhead.read(offset, NOW + 7)
    playhead.waited(offset, NOW + 7, NOW + 12)
    assert playhead.stalls == 1
    assert playhead.deadline(offset) == NOW + 12


def test_a_plain_file_and_a_film_nobody_reads_have_no_deadlines() -> None:
    plain = Playhead(dataclasses.replace(FILM, media=None))
    plain.read(1000, NOW)
    assert plain.deadline(2000) == float("inf")
    assert Playhead(FILM).deadline(2000) == float("inf")


def test_a_player_that_stopped_reading_is_active_no_more() -> None:
    playhead = Playhead(FILM)
    assert not playhead.active(NOW)
    playhead.read(0, NOW)
    assert playhead.active(NOW + IDLE_SECONDS)
    assert not playhead.active(NOW + IDLE_SECONDS + 0.1)
