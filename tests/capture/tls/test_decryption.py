"""TLS opened with a key log: handshakes of OpenSSL, replayed as a capture shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from mitml4.capture.converse import Depth
from mitml4.capture.flow import ALL
from mitml4.capture.tls.secrets import Secrets
from mitml4.protocols.conversation import Details, Direction, LayerContext
from mitml4.protocols.http.events import HttpRequest
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.protocols.tls.protocol import TlsDetails

UP, DOWN = Direction.UP, Direction.DOWN
Script = list[tuple[Direction, bytes]]

REQUEST = b"GET /secret HTTP/1.1\r\nHost: example.org\r\n\r\n"
NO_ENCRYPT_THEN_MAC = 1 << 19
"""SSL_OP_NO_ENCRYPT_THEN_MAC, which pyOpenSSL has no name for."""

TLS_1_3 = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
]
TLS_1_2_AEAD = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "DHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-CCM",
    "ECDHE-ECDSA-AES256-CCM8",
    "AES256-CCM",
]
TLS_1_2_CBC = [
    "ECDHE-RSA-AES128-SHA",
    "AES256-SHA",
    "ECDHE-ECDSA-AES128-SHA256",
    "AES256-SHA256",
    "ECDHE-RSA-AES256-SHA384",
]


@dataclass
class Seen:
    """An observer that writes down what it is told."""

    port: int = 443
    kept_bytes: int = 0
    layers: list[tuple[str, Details | None]] = field(default_factory=list)
    protocol_events: list[tuple[int, ProtocolEvent]] = field(default_factory=list)
    faults: list[tuple[int, Direction, str]] = field(default_factory=list)
    opened: bool = False
    """Whether a layer was said to be."""

    def layer(
        self, depth: int, protocol: str, speaker: str, details: Details | None, *, opened: bool
    ) -> None:
        assert depth == len(self.layers)
        self.layers.append((protocol, details))
        self.opened |= opened

    def protocol_event(self, depth: int, protocol_event: ProtocolEvent) -> None:
        self.protocol_events.append((depth, protocol_event))

    def fault(self, depth: int, direction: Direction, reason: str) -> None:
        self.faults.append((depth, direction, reason))

    @property
    def stack(self) -> list[str]:
        return [protocol for protocol, _ in self.layers]

    @property
    def tls(self) -> TlsDetails:
        details = self.layers[self.stack.index("tls")][1]
        assert isinstance(details, TlsDetails)
        return details

    @property
    def urls(self) -> list[str]:
        return [each.url for _, each in self.protocol_events if isinstance(each, HttpRequest)]


@dataclass
class Recording:
    """What went over the wire, and the key log that the client wrote."""

    script: Script
    keylog: list[bytes]

    def secrets(self, *, without: bytes = b"", of: Callable[[bytes], bytes] = bytes) -> Secrets:
        secrets = Secrets()
        for line in self.keylog:
            label, random, secret = line.split()
            if label != without:
                secrets.add(b" ".join((label, random, of(secret))))
        return secrets


@cache
def identity(*, elliptic: bool) -> tuple[x509.Certificate, Any]:
    """A self-signed certificate of example.org."""
    key: Any = ec.generate_private_key(ec.SECP256R1()) if elliptic else None
    key = key or rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "example.org")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return certificate, key


class Peers:
    """An OpenSSL client and server, and what passes between them."""

    def __init__(
        self,
        suite: str,
        *,
        alpn: bytes | None = b"http/1.1",
        server_groups: bytes | None = None,
        options: int = 0,
        max_early_data: int = 0,
        version: int = SSL.TLS1_2_VERSION,
        distrustful: bool = False,
    ) -> None:
        self.keylog: list[bytes] = []
        self.server_context = self.context("ECDSA" in suite or suite.startswith("TLS"), options)
        self.client_context = self.context(True, options)
        self.client_context.set_keylog_callback(lambda _, line: self.keylog.append(line))
        for context in (self.client_context, self.server_context):
            if suite.startswith("TLS_"):
                context.set_cipher_list(b"ALL:@SECLEVEL=0")
                context.set_tls13_ciphersuites(suite.encode())
            else:
                context.set_cipher_list(suite.encode() + b":@SECLEVEL=0")
                context.set_max_proto_version(version)
                context.set_min_proto_version(version)
        if server_groups:
            lib = SSL._lib  # type: ignore[attr-defined]
            assert lib.SSL_CTX_set1_curves_list(self.server_context._context, server_groups)
        if max_early_data:
            lib = SSL._lib  # type: ignore[attr-defined]
            assert lib.SSL_CTX_set_max_early_data(self.server_context._context, max_early_data)
        if distrustful:
            self.client_context.set_verify(SSL.VERIFY_PEER, lambda *_: False)
        if alpn:
            self.client_context.set_alpn_protos([alpn])
            self.server_context.set_alpn_select_callback(lambda _, offered: offered[0])
        self.connect()

    @staticmethod
    def context(elliptic: bool, options: int) -> SSL.Context:
        context = SSL.Context(SSL.TLS_METHOD)
        certificate, key = identity(elliptic=elliptic)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        context.set_options(options)
        return context

    def connect(self) -> None:
        """Begin a new connection, and forget the one before."""
        self.script: Script = []
        self.client = SSL.Connection(self.client_context, None)
        self.server = SSL.Connection(self.server_context, None)
        self.client.set_connect_state()
        self.client.set_tlsext_host_name(b"example.org")
        self.server.set_accept_state()

    def session(self) -> SSL.Session:
        """The client's, for another connection; OpenSSL takes none back that was not closed."""
        for end in (self.client, self.server):
            end.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
        session = self.client.get_session()
        assert session is not None
        return session

    def move(self) -> bool:
        """Whatever there is to move, once in each direction."""
        moved = False
        for source, sink, direction in (
            (self.client, self.server, UP),
            (self.server, self.client, DOWN),
        ):
            try:
                data = source.bio_read(1 << 20)
            except SSL.WantReadError:
                continue
            self.script.append((direction, data))
            sink.bio_write(data)
            moved = True
            for end in (self.client, self.server):
                with_want_read(end.do_handshake)
        return moved

    def shake_hands(self) -> None:
        with_want_read(self.client.do_handshake)
        while self.move():
            pass

    def say(self, source: SSL.Connection, data: bytes) -> None:
        sink = self.server if source is self.client else self.client
        source.sendall(data)
        while self.move():
            pass
        while with_want_read(lambda: sink.recv(1 << 14)):
            pass

    def exchange(self, times: int = 1, size: int = 40_000) -> Recording:
        for _ in range(times):
            self.say(self.client, REQUEST)
            self.say(self.server, response(size))
        return self.recording()

    def recording(self) -> Recording:
        return Recording(self.script, list(self.keylog))


