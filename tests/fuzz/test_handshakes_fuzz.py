"""Both ends of the bridge with transcripts that are damaged anywhere, and in any pieces.

A message is damaged before it is protected, so that what is behind the keys is reached too; or the
stream is, as it would be on the wire.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.crypto.records import NotAuthentic
from mitml4.protocols.tls.alerts import TlsError
from mitml4.protocols.tls.hello import RETRY_RANDOM, Extension
from mitml4.tls.bridge import messages
from mitml4.tls.bridge.client_leg import ClientLeg
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.flight import ClientFinished, Flight, Retry, SecondHello, ServerFinished
from mitml4.tls.bridge.hello import RelayedHello, Replacements, relay_hello
from mitml4.tls.bridge.leg import Leg, PeerAlert
from mitml4.tls.bridge.server_leg import ServerLeg
from mitml4.tls.bridge.wire import message, vector
from tests.tls.bridge.peers import shown
from tests.tls.bridge.scripted import (
    P256,
    TLS_1_2,
    Change,
    Client12,
    Client13,
    Offer,
    Server12,
    Server13,
    own_certificate,
    plain,
    with_extensions,
)
from tests.tls.bridge.test_hostile_clients import flight_of, older_flight
from tests.tls.bridge.test_hostile_servers import TICKET, ticket

MAX_KEPT: Final = 1 << 17
"""Bytes that a leg may keep: a message that is not whole, and a record."""

OFFER: Final = Offer(
    more={
        Extension.STATUS_REQUEST: b"\x01\0\0\0\0",
        Extension.SIGNED_CERTIFICATE_TIMESTAMP: b"",
        Extension.COMPRESS_CERTIFICATE: b"\x06\0\x01\0\x02\0\x03",
        Extension.DELEGATED_CREDENTIAL: b"\0\x02\x04\x03",
        Extension.RECORD_SIZE_LIMIT: b"\x40\x01",
        Extension.APPLICATION_SETTINGS: b"\0\x03\x02h2",
        Extension.EARLY_DATA: b"",
    }
)

# What is done to bytes: at places of any size, so that they shrink to small ones.

places = st.integers(0, 1 << 16)
edits = st.lists(
    st.one_of(
        st.tuples(st.just("set"), places, st.binary(min_size=1, max_size=4)),
        st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("remove"), places, st.integers(1, 40)),
        st.tuples(st.just("repeat"), places, st.integers(1, 400)),
        st.tuples(st.just("cut"), places, st.just(0)),
    ),
    max_size=3,
)
sizes = st.lists(st.integers(1, 2000), max_size=20)


def edited(data: bytes, done: list[tuple[str, int, Any]]) -> bytes:
    changed = bytearray(data)
    for what, place, argument in done:
        at = place % (len(changed) + 1)
        match what:
            case "set":
                changed[at : at + len(argument)] = argument
            case "insert":
                changed[at:at] = argument
            case "remove":
                del changed[at : at + argument]
            case "repeat":
                changed[at:at] = changed[at : at + argument]
            case _:
                del changed[at:]
    return bytes(changed)


@st.composite
def damages(draw: st.DrawFn) -> Change:
    """Of a message: its header may tell the new length, or what it told before."""
    done, fits = draw(edits), draw(st.booleans())

    def change(whole: bytes) -> bytes:
        if fits:
            return message(whole[0], edited(whole[4:], done))
        return edited(whole, done)

    return change


def as_it_is(whole: bytes) -> bytes:
    return whole


def outcome(leg: Any, data: bytes, pieces: list[int]) -> list[object]:
    """The events of this data in these pieces, and the error; nothing else may come out."""
    events: list[object] = []
    left = memoryview(data)
    try:
        while left:
            size = pieces[len(events) % len(pieces)] if pieces else len(left)
            pieces = pieces[1:] + pieces[:1]
            leg.receive(left[:size])
            left = left[size:]
            while event := leg.next_event():
                events.append(event)
                if isinstance(event, PeerAlert):
                    return events
            assert kept(leg) <= MAX_KEPT + len(data)
    except TlsError as error:
        events.append(error.alert)
        leg.fail(error.alert)
    except CannotBridge as error:
        events.append(str(error))
    return events


def kept(leg: Leg) -> int:
    return len(leg.records_in._unread) + len(leg._messages._unread) + len(leg._pending)


# Servers

SERVERS: Final[dict[str, Callable[..., Any]]] = {
    "1.3": Server13,
    "1.3 that asks": lambda *given: Server13(*given, asks=True),
    "1.3 with RSA": lambda *given: Server13(*given, kind="rsa", scheme=0x0804),
    "1.3 in pieces": lambda *given: Server13(*given, fragment_bytes=20),
    "1.2": lambda *given: Server12(*given, staple=b"response", asks=True),
    "1.2 with RSA": lambda *given: Server12(
        *given, suite=0xC02F, kind="rsa", scheme=0x0401, extended=False
    ),
}
NAMES: Final = (
    *("server_hello", "encrypted_extensions", "certificate_request", "certificate"),
    *("certificate_verify", "certificate_status", "server_key_exchange", "server_hello_done"),
    *("finished", "new_session_ticket", "change_cipher_spec"),
)


@lru_cache
def relayed() -> RelayedHello:
    return relay_hello(OFFER.records(), Replacements())


@lru_cache
def flight(name: str) -> bytes:
    """What a server sends before the client answers."""
    server = SERVERS[name](ServerLeg(relayed()).to_send())
    server.send_flight()
    sent: bytes = server.taken()
    return sent


@pytest.mark.parametrize("name", SERVERS)
@given(done=edits, pieces=sizes)
def test_a_servers_stream(name: str, done: list[tuple[str, int, Any]], pieces: list[int]) -> None:
    """In any pieces it comes to the same."""
    stream = edited(flight(name), done)
    whole = outcome(ServerLeg(relayed()), stream, [])

    assert outcome(ServerLeg(relayed()), stream, pieces) == whole
    assert outcome(ServerLeg(relayed()), stream, [1]) == whole
    if stream == flight(name):
        assert isinstance(whole[-1], Flight)


@pytest.mark.parametrize("name", SERVERS)
@given(where=st.sampled_from(NAMES), damage=damages(), pieces=sizes)
def test_a_servers_messages(name: str, where: str, damage: Change, pieces: list[int]) -> None:
    leg = ServerLeg(relayed())
    server = SERVERS[name](leg.to_send(), {where: damage})
    server.send_flight()
    stream = server.taken()
    events = outcome(leg, stream, pieces)

    assert outcome(ServerLeg(relayed()), stream, []) == events
    if not events or not isinstance(events[-1], Flight):
        return
    leg.finish()
    # What the server cannot read of the answer is its own fault.
    with suppress(NotAuthentic, AssertionError, TlsError):
        server.take_answer(leg.to_send())
        if leg.older:
            server.send_finished()
            ended = outcome(leg, server.taken(), pieces)
            assert all(not isinstance(event, Flight) for event in ended)


@given(
    certificate=st.binary(max_size=200),
    length=st.integers(0, 1 << 24).map(lambda length: length % (1 << 24)),
    algorithm=st.integers(0, 4),
    is_packed=st.booleans(),
)
def test_compressed_certificates(
    certificate: bytes, length: int, algorithm: int, is_packed: bool
) -> None:
    data = zlib.compress(certificate) if is_packed else certificate
    sent = messages.CompressedCertificate(algorithm, length, data or b"x").encode()
    leg = ServerLeg(relayed())
    server = Server13(leg.to_send(), {"certificate": lambda _: sent})
    server.send_flight()
    assert not isinstance(outcome(leg, server.taken(), [])[-1], Flight)


@given(
    der=edits,
    extensions=st.lists(
        st.tuples(st.sampled_from([5, 18, 34]), st.binary(max_size=80)), max_size=3
    ),
)
def test_certificates(der: list[tuple[str, int, Any]], extensions: list[tuple[int, bytes]]) -> None:
    """A damaged certificate is not to be read, or its key does not fit."""
    made, _ = own_certificate("ec-p256")
    entry = b"".join(kind.to_bytes(2, "big") + vector(2, body) for kind, body in extensions)
    chain = vector(3, vector(3, edited(made, der)) + vector(2, entry))
    sent = message(11, b"\0", chain)
    leg = ServerLeg(relayed())
    server = Server13(leg.to_send(), {"certificate": lambda _: sent})
    server.send_flight()
    outcome(leg, server.taken(), [])


@given(first=st.just(as_it_is) | damages(), second=damages(), pieces=sizes)
def test_a_servers_retry(first: Change, second: Change, pieces: list[int]) -> None:
    replacements = Replacements()
    leg = ServerLeg(relay_hello(Offer().records(), replacements))
    server = Server13(leg.to_send(), {"retry": first, "server_hello": second})
    server.retry(P256)
    events = outcome(leg, server.taken(), pieces)
    if events and isinstance(events[-1], Retry):
        again = Offer(shares=(P256,), more={Extension.COOKIE: b"\0\x01x"})
        leg.send_retried(relay_hello(again.records(), replacements))
        server.take_hello(leg.to_send())
        server.send_flight()
        outcome(leg, server.taken(), pieces)


@pytest.mark.parametrize("version", [0x0303, 0x0304])
@given(where=st.sampled_from(NAMES), damage=damages(), pieces=sizes)
def test_a_server_that_resumes(version: int, where: str, damage: Change, pieces: list[int]) -> None:
    known = ticket(version, 0xC02B if version == TLS_1_2 else 0x1301, extended=version == TLS_1_2)
    more = {Extension.SESSION_TICKET: TICKET}
    if version != TLS_1_2:
        binder = vector(1, bytes(32))
        more = {
            Extension.PRE_SHARED_KEY: vector(2, vector(2, TICKET) + bytes(4)) + vector(2, binder)
        }
    offered = relay_hello(Offer(more=more).records(), Replacements(), find_ticket=lambda _: known)
    leg = ServerLeg(offered)
    server: Any
    if version == TLS_1_2:
        server = Server12(leg.to_send(), {where: damage}, master=known.server_secret)
    else:
        server = Server13(leg.to_send(), {where: damage}, psk=(0, known.server_secret))
    server.send_flight()
    events = outcome(leg, server.taken(), pieces)
    if events and isinstance(events[-1], Flight):
        leg.finish()


# Clients

CLIENT_NAMES: Final = (
    *("client_key_exchange", "encrypted_extensions", "finished", "change_cipher_spec"),
)


@pytest.mark.parametrize("version", [0x0303, 0x0304])
@given(
    where=st.sampled_from(CLIENT_NAMES),
    damage=damages(),
    done=edits,
    pieces=sizes,
    fragment_bytes=st.sampled_from([3, 1 << 14]),
)
def test_a_clients_answer(
    version: int,
    where: str,
    damage: Change,
    done: list[tuple[str, int, Any]],
    pieces: list[int],
    fragment_bytes: int,
) -> None:
    hello = relayed()
    leg = ClientLeg(hello)
    client: Any
    if version == TLS_1_2:
        leg.send_flight(older_flight(), shown())
        client = Client12(hello.received, {where: damage}, fragment_bytes=fragment_bytes)
    else:
        settings = int(Extension.APPLICATION_SETTINGS)
        leg.send_flight(flight_of(hello, extensions=((settings, b"theirs"),)), shown())
        client = Client13(hello.received, {where: damage}, fragment_bytes=fragment_bytes)
    client.take_flight(leg.to_send())
    client.send_answer(*[] if version == TLS_1_2 else [Extension.APPLICATION_SETTINGS])
    stream = client.taken()
    events = outcome(leg, edited(stream, done), pieces)
    assert all(isinstance(event, (ClientFinished, PeerAlert, int, str)) for event in events)


@given(done=edits, damage=damages(), second=damages(), pieces=sizes)
def test_a_clients_hellos(
    done: list[tuple[str, int, Any]], damage: Change, second: Change, pieces: list[int]
) -> None:
    """The first one, and the one after a retry."""
    replacements = Replacements()
    stream = plain(22, damage(OFFER.message()))
    with suppress(TlsError, CannotBridge):
        hello = relay_hello(edited(stream, done), replacements)
        leg = ClientLeg(hello)
        if 0x001D in hello.client_shares and 0x001D in hello.parsed.groups:
            leg.send_flight(flight_of(hello), shown())
            ServerLeg(hello)
    hello = relayed()
    leg = ClientLeg(hello)
    leg.send_retry(
        messages.ServerHello(
            random=RETRY_RANDOM,
            session_id=b"",
            cipher_suite=0x1301,
            extensions=RawExtensions(
                ((Extension.SUPPORTED_VERSIONS, b"\x03\x04"), (Extension.KEY_SHARE, b"\0\x17"))
            ),
        )
    )
    again = Offer(shares=(P256,), more={**OFFER.more})
    del again.more[Extension.EARLY_DATA]
    events = outcome(leg, edited(plain(22, second(again.message())), done), pieces)
    if events and isinstance(events[-1], SecondHello):
        with suppress(TlsError, CannotBridge):
            relayed_again = relay_hello(events[-1].stream, Replacements())
            leg.take_second_hello(relayed_again)
            leg.send_flight(flight_of(relayed_again, group=P256), shown())


def test_what_is_whole_is_accepted() -> None:
    """The transcripts that are damaged above are good ones."""
    for name in SERVERS:
        leg = ServerLeg(relayed())
        server = SERVERS[name](leg.to_send())
        server.send_flight()
        assert isinstance(outcome(leg, server.taken(), [7])[-1], Flight)
        leg.finish()
        server.take_answer(leg.to_send())
        if leg.older:
            server.send_finished()
            assert isinstance(outcome(leg, server.taken(), [7])[-1], ServerFinished)
    answer = with_extensions((Extension.APPLICATION_SETTINGS, b"x"))
    leg = ServerLeg(relayed())
    settling = Server13(leg.to_send(), {"encrypted_extensions": answer})
    settling.send_flight()
    assert isinstance(outcome(leg, settling.taken(), [])[-1], Flight)
