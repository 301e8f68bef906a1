"""Bytes that are nobody's: what detection makes of noise, and of binaries that begin like others.

False positives are worse than misses, so these count matches over many seeded openings: uniform
noise, and the harder kind, which looks like a protocol of somebody's own: a right length in front,
small numbers and zeros behind it, perhaps a printable name.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from mitml4.protocols.conversation import Opening
from mitml4.protocols.registry import detect

SEED = 20240229
BINARIES = {
    *("amqp", "cassandra", "dns", "kafka", "ldap", "memcached"),
    *("mongodb", "mqtt", "mysql", "postgresql", "rdp", "tds"),
}
"""Protocols that are known by their fields, and not by a word."""


def matches(openings: Iterator[Opening]) -> Counter[str]:
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
    source = random.Random(SEED)
    for _ in range(count):
        up = source.randbytes(source.choice((0, 1, 8, 24, 64, source.randint(1, 64))))
        down = source.randbytes(source.choice((0, 0, 16, 64)) if up else source.randint(1, 64))
        yield Opening(up=up, down=down, up_ended=True, down_ended=True)


def somebodys_own(count: int, source: random.Random) -> Iterator[bytes]:
    """Units of unknown binary protocols."""
    fields: list[Callable[[], bytes]] = [
        lambda: bytes(source.randint(1, 4)),
        lambda: bytes([source.randint(0, 20)]),
        lambda: source.randint(0, 300).to_bytes(2, "big"),
        lambda: source.randint(0, 300).to_bytes(4, "big"),
        lambda: source.randint(0, 300).to_bytes(4, "little"),
        lambda: source.randbytes(source.randint(1, 8)),
        lambda: b"name\0",
    ]
    for _ in range(count):
        body = b"".join(source.choice(fields)() for _ in range(source.randint(3, 16)))
        size = source.choice((1, 2, 3, 4))
        length = ((len(body) + source.choice((0, size))) & 0xFF).to_bytes(size, "big")
        tag = source.choice((b"", b"", b"\x30", b"\x01", b"\x03\x00", b"\x10", b"\x80"))
        yield tag + source.choice((length, length[::-1])) + body


def test_uniform_noise_is_next_to_nothing() -> None:
    found = matches(noise(200_000))
    assert not BINARIES & found.keys(), found
    assert found.total() <= 20, found


@pytest.mark.parametrize("seed", range(2))
def test_what_only_begins_like_a_known_binary_is_none(seed: int) -> None:
    source = random.Random(SEED + seed)
    openings = (
        Opening(up=up, down=down)
        for up, down in zip(
            somebodys_own(30_000, source), somebodys_own(30_000, source), strict=True
        )
    )
    found = matches(openings)
    assert sum(found[name] for name in BINARIES) <= 1, found
