"""What of a hello is the same at the other end, and what may differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from mitml4.crypto import groups
from mitml4.protocols.tls.fingerprints import ja3, ja3s, ja4, ja4s
from mitml4.protocols.tls.hello import ClientHello, parse_client_hello, parse_server_hello

SESSION_TICKET: Final = 35
PRE_SHARED_KEY: Final = 41
KEY_SHARE: Final = 51
ENCRYPTED_CLIENT_HELLO: Final = 0xFE0D


class NotRelayed(Exception):  # noqa: N818, it is a result
    """The hello goes another way; the message says why."""


@dataclass(frozen=True, slots=True)
class Relayed:
    """What both ends have seen of a handshake."""

    hellos: list[tuple[bytes, bytes]]
    """The hello that the client has sent, and the one that the server got, as records; and the same
    of the second hello, if there was one."""
    answer: tuple[bytes, bytes] | None = None
    """What the server has sent, and what the client got. None: there was no server."""


Relay: TypeAlias = Callable[[bytes], Relayed]
"""Relays a recorded hello. Raises NotRelayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What of a hello is the same at the server."""

    ja3: bool
    ja4: bool
    order: bool
    """The extensions, in their order."""
    bodies: bool
    """Every byte, but for the fields that are replaced."""
    records: bool
    """Sizes and versions of the records."""
    ja3s: bool | None = None
    """Of the server's answer, at the client. None: there was no server."""
    ja4s: bool | None = None


def compare(relayed: Relayed) -> Comparison:
    """What is the same in each pair."""
    hellos = [(parsed(one), parsed(other)) for one, other in relayed.hellos]
    raw = [(message_of(one), message_of(other)) for one, other in relayed.hellos]
    sent, got = map(parse_server_hello, relayed.answer or (b"", b""))
    return Comparison(
        ja3=all(ja3(one) == ja3(other) for one, other in hellos),
        ja4=all(ja4(one) == ja4(other) for one, other in hellos),
        order=all(one.extensions == other.extensions for one, other in hellos),
        bodies=all(masked(one) == masked(other) for one, other in raw),
        records=all(layout_of(one) == layout_of(other) for one, other in relayed.hellos),
        ja3s=ja3s(sent) == ja3s(got) if sent and got else None,
        ja4s=ja4s(sent) == ja4s(got) if sent and got else None,
    )


def parsed(stream: bytes) -> ClientHello:
    hello = parse_client_hello(stream)
    assert hello
    return hello


# A hello's bytes, read here once more: this must not depend on the code that is measured.


def layout_of(stream: bytes) -> list[bytes]:
    """The headers of the records."""
    headers, at = [], 0
    while at < len(stream):
        headers.append(stream[at : at + 5])
        at += 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
    return headers


def message_of(stream: bytes) -> bytes:
    """The handshake message that records contain."""
    message, at = b"", 0
    while at < len(stream):
        end = at + 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
        message += stream[at + 5 : end]
        at = end
    return message


def masked(message: bytes) -> bytes:
    """The message with zeros in every field that may be replaced."""
    plain = bytearray(message)
    for start, end in replaceable(message):
        plain[start:end] = bytes(end - start)
    return bytes(plain)


def replaceable(message: bytes) -> Iterator[tuple[int, int]]:
    """Where the fields are that differ for each connection, and may be replaced."""

    def number(at: int, width: int = 2) -> int:
        return int.from_bytes(message[at : at + width], "big")

    yield 6, 38  # random
    yield 39, 39 + message[38]  # legacy_session_id
    at = 39 + message[38]
    at += 2 + number(at)
    at += 1 + message[at] + 2
    while at < len(message):
        kind, start, end = number(at), at + 4, at + 4 + number(at + 2)
        at = end
        if kind == SESSION_TICKET:
            yield start, end
        elif kind == KEY_SHARE:
            slot = start + 2
            while slot < end:
                share = slot + 4, slot + 4 + number(slot + 2)
                if number(slot) in groups.SUPPORTED:
                    yield share
                slot = share[1]
        elif kind == ENCRYPTED_CLIENT_HELLO and message[start] == 0:
            enc = start + 8
            payload = enc + number(enc - 2) + 2
            yield enc, payload - 2
            yield payload, end
        elif kind == PRE_SHARED_KEY:
            identity, identities = start + 2, start + 2 + number(start)
            while identity < identities:
                yield identity + 2, identity + 2 + number(identity)
                identity += 2 + number(identity) + 4
            binder = identities + 2
            while binder < end:
                yield binder + 1, binder + 1 + message[binder]
                binder += 1 + message[binder]
