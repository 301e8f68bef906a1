"""Bytes that are nobody's: what detection makes of noise, of files, and of strangers' protocols.

False positives are worse than misses, so these count matches over many seeded openings, the likely
as well. There are three kinds of them: uniform noise; what looks like a protocol of somebody's own
(a right length in front, small numbers and zeros behind it, perhaps a name); and what else is sent
over plain TCP, as files, logs, metrics, games and protocols that have no name here.
"""

from __future__ import annotations

import gzip
import json
import pickle
import struct
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Final, TypeAlias

import pytest
from hypothesis import settings

from mitml4.protocols.conversation import Opening
from mitml4.protocols.registry import detect

Shape: TypeAlias = Callable[[Random], bytes]

SEED: Final = 20240229
ROUNDS: Final = settings().max_examples
"""As many as the profile says."""
BINARIES: Final = {
    *("amqp", "cassandra", "dns", "kafka", "ldap", "memcached"),
    *("mongodb", "mqtt", "mysql", "postgresql", "rdp", "tds"),
}
"""Protocols that are known by their fields, and not by a word."""

WORDS: Final = (
    *(
        "the",
        "quick",
        "brown",
        "fox",
        "get",
        "set",
        "user",
        "name",
        "host",
        "error",
        "help",
        "quit",
    ),
    *("read", "write", "open", "client", "session", "value", "request", "login", "auth", "connect"),
    *(
        "ping",
        "echo",
        "select",
        "from",
        "where",
        "hello",
        "put",
        "ok",
        "no",
        "bye",
        "start",
        "stop",
    ),
)


def words(source: Random) -> str:
    chosen = " ".join(source.choices(WORDS, k=source.randint(1, 8)))
    return source.choice((str.lower, str.upper, str.title))(chosen)


def lines(source: Random) -> bytes:
    """Text, of which each line may begin with a command of somebody's."""
    end = source.choice((".\n", "\n", "\r\n", "!\r\n"))
    return "".join(words(source) + end for _ in range(source.randint(1, 4))).encode()


def numbers(source: Random) -> bytes:
    """A table."""
    comma = source.choice((",", ", ", ";", " ", "\t"))
    rows = ([str(source.randint(0, 99999)) for _ in range(4)] for _ in range(source.randint(1, 4)))
    return "".join(comma.join(row) + "\r\n" for row in rows).encode()


def array(source: Random) -> bytes:
    """Numbers of one size."""
    pattern = source.choice("<>") + source.choice("HIQ")
    most = source.choice((9, 300, 65535))
    count = source.randint(1, 12)
    return b"".join(struct.pack(pattern, source.randint(0, most)) for _ in range(count))


def small(source: Random) -> bytes:
    """Mostly zeros and small numbers."""
    digits = (0, 0, 0, 1, 2, 3, 4, 5, 8, 16, 255, source.randrange(256))
    return bytes(source.choices(digits, k=source.randint(1, 64)))


def counted(source: Random, least: int = 1, most: int = 60) -> bytes:
    """A length of two bytes, and as many of noise."""
    body = source.randbytes(source.randint(least, most))
    return len(body).to_bytes(2, "big") + body


def fields(source: Random) -> bytes:
    """A unit of an unknown binary protocol, without its length."""
    kinds: list[Callable[[], bytes]] = [
        lambda: bytes(source.randint(1, 4)),
        lambda: bytes([source.randint(0, 20)]),
        lambda: source.randint(0, 300).to_bytes(2, "big"),
        lambda: source.randint(0, 300).to_bytes(4, "big"),
        lambda: source.randint(0, 300).to_bytes(4, "little"),
        lambda: source.randbytes(source.randint(1, 8)),
        lambda: b"name\0",
    ]
    return b"".join(source.choice(kinds)() for _ in range(source.randint(3, 16)))


def somebodys_own(source: Random) -> bytes:
    """The same with a length, and perhaps a tag before it."""
    body = fields(source)
    size = source.choice((1, 2, 3, 4))
    length = ((len(body) + source.choice((0, size))) & 0xFF).to_bytes(size, "big")
    tag = source.choice((b"", b"", b"\x30", b"\x01", b"\x03\x00", b"\x10", b"\x80"))
    return tag + source.choice((length, length[::-1])) + body


def protobuf(source: Random) -> bytes:
    """Fields of numbers and names."""
    out = b""
    for _ in range(source.randint(1, 8)):
        key = source.randint(1, 15) << 3
        name = source.choice(WORDS).encode()
        out += source.choice(
            (bytes([key, source.randrange(128)]), bytes([key | 2, len(name)]) + name)
        )
    return out


def packed(source: Random, array: int, text: int) -> bytes:
    """An array of msgpack's (90, A0) or CBOR's (80, 60)."""
    count = source.randint(1, 6)
    names = (source.choice(WORDS).encode() for _ in range(count))
    return bytes([array + count]) + b"".join(bytes([text + len(name)]) + name for name in names)


