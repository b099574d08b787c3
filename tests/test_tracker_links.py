"""Several trackers: the first that answers is ours, the next takes over, the first returns to office."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import fellows_file
from shared.core.actions import Attend, Dial, Hangup, Remember
from shared.core.errors import ProtocolError
from shared.core.ids import Address, HostPort, Kind, NodeId
from shared.core.messages import Fellow, Fellows
from shared.core.tracker_link import LONGEST_PAUSE_SECONDS, PATIENCE_SECONDS, RETURN_SECONDS, TrackerLink
from tests.test_tracker_link import orders
from tests.tracker_parts import NOW, hello, node

A, B, C = (Address(node(name), HostPort(f"{name}.test", 4430)) for name in "abc")
HELLO = hello(Kind.TRACKER)


def fellow(address: Address) -> Fellow:
    return Fellow(address.node, str(address.at), "")


def link(*others: Address, fellows: tuple[Fellow, ...] = ()) -> TrackerLink:
    return TrackerLink(A, Random(2), others=others, fellows=fellows)


def dials(core: TrackerLink, now: float) -> list[NodeId]:
    core.handle_timer(now)
    return [action.node for action in orders(core) if isinstance(action, Dial)]


def test_the_next_is_dialled_alongside_one_that_is_slow() -> None:
    core = link(B, C)
    assert dials(core, NOW) == [A.node]
    assert dials(core, NOW + PATIENCE_SECONDS - 0.1) == []
    assert dials(core, NOW + PATIENCE_SECONDS) == [B.node]
    assert core.connected(B.node, HELLO)
    assert core.tracker == B


def test_when_ours_is_gone_the_next_is_dialled_at_once() -> None:
    core = link(fellows=(fellow(B), fellow(C)))
    assert dials(core, NOW) == [A.node]
    core.connected(A.node, HELLO)
    assert core.disconnected(A.node, NOW + 60)
    assert not core.up
    (first,) = dials(core, NOW + 60)
    assert first in (B.node, C.node)
    assert core.connected(first, HELLO)
    assert core.tracker.node == first


def test_the_first_returns_to_office_and_the_other_is_hung_up_on() -> None:
    core = link(B)
    dials(core, NOW)
    dials(core, NOW + 1)
    core.connected(B.node, HELLO)
    core.handle_timer(NOW + 1)
    assert dials(core, NOW + 1 + RETURN_SECONDS) == [A.node]
    assert not core.disconnected(A.node, NOW + 30)  # still dead: nothing changes
    assert core.tracker == B
    core.handle_timer(NOW + 30)
    assert dials(core, NOW + 30 + RETURN_SECONDS) == [A.node]
    orders(core)
    assert core.connected(A.node, HELLO)
    assert core.tracker == A
    assert [a.node for a in orders(core) if isinstance(a, Hangup)] == [B.node]
    assert not core.disconnected(B.node, NOW + 60)
    assert core.up


def test_one_that_comes_second_is_sent_away() -> None:
    core = link(B)
    dials(core, NOW)
    dials(core, NOW + 1)
    assert core.connected(A.node, HELLO)
    assert not core.connected(B.node, HELLO)
    assert core.tracker == A
    assert [a.node for a in orders(core) if isinstance(a, Hangup)] == [B.node]


def test_fellows_are_learned_from_trackers_of_the_setting_only() -> None:
    core = link()
    core.connected(A.node, HELLO)
    core.learn(Fellows((fellow(B),)))
    assert [a.fellows for a in orders(core) if isinstance(a, Remember)] == [(fellow(B),)]
    assert core.issuers == {A.node, B.node}
    core.disconnected(A.node, NOW)
    core.connected(B.node, HELLO)
    core.learn(Fellows((fellow(C),)))  # a fellow extends nobody's trust
    assert core.issuers == {A.node, B.node}
    with pytest.raises(ProtocolError):
        home = link()
        home.connected(A.node, HELLO)
        home.learn(Fellows((Fellow(B.node, "not a place", ""),)))


def test_haste_only_where_there_is_somebody_else_to_turn_to() -> None:
    core = link()
    core.attend(True)
    core.connected(A.node, HELLO)
    assert orders(core) == []
    core.learn(Fellows((fellow(B),)))
    assert Attend(A.node, True) in orders(core)
    core.learn(Fellows((fellow(B),), calm=1))
    assert orders(core) == [Attend(A.node, False)]
    core.learn(Fellows((fellow(B),)))
    assert orders(core) == [Attend(A.node, True)]
    core.attend(False)
    assert orders(core) == [Attend(A.node, False)]


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 30))
def test_all_dead_trackers_are_tried_in_rounds_with_pauses(seed: int, count: int, rounds: int) -> None:
    """Each round dials every tracker once, and rounds are never more than the longest pause apart."""
    others = [Address(node(n), HostPort("h", n)) for n in range(1, count)]
    core, now = TrackerLink(A, Random(seed), others=others), NOW
    for _ in range(rounds):
        dialled: list[NodeId] = []
        while len(dialled) < count:
            assert core.get_timer() - now <= LONGEST_PAUSE_SECONDS
            now = max(now, core.get_timer())
            for one in dials(core, now):
                dialled.append(one)
                core.disconnected(one, now)
        assert dialled == [A.node, *(other.node for other in others)]


def test_fellows_are_remembered_on_disk(tmp_path: object, caplog: pytest.LogCaptureFixture) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    assert fellows_file.load(folder) == ()
    fellows_file.save(folder, (fellow(B), fellow(C)))
    assert fellows_file.load(folder) == (fellow(B), fellow(C))
    (folder / fellows_file.NAME).write_bytes(b"d8:trackersl4:spamee")
    assert fellows_file.load(folder) == ()
    assert "cannot be used" in caplog.text
