"""The client for a peer's door on this machine."""

from __future__ import annotations

import httpx2


def door_client(base: str, timeout_seconds: float) -> httpx2.AsyncClient:
    """A client for the door at `base`, an http URL without a path.

    The door is on loopback and speaks plain HTTP: a proxy that the environment names cannot
    reach it, and loading certificates would only make the first picture late.
    """
    return httpx2.AsyncClient(base_url=base, timeout=timeout_seconds, trust_env=False, verify=False)
