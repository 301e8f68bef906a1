"""A server can show a certificate of any size: what is kept of it is bounded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from mitml4.layers.certificate import verified_details
from mitml4.protocols.tls.certificate import CertificateDetails
from mitml4.tls.bridge.tickets import Ticket, Tickets
from mitml4.tls.stream import tls_over

from .conftest import End

KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(names: int) -> x509.Certificate:
    """Self-signed, with so many names of 200 bytes."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.test")])
    label = "a" * 62 + "."
    san = [x509.DNSName(f"{number:05}.{3 * label}a.test") for number in range(names)]
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(san), critical=False)
        .sign(KEY, hashes.SHA256())
    )


@pytest.mark.parametrize(("names", "is_kept"), [(1, True), (150, False)])
def test_details_are_kept_up_to_a_size(names: int, is_kept: bool) -> None:
    leaf = certificate(names).public_bytes(Encoding.DER)
    first, second = (verified_details(leaf, "ok") for _ in range(2))
    assert first == second
    assert (first is second) == is_kept


@pytest.mark.parametrize(("names", "is_kept"), [(1, True), (150, False)])
def test_tickets_keep_details_up_to_a_size(
    flow_lab, monkeypatch: pytest.MonkeyPatch, names: int, is_kept: bool
) -> None:
    issued: list[object] = []

    def keep(_: Tickets, __: bytes, ticket: Ticket, ___: int = 0) -> bool:
        issued.append(ticket.seen)
        return True

    monkeypatch.setattr(Tickets, "keep", keep)
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(certificate(names))
    context.use_privatekey(KEY)

    async def client(end: End) -> None:
        end.stream = tls_over(end.stream, SSL.Context(SSL.TLS_METHOD))
        await end.stream.handshake()
        await end.expect(b"hello")
        await end.send_eof()
        await end.expect_eof()

    async def server(end: End) -> None:
        end.stream = tls_over(end.stream, context, server_side=True)
        await end.stream.handshake()
        await end.send(b"hello")
        await end.expect_eof()
        await end.send_eof()

    flow_lab.run(client, server).check()
    assert issued
    assert {isinstance(seen, CertificateDetails) for seen in issued} == {is_kept}
