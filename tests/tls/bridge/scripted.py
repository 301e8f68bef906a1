"""A client and a server of TLS that do what a test wants: every message, and every record, can be
another one.

Both are straight lines of messages. A `Change` takes a message by its name and returns what is sent
in its place; the transcript has what was sent, so all that follows fits it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.crypto import groups, signatures
from mitml4.crypto.records import Protection, Record, protection_1_2, protection_1_3
from mitml4.crypto.schedule import (
    Schedule,
    Secrets,
    extended_master_secret,
    finished,
    finished_1_2,
    master_secret,
)
from mitml4.crypto.suites import Suite, suite_of
from mitml4.protocols.tls.hello import RETRY_RANDOM, Extension, parse_client_hello
from mitml4.protocols.tls.records import RecordType
from mitml4.tls.bridge import messages, older_messages
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.wire import Fields, message, uint16, vector
from tests.tls.bridge.peers import certificate

TLS_1_2, TLS_1_3 = 0x0303, 0x0304
AES_128, AES_256 = 0x1301, 0x1302
ECDHE_ECDSA, ECDHE_RSA = 0xC02B, 0xC02F
X25519, P256 = 0x001D, 0x0017
ECDSA_P256, RSA_PSS, RSA_PKCS1 = 0x0403, 0x0804, 0x0401
CHANGE_CIPHER_SPEC = b"\x14\x03\x03\0\x01\x01"

Change = Callable[[bytes], bytes]
Changes = Mapping[str, Change]


def plain(kind: int, content: bytes, version: int = TLS_1_2) -> bytes:
    return bytes([kind]) + uint16(version) + vector(2, content)


def alert(level: int, number: int) -> bytes:
    return plain(RecordType.ALERT, bytes([level, number]))


# Changes of a message


def cut(whole: bytes) -> bytes:
    """One byte shorter, with a header that fits."""
    return message(whole[0], whole[4:-1])


def longer(whole: bytes) -> bytes:
    return message(whole[0], whole[4:], b"\0")


def twice(whole: bytes) -> bytes:
    return whole + whole


def left_out(_: bytes) -> bytes:
    return b""


def broken(whole: bytes) -> bytes:
    """With another last byte."""
    return whole[:-1] + bytes([whole[-1] ^ 1])


def instead(other: bytes) -> Change:
    return lambda _: other


def with_extensions(*more: tuple[int, bytes], without: tuple[int, ...] = ()) -> Change:
    """Of a ServerHello, EncryptedExtensions, CertificateRequest or Certificate's first entry."""

    def edited(extensions: RawExtensions) -> RawExtensions:
        kept = [item for item in extensions.items if item[0] not in without]
        return RawExtensions((*kept, *more))

    def change(whole: bytes) -> bytes:
        kind: Any = {
            2: messages.ServerHello,
            8: messages.EncryptedExtensions,
            13: messages.CertificateRequest,
            11: messages.Certificate,
        }[whole[0]]
        parsed: Any = kind.parse(whole[4:])
        if isinstance(parsed, messages.Certificate):
            (der, extensions), *rest = parsed.entries
            entries = ((der, edited(extensions)), *rest)
            return messages.Certificate(parsed.context, entries).encode()
        encoded: bytes = replace(parsed, extensions=edited(parsed.extensions)).encode()
        return encoded

    return change


def with_fields(kind: Any, **fields: Any) -> Change:
    """A message of this class with other fields."""

    def change(whole: bytes) -> bytes:
        encoded: bytes = replace(kind.parse(whole[4:]), **fields).encode()
        return encoded

    return change


def server_hello(**fields: Any) -> Change:
    return with_fields(messages.ServerHello, **fields)


def extension(kind: int, body: bytes) -> Change:
    """A ServerHello, or another message, with another body of an extension."""

    def change(whole: bytes) -> bytes:
        return with_extensions((kind, body), without=(kind,))(whole)

    return change


# Hellos of a client


@lru_cache
def _share(group: int) -> groups.KeyShare:
    return groups.generate(group)


SESSION_ID = bytes(range(32))


