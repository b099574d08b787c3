"""Who may say what, when, on one control stream: the rules as one table, and its reader.

    before Hello   only Hello, exactly once from each side
    after Hello    any message whose `said_by` holds the sender's kind
                   and whose `heard_by` holds ours; never Hello again

A session takes bytes and gives messages: it frames, bounds and decodes them, and keeps to the
table in both directions, so that a fault of our own is seen here and not by a stranger.
"""

from __future__ import annotations

from shared.core import messages
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import Kind
from shared.core.messages import MAX_MESSAGE_BYTES, PROTOCOL_VERSION, Hello, Message

_LENGTH_BYTES = 4


class Session:
    """One control stream seen from `kind`; bytes in, messages out, and the other way round."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._said_hello = False
        self._buffer = bytearray()
        self.theirs: Hello | None = None

    def send(self, message: Message) -> bytes:
        """The frame of a message. Raises LocalError if the table forbids saying it now."""
        name = type(message).__name__
        if isinstance(message, Hello) == self._said_hello:
            raise LocalError(f"{name} out of turn: Hello comes first, once")
        if isinstance(message, Hello) and message.kind is not self._kind:
            raise LocalError(f"{name} as {message.kind} on a session of {self._kind}")
        if self._kind not in message.said_by:
            raise LocalError(f"{name} is not for {self._kind} to say")
        if self.theirs is not None and self.theirs.kind not in message.heard_by:
            raise LocalError(f"{name} is not for {self.theirs.kind} to hear")
        body = messages.encode(message)
        if len(body) > MAX_MESSAGE_BYTES:
            raise LocalError(f"{name} of {len(body)} bytes is too long to send")
        self._said_hello = True
        return len(body).to_bytes(_LENGTH_BYTES, "big") + body

    def receive(self, data: bytes) -> list[Message]:
        """Messages completed by `data`. Raises ProtocolError: then close the connection."""
        self._buffer += data
        heard: list[Message] = []
        while (body := self._next_body()) is not None:
            message = messages.decode(body)
            self._check(message)
            heard.append(message)
        return heard

    @property
    def buffered_bytes(self) -> int:
        """Bytes of a message not complete yet, at most a frame of the longest one."""
        return len(self._buffer)

    def _next_body(self) -> bytes | None:
        if len(self._buffer) < _LENGTH_BYTES:
            return None
        size = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
        if size > MAX_MESSAGE_BYTES:
            raise ProtocolError(Reason.TOO_LARGE, f"a message of {size} bytes")
        if len(self._buffer) < _LENGTH_BYTES + size:
            return None
        body = bytes(self._buffer[_LENGTH_BYTES : _LENGTH_BYTES + size])
        del self._buffer[: _LENGTH_BYTES + size]
        return body

    def _check(self, message: Message) -> None:
        name = type(message).__name__
        if isinstance(message, Hello):
            self._check_hello(message)
        elif self.theirs is None:
            raise ProtocolError(Reason.UNEXPECTED, f"{name} before Hello")
        elif self.theirs.kind not in message.said_by or self._kind not in message.heard_by:
            raise ProtocolError(Reason.UNEXPECTED, f"{name} from {self.theirs.kind} to {self._kind}")

    def _check_hello(self, hello: Hello) -> None:
        if self.theirs is not None:
            raise ProtocolError(Reason.UNEXPECTED, "a second Hello")
        if hello.version != PROTOCOL_VERSION:
            raise ProtocolError(Reason.VERSION, f"they speak {hello.version}, we {PROTOCOL_VERSION}")
        self.theirs = hello
