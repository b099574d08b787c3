"""The edge streaming server: takes uploads, seeds over QUIC, always answers."""
