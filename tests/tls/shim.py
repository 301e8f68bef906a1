"""Drives one end of the TLS bridge over a TCP socket: a client (ServerLeg) or a server (ClientLeg),
without the other leg. Test runners of other projects, and other implementations, talk to it.

    python -m tests.tls.shim -port PORT [-server -cert-file FILE -key-file FILE] [options]

The options have the names and meanings that BoringSSL's runner gives its shim; one that is unknown
ends with status 89, which stands for "unimplemented" there. `make tls-runner` runs it. As there,
the shim connects to the port in both roles (-accept waits for a connection), and sends back every
byte of data it gets, exclusive-or'ed with 0xff, until the end. An option after -on-initial- or
-on-resume- is one of the first connection, or of the later ones.

Status 0: all went as the options want it; 1: it did not, and stderr has a line `error: ALERT: …`
with the alert that was sent, or `error: …`; 89 also for what the bridge leaves to OpenSSL.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from mitml4.crypto import groups
from mitml4.crypto.suites import Suite, suite_of
from mitml4.errors import ProtocolError
from mitml4.protocols.tls.alerts import Alert, TlsError, alert_name
from mitml4.protocols.tls.hello import RETRY_RANDOM, Extension, parse_client_hello
from mitml4.protocols.tls.records import RecordType
from mitml4.tls.bridge import messages, older_messages
from mitml4.tls.bridge.client_leg import ClientLeg
from mitml4.tls.bridge.connection import MIN_ROOM, Connection
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.flight import Flight, Retry, SecondHello, Shown
from mitml4.tls.bridge.hello import RelayedHello, Replacements, relay_hello
from mitml4.tls.bridge.identity import Identity
from mitml4.tls.bridge.leg import Leg, PeerAlert
from mitml4.tls.bridge.older import Older
from mitml4.tls.bridge.server_leg import ServerLeg
from mitml4.tls.bridge.tickets import SiteTickets, TicketRelay, Tickets
from mitml4.tls.bridge.wire import uint16, vector
from tests.tls.bridge.scripted import Offer

UNIMPLEMENTED: Final = 89
TLS_1_2, TLS_1_3 = 0x0303, 0x0304
SUITES = (0x1301, 0x1302, 0x1303)
SUITES_1_2 = {"ECDSA": (0xC02B, 0xC02C, 0xCCA9), "RSA": (0xC02F, 0xC030, 0xCCA8)}
CURVES = (0x001D, 0x0017, 0x0018)
SETTINGS = int(Extension.APPLICATION_SETTINGS_OLD)
SCHEMES = (0x0403, 0x0503, 0x0603, 0x0807, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601)
TIMEOUT_S = 30


class Failed(Exception):  # noqa: N818 - of the shim as a whole, not an error of its own
    """The connection did not go as the options want it. The message says why."""


def option(help: str, default: Any = False) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(kw_only=True)
class Options:
    port: int = option("the port on the loopback address; with -accept, 0 takes any", 0)
    ipv6: bool = option("the loopback address of IPv6")
    shim_id: int = option("a number of eight bytes to begin the connection with", -1)
    accept: bool = option(
        "wait for connections, and print the port; BoringSSL's has no such option"
    )
    forever: bool = option(
        "with -accept: for one connection after the other, whatever they end with"
    )
    server: bool = option("be a server")
    cert_file: str = option("the certificates in PEM, the leaf first", "")
    key_file: str = option("its key in PEM", "")
    resume_count: int = option("so many connections after the first, which resume its session", 0)
    shim_writes_first: bool = option("send `hello` before anything is read")
    shim_shuts_down: bool = option("send close_notify after that, and read nothing but the end")
    check_close_notify: bool = option("the other end has to send close_notify")
    min_version: int = option("the lowest version: 771 or 772", TLS_1_2)
    max_version: int = option("the highest version: 771 or 772", TLS_1_3)
    no_tls13: bool = option("not that version")
    no_tls12: bool = option("not that version")
    no_tls11: bool = option("which it never has")
    no_tls1: bool = option("which it never has")
    no_ticket: bool = option("no session tickets")
    curves: tuple[int, ...] = option("a group, best first; may be given several times", ())
    verify_prefs: tuple[int, ...] = option("a signature scheme of the client's, likewise", ())
    host_name: str = option("the name in the client's hello", "")
    advertise_alpn: str = option("the client's protocols, each after a byte with its length", "")
    select_alpn: str = option("the protocol that the server chooses", "")
    decline_alpn: bool = option("the server chooses none")
    async_: bool = option("one byte is read at a time")
    implicit_handshake: bool = option("which it always is")
    enable_ocsp_stapling: bool = option("the client asks for an OCSP response")
    ocsp_response: str = option("the server's OCSP response, in Base64", "")
    expect_ocsp_response: str = option("what the client gets of it", "")
    application_settings: str = option("the settings for a protocol: `PROTOCOL,SETTINGS`", "")
    expect_peer_application_settings: str = option("the other end's settings", "")
    reject_alpn: bool = option("the server refuses every protocol")
    expect_extended_master_secret: bool = option("in TLS 1.2, the secret is one")
    expect_version: int = option("the version in the end", 0)
    expect_alpn: str = option("the protocol in the end", "")
    expect_no_alpn: bool = option("no protocol in the end")
    expect_advertised_alpn: str = option("what the client's hello has of protocols", "")
    expect_server_name: str = option("the name in the client's hello", "")
    expect_curve_id: int = option("the group in the end", 0)
    expect_cipher: int = option("the cipher suite in the end; BoringSSL's have other names", 0)
    expect_hrr: bool = option("the server asks for another hello")
    expect_no_hrr: bool = option("it does not")
    expect_session_miss: bool = option("no session is resumed where it could be")
    expect_peer_signature_algorithm: int = option("the scheme of the server's signature", 0)
    expect_ticket: bool = option("the client gets a ticket; BoringSSL's has no such option")

    @property
    def versions(self) -> tuple[int, ...]:
        left = {TLS_1_3: not self.no_tls13, TLS_1_2: not self.no_tls12}
        allowed = range(self.min_version, self.max_version + 1)
        return tuple(version for version, allows in left.items() if allows and version in allowed)

    @property
    def groups(self) -> tuple[int, ...]:
        return tuple(curve for curve in self.curves or CURVES if curve in groups.SUPPORTED)

    @property
    def settings(self) -> tuple[bytes, bytes] | None:
        """A protocol and its settings."""
        protocol, comma, settings = self.application_settings.partition(",")
        return (protocol.encode(), settings.encode()) if comma else None


FLAGS: Final = {f"-{each.name.rstrip('_').replace('_', '-')}": each for each in fields(Options)}


def usage() -> str:
    lines = []
    for flag, each in FLAGS.items():
        value = "" if each.default is False else " N" if _is_number(each) else " TEXT"
        lines.append(f"  {flag + value:28}{each.metadata['help']}")
    return f"{__doc__}\nOptions:\n" + "\n".join(lines)


def _is_number(each: Any) -> bool:
    return "int" in str(each.type)


def parse(arguments: Sequence[str]) -> tuple[Options, Options]:
    """The options of the first connection, and of the later ones. Raises SystemExit."""
    first, later = Options(), Options()
    left = iter(arguments)
    for argument in left:
        if argument in ("-h", "-help", "--help"):
            print(usage())
            raise SystemExit(0)
        if argument == "-is-handshaker-supported":
            print("No")
            raise SystemExit(0)
        targets, flag = [first, later], argument
        for prefix, target in (("-on-initial", first), ("-on-resume", later)):
            if argument.startswith(prefix + "-"):
                targets, flag = [target], argument.removeprefix(prefix)
        each = FLAGS.get(flag)
        if each is None:
            print(f"error: {argument} is not implemented", file=sys.stderr)
            raise SystemExit(UNIMPLEMENTED)
        value: Any = True if each.default is False else next(left, "")
        for target in targets:
            if isinstance(each.default, tuple):
                setattr(target, each.name, (*getattr(target, each.name), int(value)))
            else:
                setattr(target, each.name, int(value) if _is_number(each) else value)
    return first, later


# A connection


class Ending:
    """One end over a socket."""

    def __init__(self, options: Options, peer: socket.socket, tickets: Tickets) -> None:
        self.options = options
        self.socket = peer
        self.tickets = SiteTickets(tickets, "site")
        self.leg: Leg | None = None
        self.connection: Connection | None = None
        self.flight: Flight | None = None
        self.hello: RelayedHello | None = None
        self.retried = False
        self.got_tickets = 0
        self.got_settings: bytes | None = None

    def run(self) -> None:
        """To the end of the connection. Raises Failed."""
        try:
            self.connection = self.connect()
            self.check()
            self.exchange(self.connection)
        except TlsError as error:
            self.fail(error.alert)
            raise Failed(f"{alert_name(error.alert)}: {error.message}") from error
        except ProtocolError as error:
            self.fail(Alert.DECODE_ERROR)
            raise Failed(f"decode_error: {error.message}") from error
        except CannotBridge as error:
            self.fail(Alert.HANDSHAKE_FAILURE)
            print(f"error: cannot be bridged: {error}", file=sys.stderr)
            raise SystemExit(UNIMPLEMENTED) from error
        except OSError as error:
            raise Failed(f"the connection: {error}") from error

    def connect(self) -> Connection:
        raise NotImplementedError

    def fail(self, number: int) -> None:
        record = bytes([RecordType.ALERT, 3, 3, 0, 2, 2, number])
        if self.leg:
            record = self.leg.to_send() + self.leg.fail(number)
        try:
            self.socket.sendall(record)
            self.socket.shutdown(socket.SHUT_WR)
            while self.socket.recv(1 << 16):  # a reset would take the alert away
                pass
        except OSError:
            return

    def receive(self) -> bytes:
        """What comes next. Raises Failed at the end."""
        data = self.socket.recv(1 if self.options.async_ else 1 << 16)
        if not data:
            raise Failed("the other end has closed the connection during the handshake")
        return data

    def next_event(self, leg: Any) -> Any:
        """Send what is to be sent, and read until something has happened. Raises Failed."""
        while True:
            self.flush()
            event = leg.next_event()
            if isinstance(event, PeerAlert):
                raise Failed(f"received alert {alert_name(event.alert)}")
            if event:
                return event
            leg.receive(self.receive())

    def flush(self) -> None:
        assert self.leg
        if data := self.leg.to_send():
            self.socket.sendall(data)

    def relay(self, leg: Any) -> TicketRelay:
        """What keeps a ticket of TLS 1.3 with its secrets."""
        assert self.flight
        return TicketRelay(
            tickets=self.tickets,
            cipher_suite=self.flight.hello.cipher_suite,
            suite=self.flight.suite,
            server_resumption=leg.resumption,
            client_resumption=leg.resumption,
        )

    def check(self) -> None:
        """What the handshake was to come to. Raises Failed."""
        options, flight, hello = self.options, self.flight, self.hello
        assert flight
        assert hello
        offered = hello.parsed
        found: list[tuple[str, object, object]] = [
            ("version", options.expect_version, flight.version),
            ("curve", 0 if flight.ticket else options.expect_curve_id, flight.group),
            ("cipher", options.expect_cipher, flight.hello.cipher_suite),
            ("alpn", options.expect_alpn.encode(), flight.alpn),
            ("server name", options.expect_server_name, offered.sni),
            (
                "advertised alpn",
                options.expect_advertised_alpn.encode("latin-1"),
                b"".join(vector(1, name) for name in offered.alpn or ()),
            ),
            ("retry", options.expect_hrr, self.retried),
            ("staple", b64decode(options.expect_ocsp_response), flight.staple),
            ("settings", options.expect_peer_application_settings.encode(), self.got_settings),
        ]
        for what, wanted, got in found:
            if wanted and wanted != got:
                raise Failed(f"{what} is {got!r} and not {wanted!r}")
        if options.expect_extended_master_secret and flight.older and not flight.older.extended:
            raise Failed("another master secret")
        if options.expect_no_hrr and self.retried:
            raise Failed("a retry")
        if options.expect_no_alpn and flight.alpn:
            raise Failed(f"alpn is {flight.alpn!r}")

    # Data

    def exchange(self, connection: Connection) -> None:
        options = self.options
        if options.shim_writes_first:
            self.send(connection, b"hello")
        if options.shim_shuts_down:
            connection.close()
            self.send(connection, b"")
        for data in self.data(connection):
            if not options.shim_shuts_down:
                self.send(connection, bytes(byte ^ 0xFF for byte in data))
        if connection.failure:
            raise Failed(connection.failure)
        if not connection.received_close_notify and options.check_close_notify:
            raise Failed("no close_notify")
        if not connection.is_shut:
            connection.close()
            self.send(connection, b"")
        if options.expect_ticket and not self.got_tickets:
            raise Failed("no ticket")

    def data(self, connection: Connection) -> Iterator[bytes]:
        """What comes, until the end."""
        into = memoryview(bytearray(4 * MIN_ROOM))
        while not connection.has_ended:
            if not connection.keeps_record:
                received = b""
                with suppress(ConnectionResetError):
                    received = self.socket.recv(1 if self.options.async_ else 1 << 16)
                if not received:
                    return
                connection.kept = memoryview(bytes(connection.kept) + received)
            if count := connection.open(connection.kept, into):
                yield bytes(into[:count])
        self.send(connection, b"")

    def send(self, connection: Connection, data: bytes) -> None:
        """Data, and before it what is due. Raises OSError."""
        into = memoryview(bytearray(4 * MIN_ROOM))
        left = memoryview(data)
        while left or connection.due:
            if due := connection.seal_due():
                self.socket.sendall(due)
                continue
            if connection.is_shut:
                return
            taken, written = connection.seal(left, into)
            self.socket.sendall(into[:written])
            left = left[taken:]


class SeenServerLeg(ServerLeg):
    scheme = 0
    """Of the server's signature."""

    def verify(self, scheme: int, *given: Any, **more: Any) -> None:
        self.scheme = scheme
        super().verify(scheme, *given, **more)