@dataclass(kw_only=True)
class Offer:
    """What the client offers."""

    versions: tuple[int, ...] = (TLS_1_3, TLS_1_2)
    suites: tuple[int, ...] = (AES_128, AES_256, ECDHE_ECDSA, ECDHE_RSA)
    groups: tuple[int, ...] = (X25519, P256)
    shares: tuple[int, ...] = (X25519,)
    schemes: tuple[int, ...] = (ECDSA_P256, RSA_PSS, RSA_PKCS1)
    alpn: tuple[bytes, ...] = (b"h2", b"http/1.1")
    session_id: bytes = SESSION_ID
    random: bytes = b"\x55" * 32
    compression: bytes = b"\0"
    legacy_version: int = TLS_1_2
    record_version: int = 0x0301
    more: dict[int, bytes] = field(default_factory=dict)
    """Other extensions, and other bodies of those."""
    without: tuple[int, ...] = ()
    """Extensions that are left out."""

    def message(self) -> bytes:
        entries = (uint16(group) + vector(2, _share(group).share) for group in self.shares)
        extensions = {
            Extension.SERVER_NAME: vector(2, b"\0" + vector(2, b"bridge.example")),
            Extension.SUPPORTED_GROUPS: vector(2, *map(uint16, self.groups)),
            Extension.EC_POINT_FORMATS: b"\x01\0",
            Extension.SIGNATURE_ALGORITHMS: vector(2, *map(uint16, self.schemes)),
            Extension.ALPN: vector(2, *(vector(1, name) for name in self.alpn)),
            Extension.EXTENDED_MASTER_SECRET: b"",
            Extension.SESSION_TICKET: b"",
            Extension.RENEGOTIATION_INFO: b"\0",
            Extension.PSK_KEY_EXCHANGE_MODES: b"\x01\x01",
            Extension.SUPPORTED_VERSIONS: vector(1, *map(uint16, self.versions)),
            Extension.KEY_SHARE: vector(2, *entries),
            **self.more,
        }
        # pre_shared_key is the last one.
        ordered = sorted(extensions.items(), key=lambda item: item[0] == Extension.PRE_SHARED_KEY)
        listed = (
            uint16(kind) + vector(2, body) for kind, body in ordered if kind not in self.without
        )
        return message(
            1,
            uint16(self.legacy_version),
            self.random,
            vector(1, self.session_id),
            vector(2, *map(uint16, self.suites)),
            vector(1, self.compression),
            vector(2, *listed),
        )

    def records(self) -> bytes:
        return plain(RecordType.HANDSHAKE, self.message(), self.record_version)


def only_1_2(**more: Any) -> Offer:
    return Offer(
        **{
            "versions": (TLS_1_2,),
            "suites": (ECDHE_ECDSA, ECDHE_RSA),
            "without": (
                Extension.SUPPORTED_VERSIONS,
                Extension.KEY_SHARE,
                Extension.PSK_KEY_EXCHANGE_MODES,
            ),
            **more,
        }
    )


def psk_offer(*tickets: bytes, binder_bytes: int = 32) -> bytes:
    """The extension pre_shared_key with binders that are to be replaced."""
    identities = (vector(2, ticket) + bytes(4) for ticket in tickets)
    return vector(2, *identities) + vector(2, *(vector(1, bytes(binder_bytes)) for _ in tickets))


def extension_of(hello: bytes, wanted: int) -> bytes | None:
    """An extension's body, of a ClientHello with its header."""
    fields = Fields(hello, "ClientHello", 38)
    fields.vector(1)
    fields.vector(2)
    fields.vector(1)
    return RawExtensions.read(fields).get(wanted)


def share_of(hello: bytes, wanted: int) -> bytes:
    """The client's key of a group."""
    fields = Fields(extension_of(hello, Extension.KEY_SHARE) or b"", "key_share")
    listed = fields.fields(2)
    while listed:
        group, key = listed.uint16(), listed.vector(2)
        if group == wanted:
            return key
    raise AssertionError("the group has no key")


# What both ends do


