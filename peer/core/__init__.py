"""The peer's decisions, without I/O, clock or dice."""
