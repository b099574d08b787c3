"""The set-top box's way: it is led to a PC that holds the title, caches it, and serves the next one."""

from __future__ import annotations

from shared.core.ids import Kind, NodeId
from shared.core.messages import Why
from tests.world import Line, Viewer, World
from tracker.core.answers import Trace
from tracker.core.explain import explain

TEN_MBIT = 1_250_000.0


def watched(world: World, name: str, kind: Kind) -> Viewer:
    """Somebody of this kind watches the film to its end."""
    viewer = world.watch(world.add_peer(name, Line(TEN_MBIT), kind=kind), 0.5)
    world.run(42)
    assert (viewer.done, viewer.stalls) == (True, 0)
    return viewer


def traces_of(world: World, viewer: NodeId) -> list[Trace]:
    """The redirects of one viewer, first to last."""
    assert world.tracker.core is not None
    every = [answer.trace() for answer in world.tracker.core.answers]
    return [trace for trace in every if trace.viewer == viewer.hex()]


def test_a_box_is_led_to_a_pc_then_caches_and_is_found_by_the_next() -> None:
    world = World(film_seconds=32)
    pc = watched(world, "pc", Kind.PC).host
    box = watched(world, "box", Kind.STB).host
    first = traces_of(world, box.node)[0]
    # Of all peers the PC that holds the title comes first; the box takes most of the film from it.
    assert first.kind is Kind.STB
    assert first.chosen[0] == (pc.node.hex(), Why.NEAR_PC)
    lines = list(explain(first))
    assert f"  1. {pc.node.hex()[:8]} a PC in the viewer's region" in next(x for x in lines if "  1." in x)
    took = box.core.statistics()
    assert took.peer_bytes > took.edge_bytes
    assert world.infohash in box.core.seeding.holdings  # it caches, and has told the tracker so

    next_box = watched(world, "next box", Kind.STB).host
    seen = traces_of(world, next_box.node)[0]
    whys = dict(seen.chosen)
    assert seen.chosen[0] == (pc.node.hex(), Why.NEAR_PC)  # PCs first
    assert whys[box.node.hex()] is Why.NEAR_STB  # and the box that watched before is a source now
    given = {source.node: source.taken_bytes for source in next_box.core.statistics().taken}
    assert given[pc.node] + given[box.node] > given.get(world.edge.node, 0)
    assert given[box.node] > 0

    world.kill(pc)
    world.run(15)
    alone = watched(world, "third box", Kind.STB).host
    (source, why), *_ = traces_of(world, alone.node)[-1].chosen
    assert why is Why.NEAR_STB
    assert source in {box.node.hex(), next_box.node.hex()}
