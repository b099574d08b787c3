"""The press: writes, seals and masks a group of packets in one piece of memory.

All packets of a group have the same length, so everything that is per packet and regular can be
done for the whole group at once: header bytes with strided slices, header protection with one call
of AES over all samples, and the send with one system call, straight from the memory in which
AES-GCM left its output. What is left per packet is a nonce, a frame header and the encryption.

    wire    | first id(8) number(2) | sealed: frame header, data, tag | first id number | ...
    plain   | frame header | data of packet 0 | data of packet 1 | ...

The data of a group is copied once, in a row. Packet i is read from it together with the bytes just
before its data, where its frame header is written when its turn comes; the end of packet i-1's
data, which lies there, is on the wire by then.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from sys import byteorder
from typing import Any

from cryptography.hazmat.primitives.ciphers import CipherContext

from shared.quic.rope import Rope
from shared.quic_settings import CONNECTION_ID_BYTES

NUMBER_BYTES = 2  # as aioquic writes packet numbers
HEADER_BYTES = 1 + CONNECTION_ID_BYTES + NUMBER_BYTES
TAG_BYTES = 16
SAMPLE_AT = 1 + CONNECTION_ID_BYTES + 4  # RFC 9001 section 5.4.2: as if the number took four bytes
SAMPLE_BYTES = 16
GROUP_DATAGRAMS = 44  # per system call
GROUP_BYTES = 65000  # below what one UDP send takes

_STREAM, _OFFSET_FLAG, _FIN_FLAG = 0x08, 0x04, 0x01
_SHORT_OFFSETS = 1 << 30  # below it an offset takes four bytes


@dataclass(frozen=True, slots=True)
class Seal:
    """What one direction of a connection seals packets with."""

    encrypt_into: Any  # of AESGCM
    iv: int
    mask: CipherContext
    connection_id: bytes
    first_byte: int


class Press:
    """Memory and layout for groups of packets of one length; made once, used by many connections."""

    def __init__(self, packet_bytes: int) -> None:
        self.packet_bytes = packet_bytes
        self.datagrams = min(GROUP_DATAGRAMS, GROUP_BYTES // packet_bytes)
        self._plain_bytes = packet_bytes - HEADER_BYTES - TAG_BYTES
        self._wire = bytearray(packet_bytes * self.datagrams)
        self._plain = bytearray(packet_bytes * self.datagrams)
        self._wire_view, self._plain_view = memoryview(self._wire), memoryview(self._plain)
        starts, wire = range(0, len(self._wire), packet_bytes), self._wire_view
        self._headers = [wire[at : at + HEADER_BYTES] for at in starts]
        self._sealed = [wire[at + HEADER_BYTES : at + packet_bytes] for at in starts]
        self._samples = [wire[at + SAMPLE_AT : at + SAMPLE_AT + SAMPLE_BYTES] for at in starts]
        self._plains: dict[int, list[memoryview]] = {}  # by stream bytes per packet

    def chunk_bytes(self, stream_id: int, start: int) -> int:
        """Stream bytes per packet of a group that starts at offset `start` of a stream."""
        return self._plain_bytes - 1 - varint_bytes(stream_id) - _offset_bytes(start)

    def print(
        self, seal: Seal, number: int, rope: Rope, stream_id: int, start: int, stop: int, fin: bool
    ) -> memoryview:
        """The datagrams with a stream's bytes from `start` to `stop`, numbered from `number` on.

        At most `datagrams`, whose numbers have all but the last 16 bits in common. All are
        `packet_bytes` long but the last, which may be shorter. Valid until the next call.
        """
        chunk = self.chunk_bytes(stream_id, start)
        header_bytes = self._plain_bytes - chunk
        data_bytes = stop - start
        rope.copy_into(self._plain_view[header_bytes : header_bytes + data_bytes], start)
        full, tail = divmod(data_bytes, chunk)
        count = full + (tail > 0)
        self._write_headers(seal, number, count)
        kind = bytes([_STREAM | _OFFSET_FLAG]) + varint(stream_id)
        offset_flag = _SHORT_OFFSETS << 1 if _offset_bytes(start) == 4 else 3 << 62
        pack = _frame_header(len(kind), _offset_bytes(start)).pack_into
        last = count - 1
        plains, offset, at = self._plain_slots(chunk), start | offset_flag, 0
        plain, encrypt_into, iv = self._plain, seal.encrypt_into, seal.iv
        for slot, header, sealed in zip(
            plains[:last], self._headers[:last], self._sealed[:last], strict=True
        ):
            pack(plain, at, kind, offset)
            encrypt_into((iv ^ number).to_bytes(12, "big"), slot, header, sealed)
            number += 1
            at += chunk
            offset += chunk
        if fin:
            kind = bytes([kind[0] | _FIN_FLAG]) + kind[1:]
        pack(plain, at, kind, offset)
        size = header_bytes + (tail or chunk)
        encrypt_into(
            (iv ^ number).to_bytes(12, "big"),
            plains[last][:size],
            self._headers[last],
            self._sealed[last][: size + TAG_BYTES],
        )
        self._mask_headers(seal, count)
        return self._wire_view[: last * self.packet_bytes + HEADER_BYTES + size + TAG_BYTES]

    def print_one(self, seal: Seal, number: int, payload: bytes) -> memoryview:
        """One datagram with these frames, padded to what header protection samples. Valid as above."""
        payload = payload.ljust(4 - NUMBER_BYTES, b"\0")
        end = HEADER_BYTES + len(payload) + TAG_BYTES
        self._write_headers(seal, number, 1)
        nonce = (seal.iv ^ number).to_bytes(12, "big")
        seal.encrypt_into(nonce, payload, self._headers[0], self._wire_view[HEADER_BYTES:end])
        self._mask_headers(seal, 1)
        return self._wire_view[:end]

    def _plain_slots(self, chunk: int) -> list[memoryview]:
        slots = self._plains.get(chunk)
        if slots is None:
            view, size = self._plain_view, self._plain_bytes
            slots = [view[at : at + size] for at in range(0, chunk * self.datagrams, chunk)]
            self._plains[chunk] = slots
        return slots

    def _write_headers(self, seal: Seal, number: int, count: int) -> None:
        """Unmasked headers for `count` packets, one byte position of all of them at a time."""
        wire, step = self._wire, self.packet_bytes
        end = (count - 1) * step + HEADER_BYTES
        if count == 1:
            wire[:end] = bytes([seal.first_byte]) + seal.connection_id + (number & 0xFFFF).to_bytes(2, "big")
            return
        for at, byte in enumerate(bytes([seal.first_byte]) + seal.connection_id):
            wire[at:end:step] = bytes([byte]) * count
        low = number & 0xFFFF
        numbers = array("H", range(low, low + count))
        if byteorder == "little":
            numbers.byteswap()
        packed = numbers.tobytes()
        wire[HEADER_BYTES - 2 : end : step] = packed[0::2]
        wire[HEADER_BYTES - 1 : end : step] = packed[1::2]

    def _mask_headers(self, seal: Seal, count: int) -> None:
        """Header protection (RFC 9001 section 5.4) for `count` packets with one call of AES."""
        wire, step = self._wire, self.packet_bytes
        end = (count - 1) * step + HEADER_BYTES
        masks = seal.mask.update(b"".join(self._samples[:count]))
        wire[0:end:step] = masks[0::16].translate(_xor_low_bits(seal.first_byte))
        for at, mask in ((HEADER_BYTES - 2, masks[1::16]), (HEADER_BYTES - 1, masks[2::16])):
            wire[at:end:step] = xor(wire[at:end:step], mask)


def xor(left: bytes | bytearray, right: bytes) -> bytes:
    """Byte for byte, of two of the same length."""
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(right), "big")


@lru_cache(maxsize=256)
def _xor_low_bits(first_byte: int) -> bytes:
    """What each mask byte makes of the first byte of a short header: its low five bits are masked."""
    return bytes(first_byte ^ (mask & 0x1F) for mask in range(256))


@lru_cache(maxsize=16)
def _frame_header(kind_bytes: int, offset_bytes: int) -> Struct:
    return Struct(f">{kind_bytes}s{'I' if offset_bytes == 4 else 'Q'}")


def _offset_bytes(start: int) -> int:
    return 4 if start + GROUP_BYTES < _SHORT_OFFSETS else 8


def varint_bytes(number: int) -> int:
    """How long a number is on the wire (RFC 9000 section 16)."""
    return 1 if number < 1 << 6 else 2 if number < 1 << 14 else 4 if number < 1 << 30 else 8


def varint(number: int) -> bytes:
    """A number on the wire (RFC 9000 section 16)."""
    size = varint_bytes(number)
    return (number | (size.bit_length() - 1) << (8 * size - 2)).to_bytes(size, "big")
