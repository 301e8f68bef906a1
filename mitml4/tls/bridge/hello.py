"""The client's ClientHello, and what the server gets: the same, but for what belongs to one
connection.

Fields are replaced in place by others of the same length, and the message keeps the client's record
layout. So the cipher suites, the extensions, their order and their bodies stay as they came.
Replaced are:

    random                     by random bytes
    legacy_session_id          the id of a session that we have (TLS 1.2) by the server's, all else
                               by random bytes
    key_share                  the key of each group that we have; the others stay
    pre_shared_key             the identity of a ticket of ours by the server's, with our binder;
                               all other identities and binders by random bytes, which a server
                               answers with a full handshake
    session_ticket             a ticket of ours by the server's, all else by random bytes
    encrypted_client_hello     enc and payload by random bytes

`Replacements` is what one flow has replaced. The second hello after a HelloRetryRequest repeats
what the client repeats (RFC 8446 §4.1.2).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Final

from mitml4.crypto import groups
from mitml4.crypto.groups import KeyShare
from mitml4.crypto.schedule import Schedule, finished
from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import ClientHello, Extension
from mitml4.protocols.tls.records import HandshakeType, Message, RecordType
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.layout import Layout, read_records
from mitml4.tls.bridge.psks import Psks
from mitml4.tls.bridge.tickets import Ticket
from mitml4.tls.bridge.wire import Fields

__all__ = ["RelayedHello", "Replacements", "relay_hello"]

_TLS_1_2: Final = 0x0303
_TLS_1_3: Final = 0x0304
_MAX_SESSION_ID: Final = 32  # RFC 8446 §4.1.2
_PSK_DHE_KE: Final = 1  # RFC 8446 §4.2.9
_PSK_KE: Final = 0
_ECH_OUTER: Final = 0  # RFC 9849 §5
_ECH_INNER: Final = 1
_MIN_RECORD_SIZE: Final = 64  # RFC 8449 §4


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayedHello:
    """A client's hello, and the one that its server gets."""

    received: bytes
    """The handshake message as the client wrote it, header and all."""
    sent: bytes
    """The message that the server gets, of the same length."""
    parsed: ClientHello
    """What the client wrote."""
    random: bytes
    """Ours."""
    session_id: bytes
    """Ours."""
    shares: dict[int, KeyShare]
    """Our keys, by group."""
    client_shares: dict[int, bytes]
    """The client's keys of the same groups."""
    identities: int
    """How many sessions the client offers to resume."""
    ticket: tuple[int, Ticket] | None
    """The session with both sides that the client offers to resume, and its index; if there are
    several, the first. Others are not offered to the server."""
    older_ticket: Ticket | None
    """The session with both sides that the client offers to resume in TLS 1.2 (RFC 5077)."""
    offers_unknown_session: bool
    """Whether all sessions that the client offers to resume are unknown to us, and there are
    some."""
    accepts_tickets: bool
    """Whether the client may resume a session with a key exchange (psk_dhe_ke). Erlang lists its
    modes only in the hello that resumes one; servers send it tickets all the same."""
    allows_psk_alone: bool
    """Whether a session may be resumed without a key exchange (psk_ke)."""
    compression_algorithms: tuple[int, ...]
    """For certificates (RFC 8879)."""
    credential_algorithms: tuple[int, ...]
    """The signature schemes of delegated credentials (RFC 9345)."""
    record_size_limit: int | None
    """RFC 8449: bytes of a record's plaintext that the client takes, type and padding included."""
    layout: Layout

    def records(self) -> bytes:
        """What is sent to the server, in the client's record layout: sizes and versions."""
        return self.layout.apply(self.sent)

    @property
    def offers_1_3(self) -> bool:
        return _TLS_1_3 in self.parsed.supported_versions

    def ticket_at(self, index: int) -> Ticket | None:
        """The session of this identity; None: the server got random bytes in its place."""
        return self.ticket[1] if self.ticket and self.ticket[0] == index else None


