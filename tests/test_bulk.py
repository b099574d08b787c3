"""Invariant: a bulk header is read exactly as it was written, or refused by name."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core import bulk
from shared.core.bulk import (
    MAX_PROBE_BYTES,
    MAX_UPLOAD_BYTES,
    PROBED_BYTES,
    ManifestRequest,
    PieceRequest,
    Probed,
    ProbeRequest,
    UploadRequest,
)
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import InfoHash

U16, U32, U64 = ((1 << bits) - 1 for bits in (16, 32, 64))
LONGEST_FILE = 1 << 40
NAME = bytes(range(32))
SWARM = InfoHash(NAME)

NAMES = st.binary(min_size=32, max_size=32)
SWARMS = NAMES.map(InfoHash)
PIECES = st.builds(
    PieceRequest,
    SWARMS,
    st.integers(0, U32),
    st.integers(0, U16),
    st.integers(1, U16),
    st.integers(0, U32),
)
UPLOADS = st.builds(
    UploadRequest,
    NAMES,
    st.integers(0, LONGEST_FILE - MAX_UPLOAD_BYTES),
    st.integers(1, MAX_UPLOAD_BYTES),
)
PROBES = st.builds(ProbeRequest, st.integers(1, MAX_PROBE_BYTES))
REQUESTS: st.SearchStrategy[bulk.BulkRequest] = PIECES | UPLOADS | st.builds(ManifestRequest, SWARMS) | PROBES
EXAMPLES = [
    PieceRequest(SWARM, 0, 0, 1, 0),
    PieceRequest(SWARM, U32, U16, U16),
    ManifestRequest(SWARM),
    UploadRequest(NAME, 0, 1),
    UploadRequest(NAME, LONGEST_FILE - MAX_UPLOAD_BYTES, MAX_UPLOAD_BYTES),
    UploadRequest(NAME, LONGEST_FILE - 1, 1),
    ProbeRequest(1),
    ProbeRequest(MAX_PROBE_BYTES),
]


def refused(header: bytes, reason: Reason) -> None:
    with pytest.raises(ProtocolError) as caught:
        bulk.decode(header)
    assert caught.value.reason is reason


def canonical_or_refused(header: bytes) -> None:
    try:
        request = bulk.decode(header)
    except ProtocolError:
        return
    assert request.encode() == header


@given(REQUESTS)
def test_round_trip(request: bulk.BulkRequest) -> None:
    """Every request comes back equal, and its first byte tells how long its header is."""
    header = request.encode()
    assert bulk.decode(header) == request
    assert bulk.header_size(header[0]) == len(header) <= bulk.MAX_HEADER_BYTES


@pytest.mark.parametrize("request_", EXAMPLES, ids=repr)
def test_truncated_and_longer_headers_are_refused(request_: bulk.BulkRequest) -> None:
    header = request_.encode()
    assert bulk.decode(header) == request_
    for cut in range(len(header)):
        refused(header[:cut], Reason.MALFORMED)
    refused(header + b"\0", Reason.MALFORMED)
    refused(header + header, Reason.MALFORMED)


@given(st.binary(max_size=bulk.MAX_HEADER_BYTES))
def test_what_is_read_is_canonical(header: bytes) -> None:
    """Any bytes are refused with a ProtocolError, or are what the request read from them encodes to."""
    canonical_or_refused(header)


@given(REQUESTS, st.data())
def test_changed_headers_are_canonical_or_refused(request: bulk.BulkRequest, data: st.DataObject) -> None:
    """A header with bytes changed is refused with a ProtocolError, or is that of another request."""
    header = bytearray(request.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    canonical_or_refused(bytes(header))


@pytest.mark.parametrize("first", [byte for byte in range(256) if byte not in (1, 2, 3, 4)])
def test_unknown_requests_are_refused(first: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        bulk.header_size(first)
    assert caught.value.reason is Reason.MALFORMED
    for size in (1, 33, 45):
        refused(bytes([first]) + bytes(size - 1), Reason.MALFORMED)


def test_layout() -> None:
    """The bytes themselves, as other implementations must write them."""
    assert PieceRequest(SWARM, 0x01020304, 0x0506, 0x0708, 0x090A0B0C).encode() == (
        b"\x01" + NAME + bytes(range(1, 13))
    )
    assert ManifestRequest(SWARM).encode() == b"\x02" + NAME
    assert UploadRequest(NAME, 0x0102030405, 0x060708).encode() == (
        b"\x03" + NAME + bytes([0, 0, 0, 1, 2, 3, 4, 5, 0, 6, 7, 8])
    )
    assert PieceRequest(SWARM, 0, 0, 1).encode()[-4:] == b"\xff" * 4  # no deadline


@pytest.mark.parametrize(("first", "slack"), [(0, 0), (U16, U32)])
def test_a_request_for_no_leaves_is_refused(first: int, slack: int) -> None:
    refused(struct.pack(">B32sIHHI", 1, NAME, 5, first, 0, slack), Reason.MALFORMED)
    with pytest.raises(LocalError):
        PieceRequest(SWARM, 5, first, 0, slack).encode()


@pytest.mark.parametrize(
    ("offset", "length", "reason"),
    [
        (0, 0, Reason.MALFORMED),
        (LONGEST_FILE, 0, Reason.MALFORMED),
        (0, MAX_UPLOAD_BYTES + 1, Reason.TOO_LARGE),
        (0, U32, Reason.TOO_LARGE),
        (LONGEST_FILE, 1, Reason.TOO_LARGE),
        (LONGEST_FILE - MAX_UPLOAD_BYTES + 1, MAX_UPLOAD_BYTES, Reason.TOO_LARGE),
        (U64, 1, Reason.TOO_LARGE),
        (U64, U32, Reason.TOO_LARGE),
    ],
)
def test_uploads_out_of_bounds_are_neither_read_nor_sent(offset: int, length: int, reason: Reason) -> None:
    refused(struct.pack(">B32sQI", 3, NAME, offset, length), reason)
    with pytest.raises(LocalError):
        UploadRequest(NAME, offset, length).encode()


@pytest.mark.parametrize(
    "request_",
    [
        PieceRequest(InfoHash(NAME[:31]), 0, 0, 1),
        PieceRequest(InfoHash(NAME + b"\0"), 0, 0, 1),
        PieceRequest(SWARM, -1, 0, 1),
        PieceRequest(SWARM, U32 + 1, 0, 1),
        PieceRequest(SWARM, 0, U16 + 1, 1),
        PieceRequest(SWARM, 0, 0, U16 + 1),
        PieceRequest(SWARM, 0, 0, 1, -1),
        PieceRequest(SWARM, 0, 0, 1, U32 + 1),
        ManifestRequest(InfoHash(b"")),
        ManifestRequest(InfoHash(NAME * 2)),
        UploadRequest(b"short", 0, 1),
        UploadRequest(NAME, -1, 1),
    ],
    ids=repr,
)
def test_what_would_be_refused_is_not_sent(request_: bulk.BulkRequest) -> None:
    with pytest.raises(LocalError):
        request_.encode()


@pytest.mark.parametrize("length", [-1, 0, MAX_PROBE_BYTES + 1, U16, U32])
def test_probes_are_short(length: int) -> None:
    with pytest.raises(LocalError):
        ProbeRequest(length).encode()
    if 0 <= length <= U16:
        refused(struct.pack(">BH", 4, length), Reason.TOO_LARGE if length else Reason.MALFORMED)


@given(st.binary(max_size=2 * PROBED_BYTES), st.integers(1, MAX_PROBE_BYTES))
def test_answers_to_probes_are_canonical_or_refused(answer: bytes, length: int) -> None:
    """Any answer is refused with a ProtocolError, or counts no more than was sent and encodes to itself."""
    try:
        probed = bulk.decode_probed(answer, length)
    except ProtocolError:
        return
    assert probed.counted_bytes <= length
    assert probed.encode() == answer


@given(st.integers(0, MAX_PROBE_BYTES), st.integers(0, U32))
def test_answers_to_probes_round_trip(counted: int, microseconds: int) -> None:
    """An answer comes back equal."""
    probed = Probed(counted, microseconds)
    assert bulk.decode_probed(probed.encode(), MAX_PROBE_BYTES) == probed
