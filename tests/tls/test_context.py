"""OpenSSL's contexts for clients and for servers."""

from __future__ import annotations

import gc
import ssl
import weakref
from contextlib import suppress

import trio
import trustme
from OpenSSL import SSL

from mitml4.protocols.tls.hello import ClientHello, Extension
from mitml4.protocols.tls.records import RecordType
from mitml4.tls.bridge import messages
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.records import Messages
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.client_identity import ClientIdentity
from mitml4.tls.context import Contexts, Outcome
from mitml4.tls.forge import Forge
from mitml4.tls.keys import KeyType
from mitml4.tls.offer import prepare
from mitml4.tls.stream import Alerts
from tests.tls.bridge.scripted import Server13, own_certificate

DHE = "DHE-RSA-AES128-GCM-SHA256"


def client_gets(offered: str, cipher: str) -> str:
    """The cipher of a client that offers these, whose server has chosen `cipher`."""
    forge = Forge(CertificateAuthority.generate())
    leaf = trio.run(
        lambda: forge.leaf(None, issuer=frozenset({0}), key_type=KeyType.RSA_2048, name="a.test")
    )
    outcome = Outcome(version=0x0303, cipher=cipher, alpn=b"", extended_master_secret=True)
    server = SSL.Connection(Contexts().client_side(leaf, outcome))
    server.set_accept_state()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{offered}:@SECLEVEL=0")
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
    agreed = client.cipher()
    assert agreed
    return agreed[0]


def test_a_client_of_finite_fields_gets_its_cipher() -> None:
    """One that names no group for it: OpenSSL needs parameters then."""
    assert client_gets(DHE, DHE) == DHE


def test_a_client_gets_no_anonymous_cipher_unless_its_server_has_chosen_one() -> None:
    anonymous, offered = "ADH-AES256-GCM-SHA384", "ADH-AES256-GCM-SHA384:AES128-SHA"
    assert client_gets(offered, "ECDHE-RSA-AES128-SHA") == "AES128-SHA"
    assert client_gets(offered, anonymous) == anonymous


def test_a_context_lives_as_long_as_openssl_calls_its_callbacks() -> None:
    """Also if the connection has another one since then, and no cache has it."""
    hello = ClientHello(
        legacy_version=0x0303, random=bytes(32), cipher_suites=(0xC02B, 0xC02F), groups=(29, 23)
    )
    mirrored = Contexts().server_side(hello)
    client = SSL.Connection(mirrored.context)
    noted = Alerts(usual=mirrored.usual)
    client.set_app_data(noted)
    prepare(client, hello)
    client.set_connect_state()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("a.test").configure_cert(context)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    for _ in range(2):
        with suppress(SSL.WantReadError):
            client.do_handshake()
        incoming.write(client.bio_read(1 << 16))
        with suppress(ssl.SSLWantReadError):
            server.do_handshake()
        client.bio_write(outgoing.read())
    client.do_handshake()
    assert client.get_context() is mirrored.usual
    first = weakref.ref(mirrored.context)
    del mirrored
    gc.collect()
    assert first()
    with suppress(ssl.SSLWantReadError):
        server.unwrap()
    client.bio_write(outgoing.read())
    with suppress(SSL.ZeroReturnError):
        client.recv(1)
    assert noted.received_close_notify


def test_a_server_that_asks_again_and_again_gets_few_signatures() -> None:
    hello = ClientHello(
        legacy_version=0x0303,
        random=bytes(32),
        cipher_suites=(0x1301,),
        supported_versions=(0x0304,),
        groups=(29,),
        extensions=(Extension.POST_HANDSHAKE_AUTH,),
    )
    certificate, key = own_certificate("ec-p256")
    contexts = Contexts(client_identity=ClientIdentity((certificate,), key))
    mirrored = contexts.server_side(hello)
    client = SSL.Connection(mirrored.context)
    noted = Alerts(usual=mirrored.usual, without_certificate=contexts.plain())
    client.set_app_data(noted)
    prepare(client, hello)
    client.set_connect_state()
    with suppress(SSL.WantReadError):
        client.do_handshake()
    server = Server13(client.bio_read(1 << 16), alpn=None, asks=True)
    server.send_flight()
    client.bio_write(server.taken())
    client.do_handshake()
    server.take_answer(client.bio_read(1 << 16))
    noted.leaf = server.der
    assert noted.certificate_requests == 1
    algorithms = (Extension.SIGNATURE_ALGORITHMS, bytes.fromhex("00020403"))
    request = messages.CertificateRequest(b"again", RawExtensions((algorithms,))).encode()
    kinds = []
    for _ in range(12):
        client.bio_write(server.record(RecordType.HANDSHAKE, request))
        with suppress(SSL.WantReadError):
            client.recv(1)
        read = Messages()
        for _, content in server.read(client.bio_read(1 << 16)):
            read.feed(content)
        kinds.append([kind for kind, _ in iter(read.next, None)])
    assert kinds == [[11, 15, 20]] * 7 + [[11, 20]] * 5
    assert noted.certificate_requests == 13