class End:
    """One end, which writes messages and records as it is told."""

    def __init__(self, changes: Changes | None, fragment_bytes: int) -> None:
        self.changes = changes or {}
        self.fragment_bytes = fragment_bytes
        self.transcript = b""
        self.sent = bytearray()
        self.seals: Protection | None = None
        self.opens: Protection | None = None

    def record(self, kind: int, content: bytes) -> bytes:
        return self.seals.seal(kind, content) if self.seals else plain(kind, content)

    def emit(self, name: str, whole: bytes) -> None:
        """Send a message. The changes "before:…" and "after:…" put records around it; they get the
        function that makes a record's bytes."""
        self._around(f"before:{name}")
        if change := self.changes.get(name):
            whole = change(whole)
        self.transcript += whole
        for at in range(0, len(whole), self.fragment_bytes):
            content = whole[at : at + self.fragment_bytes]
            self._around("before:fragment" if at else "")
            self.sent += self.record(RecordType.HANDSHAKE, content)
        self._around(f"after:{name}")

    def _around(self, name: str) -> None:
        if inject := self.changes.get(name):
            # A list of a type and a content each, in one string; type 0: bytes as they are.
            self.sent += self._records(inject(b""))

    def _records(self, script: bytes) -> bytes:
        made, fields = bytearray(), Fields(script, "script")
        while fields:
            kind, content = fields.uint8(), fields.vector(3)
            made += self.record(kind, content) if kind else content
        return bytes(made)

    def emit_change_cipher_spec(self) -> None:
        self._around("before:change_cipher_spec")
        change = self.changes.get("change_cipher_spec")
        self.sent += change(CHANGE_CIPHER_SPEC) if change else CHANGE_CIPHER_SPEC
        self._around("after:change_cipher_spec")

    def read(self, data: bytes) -> list[tuple[int, bytes]]:
        """Records, opened with the key there is; handshake messages go to the transcript."""
        got = []
        while data:
            end = 5 + int.from_bytes(data[3:5], "big")
            raw, data = data[:end], data[end:]
            if self.opens and raw[0] == RecordType.APPLICATION_DATA:
                kind, content = self.opens.open(Record(raw))
            else:
                kind, content = raw[0], raw[5:]
            got.append((kind, content))
        return got

    def taken(self) -> bytes:
        data = bytes(self.sent)
        self.sent.clear()
        return data


def records(*items: tuple[int, bytes]) -> Change:
    """What a change "before:…" sends: records of a type and a content, protected as they have to
    be at that place."""
    script = b"".join(bytes([kind]) + vector(3, content) for kind, content in items)
    return lambda _: script


def raw(*items: bytes) -> Change:
    """The same, of records that are written as they are."""
    return records(*((0, item) for item in items))


def digest(suite: Suite, data: bytes) -> bytes:
    return hashlib.new(suite.hash, data).digest()


def found_suite(number: int) -> Suite:
    suite = suite_of(number)
    assert suite
    return suite


def own_certificate(kind: str) -> tuple[bytes, Any]:
    made, key = certificate(kind)
    return made.public_bytes(Encoding.DER), key


# Servers


