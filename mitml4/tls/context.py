"""OpenSSL contexts: for the server with the client's offer, for the client with the outcome."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import field
from functools import lru_cache
from typing import Final

from cachetools import LRUCache
from OpenSSL import SSL
from OpenSSL._util import ffi, lib

from mitml4.dataclass import dataclass
from mitml4.protocols.tls.hello import ClientHello
from mitml4.tls.bridge.identity import MAX_LATE_SIGNATURES
from mitml4.tls.bridge.renegotiation import MAX_RENEGOTIATIONS
from mitml4.tls.client_identity import ClientIdentity
from mitml4.tls.forge import Leaf
from mitml4.tls.offer import Offer, cipher_names, rehearse, shape
from mitml4.tls.openssl import peer_leaf
from mitml4.tls.stream import Alerts

__all__ = ["Contexts", "Outcome", "has_extended_master_secret"]


KeyLog = Callable[[bytes], None]

_TLS_1_3: Final = 0x0304
_FATAL: Final = 2  # RFC 8446 §6, AlertLevel
_CLOSE_NOTIFY: Final = 0  # RFC 8446 §6.1
_OP_NO_EXTENDED_MASTER_SECRET: Final = 1  # openssl/ssl.h
_OP_NO_RENEGOTIATION: Final = 1 << 30
# openssl/ssl.h: without it, a FIN without close_notify is a fatal error, which OpenSSL answers with
# an alert, and after which it cannot write. TlsStream distinguishes the two kinds of end.
_OP_IGNORE_UNEXPECTED_EOF: Final = 1 << 7
_USUAL_LEVEL: Final = 2
"""112 bits; OpenSSL's default since 3.2, and Debian's before that."""
_SERVER_HELLO: Final = b"SSLv3/TLS read server hello"
_CERTIFICATE_REQUEST: Final = b"SSLv3/TLS read server certificate request"
_BETWEEN: Final = b"SSL negotiation finished successfully"
_FFDHE_2048: Final = b"""\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
"""RFC 7919 §A.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of the server's handshake, as far as the client's has to match it."""

    version: int
    cipher: str
    alpn: bytes
    """Empty: none."""
    extended_master_secret: bool
    """RFC 7627; some clients refuse a server without it."""


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A context for the server, and its ClientHello."""

    context: SSL.Context
    hello: ClientHello
    usual: SSL.Context | None
    """The same at OpenSSL's usual security level, for the messages after the ServerHello."""


_MAX_HELLO_BYTES: Final = 16 * 1024
"""Of a ClientHello whose context is kept for further ones; usual ones have less than 2 KiB."""


