"""OpenSSL in memory at both ends of a bridged handshake."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from mitml4.dataclass import dataclass, replace
from mitml4.tls.bridge.flight import ClientFinished, Flight, Shown
from mitml4.tls.bridge.leg import PeerAlert
from mitml4.tls.bridge.legs import Legs

_MAX_BYTES = 1 << 18
_NAME = "bridge.example"


@lru_cache
def certificate(kind: str = "ec-p256") -> tuple[x509.Certificate, Any]:
    """A self-signed certificate with a key of this kind."""
    key: Any
    match kind:
        case "rsa":
            key = rsa.generate_private_key(65537, 2048)
        case "ed25519":
            key = ed25519.Ed25519PrivateKey.generate()
        case "ed448":
            key = ed448.Ed448PrivateKey.generate()
        case "ec-p384":
            key = ec.generate_private_key(ec.SECP384R1())
        case "ec-p521":
            key = ec.generate_private_key(ec.SECP521R1())
        case _:
            key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    now = datetime.now(UTC)
    own_hash = None if kind.startswith("ed") else hashes.SHA256()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, own_hash)
    )
    return made, key


def shown(kind: str = "ec-p256") -> Shown:
    """What the client is shown."""
    made, key = certificate(kind)
    return Shown(chain=(made.public_bytes(Encoding.DER),), key=key)


def server_context(kind: str = "ec-p256") -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    made, key = certificate(kind)
    context.use_certificate(made)
    context.use_privatekey(key)
    return context


def client_context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    return context


@dataclass(slots=True)
class Flow:
    """A client and a server of OpenSSL's, and the handshake between them."""

    client: SSL.Connection
    server: SSL.Connection
    bridged: Legs
    flight: Flight | None = None
    has_client_certificate: bool = False
    alerts: list[tuple[str, int]] | None = None

    @classmethod
    def of(
        cls,
        client: SSL.Context,
        server: SSL.Context,
        prepare: Callable[[SSL.Connection], None] = lambda _: None,
        **options: Any,
    ) -> Flow:
        """The client has sent its hello."""
        client_end, server_end = SSL.Connection(client, None), SSL.Connection(server, None)
        client_end.set_connect_state()
        server_end.set_accept_state()
        prepare(client_end)
        step(client_end)
        return cls(client_end, server_end, Legs(taken(client_end), **options), alerts=[])

    def run(
        self, kind: str = "ec-p256", *, piece_bytes: int = _MAX_BYTES, asks: bool = False
    ) -> Flow:
        """To the end of the handshakes, or until nothing moves any more. The legs get what is sent
        to them in pieces of this size."""
        bridged, moved = self.bridged, True
        while moved:
            moved = False
            if data := bridged.server.to_send():
                moved = True
                self.server.bio_write(data)
            step(self.server)
            if data := taken(self.server):
                moved = True
                for at in range(0, len(data), piece_bytes):
                    bridged.server.receive(data[at : at + piece_bytes])
                    while event := bridged.server_event():
                        if isinstance(event, Flight):
                            self.flight = event
                            leaf = replace(shown(kind), asks=asks)
                            bridged.show(None if event.ticket else leaf)
                        elif isinstance(event, PeerAlert):
                            self.alerts.append(("server", event.alert))
                            return self
            if data := bridged.client.to_send():
                moved = True
                self.client.bio_write(data)
            step(self.client)
            if data := taken(self.client):
                moved = True
                for at in range(0, len(data), piece_bytes):
                    bridged.client.receive(data[at : at + piece_bytes])
                    while said := bridged.client_event():
                        if isinstance(said, PeerAlert):
                            self.alerts.append(("client", said.alert))
                            return self
                        assert isinstance(said, ClientFinished)
                        self.has_client_certificate = said.has_certificate
        return self


def step(connection: SSL.Connection) -> None:
    """Do as much of the handshake as can be done."""
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return


def taken(connection: SSL.Connection) -> bytes:
    """What this end has to send."""
    try:
        return connection.bio_read(_MAX_BYTES)
    except SSL.WantReadError:
        return b""
