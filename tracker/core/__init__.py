"""The tracker's decisions, without I/O, clock or dice."""