class Server13(End):
    """A server of TLS 1.3."""

    def __init__(
        self,
        hello: bytes,
        changes: Changes | None = None,
        *,
        suite: int = AES_128,
        group: int = X25519,
        kind: str = "ec-p256",
        scheme: int = ECDSA_P256,
        alpn: bytes | None = b"h2",
        asks: bool = False,
        psk: tuple[int, bytes] | None = None,
        key: Any = None,
        fragment_bytes: int = 1 << 14,
    ) -> None:
        """`hello`: the records of the client. `psk`: the identity's index and its secret; `key`:
        another one than the certificate's."""
        super().__init__(changes, fragment_bytes)
        self.cipher_suite, self.suite = suite, found_suite(suite)
        self.group, self.scheme, self.alpn, self.asks, self.psk = group, scheme, alpn, asks, psk
        self.der, own_key = own_certificate(kind)
        self.key = key or own_key
        self.take_hello(hello)

    def take_hello(self, stream: bytes) -> None:
        found = b"".join(c for kind, c in self.read(stream) if kind == RecordType.HANDSHAKE)
        self.hello = found
        parsed = parse_client_hello(stream[stream.index(b"\x16") :])
        assert parsed
        self.session_id = parsed.session_id
        self.transcript += found

    def retry(self, group: int | None = P256, **more: Any) -> None:
        """Ask for another hello."""
        wanted = [(int(Extension.SUPPORTED_VERSIONS), uint16(TLS_1_3))]
        if group is not None:
            wanted.append((int(Extension.KEY_SHARE), uint16(group)))
            self.group = group
        first = digest(self.suite, self.transcript)
        self.transcript = messages.message_hash(first)
        self.emit("retry", self._hello(RETRY_RANDOM, wanted, **more))

    def _hello(
        self, random: bytes, extensions: list[tuple[int, bytes]], cookie: bytes = b""
    ) -> bytes:
        if cookie:
            extensions.append((Extension.COOKIE, vector(2, cookie)))
        return messages.ServerHello(
            random=random,
            session_id=self.session_id,
            cipher_suite=self.cipher_suite,
            extensions=RawExtensions(tuple(extensions)),
        ).encode()

    def send_flight(self) -> None:
        share, secret = groups.respond(self.group, share_of(self.hello, self.group))
        entry = uint16(self.group) + vector(2, share)
        extensions = [
            (int(Extension.SUPPORTED_VERSIONS), uint16(TLS_1_3)),
            (int(Extension.KEY_SHARE), entry),
        ]
        if self.psk:
            extensions.append((Extension.PRE_SHARED_KEY, uint16(self.psk[0])))
        self.emit("server_hello", self._hello(os.urandom(32), extensions))
        self.emit_change_cipher_spec()
        self.schedule = Schedule(self.suite.hash, self.psk[1] if self.psk else b"")
        self.secrets = self.schedule.enter_handshake(secret, digest(self.suite, self.transcript))
        self.seals = protection_1_3(self.suite, self.secrets.server)
        self.opens = protection_1_3(self.suite, self.secrets.client)
        alpn = ((int(Extension.ALPN), vector(2, vector(1, self.alpn or b""))),)
        self.emit(
            "encrypted_extensions",
            messages.EncryptedExtensions(RawExtensions(alpn if self.alpn else ())).encode(),
        )
        if not self.psk:
            self._authenticate()
        mac = finished(self.suite.hash, self.secrets.server, digest(self.suite, self.transcript))
        self.emit("finished", messages.Finished(mac).encode())
        application = self.schedule.enter_application(digest(self.suite, self.transcript))
        self.application: Secrets = application
        self.seals = protection_1_3(self.suite, application.server)
        self._around("after:flight")

    def _authenticate(self) -> None:
        if self.asks:
            schemes = vector(2, uint16(ECDSA_P256), uint16(RSA_PSS))
            asked = RawExtensions(((Extension.SIGNATURE_ALGORITHMS, schemes),))
            self.emit("certificate_request", messages.CertificateRequest(b"", asked).encode())
        sent = messages.Certificate(b"", ((self.der, RawExtensions()),))
        self.emit("certificate", sent.encode())
        content = signatures.signed_content(
            "TLS 1.3, server CertificateVerify", digest(self.suite, self.transcript)
        )
        signature = signatures.sign(self.scheme, self.key, content)
        verify = messages.CertificateVerify(self.scheme, signature)
        self.emit("certificate_verify", verify.encode())

    def take_answer(self, data: bytes) -> None:
        """The client's Finished, and before it what there is. Raises AssertionError."""
        got = b"".join(c for kind, c in self.read(data) if kind == RecordType.HANDSHAKE)
        size = hashlib.new(self.suite.hash).digest_size + 4
        self.transcript += got[:-size]
        mac = finished(self.suite.hash, self.secrets.client, digest(self.suite, self.transcript))
        assert got[-size:] == messages.Finished(mac).encode()
        self.opens = protection_1_3(self.suite, self.application.client)


