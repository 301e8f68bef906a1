"""Both legs of the bridge between a client and a server of OpenSSL's."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL._util import lib

from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.fingerprints import ja3, ja3s, ja4, ja4s
from mitml4.protocols.tls.hello import Extension, parse_client_hello, parse_server_hello
from mitml4.tls.bridge import messages
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.flight import Flight
from mitml4.tls.bridge.hello import Replacements, relay_hello
from mitml4.tls.bridge.identity import Identity
from mitml4.tls.bridge.leg import PeerAlert
from mitml4.tls.bridge.legs import Legs
from mitml4.tls.bridge.records import Messages
from mitml4.tls.bridge.server_leg import ServerLeg
from mitml4.tls.bridge.tickets import SiteTickets, Tickets
from tests.tls.bridge.peers import (
    Flow,
    certificate,
    client_context,
    server_context,
    shown,
    step,
    taken,
)
from tests.tls.bridge.scripted import Offer, Server13, with_fields

KEYS = ["ec-p256", "ec-p384", "ec-p521", "rsa", "ed25519", "ed448"]
GROUPS = [
    "X25519",
    "X448",
    "P-256",
    "P-384",
    "P-521",
    "X25519MLKEM768",
    "SecP256r1MLKEM768",
    "SecP384r1MLKEM1024",
    "MLKEM768",
    "MLKEM1024",
]
SUITES = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
]
DONE = b"SSL negotiation finished successfully"


def with_groups(context: SSL.Context, groups: str) -> None:
    assert lib.SSL_CTX_set1_curves_list(context._context, groups.encode()) == 1


def older(context: SSL.Context, ciphers: str = "ECDHE+AESGCM") -> SSL.Context:
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(f"{ciphers}:@SECLEVEL=0".encode())
    return context


def is_done(flow: Flow) -> bool:
    ends = [flow.client.get_state_string(), flow.server.get_state_string()]
    return ends == [DONE, DONE] and flow.bridged.has_server_finished


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_any_key_of_a_server(version: int, kind: str) -> None:
    server = server_context(kind)
    server.set_max_proto_version(version)
    flow = Flow.of(client_context(), server).run(kind)

    assert is_done(flow)
    assert flow.client.get_protocol_version() == version
    assert flow.flight
    assert flow.flight.chain == (certificate(kind)[0].public_bytes(Encoding.DER),)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("is_retried", [False, True])
def test_any_group(group: str, is_retried: bool) -> None:
    """A group without a key share comes by a HelloRetryRequest."""
    client, server = client_context(), server_context()
    first = "X25519" if group != "X25519" else "P-256"
    with_groups(client, f"*{first}:{group}" if is_retried else group)
    with_groups(server, group)
    flow = Flow.of(client, server).run()

    assert is_done(flow)
    assert flow.client.get_group_name() == flow.server.get_group_name()


@pytest.mark.parametrize("piece_bytes", [1, 3, 50])
@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("is_retried", [False, True])
def test_any_pieces(version: int, is_retried: bool, piece_bytes: int) -> None:
    client, server = client_context(), server_context()
    server.set_max_proto_version(version)
    with_groups(server, "P-384:P-256" if is_retried else "X25519:P-256")
    with_groups(client, "*X25519:P-384:P-256")
    flow = Flow.of(client, server).run(piece_bytes=piece_bytes)

    assert is_done(flow)


@pytest.mark.parametrize("suite", SUITES)
def test_any_suite(suite: str) -> None:
    client, server = client_context(), server_context()
    client.set_tls13_ciphersuites(suite.encode())
    server.set_tls13_ciphersuites(suite.encode())
    flow = Flow.of(client, server).run()

    assert is_done(flow)
    assert flow.client.get_cipher_name() == flow.server.get_cipher_name() == suite


@pytest.mark.parametrize("kind", ["ec-p256", "rsa"])
@pytest.mark.parametrize("ciphers", ["AES128-GCM", "AES256-GCM", "CHACHA20-POLY1305"])
@pytest.mark.parametrize("group", ["X25519", "X448", "P-256", "P-384", "P-521"])
def test_any_suite_and_group_of_tls_1_2(kind: str, ciphers: str, group: str) -> None:
    signer = "RSA" if kind == "rsa" else "ECDSA"
    hash_ = {"AES128-GCM": "-SHA256", "AES256-GCM": "-SHA384"}.get(ciphers, "")
    server = older(server_context(kind), f"ECDHE-{signer}-{ciphers}{hash_}")
    with_groups(server, group)
    client = client_context()
    with_groups(client, f"{group}:P-256")  # the certificate's own curve has to be offered as well
    flow = Flow.of(client, server).run(kind)

    assert is_done(flow)
    assert flow.client.get_cipher_name() == flow.server.get_cipher_name()


@pytest.mark.parametrize("ciphers", ["ECDHE+AES+SHA", "kRSA", "DHE"])
def test_other_key_exchanges_and_cbc_are_not_bridged(ciphers: str) -> None:
    server = older(server_context("rsa"), ciphers)
    client = client_context()
    client.set_cipher_list(b"ALL:@SECLEVEL=0")
    flow = Flow.of(client, server)
    flow.server.bio_write(flow.bridged.server.to_send())
    step(flow.server)
    flow.bridged.server.receive(taken(flow.server))

    with pytest.raises(CannotBridge, match="cipher suite"):
        flow.bridged.server_event()
    assert not flow.bridged.is_committed


def test_the_server_gets_the_clients_hello_and_the_client_the_servers() -> None:
    client, server = client_context(), server_context()
    server.set_alpn_select_callback(lambda _, offered: offered[0])
    flow = Flow.of(client, server, lambda each: each.set_alpn_protos([b"h2", b"http/1.1"]))
    hello = flow.bridged.server.to_send()
    asked = parse_client_hello(hello)
    assert asked
    written = flow.bridged.hello.parsed
    assert (ja3(asked), ja4(asked)) == (ja3(written), ja4(written))
    assert asked.random != written.random
    assert asked.session_id != written.session_id

    flow.server.bio_write(hello)
    step(flow.server)
    said = taken(flow.server)
    flow.bridged.server.receive(said)
    assert flow.bridged.server_event()
    flow.bridged.show(shown())
    theirs, ours = parse_server_hello(said), parse_server_hello(flow.bridged.client.to_send())
    assert theirs
    assert ours
    assert (ja3s(theirs), ja4s(theirs)) == (ja3s(ours), ja4s(ours))
    assert ours.session_id == written.session_id


def test_the_client_gets_the_servers_encrypted_extensions_in_their_order() -> None:
    """But for those of Encrypted ClientHello (RFC 9849 §5): only the server's own client can use
    the configurations in it."""
    ech = Extension.ENCRYPTED_CLIENT_HELLO
    answers = {
        Extension.SERVER_NAME: b"",
        ech: b"\0\x04\xfe\x0d\0\0",
        Extension.ALPN: b"\0\x03\x02h2",
        Extension.SUPPORTED_GROUPS: b"\0\x04\0\x17\0\x1d",
    }
    offer = Offer(more={ech: b"\0\0\1\0\1\7\0\x20" + bytes(32) + b"\0\x10" + bytes(16)})
    for order in permutations(answers.items()):
        said = RawExtensions(tuple((int(kind), body) for kind, body in order))
        client = ServerLeg(relay_hello(offer.records(), Replacements()))
        legs = Legs(client.to_send())
        change = with_fields(messages.EncryptedExtensions, extensions=said)
        server = Server13(legs.server.to_send(), {"encrypted_extensions": change})
        server.send_flight()
        legs.server.receive(server.taken())
        assert legs.server_event()
        legs.show(shown())
        client.receive(legs.client.to_send())
        got = client.next_event()
        assert isinstance(got, Flight)
        assert got.extensions
        assert got.extensions.extensions.items == said.without(ech).items


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_application_protocols(version: int) -> None:
    server = server_context()
    server.set_max_proto_version(version)
    server.set_alpn_select_callback(lambda _, offered: offered[-1])
    flow = Flow.of(
        client_context(), server, lambda each: each.set_alpn_protos([b"h2", b"http/1.1"])
    ).run()

    assert is_done(flow)
    assert flow.client.get_alpn_proto_negotiated() == b"http/1.1"
    assert flow.flight
    assert flow.flight.alpn == b"http/1.1"


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("kind", ["ec-p256", "rsa", None])
def test_a_server_that_asks_for_a_certificate(version: int, kind: str | None) -> None:
    asked: list[Any] = []
    server = server_context()
    server.set_max_proto_version(version)
    server.set_verify(SSL.VERIFY_PEER, lambda _, given, *more: asked.append(given) or True)
    identity = None
    if kind:
        own, key = certificate(kind)
        identity = Identity((own.public_bytes(Encoding.DER),), key)
    flow = Flow.of(client_context(), server, identity=identity).run()

    assert is_done(flow)
    assert flow.flight
    assert flow.flight.asks_certificate
    assert bool(asked) == bool(kind)


def test_a_server_that_asks_again_and_again_gets_few_signatures() -> None:
    own, key = certificate()
    identity = Identity((own.public_bytes(Encoding.DER),), key)
    client = client_context()
    lib.SSL_CTX_set_post_handshake_auth(client._context, 1)
    flow = Flow.of(client, server_context(), identity=identity).run()
    answer = flow.bridged.late_answer()
    assert answer
    algorithms = (Extension.SIGNATURE_ALGORITHMS, bytes.fromhex("00020403"))
    request = messages.CertificateRequest(b"again", RawExtensions((algorithms,))).encode()
    kinds = []
    for _ in range(32):
        read = Messages()
        read.feed(answer(request, bytes(32)))
        kinds.append([kind for kind, _ in iter(read.next, None)])
    assert kinds == [[11, 15, 20]] * 8 + [[11, 20]] * 24


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("kind", ["ec-p256", "rsa", None])
def test_a_client_that_is_asked_for_a_certificate(version: int, kind: str | None) -> None:
    """Its answer stays here."""
    seen: list[Any] = []
    client, server = client_context(), server_context()
    server.set_max_proto_version(version)
    server.set_verify(SSL.VERIFY_PEER, lambda _, given, *more: seen.append(given) or True)
    if kind:
        own, key = certificate(kind)
        client.use_certificate(own)
        client.use_privatekey(key)
    flow = Flow.of(client, server).run(asks=True)

    assert is_done(flow)
    assert flow.has_client_certificate == bool(kind)
    assert seen == []


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_secrets_are_logged_as_openssl_logs_them(version: int) -> None:
    ours: list[bytes] = []
    theirs: list[bytes] = []
    client, server = client_context(), server_context()
    server.set_max_proto_version(version)
    for context in (client, server):
        context.set_keylog_callback(lambda _, line: theirs.append(line))
    assert is_done(Flow.of(client, server, keylog=ours.append).run())

    assert sorted(ours) == sorted(set(theirs))


@pytest.mark.parametrize("by", ["ticket", "id", "id of a client of TLS 1.2 alone"])
def test_sessions_of_tls_1_2_are_resumed_with_both_sides(by: str) -> None:
    tickets = SiteTickets(Tickets(lambda: 0.0), "site")
    client, server = client_context(), older(server_context())
    if by != "ticket":
        client.set_options(SSL.OP_NO_TICKET)
        server.set_session_id(b"a server")
    if "alone" in by:
        older(client)
    first = Flow.of(client, server, tickets=tickets).run()
    assert is_done(first)
    session = first.client.get_session()
    assert session

    flows = [first]  # OpenSSL forgets the session of a connection that is freed before it is closed
    for _ in range(2):
        again = Flow.of(client, server, lambda each: each.set_session(session), tickets=tickets)
        flows.append(again.run())
        assert is_done(again)
        assert again.flight
        assert again.flight.ticket
        assert lib.SSL_session_reused(again.client._ssl) == 1
        assert lib.SSL_session_reused(again.server._ssl) == 1


def test_a_session_of_another_site_is_not_resumed() -> None:
    tickets = Tickets(lambda: 0.0)
    client, server = client_context(), older(server_context())
    session = (
        Flow.of(client, server, tickets=SiteTickets(tickets, "one")).run().client.get_session()
    )
    flow = Flow.of(
        client, server, lambda each: each.set_session(session), tickets=SiteTickets(tickets, "two")
    ).run()

    assert is_done(flow)
    assert lib.SSL_session_reused(flow.client._ssl) == 0


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_a_client_that_refuses_the_certificate(version: int) -> None:
    client, server = client_context(), server_context()
    server.set_max_proto_version(version)
    client.set_verify(SSL.VERIFY_PEER)
    flow = Flow.of(client, server)
    with pytest.raises(SSL.Error):
        flow.run()
    flow.bridged.client.receive(taken(flow.client))
    event = flow.bridged.client_event()

    assert isinstance(event, PeerAlert)
    assert event.alert in (Alert.UNKNOWN_CA, Alert.BAD_CERTIFICATE)
    assert not flow.bridged.has_server_finished
    flow.server.bio_write(flow.bridged.server.fail(event.alert))
    with pytest.raises(SSL.Error, match="alert"):
        flow.server.do_handshake()


def test_a_servers_alert() -> None:
    client, server = client_context(), server_context()
    client.set_max_proto_version(SSL.TLS1_2_VERSION)
    server.set_min_proto_version(SSL.TLS1_3_VERSION)
    flow = Flow.of(client, server)
    flow.server.bio_write(flow.bridged.server.to_send())
    with pytest.raises(SSL.Error):
        flow.server.do_handshake()
    flow.bridged.server.receive(taken(flow.server))

    assert flow.bridged.server_event() == PeerAlert(Alert.PROTOCOL_VERSION)


def test_a_version_that_somebody_has_lowered_is_refused() -> None:
    """A server of TLS 1.3 says so in its random if a client of TLS 1.3 gets TLS 1.2 of it."""
    flow = Flow.of(client_context(), older(server_context()))
    flow.server.bio_write(flow.bridged.server.to_send())
    step(flow.server)
    said = bytearray(taken(flow.server))
    said[11 + 24 : 11 + 32] = b"DOWNGRD\x01"
    flow.bridged.server.receive(bytes(said))

    with pytest.raises(TlsError, match="lowered") as refusal:
        flow.bridged.server_event()
    assert refusal.value.alert == Alert.ILLEGAL_PARAMETER
