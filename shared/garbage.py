"""Garbage collection without long pauses: `settle` once, when a program has been loaded.

Python's collector finds what reference counts cannot free: objects that refer to each other. A full
collection walks over everything that is alive. With 3,000 connections that takes half a second,
in which nothing is sent, and by default it comes with every quarter that the heap grows by. So:

* What was loaded at the start is left out for good (`gc.freeze`).
* The two young generations, where a request's garbage dies, hold at most FEW x SOME objects, which
  takes 20 ms at worst; the old one is looked at RARELY times less often than by default.
* A connection that is over is taken apart (`QuicEngine.take_apart`), so that its memory comes back at
  once, by its reference counts, and the old generation has little to find.
"""

from __future__ import annotations

import gc

FEW = 5_000  # objects more than before, until the youngest generation is looked at
SOME = 10  # such looks until the middle one is
RARELY = 200  # looks at the middle one until all are: some ten million new objects that stayed


def settle() -> None:
    """Call once everything is imported, before the first connection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(FEW, SOME, RARELY)
