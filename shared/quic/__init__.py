"""The QUIC engine behind the endpoint: aioquic's connection with a fast path (docs/data-plane.md)."""

from shared.quic.engine import PathFigures, QuicEngine
from shared.quic.resets import TOKEN_BYTES, Resets
from shared.quic.sending import Out

__all__ = ["TOKEN_BYTES", "Out", "PathFigures", "QuicEngine", "Resets"]
