"""Why a redirect is as it is, in lines for people, from what was logged."""

from __future__ import annotations

from collections.abc import Iterator

from shared.core import spare
from shared.core.messages import Why
from tracker.core.answers import Trace, replay
from tracker.core.candidates import PeerSeen
from tracker.core.edge_choice import EdgeSeen, members_of, pool_of

MEANINGS = {
    Why.NEAR_PC: "a PC in the viewer's region",
    Why.NEAR_STB: "a set-top box in the viewer's region",
    Why.FAR_PC: "a PC in another region",
    Why.FAR_STB: "a set-top box in another region",
    Why.EDGE_FIRST: "the first edge for this title that can",
    Why.EDGE_LIGHTER: "the less loaded of two edges drawn from the title's set",
    Why.EDGE_SPARE: "takes over when the first is busy or gone",
    Why.CENTRAL_EDGE: "an edge of another region that has the title",
}


def explain(trace: Trace) -> Iterator[str]:
    """Every source and why it was chosen, or passed over."""
    region = trace.region or "no region"
    yield f"redirect {trace.number}: viewer {_short(trace.viewer)} ({trace.kind.value}, {region})"
    stretch = f", from stretch {trace.stretch} of 32" if trace.stretch else ""
    yield f"wants {_rate(trace.wanted_rate)} of {trace.infohash}{stretch}"
    yield from _peer_lines(trace)
    yield from _edge_lines(trace)
    yield from _abroad_lines(trace)
    chosen, connections = replay(trace)
    if (chosen, connections) == (list(trace.chosen), trace.connections):
        yield "decided again on the same grounds: the same answer"
    else:
        names = ", ".join(f"{_short(node)} {why.value}" for node, why in chosen)
        yield f"decided again, this version answers otherwise: {names}; {connections} at once"


def _peer_lines(trace: Trace) -> Iterator[str]:
    each = trace.wanted_rate / trace.connections
    yield f"peers: {len(trace.peers)} weighed; {trace.connections} to be used at once, {_rate(each)} each"
    named = {node: place for place, (node, _) in enumerate(trace.chosen, 1)}
    for peer in sorted(trace.peers, key=lambda peer: named.get(peer.node, len(named) + 1)):
        left = f"class {peer.spare}, {_rate(spare.rate_of(peer.spare))}, {_rate(peer.left_rate)} left"
        what = f"{_short(peer.node)} {MEANINGS[peer.why]}, {left}"
        place = named.get(peer.node)
        verdict = f"{place:>3}." if place else "  -"
        yield f"{verdict} {what}{_peer_reason(trace, peer, each, is_named=place is not None)}"


def _peer_reason(trace: Trace, peer: PeerSeen, each: float, *, is_named: bool) -> str:
    full = peer.is_full(each)
    reasons = [
        *(["promised to others"] if full else []),
        *([] if peer.holds else ["may not hold that stretch"]),
    ]
    if is_named:
        return f" ({' and '.join(reasons)}, but there are few)" if reasons else ""
    return f": passed over, {' and '.join(reasons) or f'{trace.count} better ones were found'}"


def _edge_lines(trace: Trace) -> Iterator[str]:
    share = f"{trace.share:.1%} of demand, so {trace.replicas} of the edges share it"
    yield f"edges: {len(trace.edges)} looked at; {share}; a fair load is up to {trace.fair_use:.0%}"
    named = {node: (place, why) for place, (node, why) in enumerate(trace.chosen, 1)}
    for edge in trace.edges:
        place, why = named.get(edge.node, (0, None))
        use = f"{edge.use:.0%} of {_rate(edge.capacity_rate)}"
        if why is not None:
            fetch = "" if edge.holds else ", and fetches the title now"
            yield f"{place:>3}. {_short(edge.node)} {MEANINGS[why]}, {use}{fetch}"
        else:
            yield f"  - {_short(edge.node)} {use}: passed over, {_edge_reason(trace, edge)}"


def _abroad_lines(trace: Trace) -> Iterator[str]:
    if trace.abroad:
        yield "no edge named above has the title, so the central tier was asked (secondary redirect)"
    for place, (node, region) in enumerate(trace.abroad, len(trace.chosen) + 1):
        yield f"{place:>3}. {_short(node)} {MEANINGS[Why.CENTRAL_EDGE]}, {region or 'no region'}"


def _edge_reason(trace: Trace, edge: EdgeSeen) -> str:
    place = trace.edges.index(edge)
    if edge.trouble:
        return edge.trouble
    if not edge.is_able:
        return "does not hold the title, and takes no orders to fetch it"
    if place not in pool_of(trace.edges):
        return "in another region"
    if edge.use > trace.fair_use:
        return "has more than its fair share of the load"
    if place not in members_of(trace.edges, trace.replicas, trace.fair_use):
        return "not of the title's set" if edge.holds else "does not hold the title, which is in small demand"
    return "not drawn, or more loaded than the other that was"


def _short(node: str) -> str:
    return node[:8]


def _rate(rate: float) -> str:
    return f"{rate / 1000:,.0f} kB/s"