def response(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)


def with_want_read(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except SSL.WantReadError:
        return None


@cache
def recorded(suite: str, *, options: int = 0, size: int = 40_000) -> Recording:
    peers = Peers(suite, options=options)
    peers.shake_hands()
    return peers.exchange(times=2, size=size)


def replay(
    script: Script, secrets: Secrets | None, *, chunk: int | None = None
) -> tuple[Depth, Seen]:
    """Bring a script as a reassembler would, `chunk` bytes at a time, what is unseen unseen."""
    seen = Seen()
    depth = Depth(seen, LayerContext(), secrets=secrets)
    for direction, data in script:
        bring(depth, direction, data, chunk)
    return depth, seen


def bring(depth: Depth, direction: Direction, data: bytes, chunk: int | None = None) -> None:
    for start in range(0, len(data), chunk or len(data)):
        piece = data[start : start + (chunk or len(data))]
        if passed := min(depth.unseen(direction), len(piece)):
            depth.passed(direction, passed)
        if piece[passed:]:
            depth.data(direction, piece[passed:])


def is_open(seen: Seen, suite: str, *, requests: int = 2) -> None:
    assert (seen.stack, seen.opened) == (["tls", "http/1"], True)
    assert seen.urls == ["https://example.org/secret"] * requests
    assert (seen.faults, seen.kept_bytes) == ([], 0)
    assert (seen.tls.sni, seen.tls.alpn, seen.tls.cipher) == ("example.org", b"http/1.1", suite)


def test_every_suite_is_opened() -> None:
    for suite in (*TLS_1_3, *TLS_1_2_AEAD):
        recording = recorded(suite)
        _, seen = replay(recording.script, recording.secrets())
        is_open(seen, suite)
        assert seen.tls.version == ("TLSv1.3" if suite.startswith("TLS_") else "TLSv1.2")
        assert seen.tls.certificate is not None
        assert seen.tls.certificate.subject == "CN=example.org"


def test_every_suite_with_cbc_is_opened() -> None:
    for options in (0, NO_ENCRYPT_THEN_MAC):
        for suite in TLS_1_2_CBC:
            recording = recorded(suite, options=options)
            _, seen = replay(recording.script, recording.secrets())
            is_open(seen, suite)


@pytest.mark.parametrize("chunk", [1, 7, 1448])
@pytest.mark.parametrize("suite", [TLS_1_3[0], TLS_1_2_AEAD[0], TLS_1_2_CBC[0]])
def test_every_split_of_the_bytes_gives_the_same(suite: str, chunk: int) -> None:
    recording = recorded(suite, size=20_000)  # more than one record
    _, whole = replay(recording.script, recording.secrets())
    _, split = replay(recording.script, recording.secrets(), chunk=chunk)
    assert (split.layers, split.protocol_events) == (whole.layers, whole.protocol_events)
    is_open(split, suite)


def test_http2_is_seen_inside_tls_inside_socks() -> None:
    peers = Peers(TLS_1_3[0], alpn=b"h2")
    peers.shake_hands()
    peers.say(peers.client, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    peers.say(peers.server, b"\0\0\0\4\0\0\0\0\0")
    socks: Script = [
        (UP, b"\x05\x01\x00"),
        (DOWN, b"\x05\x00"),
        (UP, b"\x05\x01\x00\x03\x0bexample.org\x01\xbb"),
        (DOWN, b"\x05\x00\x00\x01\0\0\0\0\0\0"),
    ]
    recording = peers.recording()
    depth, seen = replay([*socks, *recording.script], recording.secrets())
    depth.close()
    assert seen.stack == ["socks5", "tls", "http/2"]
    assert seen.tls.alpn == b"h2"


def in_packets(data: bytes, most: int) -> bytes:
    """A message of TDS, `most` bytes in a packet."""
    parts = [data[at : at + most] for at in range(0, len(data), most)]
    return b"".join(
        b"\x12\0" + (8 + len(part)).to_bytes(2, "big") + bytes(4) + part for part in parts
    )


@cache
def tds(suite: str, *, packed: int | None) -> Recording:
    """TLS as TDS carries it: the first `packed` (None: all) flights of the handshake in packets."""
    options = b"\0\0\x0b\0\6\1\0\x11\0\1\xff\x10\0\3\xe8\0\0\1"
    prelogin: Script = [(UP, b"\x12\1\0\x1a" + bytes(4) + options)]
    prelogin += [(DOWN, b"\x04\1\0\x1a" + bytes(4) + options)]
    peers = Peers(suite, alpn=None)
    peers.shake_hands()
    flights = len(peers.script) if packed is None else packed
    login = b"\x10\1\0\x6a\0\0\1\0\x62\0\0\0\4\0\0\x74" + bytes(32) + b"\x5e\0\2\0"
    peers.say(peers.client, login + bytes(50) + b"m\0e\0")
    peers.say(peers.server, b"\x04\1\0\x08" + bytes(4))
    recording = peers.recording()
    handshake = [(side, in_packets(data, 600)) for side, data in recording.script[:flights]]
    recording.script = [*prelogin, *handshake, *recording.script[flights:]]
    return recording


def test_a_handshake_in_packets_of_tds_is_opened() -> None:
    for chunk in (None, 1, 7):
        for suite, packed in (
            (TLS_1_2_AEAD[0], None),
            (TLS_1_3[0], None),
            (TLS_1_3[0], 3),
            (TLS_1_3[0], 2),
        ):
            recording = tds(suite, packed=packed)
            depth, seen = replay(recording.script, recording.secrets(), chunk=chunk)
            depth.close()
            assert seen.stack == ["tds", "tls", "tds"]
            assert (seen.faults, seen.kept_bytes) == ([], 0)
            assert seen.tls.cipher == suite
            assert getattr(seen.layers[2][1], "user", None) == b"me"


@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_a_handshake_in_packets_of_tds_is_read_without_secrets(chunk: int | None) -> None:
    recording = tds(TLS_1_2_AEAD[0], packed=None)
    depth, seen = replay(recording.script, None, chunk=chunk)
    assert (depth.unseen(UP), depth.unseen(DOWN)) == (ALL, ALL)
    depth.close()
    assert (seen.stack, seen.faults) == (["tds", "tls"], [])
    assert (seen.tls.sni, seen.tls.cipher) == ("example.org", TLS_1_2_AEAD[0])
    assert seen.tls.certificate is not None


def test_bytes_that_are_missing_in_packets_of_tds_end_the_following() -> None:
    recording = tds(TLS_1_2_AEAD[0], packed=None)
    depth, seen = replay(recording.script[:3], recording.secrets())
    depth.lost(DOWN, 30)
    depth.close()
    assert seen.stack == ["tds", "tls"]
    assert [fault[:2] for fault in seen.faults] == [(1, DOWN)]


def test_tls_inside_tls_is_opened_with_the_secrets_of_both() -> None:
    inner = recorded(TLS_1_3[1])
    outer = Peers(TLS_1_2_AEAD[0], alpn=None)
    outer.shake_hands()
    for direction, data in inner.script:
        outer.say(outer.client if direction is UP else outer.server, data)
    secrets = outer.recording().secrets()
    secrets.add(b"\n".join(inner.keylog))
    _, seen = replay(outer.script, secrets)
    assert seen.stack == ["tls", "tls", "http/1"]
    assert len(seen.urls) == 2


def test_a_hello_that_is_retried_is_followed() -> None:
    peers = Peers(TLS_1_3[0], server_groups=b"P-384")
    peers.shake_hands()
    recording = peers.exchange()
    assert len([direction for direction, _ in recording.script if direction is UP]) >= 3
    _, seen = replay(recording.script, recording.secrets())
    is_open(seen, TLS_1_3[0], requests=1)
    assert seen.tls.group == "secp384r1"


@pytest.mark.parametrize("suite", [TLS_1_3[1], TLS_1_2_AEAD[0], TLS_1_2_CBC[0]])
def test_a_resumed_session_is_opened(suite: str) -> None:
    peers = Peers(suite)
    peers.shake_hands()
    peers.exchange()
    session = peers.session()
    peers.keylog.clear()
    peers.connect()
    peers.client.set_session(session)
    peers.shake_hands()
    recording = peers.exchange()
    _, seen = replay(recording.script, recording.secrets())
    is_open(seen, suite, requests=1)
    assert (seen.tls.resumed, seen.tls.certificate) == (True, None)


def early(*, accepted: bool = True) -> Recording:
    """A request as early data, which a server with other keys for its tickets cannot take."""
    lib, ffi = SSL._lib, SSL._ffi  # type: ignore[attr-defined]
    peers = Peers(TLS_1_3[0], max_early_data=1 << 14)
    peers.shake_hands()
    peers.say(peers.server, b"a ticket comes along")
    session = peers.session()
    keylog = peers.keylog
    if not accepted:
        peers.server_context = Peers(TLS_1_3[0], max_early_data=1 << 14).server_context
    peers.keylog.clear()
    peers.connect()
    peers.client.set_session(session)
    written = ffi.new("size_t *")
    assert lib.SSL_write_early_data(peers.client._ssl, REQUEST, len(REQUEST), written) == 1
    hello = peers.client.bio_read(1 << 16)
    peers.script.append((UP, hello))
    peers.server.bio_write(hello)
    buffer, status = ffi.new("char[]", 1 << 14), -1
    taken = b""
    while True:
        status = lib.SSL_read_early_data(peers.server._ssl, buffer, 1 << 14, written)
        if status != 1:
            break
        taken += ffi.buffer(buffer, written[0])[:]
        if taken == REQUEST:
            break
    assert taken == (REQUEST if accepted else b"")
    while peers.move():
        pass
    if accepted:
        lib.SSL_read_early_data(peers.server._ssl, buffer, 1 << 14, written)
        with_want_read(peers.server.do_handshake)
        while peers.move():
            pass
        peers.say(peers.server, response(40_000))
    recording = peers.exchange()
    return replace(recording, keylog=[*keylog, *peers.keylog])


def test_early_data_is_the_first_that_the_client_says() -> None:
    recording = early()
    _, seen = replay(recording.script, recording.secrets())
    is_open(seen, TLS_1_3[0])


def test_early_data_without_its_secret_is_missing_and_not_guessed() -> None:
    recording = early()
    secrets = recording.secrets(without=b"CLIENT_EARLY_TRAFFIC_SECRET")
    depth, seen = replay(recording.script, secrets)
    depth.close()
    assert seen.stack[0] == "tls"
    assert (seen.urls, seen.tls.alpn) == ([], b"http/1.1")


def test_early_data_that_the_server_does_not_take_is_skipped() -> None:
    recording = early(accepted=False)
    _, seen = replay(recording.script, recording.secrets())
    is_open(seen, TLS_1_3[0], requests=1)


@pytest.mark.parametrize("suite", [TLS_1_3[0], TLS_1_2_AEAD[0], TLS_1_2_CBC[0]])
def test_secrets_may_come_behind_the_hellos(suite: str) -> None:
    """As they do where packets and keys are written as they are seen."""
    recording = recorded(suite)
    secrets = recorded(TLS_1_3[2]).secrets()
    seen = Seen()
    depth = Depth(seen, LayerContext(), secrets=secrets)
    (up, hello), (down, flight), *rest = recording.script
    bring(depth, up, hello)
    bring(depth, down, flight[:40])
    secrets.add(b"\n".join(recording.keylog))
    bring(depth, down, flight[40:])
    for direction, data in rest:
        bring(depth, direction, data)
    is_open(seen, suite)


def wrong(secret: bytes) -> bytes:
    return secret[:-2] + b"%02x" % (int(secret[-2:], 16) ^ 1)


@pytest.mark.parametrize("suite", [TLS_1_3[0], TLS_1_2_AEAD[0], TLS_1_2_CBC[0]])
def test_wrong_secrets_are_said_and_leave_it_at_tls(suite: str) -> None:
    recording = recorded(suite)
    depth, seen = replay(recording.script, recording.secrets(of=wrong))
    depth.close()
    assert (seen.stack, seen.opened) == (["tls"], False)
    assert len(seen.faults) == 1
    at, _, reason = seen.faults[0]
    assert (at, "does not authenticate" in reason) == (0, True)
    assert (depth.unseen(UP), depth.unseen(DOWN), seen.kept_bytes) == (ALL, ALL, 0)


@pytest.mark.parametrize(
    "label",
    [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
    ],
)
def test_a_secret_that_is_missing_is_named(label: str) -> None:
    recording = recorded(TLS_1_3[0])
    depth, seen = replay(recording.script, recording.secrets(without=label.encode()))
    depth.close()
    assert seen.stack == ["tls"]
    assert [reason for _, _, reason in seen.faults] == [
        f"the secrets lack the connection's {label}"
    ]


def test_a_secret_of_another_length_is_said() -> None:
    recording = recorded(TLS_1_3[0])
    _, seen = replay(recording.script, recording.secrets(of=lambda secret: secret + b"00" * 16))
    assert [reason for _, _, reason in seen.faults] == [
        "a secret of 48 bytes does not fit the cipher suite"
    ]


def test_a_record_that_was_changed_ends_it_after_what_came_before() -> None:
    recording = recorded(TLS_1_3[0])
    script = list(recording.script)
    direction, data = script[-1]
    script[-1] = (direction, data[:-1] + bytes([data[-1] ^ 1]))
    depth, seen = replay(script, recording.secrets())
    depth.close()
    assert seen.stack == ["tls", "http/1"]
    assert [reason for _, _, reason in seen.faults] == [
        "the secrets do not fit: a record of the server does not authenticate"
    ]
    assert len(seen.urls) == 2


def test_bytes_that_are_missing_end_it_after_what_came_before() -> None:
    recording = recorded(TLS_1_3[0])
    depth, seen = replay(recording.script[:-1], recording.secrets())
    depth.lost(DOWN, 100)
    bring(depth, *recording.script[-1])
    depth.close()
    assert seen.stack == ["tls", "http/1"]
    assert [(at, reason) for at, _, reason in seen.faults] == [
        (0, "100 bytes are missing from the capture")
    ]
    assert seen.kept_bytes == 0


@pytest.mark.parametrize("suite", [TLS_1_3[0], TLS_1_2_AEAD[0], TLS_1_2_CBC[0]])
@pytest.mark.parametrize("others", [False, True], ids=["none", "others"])
def test_without_its_secrets_nothing_is_kept_or_said(suite: str, others: bool) -> None:
    script = recorded(suite).script
    secrets = recorded(TLS_1_3[2]).secrets() if others else None
    depth, seen = replay(script, secrets)
    assert (depth.unseen(UP), depth.unseen(DOWN), seen.kept_bytes) == (ALL, ALL, 0)
    assert (seen.stack, seen.faults) == (["tls"], [])
    assert not seen.opened
    _, plain = replay(script, None)
    assert seen.layers == plain.layers


def test_what_cannot_be_opened_is_named() -> None:
    peers = Peers("AES128-SHA", version=SSL.TLS1_1_VERSION)
    peers.shake_hands()
    recording = peers.exchange()
    depth, seen = replay(recording.script, recording.secrets())
    depth.close()
    assert seen.stack == ["tls"]
    assert [reason for _, _, reason in seen.faults] == [
        "TLSv1.1 with AES128-SHA cannot be opened, whatever the secrets"
    ]


def test_a_suite_of_another_version_is_named() -> None:
    recording = recorded("TLS_AES_128_GCM_SHA256")
    first = next(at for at, (direction, _) in enumerate(recording.script) if direction is DOWN)
    hello = recording.script[first][1]
    suite_at = 5 + 4 + 2 + 32 + 1 + hello[5 + 4 + 2 + 32]
    assert hello[suite_at : suite_at + 2] == b"\x13\x01"
    changed = hello[:suite_at] + b"\xc0\x13" + hello[suite_at + 2 :]
    script = [*recording.script[:first], (DOWN, changed), *recording.script[first + 1 :]]
    depth, seen = replay(script, recording.secrets())
    depth.close()
    assert seen.stack == ["tls"]
    assert [reason for _, _, reason in seen.faults] == [
        "TLSv1.3 with ECDHE-RSA-AES128-SHA cannot be opened, whatever the secrets"
    ]


def test_a_close_notify_is_the_end_of_what_is_inside() -> None:
    peers = Peers(TLS_1_3[0], alpn=None)
    peers.shake_hands()
    peers.say(peers.client, b"GE")
    for end in (peers.client, peers.server):
        end.shutdown()
        peers.move()
    recording = peers.recording()
    _, seen = replay(recording.script, recording.secrets())
    assert seen.stack == ["tls", "unknown"]


def test_an_unknown_protocol_inside_is_unknown_and_not_looked_at_any_more() -> None:
    peers = Peers(TLS_1_3[0], alpn=None)
    peers.shake_hands()
    peers.say(peers.client, b"\x00\x01\x02\x03 nothing at all \xff" * 40)
    recording = peers.recording()
    depth, seen = replay(recording.script, recording.secrets())
    assert seen.stack == ["tls", "unknown"]
    assert (depth.unseen(UP), depth.unseen(DOWN)) == (ALL, ALL)


def test_a_failed_handshake_says_its_alert() -> None:
    peers = Peers(TLS_1_3[0], distrustful=True)
    with pytest.raises(SSL.Error):
        peers.shake_hands()
    peers.script.append((UP, peers.client.bio_read(1 << 16)))
    recording = peers.recording()
    depth, seen = replay(recording.script, recording.secrets())
    depth.close()
    assert seen.stack == ["tls"]
    assert seen.tls.certificate is not None


def mutations(script: Script) -> st.SearchStrategy[list[tuple[int, int, int]]]:
    places = [(at, len(data)) for at, (_, data) in enumerate(script)]
    return st.lists(
        st.sampled_from(places).flatmap(
            lambda place: st.tuples(
                st.just(place[0]), st.integers(0, min(place[1], 3000) - 1), st.integers(1, 255)
            )
        ),
        min_size=1,
        max_size=4,
    )


@pytest.mark.parametrize("suite", [TLS_1_3[0], TLS_1_2_AEAD[0], TLS_1_2_CBC[0]])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mutated_records_end_in_a_fault_or_in_nothing(suite: str, data: st.DataObject) -> None:
    recording = recorded(suite)
    script = [(direction, bytearray(sent)) for direction, sent in recording.script]
    for at, offset, flip in data.draw(mutations(recording.script)):
        script[at][1][offset] ^= flip
    broken = [(direction, bytes(sent)) for direction, sent in script]
    depth, seen = replay(broken, recording.secrets())
    depth.close()
    assert len(seen.stack) == len(set(seen.stack))
    assert seen.kept_bytes <= 1 << 18
