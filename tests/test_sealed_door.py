"""Invariant: only what was sealed by a connected node, once, now, is answered, and never with more bytes.

The same asks are decided alike, whether they come by datagram or over the connection.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core import sealed, tickets
from shared.core.actions import Send
from shared.core.errors import Reason
from shared.core.ids import Address, HostPort, Kind, Mode
from shared.core.messages import Announce, Event, Locate, Refusal, WantSeal
from shared.core.sealed import ANNOUNCE_BYTES, LOCATE_BYTES, Accepted, LocateAsk, Refused, Sources
from tests.sealed_parts import Asker, asker, exchange, seal_of, sealed_tracker
from tests.tracker_parts import (
    NOW,
    TRACKER_ID,
    announce,
    ask,
    entry,
    hello,
    infohash,
    join,
    node,
    tracker,
)
from tracker import views
from tracker.core import fair_share
from tracker.core.seals import LIFE_SECONDS, WINDOW
from tracker.core.tracker import Tracker

EDGE = node("edge")
FILM = entry("film", EDGE)
SWARM = infohash("film")
LOCATE = LocateAsk(SWARM, 0, True)


def film_tracker() -> Tracker:
    return sealed_tracker(tracker(FILM, edges=frozenset({EDGE})))


def one(core: Tracker, who: Asker, said: Announce | LocateAsk, now: float = NOW) -> object:
    (answer,) = exchange(core, [who.ask(said)], now)
    assert answer
    return who.read(answer)


def passed_over(core: Tracker) -> dict[str, int]:
    good = {"announces", "redirects", "refusals"}
    return {reason: count for reason, count in core.sealed.statistics().items() if reason not in good}


# -- what is answered ------------------------------------------------------------------------


def test_an_announce_and_a_locate_cost_a_datagram_each_way() -> None:
    core = film_tracker()
    edge, holder, viewer = asker(core, "edge", Kind.EDGE), asker(core, "holder"), asker(core, "viewer")
    assert one(core, edge, announce(SWARM, spare=7)) == Accepted()
    assert one(core, holder, announce(SWARM)) == Accepted()
    found = one(core, viewer, LOCATE)
    assert isinstance(found, Sources)
    assert [source.node for source in found.sources] == [holder.id, edge.id]
    assert found.sources[0].at == "192.0.2.1:4430"
    assert found.signer == EDGE
    tickets.check(found.ticket, tracker=TRACKER_ID, viewer=viewer.id, infohash=SWARM, now=NOW)
    assert passed_over(core) == {}
    assert core.statistics().announces == 2
    assert core.statistics().redirects == 1


def test_both_doors_decide_alike() -> None:
    cores = film_tracker(), film_tracker()
    for core in cores:
        ask(core, announce(SWARM, spare=7), join(core, "edge", Kind.EDGE))
        for n in range(40):
            ask(core, announce(SWARM, spare=1 + n % 7), join(core, n, region="abc"[n % 3]))
    for name, kind, mode in (("pc", Kind.PC, Mode.SHARED), ("phone", Kind.MOBILE, Mode.DIRECT)):
        who = asker(cores[0], name, kind, mode)
        found = one(cores[0], who, LOCATE)
        join(cores[1], name, kind, mode=mode)
        (action,) = ask(cores[1], Locate(1, SWARM), node(name))
        assert isinstance(found, Sources)
        assert isinstance(action, Send)
        assert action.message == found.redirect(Locate(1, SWARM), b"")


def test_no_ticket_is_made_for_who_has_one() -> None:
    core = film_tracker()
    found = one(core, asker(core, "viewer"), LocateAsk(SWARM, 0, False))
    assert isinstance(found, Sources)
    assert found.ticket == b""


@pytest.mark.parametrize(
    ("said", "mode", "reason"),
    [
        (announce(SWARM, held=11, total=10), Mode.SHARED, Reason.MALFORMED),
        (announce(SWARM, held=1, total=(1 << 32) - 1), Mode.SHARED, Reason.MALFORMED),
        (announce(SWARM, spare=3), Mode.DIRECT, Reason.MALFORMED),
        (LocateAsk(infohash("nothing"), 0, True), Mode.SHARED, Reason.UNKNOWN_TITLE),
    ],
)
def test_what_is_refused_there_is_refused_here(
    said: Announce | LocateAsk, mode: Mode, reason: Reason
) -> None:
    core = film_tracker()
    answer = one(core, asker(core, "viewer", mode=mode), said)
    assert isinstance(answer, Refused)
    assert answer.reason is reason
    assert core.statistics().swarms == 0


def test_a_node_speaks_for_itself_alone() -> None:
    """Whatever address a datagram comes from, sources are named at the address of their connection."""
    core = film_tracker()
    holder, viewer = asker(core, "holder"), asker(core, "viewer")
    exchange(core, [holder.ask(announce(SWARM))], froms=["203.0.113.66"])
    found = one(core, viewer, LOCATE)
    assert isinstance(found, Sources)
    assert [source.at for source in found.sources] == ["192.0.2.1:4430"]


def test_an_edge_that_was_not_admitted_is_passed_over() -> None:
    core = film_tracker()
    stranger = asker(core, "another edge", Kind.EDGE)
    assert one(core, stranger, announce(SWARM)) == Accepted()  # as over the connection
    assert core.statistics().swarms == 0


def test_a_stopped_holder_is_gone() -> None:
    core = film_tracker()
    holder = asker(core, "holder")
    one(core, holder, announce(SWARM))
    one(core, holder, announce(SWARM, event=Event.STOPPED))
    assert core.statistics().swarms == 0


def test_a_closed_door_gives_no_seals() -> None:
    core = tracker(FILM)
    (action,) = ask(core, WantSeal(9), join(core, "pc"))
    assert isinstance(action, Send)
    assert isinstance(action.message, Refusal)
    assert exchange(core, [bytes(80)]) == [b""]


# -- silence ---------------------------------------------------------------------------------


def test_a_datagram_is_answered_once() -> None:
    core = film_tracker()
    who = asker(core, "pc")
    datagram = who.ask(announce(SWARM))
    first, second = exchange(core, [datagram, datagram])
    assert first
    assert not second
    assert exchange(core, [datagram]) == [b""]
    assert exchange(core, [datagram], froms=["203.0.113.1"]) == [b""]
    assert passed_over(core) == {"replayed": 3}


def test_late_ones_are_taken_within_the_window_and_not_beyond() -> None:
    core = film_tracker()
    who = asker(core, "pc")
    exchange(core, [who.ask(announce(SWARM), counter=1000)])
    inside, outside = who.ask(announce(SWARM), 1001 - WINDOW), who.ask(announce(SWARM), 1000 - WINDOW)
    assert [bool(answer) for answer in exchange(core, [inside, outside])] == [True, False]
    assert passed_over(core) == {"replayed": 1}


@pytest.mark.parametrize("at", [0, 1, 3, 4, 7, 8, 15, 16, 40, ANNOUNCE_BYTES - 1])
def test_one_changed_bit_is_silence_and_leaves_nothing(at: int) -> None:
    core = film_tracker()
    who = asker(core, "pc")
    good = who.ask(announce(SWARM))
    forged = bytearray(good)
    forged[at] ^= 1
    assert exchange(core, [bytes(forged)]) == [b""]
    assert sum(passed_over(core).values()) == 1
    assert core.statistics().swarms == 0
    assert exchange(core, [good])[0]  # a forged counter does not spend the real one


def test_an_answer_is_no_ask() -> None:
    core = film_tracker()
    who = asker(core, "pc")
    (answer,) = exchange(core, [who.ask(LOCATE)])
    assert exchange(core, [answer, answer.ljust(LOCATE_BYTES, b"\0")]) == [b"", b""]


def test_lengths_that_no_ask_has_are_silence() -> None:
    core = film_tracker()
    who = asker(core, "pc")
    whole = who.ask(announce(SWARM))
    wrong = [whole[:size] for size in (0, 1, 15, 16, 31, 32, 79)] + [whole + b"\0", who.ask(LOCATE) + b"\0"]
    wrong += [who.ask(LOCATE)[:-1], bytes(1500), bytes(2000)]
    assert exchange(core, wrong) == [b""] * len(wrong)
    assert passed_over(core) == {"length": len(wrong)}


@pytest.mark.parametrize("size", [48, 1168])
def test_sealed_nonsense_is_silence(size: int) -> None:
    core = film_tracker()
    who = asker(core, "pc")
    assert exchange(core, [who.wrap(b"\7" * size, 0)]) == [b""]
    assert passed_over(core) == {"malformed": 1}


def test_a_seal_ends_with_its_time_its_connection_and_the_next_seal() -> None:
    core = film_tracker()
    late, gone, renewed = asker(core, "late"), asker(core, "gone"), asker(core, "renewed")
    assert exchange(core, [late.ask(LOCATE)], NOW + LIFE_SECONDS) == [b""]
    core.disconnected(gone.id, Reason.NONE, NOW)
    assert exchange(core, [gone.ask(LOCATE)]) == [b""]
    after = Asker(renewed.id, seal_of(core, renewed.id))
    assert exchange(core, [renewed.ask(LOCATE)]) == [b""]
    assert exchange(core, [after.ask(LOCATE)])[0]
    assert passed_over(core) == {"ended": 1, "unknown": 2}


def test_a_node_that_connects_anew_has_no_seal() -> None:
    core = film_tracker()
    who = asker(core, "pc")
    join(core, "pc")
    assert exchange(core, [who.ask(LOCATE)]) == [b""]


def test_a_counter_beyond_the_last_is_silence() -> None:
    core = film_tracker()
    who = asker(core, "pc")
    spent = who.ask(announce(SWARM), (1 << 32) - 1), who.ask(announce(SWARM), 1 << 32)
    assert [bool(answer) for answer in exchange(core, list(spent))] == [True, False]
    assert passed_over(core) == {"spent": 1}


def test_a_clock_that_is_hours_off_changes_nothing() -> None:
    """Seals run by the tracker's clock alone, from when they were given."""
    core = film_tracker()
    who = Asker(join(core, "pc", now=NOW + 7200), seal_of(core, node("pc"), NOW + 7200))
    assert exchange(core, [who.ask(LOCATE)], NOW + 7200 + LIFE_SECONDS - 1)[0]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2000), st.binary(max_size=4)), max_size=12))