class Client(Ending):
    def __init__(self, options: Options, peer: socket.socket, tickets: Tickets) -> None:
        super().__init__(options, peer, tickets)
        self.ours: list[tuple[int, bytes]] = []
        """The version and the bytes of tickets that were received."""

    def offer(self, session: tuple[int, bytes] | None) -> Offer:
        options = self.options
        curves = options.groups
        more: dict[int, bytes] = {}
        without: list[int] = []
        if options.host_name:
            entry = b"\0" + vector(2, options.host_name.encode())
            more[Extension.SERVER_NAME] = vector(2, entry)
        else:
            without.append(Extension.SERVER_NAME)
        if options.advertise_alpn:
            more[Extension.ALPN] = vector(2, options.advertise_alpn.encode("latin-1"))
        else:
            without.append(Extension.ALPN)
        if options.enable_ocsp_stapling:
            more[Extension.STATUS_REQUEST] = b"\x01\0\0\0\0"
        if options.settings:
            more[SETTINGS] = vector(2, vector(1, options.settings[0]))
        suites: list[int] = []
        if TLS_1_3 in options.versions:
            suites += SUITES
            if session and session[0] == TLS_1_3:
                more[Extension.PRE_SHARED_KEY] = self.identity(session[1])
        else:
            without += (Extension.KEY_SHARE, Extension.SUPPORTED_VERSIONS)
            without.append(Extension.PSK_KEY_EXCHANGE_MODES)
        if TLS_1_2 in options.versions:
            suites += SUITES_1_2["ECDSA"] + SUITES_1_2["RSA"]
            if session and session[0] == TLS_1_2:
                more[Extension.SESSION_TICKET] = session[1]
        if options.no_ticket:
            without += (Extension.SESSION_TICKET, Extension.PSK_KEY_EXCHANGE_MODES)
        return Offer(
            versions=options.versions,
            suites=tuple(suites),
            groups=curves,
            shares=curves[:1],
            schemes=tuple(options.verify_prefs or SCHEMES),
            random=os.urandom(32),
            session_id=os.urandom(32 if session or TLS_1_3 in options.versions else 0),
            more=more,
            without=tuple(without),
        )

    def identity(self, ticket: bytes) -> bytes:
        """pre_shared_key, with a binder that is made when the hello is relayed."""
        known = self.tickets.find(ticket)
        assert known
        binder = vector(1, bytes(len(known.server_secret)))
        return vector(2, vector(2, ticket) + bytes(4)) + vector(2, binder)

    session: tuple[int, bytes] | None = None
    """What is offered to be resumed."""

    def connect(self) -> Connection:
        self.replacements = Replacements()
        offer = self.offer(self.session)
        self.hello = self.relayed(offer)
        leg = self.leg = SeenServerLeg(self.hello)
        event = self.next_event(leg)
        if isinstance(event, Retry):
            self.retried = True
            leg.send_retried(self.second(offer, event.message, leg))
            event = self.next_event(leg)
        assert isinstance(event, Flight)
        self.flight = event
        leg.finish(self.own_settings(event), identity_of(self.options))
        if event.older and not event.ticket:
            ended = self.next_event(leg)
            self.keep_older(leg, ended.ticket)
        elif event.older:
            self.keep_older(leg, event.new_ticket)
        self.flush()
        wanted = self.options.expect_peer_signature_algorithm
        if wanted and not event.ticket and leg.scheme != wanted:
            raise Failed(f"the signature is by {leg.scheme}")
        if self.session and bool(event.ticket) == self.options.expect_session_miss:
            raise Failed("a session was resumed" if event.ticket else "no session was resumed")
        connection = Connection(leg.records_in, leg.records_out, is_client=True)
        if not event.older:
            connection.on_ticket = self.keep(self.relay(leg))
        return connection

    def own_settings(self, flight: Flight) -> bytes:
        """The message with them, if the server has its own."""
        if flight.settings is None or not self.options.settings:
            return b""
        assert flight.extensions
        self.got_settings = flight.extensions.extensions.get(flight.settings)
        ours = RawExtensions(((flight.settings, self.options.settings[1]),))
        return messages.EncryptedExtensions(ours).encode()

    def relayed(self, offer: Offer, prefix: bytes = b"") -> RelayedHello:
        return relay_hello(
            offer.records(), self.replacements, find_ticket=self.tickets.find, prefix=prefix
        )

    def second(self, offer: Offer, retry: messages.ServerHello, leg: Leg) -> RelayedHello:
        more = dict(offer.more)
        if cookie := retry.extensions.get(Extension.COOKIE):
            more = {Extension.COOKIE: cookie, **more}
        shares = (retry.key_share[0],) if retry.key_share else offer.shares
        changed = replace(offer, more=more, shares=shares, record_version=TLS_1_2)
        return self.relayed(changed, leg.transcript.first_messages)

    def keep(self, relay: TicketRelay) -> Callable[[messages.NewSessionTicket], None]:
        def take(ticket: messages.NewSessionTicket) -> None:
            self.got_tickets += 1
            if ours := relay.relay(ticket):
                kept = messages.NewSessionTicket.parse(ours[4:])
                self.ours.append((TLS_1_3, kept.ticket))

        return take

    def keep_older(self, leg: ServerLeg, ticket: older_messages.NewSessionTicket12 | None) -> None:
        assert self.flight
        assert self.flight.older
        assert leg.older
        if ticket is None or not ticket.ticket:
            return
        self.got_tickets += 1
        session = self.tickets.older(
            ticket.ticket,
            cipher_suite=self.flight.hello.cipher_suite,
            suite=self.flight.suite,
            extended=self.flight.older.extended,
            server_secret=leg.older.master,
            client_secret=leg.older.master,
        )
        kept = self.tickets.issue_older(ticket, session)
        self.ours.append((TLS_1_2, kept.ticket))


