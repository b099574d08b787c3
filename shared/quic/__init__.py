"""The QUIC engine behind the endpoint: aioquic's connection with a fast path (docs/data-plane.md)."""

from shared.quic.engine import PathFigures, QuicEngine
from shared.quic.resets import Resets, reset_route, route_of_reset
from shared.quic.sending import Out

__all__ = ["Out", "PathFigures", "QuicEngine", "Resets", "reset_route", "route_of_reset"]