def transport_stream(source: Random) -> bytes:
    """MPEG's: packets of 188 bytes."""
    heads = (b"\x47" + source.randbytes(2) + bytes([source.randint(16, 31)]) for _ in range(2))
    return b"".join(head + source.randbytes(184) for head in heads)


def interleaved(source: Random) -> bytes:
    """RTP among RTSP's messages (RFC 2326 §10.12), of which the capture lacks the beginning."""
    packet = b"\x80" + source.choice((b"\x60", b"\x00", b"\xc8")) + source.randbytes(40)
    return (b"$" + source.choice((b"\0", b"\1")) + struct.pack(">H", len(packet)) + packet) * 2


STRANGERS: Final[dict[str, Shape]] = {
    "lines": lines,
    "numbered lines": lambda r: f"{r.randint(100, 599)}{r.choice(' -')}{words(r)}\r\n".encode(),
    "numbers": numbers,
    "array": array,
    "small": small,
    "zeros": lambda r: bytes(r.randint(1, 64)),
    "counted noise": counted,
    "base64": lambda r: b64encode(r.randbytes(r.randint(1, 60))),
    "hexadecimal": lambda r: r.randbytes(r.randint(1, 24)).hex().encode() + b"\n",
    "UTF-16": lambda r: r.choice(("\ufeff", "")).encode("utf-16-le") + words(r).encode("utf-16-le"),
    "JSON": lambda r: json.dumps({words(r): [r.randint(0, 9), words(r), None]}).encode(),
    "JSON-RPC": lambda r: json.dumps({"id": r.randint(0, 9), "method": words(r)}).encode() + b"\n",
    "XML": lambda r: f'<?xml version="1.0"?>\n<{r.choice(WORDS)} a="b">{words(r)}'.encode(),
    "ELF": lambda r: b"\x7fELF\2\1\1" + bytes(9) + b"\3\0\x3e\0\1\0\0\0" + small(r),
    "PE": lambda r: b"MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff\0\0" + small(r),
    "class file": lambda r: b"\xca\xfe\xba\xbe\0\0\0\x34" + small(r),
    "zip": lambda r: (
        b"PK\3\4\x14\0\0\0\x08\0" + r.randbytes(16) + b"\5\0\0\0a.txt" + r.randbytes(30)
    ),
    "gzip": lambda r: gzip.compress(lines(r), mtime=0),
    "tar": lambda r: r.choice(WORDS).encode().ljust(100, b"\0") + b"0000644\0" + small(r),
    "JPEG": lambda r: b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1" + r.randbytes(40),
    "PNG": lambda r: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + small(r),
    "MP4": lambda r: b"\0\0\0\x18ftypisom" + small(r),
    "PDF": lambda r: f"%PDF-1.{r.randint(0, 7)}\n1 0 obj\n".encode() + small(r),
    "SQLite": lambda r: b"SQLite format 3\0\x10\0" + small(r),
    "MPEG-TS": transport_stream,
    "interleaved RTP": interleaved,
    "protobuf": protobuf,
    "gRPC": lambda r: b"\0" + struct.pack(">I", len(body := protobuf(r))) + body,
    "msgpack": lambda r: packed(r, 0x90, 0xA0),
    "CBOR": lambda r: packed(r, 0x80, 0x60),
    "BSON": lambda r: b"\x16\0\0\0\2a\0\6\0\0\0hello\0\x10b\0" + r.randbytes(4) + b"\0",
    "pickle": lambda r: pickle.dumps([words(r), r.randint(0, 9)], protocol=r.randint(0, 5)),
    "Java objects": lambda r: b"\xac\xed\0\5" + r.choice((b"sr\0", b"w\4", b"t\0")) + small(r),
    "DER": lambda r: b"\x30\x82" + struct.pack(">H", r.randint(128, 999)) + b"\x02\1" + small(r),
    "Prometheus": lambda r: f"# HELP a {words(r)}\n# TYPE a gauge\na {r.random()}\n".encode(),
    "graphite": lambda r: f"{words(r).replace(' ', '.')} {r.random():.3f} 1709164800\n".encode(),
    "InfluxDB": lambda r: f"{r.choice(WORDS)},host=a value={r.random():.3f} 1709164800\n".encode(),
    "OpenTSDB": lambda r: f"put {r.choice(WORDS)} 1709164800 {r.random():.3f} host=a\n".encode(),
    "statsd": lambda r: f"{r.choice(WORDS)}:{r.randint(0, 99)}|c\n".encode(),
    "shell": lambda r: r.choice((b"id\n", b"ls -la\n", b"uname -a\n", b"login: ", b"# ", b"$ ")),
    "SQL": lambda r: f"SELECT {words(r)} FROM a WHERE id = {r.randint(0, 9)};\n".encode(),
    "WireGuard": lambda r: b"\0\x94" + bytes([r.choice((1, 2, 4)), 0, 0, 0]) + r.randbytes(144),
    "noise handshake": lambda r: counted(r, 32, 96),
    "Source RCON": lambda r: struct.pack("<III", 14, r.randint(0, 99), 3) + b"pass\0\0",
    "Quake": lambda r: b"\xff\xff\xff\xff" + r.choice((b"getinfo", b"getstatus", b"connect")),
    "printer": lambda r: b"\x1b%-12345X@PJL " + words(r).encode() + b"\r\n",
    "AFP": lambda r: (
        struct.pack(">BBHIII", 0, 4, r.randint(0, 9), 0, r.choice((0, 6)), 0) + small(r)
    ),
    "Skinny": lambda r: struct.pack("<III", r.randint(4, 200), 0, r.randint(0, 300)) + small(r),
    "H.225": lambda r: b"\3\0\0\x40\x08\2" + r.randbytes(2) + b"\5\4\3\x80\x90\xa5" + small(r),
    "iSCSI": lambda r: b"\x43\x87" + bytes(3) + r.randbytes(3) + b"\0\2\x3d" + small(r),
    "NBD": lambda r: b"NBDMAGICIHAVEOPT\0\3" + small(r),
    "Hadoop": lambda r: b"hrpc\x09\0\0" + counted(r),
    "ZeroMQ": lambda r: b"\xff" + bytes(7) + b"\1\x7f\3\0NULL" + bytes(16),
    "Erlang": lambda r: b"\0\x15n\0\5" + r.randbytes(4) + b"name@host",
    "OMRON FINS": lambda r: b"FINS\0\0\0\x0c\0\0\0\0\0\0\0\0" + r.randbytes(4),
    "Beckhoff ADS": lambda r: b"\0\0\x2c\0\0\0" + r.randbytes(12) + b"\1\x80\2\0\4\0" + small(r),
    "synchrophasor": lambda r: b"\xaa\x41\0\x12" + r.randbytes(14),
    "BACnet/SC": lambda r: b"\x81" + bytes([r.randint(0, 11)]) + b"\0\x0c\1\4" + small(r),
    "RadSec": lambda r: bytes([r.randint(1, 5), r.randrange(256), 0, 60]) + r.randbytes(56),
    "TACACS+": lambda r: b"\xc0\1\1\0" + r.randbytes(4) + b"\0\0\0\x20" + r.randbytes(32),
    "CoAP": lambda r: bytes([r.randrange(256), 0xE1]) + small(r),
    "eDonkey": lambda r: b"\xe3" + struct.pack("<I", r.randint(2, 200)) + b"\1" + r.randbytes(30),
    "RLPx": lambda r: b"\4" + r.randbytes(200),
}
MAY_BE: Final = {"socks4", "socks5"}
"""A greeting of SOCKS5 may be three bytes, of which one is fixed: there is no more to ask of it."""
each_stranger = pytest.mark.parametrize("shape", STRANGERS.values(), ids=STRANGERS.keys())