@settings(max_examples=150, deadline=None)
def test_nothing_is_answered_with_more_than_it_has(changes: list[tuple[int, int, bytes]]) -> None:
    core = film_tracker()
    edge, who = asker(core, "edge", Kind.EDGE), asker(core, "pc")
    one(core, edge, announce(SWARM, spare=7))
    datagrams = []
    for sort, at, patch in changes:
        said = LOCATE if sort % 2 else announce(SWARM, held=sort * 3)
        datagram = bytearray(who.ask(said))
        datagram[at : at + len(patch)] = patch
        datagrams.append(bytes(datagram))
    answers = exchange(core, datagrams) if datagrams else []
    assert all(len(answer) <= len(asked) for answer, asked in zip(answers, datagrams, strict=True))


def test_the_longest_refusal_fits_its_announce() -> None:
    core = film_tracker()
    who = asker(core, "pc")
    (answer,) = exchange(core, [who.ask(announce(SWARM, held=(1 << 32) - 1, total=1 << 31))])
    assert ANNOUNCE_BYTES - 4 <= len(answer) <= ANNOUNCE_BYTES


# -- floods ----------------------------------------------------------------------------------


def test_a_flood_from_one_prefix_leaves_room_for_others() -> None:
    core = film_tracker()
    flooder, quiet = asker(core, "flooder"), [asker(core, n) for n in range(4)]
    asks = [flooder.ask(announce(SWARM)) for _ in range(60)] + [who.ask(announce(SWARM)) for who in quiet]
    froms = [f"203.0.113.{n}" for n in range(60)] + [f"198.51.{n}.1" for n in range(4)]
    answers = exchange(core, asks, froms=froms, full=2)
    assert [bool(answer) for answer in answers[60:]] == [True] * 4
    assert sum(map(bool, answers[:60])) == 64 // 4 - 4
    assert passed_over(core) == {"crowded": 60 - 12}


