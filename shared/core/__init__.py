"""Decisions without I/O, clock or dice, shared by every role."""
