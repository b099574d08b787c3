"""Several processes on one UDP port: the kernel hands each datagram to its connection's process.

Sockets that share a port (SO_REUSEPORT) are a group, and a small filter in the kernel chooses
among them. Ours reads one byte: the first of the connection id that the datagram is for. Ids that
we give out name a *berth* there, the place of one process at the port; otherwise they are random. So a
client that changes its address stays with its process, which the kernel's own choice, a hash of the
addresses, would not do. The ids that clients choose for their first datagrams are random: they
spread over the berths, and all datagrams with one id meet at one process, too.

Berth 0, the lead's, has a single one of the 256 values, because strangers are not meant for it; the others
share the rest. A berth need not have a process of its own: the table says which socket stands for it.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import trio

from shared.core.errors import LocalError
from shared.core.ids import HostPort
from shared.sockets import bind, host_port, prepare

LEAD_BERTH = 0

_SO_ATTACH_REUSEPORT_CBPF = 51  # asm-generic/socket.h; not in the socket module
_LOAD_BYTE, _IS_SET, _IS_EQUAL, _JUMP = 0x30, 0x45, 0x15, 0x05  # linux/bpf_common.h
_SUBTRACT, _MODULO, _RETURN = 0x14, 0x94, 0x06
_LONG_HEADER = 0x80
_QUIC = 0xC0  # bits of a first byte: at least one is set in QUIC packets (RFC 9443)
_SHORT_ID_AT, _LONG_ID_AT = 1, 6


@dataclass(frozen=True, slots=True)
class Berth:
    """A process's place at a port that `berths` share, and the berths of dead processes it answers for."""

    number: int
    berths: int
    others: frozenset[int] = frozenset()

    def mark(self, connection_id: bytes) -> bytes:
        """The random id made one of this berth's; as random as can be."""
        if self.berths == 1:
            return connection_id
        if self.number == LEAD_BERTH:
            return bytes([LEAD_BERTH]) + connection_id[1:]
        shared_by = self.berths - 1
        values = (255 - self.number) // shared_by + 1
        first = self.number + connection_id[0] % values * shared_by
        return bytes([first]) + connection_id[1:]

    def owns(self, connection_id: bytes) -> bool:
        """Whether datagrams for this id belong here."""
        berth = berth_of(connection_id, self.berths)
        return berth == self.number or berth in self.others

    def standing_for(self, other: int) -> Berth:
        """The same place, and what comes for another berth is answered here: nobody is there any more."""
        return replace(self, others=self.others | {other})


ALONE = Berth(LEAD_BERTH, 1)  # the port is one process's


def berth_of(connection_id: bytes, berths: int) -> int:
    """The berth that an id names; the lead's if there is none."""
    first = connection_id[0] if connection_id else LEAD_BERTH
    return LEAD_BERTH if berths == 1 or first == LEAD_BERTH else 1 + (first - 1) % (berths - 1)


def steer(group: socket.socket, sockets: Sequence[int]) -> None:
    """From now on datagrams for berth b go to the group's socket number `sockets[b]`, in order of binding.

    `group` is any socket of the group. Raises LocalError where the kernel cannot.
    """
    try:
        _attach(group, _program(sockets))
    except OSError as error:
        raise LocalError(
            f"this system cannot share a UDP port among processes ({error.strerror}); set workers to 1"
        ) from error


def _attach(group: socket.socket, program: bytes) -> None:
    memory = ctypes.create_string_buffer(program, len(program))
    option = struct.pack("@HP", len(program) // 8, ctypes.addressof(memory))
    group.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, option)


def bind_beside(sock: socket.socket) -> socket.socket:
    """A second socket on the port of a bound one, for datagrams that cannot be QUIC: sealed ones.

    The first was bound alone, so a port that another program has is still found to be taken. Raises OSError.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    beside = socket.socket(sock.family, socket.SOCK_DGRAM)
    try:
        prepare(beside)
        beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        beside.bind(sock.getsockname())
        steps = _step(_LOAD_BYTE, 0), _step(_IS_SET, _QUIC, 0, 1), _step(_RETURN, 0), _step(_RETURN, 1)
        _attach(sock, b"".join(steps))
    except BaseException:
        beside.close()
        raise
    return beside


def _program(sockets: Sequence[int]) -> bytes:
    """Classic BPF over the datagram; one that is too short is for socket 0, by the kernel's rule."""
    lead, *others = sockets
    steps = [
        _step(_LOAD_BYTE, 0),
        _step(_IS_SET, _LONG_HEADER, 0, 2),
        _step(_LOAD_BYTE, _LONG_ID_AT),
        _step(_JUMP, 1),
        _step(_LOAD_BYTE, _SHORT_ID_AT),
        _step(_IS_EQUAL, LEAD_BERTH, 0, 1),
        _step(_RETURN, lead),
        _step(_SUBTRACT, 1),
        _step(_MODULO, len(others)),
    ]
    for number, target in enumerate(others):
        steps += [_step(_IS_EQUAL, number, 0, 1), _step(_RETURN, target)]
    return b"".join([*steps, _step(_RETURN, lead)])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


async def bind_group(at: HostPort, setting: str, berths: int) -> list[socket.socket]:
    """A socket for each berth, all on one port, each berth's datagrams steered to its own.

    Raises LocalError naming the address and `setting`, or where the kernel cannot.
    """
    sockets: list[socket.socket] = []
    try:
        for _ in range(berths):
            sockets.append(await bind(at, setting, share_port=True))
            at = HostPort(at.host, host_port(sockets[0].getsockname()).port)
        await trio.lowlevel.checkpoint()
        steer(sockets[0], range(berths))
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