class Replacements:
    """What one flow puts in the place of what its client wrote. The same bytes in the same field
    get the same replacement, and a group has one key."""

    def __init__(self) -> None:
        self._replaced: dict[tuple[str, bytes], bytes] = {}
        self._keys: dict[int, KeyShare] = {}
        self._tickets: dict[bytes, Ticket | None] = {}

    def replace(self, field: str, content: bytes) -> bytes:
        """Random bytes of the same length."""
        if (field, content) not in self._replaced:
            self._replaced[field, content] = os.urandom(len(content))
        return self._replaced[field, content]

    def key(self, group: int) -> KeyShare:
        """Ours."""
        if group not in self._keys:
            self._keys[group] = groups.generate(group)
        return self._keys[group]

    def ticket(
        self, ours: bytes, version: int, find_ticket: Callable[[bytes], Ticket | None]
    ) -> Ticket | None:
        """The session of a ticket of ours, if it is of this version."""
        if ours not in self._tickets:
            self._tickets[ours] = find_ticket(ours)
        ticket = self._tickets[ours]
        fits = ticket and ticket.version == version and len(ticket.server_ticket) == len(ours)
        return ticket if fits else None


def relay_hello(
    stream: bytes,
    replacements: Replacements,
    *,
    find_ticket: Callable[[bytes], Ticket | None] = lambda _: None,
    prefix: bytes = b"",
    parsed: ClientHello | None = None,
) -> RelayedHello:
    """What the server gets for the client's hello.

    `stream`: the client's records, from the first one of the hello on; what follows the hello is
    not looked at. `find_ticket`: the session of a ticket of ours. `prefix`: what the server's
    transcript has before this hello: empty, or after a HelloRetryRequest both messages (RFC 8446
    §4.4.1). `parsed`: the hello, if somebody has parsed it.

    Raises TlsError for a hello that no server accepts, and CannotBridge for one that the bridge has
    no answer to.
    """
    message, layout = read_records(stream)
    relay = _Relay(message, replacements, find_ticket)
    relay.read()
    parsed = parsed or _parsed(message)
    _check(parsed, relay)
    relay.sign(prefix)
    return RelayedHello(
        received=message,
        sent=bytes(relay.sent),
        parsed=parsed,
        random=bytes(relay.sent[6:38]),
        session_id=relay.session_id,
        shares=relay.shares,
        client_shares=relay.client_shares,
        identities=len(relay.psks.identities) if relay.psks else 0,
        ticket=relay.ticket,
        older_ticket=relay.older_ticket,
        offers_unknown_session=_offers_session(parsed, relay)
        and not (relay.ticket or relay.older_ticket),
        accepts_tickets=not relay.psk_modes or _PSK_DHE_KE in relay.psk_modes,
        allows_psk_alone=_PSK_KE in relay.psk_modes,
        compression_algorithms=relay.compression_algorithms,
        credential_algorithms=relay.credential_algorithms,
        record_size_limit=relay.record_size_limit,
        layout=layout,
    )


def _parsed(message: bytes) -> ClientHello:
    try:
        return ClientHello.of(
            Message(RecordType.HANDSHAKE, HandshakeType.CLIENT_HELLO, message[4:])
        )
    except ProtocolError as error:
        raise TlsError(Alert.DECODE_ERROR, error.message) from error


def _check(parsed: ClientHello, relay: _Relay) -> None:
    """Raises CannotBridge for what is allowed, and has no answer here."""
    if _TLS_1_3 in parsed.supported_versions:
        if not parsed.has(Extension.KEY_SHARE):
            raise CannotBridge("a hello without a key share")
        if relay.psks and relay.psk_modes and _PSK_DHE_KE not in relay.psk_modes:
            raise CannotBridge("a session to be resumed without a key exchange")
    elif _TLS_1_2 not in parsed.versions:
        raise CannotBridge("a hello for neither TLS 1.3 nor TLS 1.2")


