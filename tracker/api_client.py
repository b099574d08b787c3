"""Asks a running tracker's API for a command. What answers is a stranger: bounded, typed, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import httpx2
import msgspec

from shared.core.errors import ConfigError, LocalError, ProtocolError, Reason
from tracker.desk_views import ErrorView

DEFAULT_API = "http://127.0.0.1:8430"
MAX_ANSWER_BYTES = 16 << 20
TIMEOUT_SECONDS = 30.0  # a change waits for the tracker's disk

T = TypeVar("T", bound=msgspec.Struct)


def checked_api(api: str, flag: str) -> str:
    """The address of an API without a path. Raises ConfigError that names the flag."""
    text = api if "://" in api else f"http://{api}"
    try:
        url = httpx2.URL(text)
        sound = url.scheme in ("http", "https") and bool(url.host) and url.path in ("", "/")
    except (httpx2.InvalidURL, ValueError):
        sound = False
    if not sound or not text.isprintable() or text.split() != [text]:
        raise ConfigError(f"{flag}: {api[:80]!r} is not an API's address; expected {DEFAULT_API}")
    return text.rstrip("/")


class Api:
    """One tracker's API, for commands that ask and end."""

    def __init__(self, api: str) -> None:
        """Raises ConfigError."""
        self.base = checked_api(api, "--tracker-api")

    def get(self, path: str, kind: type[T], **parameters: str | int) -> T:
        """A view. Raises LocalError with what the tracker says, or that none answers."""
        return self._ask("GET", path, kind, parameters, None)

    def post(self, path: str, kind: type[T], wish: Mapping[str, object]) -> T:
        """Changes something, and gives what has become of it."""
        return self._ask("POST", path, kind, {}, msgspec.json.encode(wish))

    def delete(self, path: str, kind: type[T], **parameters: str) -> T:
        """Ends something, and gives what it was."""
        return self._ask("DELETE", path, kind, parameters, None)

    def _ask(
        self, method: str, path: str, kind: type[T], parameters: Mapping[str, str | int], body: bytes | None
    ) -> T:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            # No proxies from the environment: the API is on this machine or in this network.
            with (
                httpx2.Client(base_url=self.base, timeout=TIMEOUT_SECONDS, trust_env=False) as client,
                client.stream(
                    method, f"/api/v1/{path}", params=dict(parameters), content=body, headers=headers
                ) as response,
            ):
                raw = _read(response)
        except (httpx2.TransportError, httpx2.InvalidURL, UnicodeError) as error:
            why = str(error) or type(error).__name__
            raise LocalError(
                f"no tracker answers at {self.base}: {why}; start `penstock tracker` or give --tracker-api"
            ) from None
        if response.status_code != 200:
            raise LocalError(self._refusal(response.status_code, raw))
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ProtocolError(Reason.MALFORMED, f"{self.base} is not a tracker's API") from None

    def _refusal(self, status: int, raw: bytes) -> str:
        try:
            return msgspec.json.decode(raw, type=ErrorView).error
        except (msgspec.DecodeError, UnicodeDecodeError):
            return f"{self.base} answers with status {status}; is it the API of a tracker of this version?"


def _read(response: httpx2.Response) -> bytes:
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            raise ProtocolError(Reason.TOO_LARGE, "the tracker's API answered without end")
    return bytes(body)
