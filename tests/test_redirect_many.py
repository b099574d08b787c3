"""Redirects that are chosen together are as good as those chosen one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.ids import Kind
from shared.core.messages import Why
from tests.test_redirect import RATE, field_of
from tests.tracker_parts import NOW, announce, infohash, node
from tracker.core.answers import Answer, Question, Trace, Viewer, replay
from tracker.core.candidates import FULL_PART, MOST_BEYOND, RATES, WHYS, PeerSeen, from_words, rank
from tracker.core.redirect import Field, choose, choose_many

FILM, OTHER = infohash("film"), infohash("other")

peers_seen = st.lists(
    st.builds(
        PeerSeen,
        node=st.uuids().map(str),
        region=st.just(""),
        spare=st.integers(1, 7),
        promised_rate=st.sampled_from([0.0, 1.0, 1e5, 3e5, 1e6, 1e13]),
        holds=st.booleans(),
        why=st.sampled_from(WHYS),
    ),
    max_size=60,
)


@given(peers_seen, st.floats(1e3, 1e7), st.integers(1, 30))
def test_ranking_is_a_plain_sort_by_what_the_policy_names(
    peers: list[PeerSeen], wanted: float, count: int
) -> None:
    """Not full, then holding, then by reason, then most left to the byte, then drawn first; never more
    than `count`, and nobody full beyond the number of connections."""
    ranked = rank(from_words(peers), np.array([wanted]), np.array([count]))
    each = float(ranked.each[0])

    def is_full(peer: PeerSeen) -> bool:
        return peer.left_rate < min(each, FULL_PART * (peer.left_rate + peer.promised_rate))

    def place(n: int) -> tuple[bool, bool, int, int, int]:
        peer = peers[n]
        left = max(-(2**37) + 1, int(peer.left_rate))
        return is_full(peer), not peer.holds, WHYS.index(peer.why), -left, n

    order = ranked.order[0, : ranked.named[0]].tolist()
    able = sum(not is_full(peer) for peer in peers)
    most = min(count, max(able, int(ranked.connections[0])), len(peers))
    assert order == sorted(range(len(peers)), key=place)[:most]


@st.composite
def fields(draw: st.DrawFn) -> Field:
    count = draw(st.integers(0, 60))
    kinds, regions = (
        st.sampled_from([Kind.PC, Kind.STB, Kind.MOBILE]),
        st.sampled_from(["north", "south", ""]),
    )
    holders = [(f"peer {n}", draw(kinds), draw(regions), draw(st.integers(0, 7))) for n in range(count)]
    edges = [(f"edge {n}", Kind.EDGE, draw(regions), 7) for n in range(draw(st.integers(0, 5)))]
    field = field_of(*holders, *edges)
    for n in range(draw(st.integers(0, 10))):
        field.swarms.announce(announce(OTHER, 3, 9, n % 8), node(f"peer {n}"), Kind.PC, "north", NOW)
    return field


questions_asked = st.lists(
    st.builds(
        Question,
        infohash=st.sampled_from([FILM, FILM, OTHER, infohash("nobody's")]),
        viewer=st.builds(
            Viewer,
            node=st.integers(0, 30).map(lambda n: node(f"peer {n}")),
            kind=st.sampled_from([Kind.PC, Kind.STB, Kind.MOBILE]),
            region=st.sampled_from(["north", "south", "nowhere"]),
            stretch=st.sampled_from([0, 0, 1, 32]),
        ),
        rate=st.sampled_from([0.0, 1e5, 2e6]),
        share=st.sampled_from([0.0, 0.1, 1.0]),
        number=st.integers(0, 1000),
        count=st.sampled_from([3, 12]),
    ),
    max_size=40,
)


@given(fields(), questions_asked, st.integers(0, 1 << 32))
def test_every_answer_of_many_keeps_the_policy_and_replays(
    field: Field, questions: list[Question], seed: int
) -> None:
    """However questions are mixed, each answer is of its own question: it names nobody twice, not the
    viewer, nobody without spare upload, no phone, to a phone only edges, at most as many peers as wanted
    before at most two edges; and its trace leads to the same answer again."""
    answers = choose_many(field, questions, Random(seed), NOW)
    assert len(answers) == len(questions)
    for question, answer in zip(questions, answers, strict=True):
        assert answer.question is question
        trace = msgspec.json.decode(msgspec.json.encode(answer.trace()), type=Trace)
        assert replay(trace) == (trace.chosen, trace.connections)
        assert trace.viewer == question.viewer.node.hex()
        keeps_policy(field, question, answer)


def keeps_policy(field: Field, question: Question, answer: Answer) -> None:
    named = [choice.node for choice in answer.choices]
    assert len(named) == len(set(named))
    assert question.viewer.node not in named
    peers = [choice for choice in answer.choices if choice.why in WHYS]
    assert tuple(peers) == answer.choices[: len(peers)]
    assert len(peers) <= (0 if question.viewer.kind is Kind.MOBILE else question.count)
    assert len(answer.choices) - len(peers) <= min(2, len(field.edges.states))
    for choice in peers:
        holder = field.swarms.find(question.infohash, choice.node)
        assert holder is not None
        assert holder.spare == choice.spare > 0
        assert (
            choice.why.value
            == f"{'near' if holder.region == question.viewer.region else 'far'}-{holder.kind.value}"
        )


@given(fields(), questions_asked, st.integers(0, 1 << 32))
def test_the_tables_say_what_the_answers_say(field: Field, questions: list[Question], seed: int) -> None:
    """`Wave.sources` names the same nodes, classes and reasons, in the same order, as `choices` do, and
    each one's region."""
    for _, wave in choose_many(field, questions, Random(seed), NOW).waves:
        found = wave.sources()
        for row in range(len(wave.questions)):
            named = int(found.named[row] + found.edges[row])
            peers = found.peers[row, : found.named[row]].tolist()
            states_at = found.states_at[0].tolist()
            ids = [field.swarms.nodes.id(place) for place in peers]
            ids += [state.node for at, state in zip(states_at, found.states, strict=True) if at == row]
            columns = (column[row, :named].tolist() for column in (found.spare, found.why))
            told = [(node, spare, list(Why)[why]) for node, spare, why in zip(ids, *columns, strict=True)]
            choices = wave.choices(row)
            assert told == [(choice.node, choice.spare, choice.why) for choice in choices]
            for choice, region in zip(choices, found.regions[row, :named].tolist(), strict=True):
                holder = field.swarms.find(wave.questions[row].infohash, choice.node)
                assert holder is not None
                assert field.swarms.region_names[region] == holder.region