def test_one_household_is_not_cut_while_nobody_else_asks() -> None:
    core = film_tracker()
    who = asker(core, "pc")
    assert all(exchange(core, [who.ask(announce(SWARM)) for _ in range(20)], full=3))


def test_no_flood_of_unknown_seals_costs_a_decryption(monkeypatch: pytest.MonkeyPatch) -> None:
    core = film_tracker()
    asker(core, "pc")
    monkeypatch.setattr(type(core.sealed), "_open", None)  # calling it would fail
    dice = Random(1)
    flood = [b"\x08" + dice.randbytes(ANNOUNCE_BYTES - 1) for _ in range(500)]
    assert exchange(core, flood) == [b""] * 500
    assert passed_over(core) == {"unknown": 500}


@given(st.lists(st.integers(0, 9), max_size=80), st.integers(1, 80))
def test_room_is_dealt_out_max_min_fair(groups: list[int], room: int) -> None:
    served = fair_share.served(np.array(groups, np.int64), room)
    has = {group: sum(served[n] for n, g in enumerate(groups) if g == group) for group in set(groups)}
    most = max(has.values(), default=0)
    assert served.sum() <= max(room, len(has))  # at least one each
    for group, count in has.items():
        assert count == groups.count(group) or count >= most  # who was cut has as much as anybody


