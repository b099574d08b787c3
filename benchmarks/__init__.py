"""Benchmarks against other programs, in one run on one machine; see README.md."""
