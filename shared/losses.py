"""What a QUIC connection's end means in our words: its codes as a `Reason` and one printable line."""

from __future__ import annotations

from aioquic import tls
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicErrorCode

from shared.core.errors import ConnectionLost, Reason

_CODES = frozenset(int(reason) for reason in Reason)
_CRYPTO_ERRORS = range(0x100, 0x200)
_TLS_REASONS = {
    int(tls.AlertDescription.no_application_protocol): Reason.VERSION,
    int(tls.AlertDescription.protocol_version): Reason.VERSION,
}
_QUIC_REASONS = {
    int(QuicErrorCode.NO_ERROR): Reason.NONE,
    int(QuicErrorCode.CONNECTION_REFUSED): Reason.BUSY,
    int(QuicErrorCode.VERSION_NEGOTIATION_ERROR): Reason.VERSION,
    int(QuicErrorCode.FLOW_CONTROL_ERROR): Reason.TOO_LARGE,
    int(QuicErrorCode.STREAM_LIMIT_ERROR): Reason.TOO_LARGE,
    int(QuicErrorCode.CRYPTO_BUFFER_EXCEEDED): Reason.TOO_LARGE,
    int(QuicErrorCode.NO_VIABLE_PATH): Reason.TIMEOUT,
}


def reason_of(code: int) -> Reason:
    """The reason that an application error code names; UNEXPECTED for a code of no meaning."""
    return Reason(code) if code in _CODES else Reason.UNEXPECTED


def loss_of(event: ConnectionTerminated) -> ConnectionLost:
    """How a connection's end is reported: a `Reason` and one printable line."""
    detail = printable(event.reason_phrase)
    if event.frame_type is None:  # the application's own code
        return ConnectionLost(reason_of(event.error_code), detail)
    if event.reason_phrase == "Idle timeout":
        return ConnectionLost(Reason.TIMEOUT, "nothing was heard")
    if event.error_code in _CRYPTO_ERRORS:
        reason = _TLS_REASONS.get(event.error_code - 0x100, Reason.NOT_ALLOWED)
        return ConnectionLost(reason, f"TLS alert {event.error_code - 0x100} {detail}".rstrip())
    if event.error_code == QuicErrorCode.APPLICATION_ERROR:
        return ConnectionLost(Reason.CANCELLED, "the other side ended the handshake")
    reason = _QUIC_REASONS.get(event.error_code, Reason.MALFORMED)
    return ConnectionLost(reason, f"QUIC error {event.error_code:#x} {detail}".rstrip())


def printable(text: str, limit: int = 160) -> str:
    """One line of at most `limit` characters, without anything a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit])
