"""A synthetic capture: the same bytes for the same size, on any machine.

It resembles a busy link: a few bulk transfers with most of the bytes, many short HTTP and TLS flows
with most of the names, dozens of them at a time with interleaved packets, IPv4 and a fifth IPv6,
TCP timestamps, some duplicated and reordered packets, and some DNS. Addresses are for documentation
(RFC 5737, RFC 3849); checksums are correct.

A smaller capture is a prefix of a larger one, cut off at its size.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

__all__ = ["LONG_FLOWS", "SHORT_FLOWS", "Synthesis", "client_hello", "synthesise"]

_SEED: Final = 4
_CONCURRENT: Final = 32
_MAX_BURST: Final = 8
_MSS: Final = 1428
_STEP_US: Final = 10
SHORT_FLOWS: Final = 0.016
"""With this share of bulk transfers, a third of the bytes is in other flows: 76 packets per
flow."""
LONG_FLOWS: Final = 0.25
_TWICE: Final = 0.001
_SWAPPED: Final = 0.001
_DNS: Final = 0.02

_HTTP, _HTTPS, _OPAQUE = 80, 443, 9000
_FIN, _SYN, _PSH, _ACK = 0x01, 0x02, 0x08, 0x10
_OPTIONS: Final = bytes.fromhex("0101080a0000000100000001")  # two NOPs, timestamps (RFC 7323 §3.2)
_ETHERNET: Final = bytes.fromhex("020000000002020000000001")
_QUESTION: Final = bytes.fromhex("0100000100000000000004686f7374056265")  # host.bench.test, A
_QUESTION_END: Final = bytes.fromhex("6e636804746573740000010001")

Message: TypeAlias = tuple[bool, bytes]
"""Whether the client sends it, and its bytes."""


@dataclass(slots=True)
class Synthesis:
    """A capture, and what a reader has to find in it."""

    path: Path
    bytes: int = 0
    packets: int = 0
    flows: int = 0
    """TCP connections, each with its SYN; the last ones do not end."""


def synthesise(path: Path, size: int, bulk: float = SHORT_FLOWS) -> Synthesis:
    """Write a pcap of `size` bytes, or a few packets more; `bulk`: the share of bulk transfers."""
    made = Synthesis(path)
    chance = random.Random(_SEED)
    noise = chance.randbytes(1 << 20)
    running: list[Iterator[bytes]] = []
    with path.open("wb") as file:
        made.bytes = file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        while made.bytes < size:
            while len(running) < _CONCURRENT:
                connection = _connection(made.flows, *_conversation(chance, noise, bulk))
                _write(file, made, [next(connection)])
                running.append(connection)
                made.flows += 1
            _write(file, made, _burst(running, chance))
    return made


def _write(file: BinaryIO, made: Synthesis, frames: list[bytes]) -> None:
    for frame in frames:
        seconds, us = divmod(made.packets * _STEP_US, 1_000_000)
        header = struct.pack("<IIII", seconds, us, len(frame), len(frame))
        made.bytes += file.write(header + frame)
        made.packets += 1


def _burst(running: list[Iterator[bytes]], chance: random.Random) -> list[bytes]:
    """A few packets of one connection, which is removed from the list when it has no more."""
    if chance.random() < _DNS * _MAX_BURST / 2:
        return [_dns(chance)]
    index = chance.randrange(len(running))
    frames: list[bytes] = []
    for _ in range(chance.randint(1, _MAX_BURST)):
        frame = next(running[index], None)
        if frame is None:
            del running[index]
            break
        frames.append(frame)
        if chance.random() < _TWICE:
            frames.append(frame)
    if len(frames) > 1 and chance.random() < _SWAPPED * len(frames):
        frames[-2:] = frames[:-3:-1]
    return frames


# What is said


def _conversation(
    chance: random.Random, noise: bytes, bulk: float
) -> tuple[int, Iterator[Message]]:
    """A port, and a conversation for it, of random length."""
    if chance.random() < bulk:
        length = chance.randrange(1_000_000, 4_000_000)
        match chance.randrange(3):
            case 0:
                return _HTTP, _http(noise, chance.randrange(1 << 16), [length])
            case 1:
                return _HTTPS, _tls(noise, chance.randrange(1 << 16), length)
            case _:
                return _OPAQUE, iter([(True, b"\xf5\xe1bench\x9c" + _noise(noise, 7, length))])
    start = chance.randrange(1 << 16)
    if chance.random() < 0.5:
        lengths = [chance.randrange(200, 20_000) for _ in range(chance.randint(1, 4))]
        return _HTTP, _http(noise, start, lengths)
    return _HTTPS, _tls(noise, start, chance.randrange(500, 40_000))


def _http(noise: bytes, start: int, lengths: list[int]) -> Iterator[Message]:
    """Requests on one connection, each with a response body of the given length."""
    for number, length in enumerate(lengths):
        yield (
            True,
            b"GET /files/%d HTTP/1.1\r\nHost: www.bench.test\r\nUser-Agent: bench/1\r\n"
            b"Accept: */*\r\nAccept-Encoding: gzip, br\r\nCookie: session=%064x\r\n\r\n"
            % (number, start),
        )
        yield (
            False,
            b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Length: %d\r\n\r\n" % length + _noise(noise, start + number, length),
        )


def _tls(noise: bytes, start: int, length: int) -> Iterator[Message]:
    """TLS 1.3 as seen from outside: two hellos in plain text, then encrypted records."""
    yield True, client_hello("www.bench.test", noise[start : start + 96])
    yield False, _server_hello(noise[start : start + 96]) + _records(noise, start, 4000)
    yield True, b"\x14\x03\x03\x00\x01\x01" + _records(noise, start, 69) + _records(noise, 9, 400)
    yield False, _records(noise, start, length)


def _records(noise: bytes, start: int, length: int) -> bytes:
    """Application data records (RFC 8446 §5.2) of maximum length; the last may be shorter."""
    sizes = [16401] * (length // 16401) + [length % 16401]
    return b"".join(
        b"\x17\x03\x03" + size.to_bytes(2, "big") + _noise(noise, start, size) for size in sizes
    )


def client_hello(name: str, random_bytes: bytes) -> bytes:
    """A record with a browser-like TLS 1.3 ClientHello, without GREASE (RFC 8446 §4.1.2)."""
    host = name.encode()
    extensions = (
        (0, _sized(b"\x00" + _sized(host, 2), 2)),
        (23, b""),
        (10, _sized(bytes.fromhex("001d00170018"), 2)),
        (11, b"\x01\x00"),
        (16, _sized(_sized(b"h2", 1) + _sized(b"http/1.1", 1), 2)),
        (13, _sized(bytes.fromhex("0403080404010503080505010806"), 2)),
        (43, _sized(bytes.fromhex("03040303"), 1)),
        (45, b"\x01\x01"),
        (51, _sized(b"\x00\x1d" + _sized(random_bytes[64:96], 2), 2)),
    )
    ciphers = bytes.fromhex("130113021303c02bc02fc02cc030cca9cca8c013c014009c009d002f0035")
    return _hello(1, random_bytes, _sized(ciphers, 2) + b"\x01\x00", extensions)


def _server_hello(random_bytes: bytes) -> bytes:
    """Its answer (RFC 8446 §4.1.3), followed by the change_cipher_spec of compatibility mode."""
    extensions = ((43, b"\x03\x04"), (51, b"\x00\x1d" + _sized(random_bytes[64:96], 2)))
    return _hello(2, random_bytes, b"\x13\x01\x00", extensions) + b"\x14\x03\x03\x00\x01\x01"


def _hello(
    kind: int, random_bytes: bytes, choice: bytes, extensions: tuple[tuple[int, bytes], ...]
) -> bytes:
    listed = b"".join(number.to_bytes(2, "big") + _sized(body, 2) for number, body in extensions)
    body = b"\x03\x03" + random_bytes[:32] + _sized(random_bytes[32:64], 1) + choice
    message = bytes([kind]) + _sized(body + _sized(listed, 2), 3)
    return b"\x16\x03\x01" + _sized(message, 2)


def _sized(body: bytes, width: int) -> bytes:
    """The body, preceded by its length in `width` bytes."""
    return len(body).to_bytes(width, "big") + body


def _noise(noise: bytes, start: int, length: int) -> bytes:
    start %= len(noise)
    repeats = -(-(start + length) // len(noise))
    return (noise * repeats)[start : start + length] if repeats > 1 else noise[start:][:length]


# How it is sent


class _End:
    """One end of a connection: its sequence number, and the headers of its packets."""

    def __init__(self, addresses: bytes, ports: bytes, sequence: int) -> None:
        self.addresses = addresses
        self.ports = ports
        self.sequence = sequence
        self.received = 0

    def frame(self, flags: int, payload: bytes = b"") -> bytes:
        numbers = struct.pack(">IIBBH", self.sequence, self.received, 0x80, flags, 0xFFFF)
        self.sequence = (self.sequence + len(payload) + bool(flags & (_SYN | _FIN))) & 0xFFFFFFFF
        return _packet(6, self.addresses, self.ports + numbers, _OPTIONS, payload)


def _connection(number: int, port: int, messages: Iterator[Message]) -> Iterator[bytes]:
    """The frames of a connection: a handshake, the messages in segments, both FINs."""
    client, server = _ends(number, port)
    yield client.frame(_SYN)
    server.received = client.sequence
    yield server.frame(_SYN | _ACK)
    client.received = server.sequence
    yield client.frame(_ACK)
    for from_client, message in messages:
        sender, receiver = (client, server) if from_client else (server, client)
        for at in range(0, len(message), _MSS):
            segment = message[at : at + _MSS]
            last = at + _MSS >= len(message)
            yield sender.frame(_ACK | (_PSH if last else 0), segment)
            receiver.received = sender.sequence
            if last or (at // _MSS) % 2:
                yield receiver.frame(_ACK)
    yield client.frame(_FIN | _ACK)
    server.received = client.sequence
    yield server.frame(_FIN | _ACK)
    client.received = server.sequence
    yield client.frame(_ACK)


def _ends(number: int, port: int) -> tuple[_End, _End]:
    """Client and server of a connection by number; no two connections have the same four-tuple."""
    host, source = 1 + number % 250, 32768 + number // 250 % 28000
    if number % 5:
        here = IPv4Address(f"192.0.2.{host}").packed
        there = IPv4Address(f"198.51.100.{1 + number % 40}").packed
    else:
        here = IPv6Address(f"2001:db8::1:{host:x}").packed
        there = IPv6Address(f"2001:db8::2:{1 + number % 40:x}").packed
    ports = source.to_bytes(2, "big"), port.to_bytes(2, "big")
    start = number * 64_000_013 & 0xFFFFFFFF
    client = _End(here + there, ports[0] + ports[1], start)
    return client, _End(there + here, ports[1] + ports[0], ~start & 0xFFFFFFFF)


def _dns(chance: random.Random) -> bytes:
    addresses = IPv4Address(f"192.0.2.{chance.randint(1, 250)}").packed
    addresses += IPv4Address("203.0.113.53").packed
    query = chance.randbytes(2) + _QUESTION + _QUESTION_END
    header = struct.pack(">HHH", chance.randrange(32768, 60768), 53, 8 + len(query))
    return _packet(17, addresses, header, b"", query)


def _packet(protocol: int, addresses: bytes, head: bytes, options: bytes, payload: bytes) -> bytes:
    """An Ethernet frame; the transport checksum goes between `head` and the urgent pointer."""
    urgent = b"\x00\x00" if protocol == 6 else b""
    length = len(head) + 2 + len(urgent) + len(options) + len(payload)
    summed = addresses + struct.pack(">HH", protocol, length) + head + urgent + options + payload
    transport = head + _checksum(summed) + urgent + options + payload
    if len(addresses) > 8:
        network = struct.pack(">IHBB", 0x60000000, length, protocol, 64) + addresses
        return _ETHERNET + b"\x86\xdd" + network + transport
    start = struct.pack(">HHIBB", 0x4500, 20 + length, 0x4000, 64, protocol)
    return _ETHERNET + b"\x08\x00" + start + _checksum(start + addresses) + addresses + transport


def _checksum(data: bytes) -> bytes:
    """RFC 1071: the one's complement sum is the number modulo 65535."""
    padded = data + b"\x00" if len(data) % 2 else data
    return (0xFFFF - int.from_bytes(padded, "big") % 0xFFFF).to_bytes(2, "big")
