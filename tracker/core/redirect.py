"""The redirect: whom a viewer is sent to, in which order, and why.

In words: peers of the viewer's own region that can still give, PCs before set-top boxes, then
other regions. Candidates are drawn at random from the classes that give most, until there are
twice as many as are wanted; kept are those with most left after what we promised of them lately
(`tracker/core/candidates.py`). Whoever was promised to others already is passed over while there
are enough. Then always two edges (`tracker/core/edge_choice.py`). Phones get edges only, and nobody
is sent to a phone. Cost depends on how many are wanted, never on the size of the swarm.

Questions that came together are answered together, which costs an eighth. Those whose choice the
others before them would have filled are answered again after these, with what is promised by then:
each round is a *wave*. So nobody is promised more than one after the other would have promised.

What was weighed is kept with the answer; `rank` and `pick` decide from that alone, so that every
answer can be replayed and argued about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.core.dice import Dice
from shared.core.ids import InfoHash, Kind, NodeId
from tracker.core import candidates as peers
from tracker.core import edge_choice
from tracker.core.answers import Answer, Answers, EdgeView, Question, Viewer, Wave
from tracker.core.candidates import Asked, Candidates, Ranked
from tracker.core.edge_choice import FAIR_SHARE, EdgeSeen, EdgeSet
from tracker.core.edges import Edges, EdgeState
from tracker.core.swarm import Swarm, Swarms

__all__ = ["Answer", "Field", "Question", "Viewer", "choose", "choose_many"]  # all that askers need

MOST_EDGES_LOOKED_AT = 64
STALE_SHARE = 0.1  # of an edge's capacity: promised so much, edges are looked at anew
_NO_SWARM = Swarm()


@dataclass(frozen=True, slots=True)
class Field:
    """What redirects choose from."""

    swarms: Swarms
    edges: Edges


def choose(field: Field, question: Question, rng: Dice, now: float) -> Answer:
    """Who can serve this viewer; notes what is promised of them."""
    return choose_many(field, [question], rng, now)[0]


def choose_many(field: Field, questions: Sequence[Question], rng: Dice, now: float) -> Answers:
    """`choose` for all that came with one wake-up: an answer each, in the order of the questions."""
    swarms, tick = field.swarms, field.swarms.tick(now)
    waves: list[tuple[list[int], Wave]] = []
    left = list(range(len(questions)))
    while left:
        asked = [questions[n] for n in left]
        found, ranked, rows = _choose_peers(swarms, asked, rng, tick)
        settled = set(rows)
        some = asked if len(rows) == len(left) else [asked[row] for row in rows]
        wave = Wave(now, some, found, ranked, swarms.region_names, [])
        _choose_edges(field, wave, rng)
        waves.append(([left[row] for row in rows], wave))
        left = [n for row, n in enumerate(left) if row not in settled]
    return Answers(len(questions), waves)


def _choose_peers(
    swarms: Swarms, questions: list[Question], rng: Dice, tick: int
) -> tuple[Candidates, Ranked, list[int]]:
    """Peers for as many of the questions as do not fill each other's; tables of these, and which they are."""
    asked = _asked(swarms, questions)
    found = peers.gather(swarms, asked, rng, tick)
    ranked = peers.rank(found, asked.wanted, asked.counts)
    rows = list(range(len(questions)))
    if len(questions) > 1:
        settled = peers.settled(found, ranked)
        if not settled.all():
            found, ranked = found.part(settled), ranked.part(settled)
            rows = settled.nonzero()[0].tolist()
    _reserve(swarms, found, ranked, tick)
    return found, ranked, rows


def _choose_edges(field: Field, wave: Wave, rng: Dice) -> None:
    views: dict[tuple[InfoHash, str, float, bool, NodeId | None], EdgeView] = {}
    promised: dict[NodeId, float] = {}
    roll = rng.random
    for question in wave.questions:
        viewer = question.viewer
        itself = viewer.node if viewer.kind is Kind.EDGE else None
        key = (question.infohash, viewer.region, question.share, question.elsewhere, itself)
        view = views.get(key)
        if view is None:
            view = views[key] = _view(field, question, wave.at)
        dice = (roll(), roll())
        picked = view.set.pick(dice)
        wave.edges.append((view, dice, picked))
        if picked:
            first = view.states[picked[0][0]]
            rate = promised[first.node] = promised.get(first.node, 0.0) + question.wanted
            if rate > STALE_SHARE * first.capacity_rate:
                _promise(field.edges, promised)
                views.clear()
    _promise(field.edges, promised)


def _promise(edges: Edges, promised: dict[NodeId, float]) -> None:
    for node, rate in promised.items():
        edges.promise(edges.states[node], rate)
    promised.clear()


def _asked(swarms: Swarms, questions: list[Question]) -> Asked:
    viewers = [question.viewer for question in questions]
    return Asked(
        # A phone is sent to edges only: as if its swarm had no peers.
        swarms=[
            _NO_SWARM if q.viewer.kind is Kind.MOBILE else swarms.swarms.get(q.infohash, _NO_SWARM)
            for q in questions
        ],
        regions=[swarms.region_number(viewer.region) for viewer in viewers],
        viewers=np.array([swarms.nodes.find(viewer.node) for viewer in viewers]),
        stretches=np.array([viewer.stretch for viewer in viewers]),
        wanted=np.array([question.wanted for question in questions]),
        counts=np.array([question.count for question in questions]),
    )


def _reserve(swarms: Swarms, found: Candidates, ranked: Ranked, tick: int) -> None:
    """Notes what each viewer may take of those it will use at once."""
    at, used = peers.used(found, ranked)
    rows, before = found.rows.take(at), found.promised_rate.take(at)
    swarms.nodes.reserve(rows, before, ranked.each.repeat(used), tick)


def _view(field: Field, question: Question, now: float) -> EdgeView:
    """Edges in the title's order, the viewer's region first, as far as they can matter."""
    edges, region = field.edges, question.viewer.region
    swarm = field.swarms.swarms.get(question.infohash, _NO_SWARM)
    replicas = edge_choice.replicas(question.share, len(edges.states))
    fair_use = FAIR_SHARE * edges.mean_use(region, now)
    holding = {node for node in swarm.edges if field.swarms.holds(swarm, node)}
    is_held = any(node in edges.states for node in holding)
    somewhere = is_held or question.elsewhere or question.origin in edges.states
    seen: list[EdgeSeen] = []
    states: list[EdgeState] = []
    fair = 0
    for state in edges.order(question.infohash, region):
        holds = state.node in holding
        if state.node == question.viewer.node or (len(seen) >= MOST_EDGES_LOOKED_AT and not holds):
            continue
        edge = EdgeSeen(
            state.name, state.region, state.region == region, state.capacity_rate, state.expected_rate,
            holds, somewhere and edges.fetches(state, question.infohash, now), state.trouble(now),
        )  # fmt: skip
        states.append(state)
        seen.append(edge)
        if edge.is_able:
            fair += edge.use <= fair_use
            is_held &= not holds  # from the first that is found on, more need not be looked for
            if fair > replicas and not is_held:
                break
    numbers = [field.swarms.region_number(state.region) for state in states]
    return EdgeView(seen, states, numbers, replicas, fair_use, EdgeSet(seen, replicas, fair_use))