class Server12(End):
    """A server of TLS 1.2."""

    def __init__(
        self,
        hello: bytes,
        changes: Changes | None = None,
        *,
        suite: int = ECDHE_ECDSA,
        group: int = X25519,
        kind: str = "ec-p256",
        scheme: int = ECDSA_P256,
        extended: bool = True,
        ticket: bytes | None = b"new ticket" * 4,
        staple: bytes = b"",
        asks: bool = False,
        master: bytes = b"",
        random: bytes = b"\x99" * 32,
        fragment_bytes: int = 1 << 14,
    ) -> None:
        """`master`: of the session that is resumed."""
        super().__init__(changes, fragment_bytes)
        self.cipher_suite, self.suite = suite, found_suite(suite)
        self.group, self.scheme, self.extended = group, scheme, extended
        self.ticket, self.staple, self.asks, self.master = ticket, staple, asks, master
        self.der, self.key = own_certificate(kind)
        parsed = parse_client_hello(hello)
        assert parsed
        self.client_random, self.session_id = parsed.random, parsed.session_id
        self.transcript = b"".join(content for _, content in self.read(hello))
        self.random = random

    def send_flight(self) -> None:
        extensions: list[tuple[int, bytes]] = [(Extension.RENEGOTIATION_INFO, b"\0")]
        if self.extended:
            extensions.append((Extension.EXTENDED_MASTER_SECRET, b""))
        if self.ticket is not None:
            extensions.append((Extension.SESSION_TICKET, b""))
        if self.staple:
            extensions.append((Extension.STATUS_REQUEST, b""))
        hello = messages.ServerHello(
            random=self.random,
            session_id=self.session_id if self.master else b"",
            cipher_suite=self.cipher_suite,
            extensions=RawExtensions(tuple(extensions)),
        )
        self.emit("server_hello", hello.encode())
        if self.master:
            self.send_finished()
            return
        self.emit("certificate", older_messages.Certificate12((self.der,)).encode())
        if self.staple:
            self.emit("certificate_status", older_messages.CertificateStatus(self.staple).encode())
        self.key_share = groups.generate(self.group)
        unsigned = older_messages.ServerKeyExchange(
            group=self.group, point=self.key_share.share, scheme=self.scheme, signature=b""
        )
        if change := self.changes.get("unsigned"):
            unsigned = older_messages.ServerKeyExchange.parse(change(unsigned.encode())[4:])
        content = self.client_random + self.random + unsigned.params
        signature = signatures.sign(self.scheme, self.key, content)
        self.emit("server_key_exchange", replace(unsigned, signature=signature).encode())
        if self.asks:
            asked = older_messages.CertificateRequest12(
                types=b"\x40", signature_algorithms=(ECDSA_P256,), authorities=()
            )
            self.emit("certificate_request", asked.encode())
        self.emit("server_hello_done", older_messages.ServerHelloDone().encode())

    def take_answer(self, data: bytes) -> None:
        """ClientKeyExchange to Finished. Raises AssertionError."""
        *got, (kind, end) = self.read(data)
        assert kind == RecordType.HANDSHAKE
        exchange = b"".join(content for kind, content in got if kind == RecordType.HANDSHAKE)
        self.transcript += exchange
        if not self.master:
            point = exchange[exchange.rindex(b"\x10\0\0") + 5 :]
            premaster = self.key_share.agree(point)
            self.master = self._master(premaster)
        opens = self._protection(of_client=True)
        _, sent = opens.open(Record(plain(kind, end)))
        mac = finished_1_2(
            self.suite.hash, self.master, b"client finished", digest(self.suite, self.transcript)
        )
        assert sent == messages.Finished(mac).encode()
        self.transcript += sent

    def _master(self, premaster: bytes) -> bytes:
        name = self.suite.hash
        if self.extended:
            return extended_master_secret(name, premaster, digest(self.suite, self.transcript))
        return master_secret(name, premaster, self.client_random, self.random)

    def _protection(self, *, of_client: bool) -> Protection:
        return protection_1_2(
            self.suite,
            self.master,
            client_random=self.client_random,
            server_random=self.random,
            of_client=of_client,
        )

    def send_finished(self) -> None:
        """NewSessionTicket to Finished."""
        if self.ticket is not None:
            self.emit(
                "new_session_ticket", older_messages.NewSessionTicket12(0, self.ticket).encode()
            )
        self.emit_change_cipher_spec()
        self.seals = self._protection(of_client=False)
        mac = finished_1_2(
            self.suite.hash, self.master, b"server finished", digest(self.suite, self.transcript)
        )
        self.emit("finished", messages.Finished(mac).encode())
        self._around("after:flight")


# Clients


