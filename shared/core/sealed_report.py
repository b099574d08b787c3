"""A Report under a seal (see `shared/core/sealed.py`): every field at its place, then shares, then uses."""

from __future__ import annotations

from struct import Struct

from shared.core.codec import fields_of
from shared.core.errors import ProtocolError, Reason
from shared.core.fields import BIG
from shared.core.ids import InfoHash, NodeId
from shared.core.messages import Report
from shared.core.records import Share, Use

SAYS_REPORT = 3
_REPORT = Struct(">BBBx7QIIQ")
_SHARE = Struct(">32sQ")
_USE = Struct(">32s3Q")
LEAST_BYTES = _REPORT.size

_FIELDS = fields_of(Report)
_NAMES = tuple(field.name for field in _FIELDS if field.kind is int)
_MOST = tuple(field.limit.high for field in _FIELDS if field.kind is int)
_MOST_SHARES, _MOST_USES = (
    next(field.limit.high for field in _FIELDS if field.name == name) for name in ("shares", "uses")
)


def report_body(message: Report, room: int) -> bytes | None:
    """What stands under the seal; None if it has more than `room` bytes."""
    m = message
    size = _REPORT.size + len(m.shares) * _SHARE.size + len(m.uses) * _USE.size
    if size > room:
        return None
    parts = [
        _REPORT.pack(
            SAYS_REPORT, len(m.shares), len(m.uses), m.up_rate, m.down_rate, m.cap_rate, m.edge_bytes,
            m.peer_bytes, m.uploaded_bytes, m.held_bytes, m.connections, m.stalls, m.run,
        )
    ]  # fmt: skip
    parts += [_SHARE.pack(share.node, share.taken_bytes) for share in m.shares]
    parts += [_USE.pack(u.infohash, u.edge_bytes, u.peer_bytes, u.uploaded_bytes) for u in m.uses]
    return b"".join(parts)


def read_report(body: bytes) -> Report:
    """Reads it. Raises ProtocolError for anything not exactly right."""
    if len(body) < _REPORT.size:
        raise ProtocolError(Reason.MALFORMED, "not a report")
    says, shares, uses, *numbers = _REPORT.unpack_from(body)
    first = _REPORT.size + shares * _SHARE.size
    if (
        says != SAYS_REPORT
        or body[3]
        or len(body) != first + uses * _USE.size
        or shares > _MOST_SHARES
        or uses > _MOST_USES
        or any(number > most for number, most in zip(numbers, _MOST, strict=True))
    ):
        raise ProtocolError(Reason.MALFORMED, "not a report")
    taken = tuple(_share(*found) for found in _SHARE.iter_unpack(body[_REPORT.size : first]))
    used = tuple(_use(*found) for found in _USE.iter_unpack(body[first:]))
    return Report(**dict(zip(_NAMES, numbers, strict=True)), shares=taken, uses=used)


def _share(node: bytes, taken: int) -> Share:
    return Share(NodeId(node), _bytes(taken))


def _use(infohash: bytes, edge: int, peer: int, uploaded: int) -> Use:
    return Use(InfoHash(infohash), _bytes(edge), _bytes(peer), _bytes(uploaded))


def _bytes(number: int) -> int:
    if number > BIG:
        raise ProtocolError(Reason.MALFORMED, "no counter gets there")
    return number
