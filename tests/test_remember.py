"""Results are remembered up to a number, and only for arguments of a bounded size."""

from __future__ import annotations

import pytest

from mitml4.layers import certificate
from mitml4.protocols.tls import fingerprints, names
from mitml4.remember import remembered
from mitml4.session.destinations import hosts
from mitml4.tls import verify


def test_what_is_larger_is_not_remembered() -> None:
    asked: list[bytes] = []

    @remembered(2, 3)
    def length(data: bytes) -> int:
        asked.append(data)
        return len(data)

    for data in (b"abc", b"abc", b"abcd", b"abcd", b"", b"x", b"abc"):
        assert length(data) == len(data)
    assert asked == [b"abc", b"abcd", b"abcd", b"", b"x", b"abc"]


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (names.without_grease, tuple(range(32_000))),
        (fingerprints._decimal, tuple(range(32_000))),
        (fingerprints._hexes, tuple(range(32_000))),
        (fingerprints._md5, "x" * 65_536),
        (fingerprints._sha256, "x" * 65_536),
        (hosts.readings, "x" * 65_536),
        (verify._names_of, bytes(100_000)),
        (certificate._key_type, bytes(100_000)),
        (certificate._details, bytes(100_000)),
    ],
)
def test_what_hellos_and_certificates_say_is_bounded_in_memory(function, argument) -> None:
    lru_cache = function.__closure__[[*function.__code__.co_freevars].index("known")].cell_contents
    before = lru_cache.cache_info().currsize
    function(argument)
    assert lru_cache.cache_info().currsize == before
    function(argument[:4])
    assert lru_cache.cache_info().currsize > 0