class Server(Ending):
    def connect(self) -> Connection:
        stream, replacements = b"", Replacements()
        try:
            while not parse_client_hello(stream):
                stream += self.receive()
        except ProtocolError:
            relay_hello(stream, replacements)  # knows the alert
            raise
        find = self.tickets.find
        hello = self.hello = relay_hello(stream, replacements, find_ticket=find)
        shown = shown_of(self.options)
        self.choose(hello, shown)
        leg = self.leg = ClientLeg(hello)
        assert hello.parsed.wire_length <= len(stream)
        leg.receive(stream[len(hello.records()) :])
        if self.version == TLS_1_3 and self.group not in hello.client_shares:
            hello = self.retry(leg, replacements)
        flight = self.flight = self.answer(hello)
        leg.send_flight(flight, None if flight.ticket else shown)
        if flight.older and flight.ticket:
            leg.finish(self.older_ticket(leg, flight))
        finished = self.next_event(leg)
        if finished.settings:
            answer = messages.EncryptedExtensions.parse(finished.settings[4:])
            self.got_settings = answer.extensions.get(SETTINGS)
        if flight.older and not flight.ticket:
            leg.finish(self.older_ticket(leg, flight))
        self.flush()
        offered = hello.parsed.psk or hello.older_ticket
        if offered and self.options.expect_session_miss and flight.ticket:
            raise Failed("a session was resumed")
        connection = Connection(leg.records_in, leg.records_out, is_client=False)
        if not flight.older and hello.accepts_tickets and not self.options.no_ticket:
            connection.queue(self.ticket(leg))
        return connection

    def choose(self, hello: RelayedHello, shown: Shown) -> None:
        """What a server decides that reads a hello (RFC 8446 §4.1.1). Raises TlsError."""
        offered = hello.parsed
        shared = [version for version in self.options.versions if version in offered.versions]
        if not shared:
            raise TlsError(Alert.PROTOCOL_VERSION, "no version in common")
        self.version = shared[0]
        if 0 not in offered.compression or (
            self.version == TLS_1_3 and offered.compression != (0,)
        ):
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a hello with compression")
        signer = "RSA" if isinstance(shown.key, RSAPrivateKey) else "ECDSA"
        suites = SUITES if self.version == TLS_1_3 else SUITES_1_2[signer]
        self.cipher_suite = self.first(suites, offered.cipher_suites, "cipher suite")
        needed = [Extension.SUPPORTED_GROUPS, Extension.SIGNATURE_ALGORITHMS]
        if offered.psk:
            needed.append(Extension.PSK_KEY_EXCHANGE_MODES)
        if self.version == TLS_1_3 and not all(map(offered.has, needed)):
            raise TlsError(Alert.MISSING_EXTENSION, "a hello without an extension")
        curves = self.options.groups
        with_share = [curve for curve in curves if curve in hello.client_shares]
        self.group = self.first(with_share or curves, offered.groups, "group")
        self.alpn = None
        if self.options.reject_alpn and offered.alpn:
            raise TlsError(Alert.NO_APPLICATION_PROTOCOL, "no protocol is accepted")
        if self.options.select_alpn and not self.options.decline_alpn and offered.alpn:
            self.alpn = self.options.select_alpn.encode()
            if self.alpn not in offered.alpn:
                raise TlsError(Alert.NO_APPLICATION_PROTOCOL, "no protocol in common")

    def first(self, ours: Sequence[int], theirs: Sequence[int], what: str) -> int:
        for each in ours:
            if each in theirs:
                return each
        raise TlsError(Alert.HANDSHAKE_FAILURE, f"no {what} in common")

    @property
    def suite(self) -> Suite:
        suite = suite_of(self.cipher_suite)
        assert suite
        return suite

    def retry(self, leg: ClientLeg, replacements: Replacements) -> RelayedHello:
        self.retried = True
        wanted = RawExtensions(
            (
                (int(Extension.SUPPORTED_VERSIONS), uint16(TLS_1_3)),
                (int(Extension.KEY_SHARE), uint16(self.group)),
            )
        )
        leg.send_retry(self.server_hello(wanted, RETRY_RANDOM))
        event = self.next_event(leg)
        assert isinstance(event, SecondHello)
        hello = self.hello = relay_hello(
            event.stream,
            replacements,
            find_ticket=self.tickets.find,
            prefix=leg.transcript.first_messages,
        )
        leg.take_second_hello(hello)
        return hello

    def server_hello(
        self, extensions: RawExtensions, random: bytes = bytes(32), session_id: bytes = b""
    ) -> messages.ServerHello:
        return messages.ServerHello(
            random=random,
            session_id=session_id,
            cipher_suite=self.cipher_suite,
            extensions=extensions,
        )

    def answer(self, hello: RelayedHello) -> Flight:
        """What the leg is to tell the client. What belongs to the leg is a placeholder."""
        alpn = [(int(Extension.ALPN), vector(2, vector(1, self.alpn)))] if self.alpn else []
        if self.version == TLS_1_2:
            return self.answer_older(hello, alpn)
        settings = self.options.settings
        if settings and self.alpn == settings[0] and hello.parsed.has(SETTINGS):
            alpn.append((SETTINGS, settings[1]))
        known = hello.ticket[1] if hello.ticket else None
        if known and (known.suite.hash != self.suite.hash or self.options.no_ticket):
            known = None
        key = uint16(self.group) + vector(2, bytes(groups.server_share_bytes(self.group)))
        chosen = [
            (int(Extension.SUPPORTED_VERSIONS), uint16(TLS_1_3)),
            (int(Extension.KEY_SHARE), key),
        ]
        if known and hello.ticket:
            chosen.append((int(Extension.PRE_SHARED_KEY), uint16(hello.ticket[0])))
        return Flight(
            hello=self.server_hello(RawExtensions(tuple(chosen))),
            extensions=messages.EncryptedExtensions(RawExtensions(tuple(alpn))),
            suite=self.suite,
            group=self.group,
            ticket=known,
        )

    def answer_older(self, hello: RelayedHello, alpn: list[tuple[int, bytes]]) -> Flight:
        offered = hello.parsed
        chosen = [(int(Extension.RENEGOTIATION_INFO), b"\0"), *alpn]
        chosen = chosen if has_renegotiation_info(hello) else alpn
        extended = offered.has(Extension.EXTENDED_MASTER_SECRET)
        if extended:
            chosen.append((int(Extension.EXTENDED_MASTER_SECRET), b""))
        if offered.has(Extension.SESSION_TICKET) and not self.options.no_ticket:
            chosen.append((int(Extension.SESSION_TICKET), b""))
        known = None if self.options.no_ticket else hello.older_ticket
        if not known and self.options.ocsp_response and offered.status_request:
            chosen.append((int(Extension.STATUS_REQUEST), b""))
        if known and known.extended and not extended:
            raise TlsError(Alert.HANDSHAKE_FAILURE, "a session of another master secret")
        if known and (known.extended, known.cipher_suite) != (extended, self.cipher_suite):
            known = None
        signer: Any = "RSA" if self.cipher_suite in SUITES_1_2["RSA"] else "ECDSA"
        sentinel = b"DOWNGRD\x01" if TLS_1_3 in self.options.versions else os.urandom(8)
        return Flight(
            hello=self.server_hello(RawExtensions(tuple(chosen)), bytes(24) + sentinel),
            older=Older(suite=self.suite, signer=signer, extended=extended),
            suite=self.suite,
            group=self.group,
            ticket=known,
        )

    def ticket(self, leg: ClientLeg) -> bytes:
        message = messages.NewSessionTicket(
            lifetime=3600,
            age_add=int.from_bytes(os.urandom(4), "big"),
            nonce=b"\0",
            ticket=os.urandom(64),
            extensions=RawExtensions(),
        )
        relayed = self.relay(leg).relay(message)
        assert relayed
        return relayed

    def older_ticket(
        self, leg: ClientLeg, flight: Flight
    ) -> older_messages.NewSessionTicket12 | None:
        assert flight.older
        assert leg.older
        if Extension.SESSION_TICKET not in flight.hello.extensions:
            return None
        ticket = older_messages.NewSessionTicket12(3600, os.urandom(64))
        session = self.tickets.older(
            ticket.ticket,
            cipher_suite=self.cipher_suite,
            suite=flight.suite,
            extended=flight.older.extended,
            server_secret=leg.older.master,
            client_secret=leg.older.master,
        )
        return self.tickets.issue_older(ticket, session)


