"""Handshakes at less cost than aioquic's usual way, and nothing else different about them.

aioquic offers and parses what any peer might use. Nodes use one kind of key (Ed25519) and one key
exchange (X25519), and four connection ids are plenty for a viewer who changes networks: what is not
offered need not be made, sent, parsed and kept, on either side.
"""

from __future__ import annotations

from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicConnection, QuicReceiveContext
from aioquic.tls import Group, SignatureAlgorithm

CONNECTION_IDS = 3  # of the peer's, held at a time: the one in use, and one per change of address


class QuickHandshake(QuicConnection):
    """aioquic's connection, asking for what nodes have."""

    def _initialize(self, peer_cid: bytes) -> None:
        self._local_active_connection_id_limit = CONNECTION_IDS
        super()._initialize(peer_cid)
        self.tls._signature_algorithms = [SignatureAlgorithm.ED25519]
        if self._is_client:
            # aioquic makes a key for each of four groups; this one is quickest, and everybody has it.
            self.tls._supported_groups = [Group.X25519]
        else:
            self.tls._request_client_certificate = True

    def _handle_padding_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        # A client's first datagram has a thousand of them; aioquic looks at each.
        rest = buf.data_slice(buf.tell(), buf.capacity)
        buf.seek(buf.capacity - len(rest.lstrip(b"\0")))