class Client13(End):
    """A client of TLS 1.3, after its hello."""

    def __init__(
        self,
        hello: bytes,
        changes: Changes | None = None,
        *,
        suite: int = AES_128,
        psk: bytes = b"",
        fragment_bytes: int = 1 << 14,
    ) -> None:
        """`hello`: the message."""
        super().__init__(changes, fragment_bytes)
        self.suite, self.psk = found_suite(suite), psk
        self.transcript = hello
        self.flight = b""

    def take_retry(self, data: bytes) -> None:
        self.transcript = messages.message_hash(digest(self.suite, self.transcript))
        self.transcript += b"".join(c for kind, c in self.read(data) if kind == 22)

    def send_hello(self, hello: bytes) -> None:
        self.emit("client_hello", hello)

    def take_flight(self, data: bytes) -> None:
        """From ServerHello to Finished. Raises NotAuthentic, AssertionError."""
        end = 5 + int.from_bytes(data[3:5], "big")
        hello = messages.ServerHello.parse(data[9:end])
        self.transcript += data[5:end]
        secret = b""
        if share := hello.key_share:
            assert share[1]
            secret = _share(share[0]).agree(share[1])
        schedule = Schedule(self.suite.hash, self.psk)
        secrets = schedule.enter_handshake(secret, digest(self.suite, self.transcript))
        self.opens = protection_1_3(self.suite, secrets.server)
        got = b"".join(c for kind, c in self.read(data[end:]) if kind == 22)
        size = hashlib.new(self.suite.hash).digest_size + 4
        self.flight = got
        self.transcript += got[:-size]
        mac = finished(self.suite.hash, secrets.server, digest(self.suite, self.transcript))
        assert got[-size:] == messages.Finished(mac).encode()
        self.transcript += got[-size:]
        self.secrets = secrets
        self.application = schedule.enter_application(digest(self.suite, self.transcript))

    def send_answer(self, settings: int | None = None) -> None:
        """`settings`: the extension of application settings."""
        self.emit_change_cipher_spec()
        self.seals = protection_1_3(self.suite, self.secrets.client)
        if settings is not None:
            extensions = RawExtensions(((settings, b"ours"),))
            self.emit("encrypted_extensions", messages.EncryptedExtensions(extensions).encode())
        mac = finished(self.suite.hash, self.secrets.client, digest(self.suite, self.transcript))
        self.emit("finished", messages.Finished(mac).encode())
        self.seals = protection_1_3(self.suite, self.application.client)
        self._around("after:flight")


class Client12(End):
    """A client of TLS 1.2, after its hello."""

    def __init__(
        self,
        hello: bytes,
        changes: Changes | None = None,
        *,
        suite: int = ECDHE_ECDSA,
        random: bytes = b"\x55" * 32,
        master: bytes = b"",
        fragment_bytes: int = 1 << 14,
    ) -> None:
        super().__init__(changes, fragment_bytes)
        self.suite, self.random, self.master = found_suite(suite), random, master
        self.transcript = hello

    def take_flight(self, data: bytes) -> None:
        """From ServerHello to ServerHelloDone, or in a resumed session to ChangeCipherSpec."""
        got = b"".join(c for kind, c in self.read(data) if kind == 22)
        if self.master:
            end = 4 + int.from_bytes(got[1:4], "big")
            self.server_random = got[6:38]
            protection = self._protection(of_client=False)
            self.transcript += got[: len(got) - 16 - 8 - 16]
            _, sent = protection.open(Record(plain(22, got[-40:])))
            self.transcript += sent
            assert end
            return
        self.transcript += got
        self.server_random = got[6:38]
        at = 0
        while at < len(got):
            end = at + 4 + int.from_bytes(got[at + 1 : at + 4], "big")
            if got[at] == 12:
                self.exchange = older_messages.ServerKeyExchange.parse(got[at + 4 : end])
            at = end

    def _protection(self, *, of_client: bool) -> Protection:
        return protection_1_2(
            self.suite,
            self.master,
            client_random=self.random,
            server_random=self.server_random,
            of_client=of_client,
        )

    def send_answer(self) -> None:
        if not self.master:
            key = groups.generate(self.exchange.group)
            premaster = key.agree(self.exchange.point)
            self.emit("client_key_exchange", older_messages.ClientKeyExchange(key.share).encode())
            self.master = extended_master_secret(
                self.suite.hash, premaster, digest(self.suite, self.transcript)
            )
        self.emit_change_cipher_spec()
        self.seals = self._protection(of_client=True)
        mac = finished_1_2(
            self.suite.hash, self.master, b"client finished", digest(self.suite, self.transcript)
        )
        self.emit("finished", messages.Finished(mac).encode())
        self._around("after:flight")
