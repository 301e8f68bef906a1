"""The leg to the server, with the keys of RFC 8448: it accepts what the servers there have sent,
and sends what the clients have, byte for byte."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mitml4.crypto.groups import KeyShare
from mitml4.crypto.schedule import ticket_psk
from mitml4.tls.bridge.flight import Flight, Retry
from mitml4.tls.bridge.hello import RelayedHello, Replacements, relay_hello
from mitml4.tls.bridge.messages import NewSessionTicket
from mitml4.tls.bridge.server_leg import ServerLeg
from tests.crypto.rfc8448 import ONE_RTT, TRACES, Trace

X25519, P256 = 0x001D, 0x0017
WHOLE = ["Simple 1-RTT Handshake", "HelloRetryRequest", "Compatibility Mode"]


def key_of(private: bytes, group: int) -> KeyShare:
    if group == X25519:
        x25519 = X25519PrivateKey.from_private_bytes(private)
        return KeyShare(
            group=group,
            share=x25519.public_key().public_bytes_raw(),
            _agree=lambda peer: x25519.exchange(X25519PublicKey.from_public_bytes(peer)),
        )
    curve = ec.SECP256R1()
    p256 = ec.derive_private_key(int.from_bytes(private, "big"), curve)
    public = ec.EllipticCurvePublicKey.from_encoded_point
    return KeyShare(
        group=group, share=b"", _agree=lambda peer: p256.exchange(ec.ECDH(), public(curve, peer))
    )


def unchanged(record: bytes, private: bytes) -> RelayedHello:
    """The trace's own hello, as if it was ours."""
    relayed = relay_hello(record, Replacements())
    (group,) = relayed.shares
    return replace(
        relayed,
        sent=relayed.received,
        random=relayed.parsed.random,
        session_id=relayed.parsed.session_id,
        shares={group: key_of(private, group)},
    )


def sent_by(trace: Trace, sender: str) -> list[bytes]:
    return [record for who, _, record in trace.records if who == sender]


def after_flight(trace: Trace) -> tuple[ServerLeg, Flight]:
    """With the server's first flight, and what it has sent behind that."""
    keys = trace.private_keys["client"]
    first, *more = sent_by(trace, "client")
    leg = ServerLeg(unchanged(first, keys[0]))
    assert leg.to_send() == first
    for record in sent_by(trace, "server"):
        leg.receive(record)
        event = leg.next_event()
        if isinstance(event, Retry):
            leg.send_retried(unchanged(more[0], keys[1]))
            assert leg.to_send() == more[0]
        if isinstance(event, Flight):
            return leg, event
    pytest.fail("the flight has no end")


def answer(trace: Trace) -> bytes:
    """The client's records from its last hello to its Finished."""
    sent = [(content[0], record) for who, content, record in trace.records if who == "client"]
    hellos = sum(len(record) > 100 for _, record in sent)
    end = [kind for kind, _ in sent].index(20) + 1
    return b"".join(record for _, record in sent[hellos:end])


@pytest.mark.parametrize("title", WHOLE)
def test_the_client_says_what_was_published(title: str) -> None:
    trace = TRACES[title]
    leg, flight = after_flight(trace)
    certificate = next(message for who, message in trace.messages if message[0] == 11)
    assert flight.chain[0] in certificate

    leg.finish()
    assert leg.to_send() == answer(trace)


def test_a_server_that_asks_for_a_certificate() -> None:
    _, flight = after_flight(TRACES["Client Authentication"])
    assert flight.asks_certificate


def test_secrets_and_tickets_are_the_published_ones() -> None:
    leg, _ = after_flight(ONE_RTT)
    leg.finish()
    (message,) = (message for _, message in ONE_RTT.messages if message[0] == 4)
    ticket = NewSessionTicket.parse(message[4:])
    assert ticket_psk("sha256", leg.resumption, ticket.nonce) == ONE_RTT.ticket_psk