def test_prefixes_are_those_of_households() -> None:
    def number(at: str) -> int:
        from ipaddress import ip_address

        found = ip_address(at)
        raw = found.packed if found.version == 6 else b"\0" * 10 + b"\xff\xff" + found.packed
        return int(fair_share.prefixes(np.frombuffer(raw, np.uint8).reshape(1, 16))[0])

    assert number("192.0.2.1") == number("192.0.2.255") != number("192.0.3.1")
    assert number("2001:db8:1:2::1") == number("2001:db8:1:3::1") != number("2001:db8:2::1")
    assert number("0.0.0.1") != number("::1")


def test_redirects_by_datagram_are_logged_and_remembered() -> None:
    core = film_tracker()
    one(core, asker(core, "pc"), LOCATE)
    (answer,) = core.answers
    assert answer.question.viewer.node == node("pc")


def test_sources_are_named_at_the_address_of_their_latest_connection() -> None:
    """Also when a node was named before, left all swarms and came back, or another has its place."""
    core = film_tracker()
    viewer, holder = asker(core, "viewer"), join(core, "holder")
    for host in ("192.0.2.7", "2001:db8::7", "192.0.2.8"):
        core.disconnected(holder, Reason.NONE, NOW)
        core.connected(holder, HostPort(host, 7), hello(Kind.PC), NOW)
        core.receive(announce(SWARM), holder, NOW)
        found = one(core, viewer, LOCATE)
        assert isinstance(found, Sources)
        assert [source.at for source in found.sources] == [str(HostPort(host, 7))]
        core.receive(announce(SWARM, event=Event.STOPPED), holder, NOW)
        other = join(core, host)
        core.receive(announce(SWARM), other, NOW)
        found = one(core, viewer, LOCATE)
        assert isinstance(found, Sources)
        assert [(source.node, source.at) for source in found.sources] == [(other, "192.0.2.1:4430")]
        core.disconnected(other, Reason.NONE, NOW)


@pytest.mark.parametrize("kind", [Kind.PC, Kind.EDGE])
def test_a_source_that_no_datagram_can_name_is_told_over_the_connection(kind: Kind) -> None:
    core = film_tracker()
    viewer, source = asker(core, "viewer"), node("edge" if kind is Kind.EDGE else "pc")
    core.connected(source, HostPort("a.name.example.org", 7), hello(kind), NOW)
    core.receive(announce(SWARM), source, NOW)
    for together in (1, 20):
        for answer in exchange(core, [viewer.ask(LOCATE) for _ in range(together)]):
            found = viewer.read(answer)
            assert isinstance(found, Refused)
            assert found.reason is Reason.TOO_LARGE


def test_many_that_ask_together_are_told_in_the_same_way_as_one() -> None:
    """The same ids, addresses, kinds, regions, classes and reasons, whether sources are packed at once or
    one by one; with regions in every mixture, and more names than there is room for."""
    names = ["", *(f"{n:031}" for n in range(8))]
    for count in (0, 1, 11, 30):
        core = film_tracker()
        core.receive(announce(SWARM, spare=7), asker(core, "edge", Kind.EDGE, region=names[1]).id, NOW)
        for n in range(count):
            kind = (Kind.PC, Kind.STB)[n % 3 == 0]
            core.receive(announce(SWARM, spare=1 + n % 7), join(core, n, kind, names[n % len(names)]), NOW)
        viewers = [asker(core, f"viewer {n}", region=names[n % 3]) for n in range(20)]
        exchange(core, [viewer.ask(LocateAsk(SWARM, 0, False)) for viewer in viewers])
        for answer in core.answers:
            told = core.sources(answer)
            packed = [core.sealed._packer._one(answer.wave, answer.row)]
            packed += [core.sealed._packer._many(answer.wave)[answer.row]]
            assert packed[0] == packed[1]
            assert packed[0] is not None
            body = sealed.redirect_head(EDGE, b"", packed[0].connections, packed[0].named) + packed[0].tail
            found = sealed.read_answer(body)
            assert isinstance(found, Sources)
            assert all(s.region in (said.region, "") for s, said in zip(found.sources, told, strict=True))
            assert [replace(s, region="") for s in found.sources] == [replace(s, region="") for s in told]


def test_the_api_counts_datagrams_by_what_became_of_them() -> None:
    core = film_tracker()
    who = asker(core, "pc")
    datagram = who.ask(LOCATE)
    exchange(core, [datagram, datagram, bytes(ANNOUNCE_BYTES)])
    at = Address(TRACKER_ID, HostPort("192.0.2.1", 4430))
    seen = views.overview(core, at, "penstock 1", NOW, NOW)
    assert seen.datagrams == {"redirects": 1, "replayed": 1, "foreign": 1}
