from __future__ import annotations

import inspect
from typing import Any

import aioquic
from aioquic import tls
from aioquic._crypto import AEAD, HeaderProtection
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoContext, CryptoPair
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketNumberWindow, QuicPacketRecovery, QuicPacketSpace
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.quic import QuicEngine
from tests.quic_pair import NEAR

PARTS = {
    QuicConnection: """_ack_delay _ack_eliciting_sent_since_receipt _close_at _close_event _close_pending
        _crypto_streams _cryptos _cryptos_initial _events _handshake_confirmed _handshake_done_pending
        _host_cids _is_client _local_initial_source_connection_id
        _local_ack_delay_exponent _local_active_connection_id_limit _local_max_data _local_max_streams_bidi
        _local_max_streams_uni _logger _loss
        _max_datagram_size _network_paths _QuicConnection__frame_handlers
        _pacing_at _packet_number _peer_cid _ping_pending _probe_pending
        _remote_max_data _remote_max_data_used _retire_connection_ids _spaces _spin_bit _spin_highest_pn
        _state _streams _streams_blocked_bidi _streams_blocked_pending _streams_queue tls""",
    QuicPacketRecovery: """_cc _pacer _pto_count _send_probe _rtt_first_sample_time _rtt_initial
        _rtt_initialized _rtt_latest _rtt_min _rtt_smoothed _rtt_variance max_ack_delay
        peer_completed_address_validation
        spaces""",
    QuicPacketSpace: """ack_at ack_eliciting_in_flight ack_queue expected_packet_number largest_acked_packet
        largest_received_packet largest_received_time loss_time received_packets sent_packets""",
    QuicPacketNumberWindow: "_lower _received _size",
    CryptoPair: "recv send _update_key_requested",
    CryptoContext: "aead cipher_suite hp key_phase secret",
    AEAD: "_aead _iv",
    HeaderProtection: "_encryptor",
    QuicStreamSender: """_buffer _buffer_fin _buffer_stop _pending _pending_eof buffer_is_empty highest_offset
        is_finished reset_pending""",
    QuicStreamReceiver: "_ranges highest_offset is_finished stop_pending",
    QuicStream: "is_blocked max_stream_data_local max_stream_data_local_sent max_stream_data_remote",
}
METHODS = {
    "_write_application": "self builder network_path now",
    "_write_ack_frame": "self builder space now",
    "_write_connection_limits": "self builder space",
    "_write_stream_limits": "self builder space stream",
    "_handle_padding_frame": "self context frame_type buf",
    "_write_new_connection_id_frame": "self builder connection_id",
    "_handle_crypto_frame": "self context frame_type buf",
    "_handle_stream_frame": "self context frame_type buf",
    "_payload_received": "self context plain crypto_frame_required",
    "_get_or_create_stream": "self frame_type stream_id",
    "_get_or_create_stream_for_send": "self stream_id",
    "_on_ack_delivery": "self delivery space highest_acked",
    "_initialize": "self peer_cid",
    "_idle_timeout": "self",
    "_send_probing_frames": "self network_path now",
    "receive_datagram": "self data addr now",
    "_replenish_connection_ids": "self",
}
# Lines of aioquic's that the fast path does in its own way, or relies on.
LINES: dict[Any, tuple[str, ...]] = {
    QuicConnection._write_application: (
        "self._loss._pacer.next_send_time(now=now)",
        "in self._streams_queue",
    ),
    QuicConnection._flush_builder: ("self._ack_eliciting_sent_since_receipt = True", "on_packet_sent("),
    QuicConnection.receive_datagram: (
        "packet_number in space.received_packets",
        "self._close_at = now + self._idle_timeout()",
        "space.ack_at = now + self._ack_delay",
        "self._spin_bit = not spin_bit",
    ),
    QuicConnection.datagrams_to_send: ("self._probe_pending or", "max_datagram_size=self._max_datagram_size"),
    QuicConnection._send_probing_frames: ("max_datagram_size=self._max_datagram_size",),
    # The care of keys is ours; these are what it replaces, line by line.
    CryptoPair.decrypt_packet: ('self._update_key("remote_update")',),
    CryptoPair._update_key: ("apply_key_phase(self.recv, next_key_phase(self.recv)",),
    CryptoContext.decrypt_packet: (
        "self.hp.remove(packet, encrypted_offset)",
        "decode_packet_number(",
        "key_phase = (first_byte & 4) >> 2",
    ),
    QuicPacketRecovery.get_loss_detection_time: ("* (2**self._pto_count)",),
    QuicConnection._serialize_transport_parameters: (
        "stateless_reset_token=self._host_cids[0].stateless_reset_token",
        "active_connection_id_limit=self._local_active_connection_id_limit",
    ),
    QuicConnection._write_new_connection_id_frame: ("buf.push_bytes(connection_id.stateless_reset_token)",),
    QuicConnection._parse_transport_parameters: ("self._peer_cid.stateless_reset_token = (",),
    QuicStreamSender.write: ("self._buffer += data",),
    QuicStreamSender.get_frame: ("self._buffer[start - self._buffer_start : stop - self._buffer_start]",),
    QuicStreamSender.on_data_delivery: ("del self._buffer[:size]",),
    QuicPacketRecovery.on_loss_detection_timeout: ("self._detect_loss(", "self.reschedule_data("),
}


def test_the_private_parts_of_aioquic_are_where_we_reach_for_them() -> None:
    """Fails when an upgrade of aioquic moves what shared/quic touches: then compare each part anew."""
    assert aioquic.__version__ == "1.7.2"
    client = QuicEngine(NEAR, is_client=True, idle_timeout_seconds=30)
    client.connect(("127.0.0.1", 1), 0.0)
    stream = client._get_or_create_stream_for_send(0)
    pair = client._cryptos[tls.Epoch.INITIAL]
    space = client._spaces[tls.Epoch.ONE_RTT]
    found = (client, client._loss, space, space.received_packets, stream, stream.sender, stream.receiver)
    whole = (*found, client._loss._cc, pair, pair.send, pair.send.aead, pair.send.hp)
    for owner, names in PARTS.items():
        one = next(part for part in whole if isinstance(part, owner))
        assert [name for name in names.split() if not hasattr(one, name)] == [], owner
    assert pair.send.aead is not None
    assert isinstance(pair.send.aead._aead, AESGCM)
    assert {
        "_request_client_certificate", "_peer_certificate", "_signature_algorithms", "_supported_groups",
        "alpn_cb", "update_traffic_key_cb",
    } <= set(vars(client.tls))  # fmt: skip


def test_the_methods_of_aioquic_take_what_we_expect() -> None:
    for name, parameters in METHODS.items():
        assert list(inspect.signature(getattr(QuicConnection, name)).parameters) == parameters.split(), name
    for method, lines in LINES.items():
        source = inspect.getsource(method)
        assert [line for line in lines if line not in source] == [], method
    fields = list(inspect.signature(QuicSentPacket).parameters)
    assert fields[:6] == [
        "epoch", "in_flight", "is_ack_eliciting", "is_crypto_packet", "packet_number", "packet_type",
    ]  # fmt: skip