def _offers_session(parsed: ClientHello, relay: _Relay) -> bool:
    """In TLS 1.3, a session id has no meaning."""
    has_id = bool(relay.session_id) and _TLS_1_3 not in parsed.supported_versions
    return relay.offers_session or has_id


class _Relay:
    """Reads a hello once, and replaces on the way."""

    def __init__(
        self,
        message: bytes,
        replacements: Replacements,
        find_ticket: Callable[[bytes], Ticket | None],
    ) -> None:
        self._message = message
        self._replacements = replacements
        self._find_ticket = find_ticket
        self.sent = bytearray(message)
        self.session_id = b""
        self.shares: dict[int, KeyShare] = {}
        self.client_shares: dict[int, bytes] = {}
        self.psks: Psks | None = None
        self.psk_modes = b""
        self.sends_early_data = False
        self.ticket: tuple[int, Ticket] | None = None
        self.older_ticket: Ticket | None = None
        self.offers_session = False
        self.compression_algorithms: tuple[int, ...] = ()
        self.credential_algorithms: tuple[int, ...] = ()
        self.record_size_limit: int | None = None

    def read(self) -> None:
        """Everything but the binders. Raises TlsError and CannotBridge."""
        fields = Fields(self._message, "ClientHello", 6)
        self._randomize("random", fields.take(32), fields.at)
        session_id = fields.vector(1)
        if len(session_id) > _MAX_SESSION_ID:
            raise fields.error("has a session id of more than 32 bytes")
        self._take_session_id(session_id, fields.at)
        fields.uint16s(2)
        fields.vector(1, least=1)
        extensions = fields.extensions() if fields else {}
        fields.end()
        for kind, (start, end) in extensions.items():
            # RFC 8446 §4.2.11: pre_shared_key "MUST be the last extension in the ClientHello"
            if self.psks:
                raise TlsError(Alert.ILLEGAL_PARAMETER, "an extension after pre_shared_key")
            if take := _TAKEN.get(kind):
                body = fields.part(start, end)
                take(self, body)
                body.end()

    def sign(self, prefix: bytes) -> None:
        """The binder of our ticket; it signs everything before the binders."""
        if not self.ticket or not self.psks:
            return
        index, ticket = self.ticket
        name = ticket.suite.hash
        transcript = hashlib.new(name, prefix + self.sent[: self.psks.end]).digest()
        binder = finished(name, Schedule(name, ticket.server_secret).binder_key(), transcript)
        start, end = self.psks.binders[index]
        self.sent[start:end] = binder

    def _replace(self, end: int, content: bytes) -> None:
        """In place; what is there ends at `end`."""
        self.sent[end - len(content) : end] = content

    def _randomize(self, field: str, content: bytes, end: int) -> bytes:
        replaced = self._replacements.replace(field, content)
        self._replace(end, replaced)
        return replaced

    def _take_session_id(self, content: bytes, end: int) -> None:
        """RFC 5246 §7.4.1.2; in TLS 1.3 it has no meaning."""
        self.older_ticket = self._replacements.ticket(content, _TLS_1_2, self._find_ticket)
        if self.older_ticket:
            self.session_id = self.older_ticket.server_ticket
            self._replace(end, self.session_id)
        else:
            self.session_id = self._randomize("session id", content, end)

    def take_key_share(self, body: Fields) -> None:
        """RFC 8446 §4.2.8."""
        listed, seen = body.fields(2), set()
        while listed:
            group, key = listed.uint16(), listed.vector(2, least=1)
            if group in seen:
                # "Clients MUST NOT offer multiple KeyShareEntry values for the same group."
                raise TlsError(Alert.ILLEGAL_PARAMETER, "two key shares of the same group")
            seen.add(group)
            if group not in groups.SUPPORTED:
                continue
            if len(key) != groups.client_share_bytes(group):
                raise CannotBridge(f"a key share of {len(key)} bytes for group 0x{group:04x}")
            self.shares[group] = self._replacements.key(group)
            self.client_shares[group] = key
            self._replace(listed.at, self.shares[group].share)

    def take_ech(self, body: Fields) -> None:
        """RFC 9849 §5."""
        kind = body.uint8()
        if kind == _ECH_INNER:
            return
        if kind != _ECH_OUTER:
            raise TlsError(Alert.DECODE_ERROR, f"an encrypted_client_hello of type {kind}")
        suite_and_config = body.take(5)
        enc, enc_end = body.vector(2), body.at
        payload, payload_end = body.vector(2, least=1), body.at
        # Enc is empty in a second hello, and then belongs to the first one's.
        field = f"ech {suite_and_config.hex()}"
        self._randomize(field, enc, enc_end)
        self._randomize(field, payload, payload_end)

    def take_session_ticket(self, body: Fields) -> None:
        """RFC 5077 §3.2. §3.4: the server tells by the session id whether it accepts a ticket;
        without one the next message would tell it, and that is not read so."""
        content = body.rest()
        self.offers_session = self.offers_session or bool(content)
        ticket = None
        if self.session_id:
            ticket = self._replacements.ticket(content, _TLS_1_2, self._find_ticket)
        if ticket:
            self.older_ticket = ticket
            self._replace(body.at, ticket.server_ticket)
        else:
            self._randomize("session ticket", content, body.at)

    def take_psks(self, body: Fields) -> None:
        """RFC 8446 §4.2.11."""
        self.psks = Psks.read(body)
        self.offers_session = True
        for start, end in self.psks.binders:
            self._replace(end, os.urandom(end - start))
        for index, (start, end) in enumerate(self.psks.identities):
            identity = self._message[start:end]
            ticket = self._replacements.ticket(identity, _TLS_1_3, self._find_ticket)
            if (
                ticket
                and not (self.ticket or self.sends_early_data)
                and self.psks.binder_bytes(index) == len(ticket.server_secret)
            ):
                self.ticket = index, ticket
                self._replace(end, ticket.server_ticket)
            else:
                self._randomize("identity", identity, end)

    def take_psk_modes(self, body: Fields) -> None:
        self.psk_modes = body.vector(1, least=1)

    def take_early_data(self, _: Fields) -> None:
        """Our tickets do not allow it. What comes with another one cannot be read, so the server is
        offered no session whose early data it would accept."""
        self.sends_early_data = True

    def take_compression(self, body: Fields) -> None:
        self.compression_algorithms = body.uint16s(1)

    def take_credential(self, body: Fields) -> None:
        self.credential_algorithms = body.uint16s(2)

    def take_record_size_limit(self, body: Fields) -> None:
        """RFC 8449 §4: "MUST treat receipt of a smaller value as a fatal error and generate an
        "illegal_parameter" alert"."""
        self.record_size_limit = body.uint16()
        if self.record_size_limit < _MIN_RECORD_SIZE:
            raise TlsError(
                Alert.ILLEGAL_PARAMETER, f"a record_size_limit of {self.record_size_limit}"
            )


_TAKEN: Final[dict[int, Callable[[_Relay, Fields], None]]] = {
    Extension.COMPRESS_CERTIFICATE: _Relay.take_compression,
    Extension.RECORD_SIZE_LIMIT: _Relay.take_record_size_limit,
    Extension.DELEGATED_CREDENTIAL: _Relay.take_credential,
    Extension.EARLY_DATA: _Relay.take_early_data,
    Extension.SESSION_TICKET: _Relay.take_session_ticket,
    Extension.PRE_SHARED_KEY: _Relay.take_psks,
    Extension.PSK_KEY_EXCHANGE_MODES: _Relay.take_psk_modes,
    Extension.KEY_SHARE: _Relay.take_key_share,
    Extension.ENCRYPTED_CLIENT_HELLO: _Relay.take_ech,
}