def test_who_asks_for_different_swarms_at_once_gets_what_they_would_get_one_by_one() -> None:
    """With nothing to roll dice for, order and company of questions do not matter."""

    def field() -> Field:
        made = field_of()
        for swarm in range(20):
            for peer in range(swarm):
                said = announce(infohash(swarm), spare=1 + peer % 7)
                made.swarms.announce(said, node(f"peer {peer} of {swarm}"), Kind.PC, "north", NOW)
        return made

    questions = [
        Question(infohash(swarm), Viewer(node("viewer"), Kind.PC, "north"), RATE) for swarm in range(20)
    ]
    one_by_one = field()
    expected = [choose(one_by_one, question, Random(1), NOW).choices for question in questions]
    together = choose_many(field(), questions, Random(1), NOW)
    assert [answer.choices for answer in together] == expected
    assert len(expected[19]) == 12


@pytest.mark.parametrize("classes", [(3,), (1, 2, 3, 4, 5, 6, 7)])
@pytest.mark.parametrize("peers", [3, 24, 96, 1000])
def test_a_crowd_that_comes_at_once_is_spread_as_if_it_had_come_one_by_one(
    peers: int, classes: tuple[int, ...]
) -> None:
    """Whatever the swarm's size, nobody is promised to many more than one by one would."""
    holdings = [(f"pc {n}", Kind.PC, "north", classes[n % len(classes)]) for n in range(peers)]
    questions = [Question(FILM, Viewer(node(f"viewer {n}"), Kind.PC, "north"), RATE) for n in range(256)]
    one_by_one, at_once, rng = field_of(*holdings), field_of(*holdings), Random(3)
    apart = used_most([choose(one_by_one, question, rng, NOW) for question in questions])
    assert used_most(choose_many(at_once, questions, rng, NOW)) <= apart + MOST_BEYOND


def test_nobody_is_filled_beyond_its_class_while_others_can_give() -> None:
    """With ample supply, no peer is promised more than its class says, however many ask at once."""
    field = field_of(*((f"pc {n}", Kind.PC, "north", 1 + n % 7) for n in range(1000)))
    questions = [Question(FILM, Viewer(node(f"viewer {n}"), Kind.PC, "north"), RATE) for n in range(256)]
    choose_many(field, questions, Random(3), NOW)
    for n in range(1000):
        row = np.array([field.swarms.nodes.find(node(f"pc {n}"))])
        promised = field.swarms.nodes.reserved_of(row, field.swarms.tick(NOW))[0]
        assert promised <= RATES[1 + n % 7] * (1 + 1e-6)


def used_most(answers: Sequence[Answer]) -> int:
    used: Counter[bytes] = Counter()
    for answer in answers:
        used.update(choice.node for choice in answer.choices[: answer.connections])
    return max(used.values())