@dataclass(slots=True)
class Contexts:
    """The contexts of a session, cached by their parameters."""

    keylog: KeyLog | None = None
    client_identity: ClientIdentity | None = None
    """For servers that ask for a client certificate."""
    _server_side: LRUCache[Offer, tuple[SSL.Context, SSL.Context | None]] = field(
        default_factory=lambda: LRUCache(64)
    )
    _hellos: LRUCache[Hashable, ClientHello] = field(default_factory=lambda: LRUCache(512))
    _plain: SSL.Context | None = None
    _client_side: LRUCache[Hashable, SSL.Context] = field(default_factory=lambda: LRUCache(256))

    def can_offer(self, hello: ClientHello) -> bool:
        """Whether OpenSSL supports anything of what the client offers, and its SNI."""
        if "\0" in (hello.sni or ""):
            return False
        try:
            self.server_side(hello)
        except SSL.Error:
            return False
        return True

    def server_side(self, hello: ClientHello) -> Mirrored:
        """For the server: offers what the client offers. Raises SSL.Error if OpenSSL supports
        nothing of it."""
        offer = Offer.of(hello)
        if hello.wire_length > _MAX_HELLO_BYTES:
            context, usual = self._make_server_side(offer)
            return Mirrored(context, rehearse(context, hello), usual)
        if offer not in self._server_side:
            self._server_side[offer] = self._make_server_side(offer)
        context, usual = self._server_side[offer]
        key = offer, shape(hello)
        if key not in self._hellos:
            self._hellos[key] = rehearse(context, hello)
        return Mirrored(context, self._hellos[key], usual)

    def plain(self) -> SSL.Context:
        """For a server that is spoken to without a client's offer: OpenSSL's own, from TLS 1.2
        on."""
        if self._plain is None:
            self._plain = self._make()
            self._plain.set_min_proto_version(SSL.TLS1_2_VERSION)
            self._plain.set_cipher_list(b"DEFAULT")
            self._plain.set_verify(SSL.VERIFY_NONE)
        return self._plain

    def client_side(self, leaf: Leaf, outcome: Outcome) -> SSL.Context:
        """For the client: exactly this version and ALPN (or none), and this cipher if possible."""
        if not leaf.is_cached:
            return self._make_client_side(leaf, outcome)
        key = leaf, outcome
        if key not in self._client_side:
            self._client_side[key] = self._make_client_side(leaf, outcome)
        return self._client_side[key]

    def _make_server_side(self, offer: Offer) -> tuple[SSL.Context, SSL.Context | None]:
        """A client may offer more than OpenSSL does at its usual level, and still refuse a key
        exchange below that level, such as weak Diffie-Hellman."""
        context = self._make_server_side_at(0, offer)
        try:
            usual = self._make_server_side_at(_USUAL_LEVEL, offer)
        except SSL.Error:
            usual = None
        return context, usual

    def _make_server_side_at(self, security_level: int, offer: Offer) -> SSL.Context:
        context = self._make()
        offer.apply(context, security_level)
        # verify.py verifies, with one store for all connections
        context.set_verify(SSL.VERIFY_NONE)
        context.set_ocsp_client_callback(_note_staple)
        if identity := self.client_identity:
            certificate, *chain = identity.certificates
            context.use_certificate(certificate)
            for each in chain:
                context.add_extra_chain_cert(each)
            context.use_privatekey(identity.key)
        return context

    def _make_client_side(self, leaf: Leaf, outcome: Outcome) -> SSL.Context:
        version, cipher, alpn = outcome.version, outcome.cipher, outcome.alpn
        context = self._make()
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        # A renegotiation by the client is refused, as most servers do. A renegotiation by the
        # server is accepted, so often: some ask for a certificate when they know what is requested.
        context.set_options(_OP_NO_RENEGOTIATION)
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        if not outcome.extended_master_secret:
            context.set_options(_OP_NO_EXTENDED_MASTER_SECRET)
        if version >= _TLS_1_3:
            suites = [cipher, *(name for name in _tls13_names() if name != cipher)]
            context.set_tls13_ciphersuites(":".join(suites).encode())
        else:
            is_anonymous = cipher.startswith(("ADH-", "AECDH-"))
            others = "ALL" if is_anonymous else "ALL:!aNULL"  # the client is to see the certificate
            context.set_cipher_list(f"{cipher}:{others}:@SECLEVEL=0".encode())
        context.use_certificate(leaf.certificate)
        for certificate in leaf.chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(leaf.key)
        _set_finite_field(context)
        context.set_ocsp_server_callback(_give_staple)
        if alpn:
            context.set_alpn_select_callback(
                lambda _, offered: alpn if alpn in offered else SSL.NO_OVERLAPPING_PROTOCOLS
            )
        return context

    def _make(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_options(_OP_IGNORE_UNEXPECTED_EOF)
        context.set_mode(lib.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_info_callback(_note_alerts)
        if self.keylog:
            log = self.keylog
            context.set_keylog_callback(lambda _, line: log(line))
        return context


def _set_finite_field(context: SSL.Context) -> None:
    """What finite-field Diffie-Hellman is done with up to TLS 1.2. On its own, OpenSSL has it only
    for clients that name such a group (RFC 7919), which few do. `Context.load_tmp_dh` wants a
    file."""
    bio = ffi.gc(lib.BIO_new_mem_buf(_FFDHE_2048, len(_FFDHE_2048)), lib.BIO_free)
    parameters = lib.PEM_read_bio_DHparams(bio, ffi.NULL, ffi.NULL, ffi.NULL)
    lib.SSL_CTX_set_tmp_dh(context._context, ffi.gc(parameters, lib.DH_free))


def _note_alerts(connection: SSL.Connection, where: int, value: int) -> None:
    """OpenSSL's info callback: the alerts that end the connection, and what the server has sent."""
    noted = connection.get_app_data()
    if not isinstance(noted, Alerts):
        return
    if where & SSL.SSL_CB_ALERT:
        if where & SSL.SSL_CB_READ and value & 0xFF == _CLOSE_NOTIFY:
            noted.received_close_notify = True
        elif value >> 8 == _FATAL:
            if where & SSL.SSL_CB_READ:
                noted.received = value & 0xFF
            else:
                noted.sent = value & 0xFF
    elif where == SSL.SSL_CB_CONNECT_LOOP:
        _note_progress(connection, noted, connection.get_state_string())
    elif where == SSL.SSL_CB_HANDSHAKE_DONE and noted.leaf and _may_renegotiate(connection):
        noted.has_other_leaf |= peer_leaf(connection) != noted.leaf
        if connection.total_renegotiations() >= MAX_RENEGOTIATIONS:
            # The next wish is declined with a warning, as by the bridge.
            lib.SSL_set_options(connection._ssl, _OP_NO_RENEGOTIATION)


def _note_progress(connection: SSL.Connection, noted: Alerts, state: bytes) -> None:
    if state == _CERTIFICATE_REQUEST:
        noted.certificate_requests += 1
        if noted.certificate_requests == 1:
            noted.on_certificate_request()
    elif state == _SERVER_HELLO and connection.get_protocol_version() == SSL.TLS1_2_VERSION:
        # Before TLS 1.2 every signature is below the level, and after it no group is.
        _switch(connection, noted, noted.usual)
    elif state == _BETWEEN:  # a message begins behind the handshake
        noted.messages += 1
        is_often = noted.certificate_requests >= MAX_LATE_SIGNATURES
        if is_often and not _may_renegotiate(connection):
            # Now, since once a request is reported, its answer is chosen.
            _switch(connection, noted, noted.without_certificate)


def _switch(connection: SSL.Connection, noted: Alerts, context: SSL.Context | None) -> None:
    """Go on with another context, if there is one. pyOpenSSL would let go of the one before it,
    though OpenSSL has its info callback, and frees that."""
    before = connection.get_context()
    if context and context is not before:
        if before not in noted.replaced:
            noted.replaced.append(before)
        connection.set_context(context)


def _may_renegotiate(connection: SSL.Connection) -> bool:
    """Whether a handshake behind the first one is a renegotiation. In TLS 1.3, OpenSSL reports
    tickets as handshakes."""
    return connection.get_protocol_version() < SSL.TLS1_3_VERSION


def has_extended_master_secret(connection: SSL.Connection) -> bool:
    """Whether a completed handshake has negotiated RFC 7627."""
    return bool(lib.SSL_get_extms_support(connection._ssl) == 1)


def _note_staple(connection: SSL.Connection, response: bytes, _: object) -> bool:
    noted = connection.get_app_data()
    if isinstance(noted, Alerts):
        noted.staple = response
    return True


def _give_staple(connection: SSL.Connection, _: object) -> bytes:
    noted = connection.get_app_data()
    return noted.staple if isinstance(noted, Alerts) else b""


@lru_cache
def _tls13_names() -> tuple[str, ...]:
    return tuple(name for name in cipher_names().values() if name.startswith("TLS_"))
