"""OpenSSL's contexts for clients."""

from __future__ import annotations

import ssl
from contextlib import suppress

import trio
from OpenSSL import SSL

from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.context import Contexts, Outcome
from mitml4.tls.forge import Forge
from mitml4.tls.keys import KeyType

DHE = "DHE-RSA-AES128-GCM-SHA256"


def test_a_client_of_finite_fields_gets_its_cipher() -> None:
    """One that names no group for it: OpenSSL needs parameters then."""
    forge = Forge(CertificateAuthority.generate())
    leaf = trio.run(
        lambda: forge.leaf(None, issuer=frozenset({0}), key_type=KeyType.RSA_2048, name="a.test")
    )
    outcome = Outcome(version=0x0303, cipher=DHE, alpn=b"", extended_master_secret=True)
    server = SSL.Connection(Contexts().client_side(leaf, outcome))
    server.set_accept_state()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(DHE)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing)
    for _ in range(2):
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        server.bio_write(outgoing.read())
        with suppress(SSL.WantReadError):
            server.do_handshake()
        incoming.write(server.bio_read(1 << 16))
    client.do_handshake()
    assert client.cipher()[0] == DHE