def matches(openings: Iterable[Opening]) -> Counter[str]:
    """How many of them are taken for what; the likely count as well."""
    found: Counter[str] = Counter()
    for opening in openings:
        detection = detect(opening)
        row = detection.match or detection.likely
        if row:
            found[row.name] += 1
    return found


def noise(count: int) -> Iterator[Opening]:
    """Uniform bytes, up to 64 of them, from the client, the server or both."""
    source = Random(SEED)
    for _ in range(count):
        up = source.randbytes(source.choice((0, 1, 8, 24, 64, source.randint(1, 64))))
        down = source.randbytes(source.choice((0, 0, 16, 64)) if up else source.randint(1, 64))
        yield Opening(up=up, down=down, up_ended=True, down_ended=True)


def spoken(shape: Shape, source: Random) -> Iterator[Opening]:
    """By the client, by the server, and by both."""
    yield Opening(up=shape(source), up_ended=True, down_ended=True)
    yield Opening(down=shape(source), up_ended=True, down_ended=True)
    yield Opening(up=shape(source), down=shape(source))


def test_uniform_noise_is_next_to_nothing() -> None:
    found = matches(noise(400 * ROUNDS))
    assert not BINARIES & found.keys(), found
    assert found.total() <= ROUNDS // 25, found


def test_what_only_begins_like_a_known_binary_is_none() -> None:
    source = Random(SEED)
    openings = (
        Opening(up=somebodys_own(source), down=somebodys_own(source)) for _ in range(100 * ROUNDS)
    )
    found = matches(openings)
    assert sum(found[name] for name in BINARIES) <= max(1, ROUNDS // 100), found


@each_stranger
def test_a_stranger_is_named_after_nobody(shape: Shape) -> None:
    source = Random(SEED)
    found = matches(opening for _ in range(2 * ROUNDS) for opening in spoken(shape, source))
    assert not found.keys() - MAY_BE, found
