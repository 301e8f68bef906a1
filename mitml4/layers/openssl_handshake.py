"""Both TLS handshakes of one flow by OpenSSL: first with the server, with the client's offer; then
with the client.

The server's answer decides what the client gets: version, cipher, ALPN, and a leaf with the same
names and defects (`layers/certificate.py`). The details name what is different in our ClientHello.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from OpenSSL import SSL

from mitml4.dataclass import replace
from mitml4.layers.client_handshake import ClientHandshake
from mitml4.layers.handshake import GivenUp, Handshake, Intercepted
from mitml4.net.stream import StreamTruncated
from mitml4.protocols.tls.differences import differences, lacks
from mitml4.tls.context import Outcome, has_extended_master_secret
from mitml4.tls.failure import TlsFailure
from mitml4.tls.forge import Leaf
from mitml4.tls.offer import prepare
from mitml4.tls.stream import TlsStream, tls_over

__all__ = ["OpenSslHandshake"]

_VERSIONS: Final = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_ALERTS_FOR_AN_OFFER: Final = (40, 47, 70, 71)
"""RFC 8446 §6.2: handshake_failure, illegal_parameter, protocol_version, insufficient_security:
a server may send these because our offer lacks something that the client's has."""


class OpenSslHandshake(Handshake):
    """Both handshakes of one flow by OpenSSL."""

    async def run(self, reason: str) -> Intercepted | GivenUp:
        """`reason`: why the bridge does not do it. Raises HandshakeError, OSError."""
        self._reason = reason
        server_side = await self._connect()
        if isinstance(server_side, GivenUp):
            return server_side
        presented = server_side.presented()
        verification = await self.verify(presented, server_side)
        if isinstance(verification, GivenUp):
            return verification
        asked = server_side.alerts.asked_for_certificate
        if asked and (given_up := await self.wait_request_verdict(server_side)):
            return given_up
        leaf = await self.make_leaf(presented, verification, self._version)
        client_side = await self._accept(server_side, leaf)
        return self.intercepted(client_side, server_side)

    async def _connect(self) -> TlsStream | GivenUp:
        """The handshake with the server, with the client's offer."""
        mirrored = self.tools.contexts.server_side(self.hello)
        unlike = differences(self.hello, mirrored.hello)
        self.details = replace(
            self.details,
            server_hello=(f"by OpenSSL: {self._reason}", *unlike) if unlike else "exact",
        )
        stream = tls_over(self.bridge.server_side, mirrored.context, framing=self.framing())
        stream.alerts.usual = mirrored.usual
        if self.tools.contexts.client_identity:
            stream.alerts.without_certificate = self.tools.contexts.plain()
        prepare(stream.connection, self.hello)
        try:
            given_up = await self.meet_server(partial(self._shake_hands, stream))
        except TlsFailure as failure:
            lacking = failure.alert in _ALERTS_FOR_AN_OFFER and lacks(self.hello, mirrored.hello)
            asked = stream.alerts.asked_for_certificate
            if not asked and (failure.alert is None or lacking):
                if given_up := await self.give_up(failure.reason):
                    return given_up
                self.visit.needs(failure.reason)
            await self.pass_on_failure(failure)
        if given_up:
            return given_up
        self._describe(stream.connection)
        return stream

    async def _shake_hands(self, stream: TlsStream) -> GivenUp | None:
        """Do the handshake with the server.

        The client has not been answered yet. So if the server asks for a client certificate, the
        flow can be passed through at once. The server may also ask, and then end the handshake.

        A client that has ended may still read the server's answer. The server has the client's end,
        so our Finished cannot be sent; what the client is shown has been verified before that.
        """
        try:
            await stream.handshake()
        except (StreamTruncated, OSError) as error:
            has_ended = isinstance(error, BrokenPipeError) and self.bridge.up.ended
            if has_ended and stream.connection.get_peer_certificate():
                return None
            if has_ended:  # the server wants another hello
                self.report("client", "reset", "closed by the client before our certificate")
                await self.end_client()
            if not stream.alerts.asked_for_certificate:
                raise
            if given_up := await self.leave_request_to_client(None):
                return given_up
            raise
        if stream.alerts.asked_for_certificate and not self.answers_request:
            return await self.leave_request_to_client(stream)
        return None

    def _describe(self, connection: SSL.Connection) -> None:
        group = connection.get_group_name()
        self.details = replace(
            self.details,
            alpn=connection.get_alpn_proto_negotiated() or None,
            version=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name(),
            group=group,
            resumed=False,
            handshake_s=self.elapsed_s,
        )

    @property
    def _version(self) -> int:
        """The version that the server chose."""
        return _VERSIONS[self.details.version or "TLSv1.3"]

    async def _accept(self, server_side: TlsStream, leaf: Leaf) -> TlsStream:
        """The handshake with the client, pinned to what the server chose."""
        outcome = Outcome(
            version=self._version,
            cipher=self.details.cipher or "",
            alpn=self.details.alpn or b"",
            extended_master_secret=has_extended_master_secret(server_side.connection),
        )
        below = self.bridge.client_side
        context = self.tools.contexts.client_side(leaf, outcome)
        stream = tls_over(below, context, server_side=True, framing=self.framing())
        stream.alerts.staple = leaf.staple

        async def shake_hands() -> bool:
            await stream.handshake()
            return True

        async def end_server(_alert: int | None, is_reset: bool) -> None:
            server_side.abort() if is_reset else server_side.close()

        handshake = ClientHandshake(
            client_side=below,
            server_side=server_side,
            end_server=end_server,
            visit=self.visit,
            error=partial(self.error, "client"),
        )
        await handshake.run(shake_hands)
        handshake.watch_opening(stream)
        return stream
