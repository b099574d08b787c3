"""The search for the largest datagram, as `shared.core.path_mtu` decides it: probes, and their outcome.

A probe is sent only by a connection that has bulk data, since nobody else gains by it. It is
charged to window, pace and turn like any other packet, but its loss says nothing about
congestion (RFC 9000 section 14.4): `Recovery` tells congestion control that it has expired.
"""

from __future__ import annotations

from typing import Any

from aioquic.quic.connection import QuicNetworkPath
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState

from shared.congestion import BbrCongestionControl
from shared.core.path_mtu import LEAST_BYTES, PathMtu
from shared.quic.path_probe import PathProbe
from shared.quic.press import HEADER_BYTES, TAG_BYTES
from shared.quic.sending import BatchSender, Out


class PathSearch(BatchSender):
    """Finds the size of datagrams, and keeps everything that counts in datagrams to it."""

    _path_mtu: PathMtu
    _searched: Any = None  # the address of the path that `_path_mtu` knows

    def limit_datagrams(self, most_bytes: int) -> None:
        """Send no datagrams above `most_bytes` of UDP payload, from the next one on."""
        self._path_mtu.limit(most_bytes)

    def note_refused(self, datagram_bytes: int) -> None:
        """The system would not send a datagram for its size."""
        self._path_mtu.refused(datagram_bytes)

    def _fit_datagrams(self) -> None:
        """Take over the size that is known now; a new path starts anew."""
        address = self._network_paths[0].addr
        if address != self._searched:
            if self._searched is not None:
                self._path_mtu.moved()
            self._searched = address
        size = self._path_mtu.size
        if size != self._max_datagram_size:
            self._max_datagram_size = size
            self._pacer.set_datagram_bytes(size)
            control = self._recovery._cc
            assert isinstance(control, BbrCongestionControl)  # `quic_settings` chooses it
            control.set_datagram_bytes(size)

    def _search_path(self, now: float, out: Out) -> bool:
        """Send a probe if one is due and nothing holds it back; whether it went."""
        size = self._path_mtu.probe_bytes(now)
        if size is None or self._one_rtt._update_key_requested or self._room(now) < 1:
            return False
        if self._loss.congestion_window - self._loss.bytes_in_flight < size:
            return False
        if not any(map(self._batchable, self._streams_queue)):
            return False
        payload = bytes([QuicFrameType.PING]).ljust(size - HEADER_BYTES - TAG_BYTES, b"\0")
        printed = self._print(payload)
        probe = PathProbe(self._packet_number, size, now, self._on_probe_delivery)
        self._packet_number += 1
        self._note_batch(probe, now)
        self._path_mtu.probe_sent(size)
        out(printed, size, self._network_paths[0].addr)
        return True

    def _on_probe_delivery(self, delivery: QuicDeliveryState, size: int) -> None:
        if delivery is QuicDeliveryState.ACKED:
            self._path_mtu.probe_acked(size)
        else:
            self._path_mtu.probe_lost(size)

    def _send_probing_frames(self, network_path: QuicNetworkPath, now: float) -> list[tuple[bytes, Any]]:
        # To a path that is still to be validated, datagrams as every path must carry them.
        size, self._max_datagram_size = self._max_datagram_size, LEAST_BYTES
        try:
            return super()._send_probing_frames(network_path, now)
        finally:
            self._max_datagram_size = size
