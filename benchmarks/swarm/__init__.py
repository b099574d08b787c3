"""Swarms of the real cores in virtual time."""
