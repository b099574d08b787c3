"""Many datagrams in one system call, each way: recvmmsg and sendmmsg of Linux.

A tracker's answers are small, so the system call, not the copying, is what costs. Python's socket
module takes one datagram a call; the C library takes a thousand. The structures that the kernel
reads are laid out once, as numpy arrays, so that a batch is filled in without a loop.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.core.errors import LocalError

BATCH = 512  # datagrams a call; more would stay too long away from other tasks
RECEIVE_BYTES = 1536  # of a datagram; longer ones are marked as cut
SEND_BYTES = 640  # of an answer, unless told
MAPPED = np.frombuffer(b"\0" * 10 + b"\xff\xff", np.uint8)  # ::ffff:0:0/96, IPv4 on an IPv6 socket

# struct mmsghdr and struct iovec of <bits/types/struct_iovec.h> and <bits/socket.h>, 64 bit
_MESSAGE = np.dtype(
    [
        ("name", "u8"), ("name_bytes", "u4"), ("_1", "u4"), ("parts", "u8"), ("part_count", "u8"),
        ("control", "u8"), ("control_bytes", "u8"), ("flags", "u4"), ("_2", "u4"),
        ("bytes", "u4"), ("_3", "u4"),
    ]
)  # fmt: skip
_PART = np.dtype([("at", "u8"), ("bytes", "u8")])
_NAME_BYTES = 28  # of the longest socket address, sockaddr_in6
_MSG_DONTWAIT, _MSG_TRUNC = 0x40, 0x20

Bytes = NDArray[np.uint8]


class BatchSocket:
    """A non-blocking UDP socket whose datagrams come and go in rows of `received` and `answers`.

    `received` is (BATCH, RECEIVE_BYTES), `sizes` (BATCH,), `addresses` (BATCH, 16) with IPv4 mapped
    into IPv6; valid from `receive` to the next one. An answer goes back to the sender of its row.
    """

    def __init__(self, sock: socket.socket, send_bytes: int = SEND_BYTES) -> None:
        """Takes over a bound socket. Raises LocalError where the system has no such calls."""
        self.raw = sock
        self._libc = _libc()
        self.received: Bytes = np.zeros((BATCH, RECEIVE_BYTES), np.uint8)
        self.answers: Bytes = np.zeros((BATCH, send_bytes), np.uint8)
        self._names: Bytes = np.zeros((BATCH, _NAME_BYTES), np.uint8)
        self._in = _Messages(self.received, self._names)
        self._out = _Messages(self.answers, self._names)
        self._is_v6 = sock.family == socket.AF_INET6
        self._mapped: Bytes = np.zeros((BATCH, 16), np.uint8)
        self._mapped[:, :12] = MAPPED
        self._answers_at = self._out.part_at.copy()
        self._count = BATCH  # rows that the kernel has written to
        self.unsent = 0  # answers that the system did not take

    def sizes(self) -> NDArray[np.uint32]:
        """Bytes of each datagram of the batch; those that were cut count as 0."""
        sizes, flags = self._in.bytes[: self._count], self._in.flags[: self._count]
        return np.where(flags & _MSG_TRUNC, 0, sizes) if flags.any() else sizes

    def addresses(self) -> Bytes:
        """Each sender's address."""
        if self._is_v6:
            return self._names[: self._count, 8:24]
        self._mapped[: self._count, 12:] = self._names[: self._count, 4:8]
        return self._mapped[: self._count]

    def receive(self) -> int:
        """How many datagrams came, at most BATCH; 0 if none wait."""
        self._in.name_bytes[: self._count] = _NAME_BYTES
        count = self._libc.recvmmsg(self.raw.fileno(), self._in.at, BATCH, _MSG_DONTWAIT, None)
        self._count = max(0, count)
        if count >= 0:
            return self._count
        code = ctypes.get_errno()
        if code in (errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED):  # the last: an answer bounced
            return 0
        raise OSError(code, os.strerror(code))

    def send(self, lengths: NDArray[Any]) -> None:
        """Sends the first `len(lengths)` rows of `answers`, each so long; 0 sends nothing.

        What the system does not take at once is dropped and counted: whoever asked asks again.
        """
        rows: Any = slice(0, len(lengths))
        if not lengths.all():
            rows = np.flatnonzero(lengths)
            lengths = lengths[rows]
        count, out = len(lengths), self._out
        out.name[:count] = self._in.name[rows]
        out.name_bytes[:count] = self._in.name_bytes[rows]
        out.part_at[:count] = self._answers_at[rows]
        out.part_bytes[:count] = lengths
        done = 0
        while done < count:
            sent = self._libc.sendmmsg(
                self.raw.fileno(), out.at + done * _MESSAGE.itemsize, count - done, _MSG_DONTWAIT
            )
            if sent > 0:
                done += sent
                continue
            if ctypes.get_errno() == errno.EAGAIN:
                self.unsent += count - done
                return
            self.unsent += 1  # no way to this one
            done += 1


class _Messages:
    """BATCH structures for the kernel, one for each row of `rows` and the address in `names`."""

    def __init__(self, rows: Bytes, names: Bytes) -> None:
        self._all, self._parts = np.zeros(BATCH, _MESSAGE), np.zeros(BATCH, _PART)
        self.at = self._all.ctypes.data
        self.name, self.name_bytes = self._all["name"], self._all["name_bytes"]
        self.bytes, self.flags = self._all["bytes"], self._all["flags"]
        self.part_at, self.part_bytes = self._parts["at"], self._parts["bytes"]
        count = np.arange(BATCH)
        self.part_at[:] = rows.ctypes.data + count * rows.shape[1]
        self.part_bytes[:] = rows.shape[1]
        self.name[:] = names.ctypes.data + count * _NAME_BYTES
        self._all["parts"] = self._parts.ctypes.data + count * _PART.itemsize
        self._all["part_count"] = 1


def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    if ctypes.sizeof(ctypes.c_void_p) != 8 or not hasattr(libc, "recvmmsg"):
        raise LocalError("tracker.bittorrent and sealed datagrams need 64-bit Linux; leave them out here")
    libc.recvmmsg.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p,
    ]  # fmt: skip
    libc.sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
    return libc