def has_renegotiation_info(hello: RelayedHello) -> bool:
    scsv = 0x00FF  # RFC 5746 §3.3
    return hello.parsed.has(Extension.RENEGOTIATION_INFO) or scsv in hello.parsed.cipher_suites


def identity_of(options: Options) -> Identity | None:
    if not options.cert_file:
        return None
    shown = shown_of(options)
    return Identity(shown.chain, shown.key)


def shown_of(options: Options) -> Shown:
    """Of the files. Raises Failed."""
    try:
        chain = x509.load_pem_x509_certificates(Path(options.cert_file).read_bytes())
        pem = Path(options.key_file or options.cert_file).read_bytes()
        key: Any = load_pem_private_key(pem, None)
    except (OSError, ValueError) as error:
        raise Failed(f"the certificate: {error}") from error
    ders = tuple(each.public_bytes(Encoding.DER) for each in chain)
    return Shown(chain=ders, key=key, staple=b64decode(options.ocsp_response))


# The connections


def sockets(options: Options) -> Iterator[socket.socket]:
    if not options.accept:
        while True:
            peer = connected(options)
            if options.shim_id >= 0:
                peer.sendall(options.shim_id.to_bytes(8, "little"))
            yield peer
    family = socket.AF_INET6 if options.ipv6 else socket.AF_INET
    address = ("::1" if options.ipv6 else "127.0.0.1", options.port)
    listener = socket.create_server(address, family=family)
    print(f"port {listener.getsockname()[1]}", flush=True)
    while True:
        yield listener.accept()[0]


def connected(options: Options) -> socket.socket:
    """Older runners do not tell which address it is."""
    try:
        return socket.create_connection(("::1", options.port))
    except ConnectionRefusedError:
        if options.ipv6:
            raise
        return socket.create_connection(("127.0.0.1", options.port))


def main(arguments: Sequence[str]) -> int:
    first, later = parse(arguments)
    tickets = Tickets(time.monotonic)
    session: tuple[int, bytes] | None = None
    for number, peer in enumerate(sockets(first)):
        options = later if number else first
        with peer:
            peer.settimeout(TIMEOUT_S)
            end: Ending = (Server if first.server else Client)(options, peer, tickets)
            if isinstance(end, Client):
                end.session = session
            try:
                end.run()
            except Failed as failure:
                print(f"error: {failure}", file=sys.stderr, flush=True)
                if not first.forever:
                    return 1
            if isinstance(end, Client):
                session = end.ours[-1] if end.ours else session
        if number == first.resume_count and not first.forever:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
