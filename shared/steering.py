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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import trio

from shared.core.errors import LocalError
from shared.core.ids import HostPort
from shared.sockets import bind, host_port, prepare

LEAD_BERTH = 0

_SO_ATTACH_REUSEPORT_CBPF = 51  # asm-generic/socket.h; not in the socket module
_LOAD_BYTE, _IS_SET, _IS_EQUAL, _JUMP = 0x30, 0x45, 0x15, 0x05  # linux/bpf_common.h
_SUBTRACT, _MODULO, _RETURN, _RETURN_FOUND = 0x14, 0x94, 0x06, 0x16
_LOAD_LENGTH, _IS_GREATER = 0x80, 0x25
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
    _attach_or_refuse(group, _program(sockets))


def steer_by_byte(group: socket.socket, at: int, sockets: int) -> None:
    """From now on datagrams go to the socket that their byte `at`, modulo `sockets`, numbers.

    Those that end just before it go by their last byte, shorter ones to the first socket. Raises LocalError.
    """
    steps = [
        _step(_LOAD_LENGTH, 0),
        _step(_IS_GREATER, at, 0, 2),
        _step(_LOAD_BYTE, at),
        _step(_JUMP, 1),
        _step(_LOAD_BYTE, at - 1),
        _step(_MODULO, sockets),
        _step(_RETURN_FOUND, 0),
    ]
    _attach_or_refuse(group, b"".join(steps))


def _attach_or_refuse(group: socket.socket, program: bytes) -> None:
    try:
        _attach(group, program)
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
    return await _bind_all(at, setting, berths, lambda group: steer(group, range(berths)))


async def bind_group_by_byte(at: HostPort, setting: str, byte: int, count: int) -> list[socket.socket]:
    """So many sockets on one port, and datagrams go to them by one byte: see `steer_by_byte`.

    A port that another program has is found to be taken. Raises LocalError as `bind_group`.
    """
    with await bind(at, setting) as alone:
        at = HostPort(at.host, host_port(alone.getsockname()).port)
    return await _bind_all(at, setting, count, lambda group: steer_by_byte(group, byte, count))


async def _bind_all(
    at: HostPort, setting: str, count: int, attach: Callable[[socket.socket], None]
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(await bind(at, setting, share_port=True))
            at = HostPort(at.host, host_port(sockets[0].getsockname()).port)
        await trio.lowlevel.checkpoint()
        attach(sockets[0])
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
