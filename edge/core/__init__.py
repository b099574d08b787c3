"""The edge's decisions, without I/O, clock or dice."""
