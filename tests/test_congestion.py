"""BBR under aioquic's real connections, joined by a lossy path in virtual time."""

from __future__ import annotations

import heapq
import random
import ssl
from collections.abc import Iterator
from itertools import count

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived

from shared.congestion import ALGORITHM, BbrCongestionControl
from shared.core.bbr_phases import Phase
from shared.identity import Identity

ADDRESSES = (("client", 1), ("server", 2))
ONE_WAY_SECONDS = 0.02


class Path:
    """Two connections, and what is on its way between them."""

    def __init__(self, loss: float) -> None:
        identity = Identity.generate()
        near = QuicConfiguration(
            alpn_protocols=["test"], congestion_control_algorithm=ALGORITHM, verify_mode=ssl.CERT_NONE
        )
        far = QuicConfiguration(
            alpn_protocols=["test"],
            certificate=identity.certificate,
            congestion_control_algorithm=ALGORITHM,
            is_client=False,
            max_data=8 << 20,
            max_stream_data=8 << 20,
            private_key=identity.private_key,
        )
        client = QuicConnection(configuration=near)
        original = client.original_destination_connection_id
        server = QuicConnection(configuration=far, original_destination_connection_id=original)
        self.ends = (client, server)
        self.now = 0.0
        self.received = bytearray()
        self._loss = loss
        self._dice = random.Random(7)
        self._order = count()
        self._flying: list[tuple[float, int, int, bytes]] = []

    def run(self, until: float) -> Iterator[None]:
        """Let time pass; yields after every instant at which something happened."""
        while True:
            self._flush()
            timers = [(at, i) for i, end in enumerate(self.ends) if (at := end.get_timer()) is not None]
            now = min([at for at, _ in timers] + [entry[0] for entry in self._flying[:1]], default=until)
            if now > until:
                self.now = until
                return
            self.now = max(self.now, now)
            for at, i in timers:
                if at <= self.now:
                    self.ends[i].handle_timer(self.now)
            while self._flying and self._flying[0][0] <= self.now:
                _, _, to, payload = heapq.heappop(self._flying)
                self.ends[to].receive_datagram(payload, ADDRESSES[1 - to], self.now)
            self._read()
            yield

    def _flush(self) -> None:
        for i, end in enumerate(self.ends):
            if not end._network_paths:
                continue  # the server, before anybody has written to it
            for payload, _ in end.datagrams_to_send(self.now):
                if self._dice.random() >= self._loss:
                    arrival = (self.now + ONE_WAY_SECONDS, next(self._order), 1 - i, payload)
                    heapq.heappush(self._flying, arrival)

    def _read(self) -> None:
        for end in self.ends:
            while (event := end.next_event()) is not None:
                if isinstance(event, StreamDataReceived):
                    self.received += event.data


@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_a_transfer_over_aioquic(loss: float) -> None:
    """Every packet aioquic sends gets its departure, and the books close when all has arrived."""
    path = Path(loss)
    client = path.ends[0]
    client.connect(ADDRESSES[1], 0.0)
    sent = random.Random(3).randbytes(1 << 20)
    client.send_stream_data(0, sent, end_stream=True)
    for _ in path.run(20.0):
        if len(path.received) == len(sent):
            break
    assert bytes(path.received) == sent
    control = client._loss._cc
    assert isinstance(control, BbrCongestionControl)
    for _ in path.run(path.now + 1.0):
        pass
    believed = control.statistics()
    assert believed.in_flight_bytes == control.bytes_in_flight == client._loss.bytes_in_flight == 0
    assert believed.delivered_bytes > len(sent)
    assert 1.99 * ONE_WAY_SECONDS < believed.min_rtt_seconds < 3 * ONE_WAY_SECONDS
    assert believed.bandwidth > 1e6
    assert (control.lost_datagrams > 0) == (loss > 0)
    assert believed.phase in Phase
