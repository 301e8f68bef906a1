"""Compressed certificates, bounded."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.tls.bridge.certificates import compress, decompress
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.messages import CompressedCertificate

ZLIB, BROTLI, ZSTD = ALGORITHMS = (1, 2, 3)
SOME = st.builds(bytes.__mul__, st.binary(min_size=1, max_size=300), st.integers(1, 50))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(body=SOME)
def test_a_certificate_is_compressed_and_decompressed(algorithm: int, body: bytes) -> None:
    compressed = compress(body, algorithm)
    assert (compressed.algorithm, compressed.length) == (algorithm, len(body))
    assert decompress(CompressedCertificate.parse(compressed.encode()[4:])) == body


def test_what_others_have_compressed_is_decompressed() -> None:
    # By Node and the program zstd.
    body = b"certificate" * 20
    for algorithm, data in (
        (ZLIB, "789c4b4e2d2ac94ccb4c4e2c494d1e6e4c00f7285a3d"),
        (BROTLI, "1bdb00f825000a98c12a0057cc0b"),
        (ZSTD, "28b52ffd24dc95000058636572746966696361746501004e53c50ba1a69260"),
    ):
        assert decompress(CompressedCertificate(algorithm, 220, bytes.fromhex(data))) == body


def is_bad(message: CompressedCertificate) -> bool:
    with pytest.raises(TlsError) as caught:
        decompress(message)
    return caught.value.alert == Alert.BAD_CERTIFICATE


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_broken_or_has_another_length_is_a_bad_certificate(algorithm: int) -> None:
    body = bytes(range(256)) * 20
    data = compress(body, algorithm).data
    assert is_bad(CompressedCertificate(algorithm, len(body) - 1, data))
    assert is_bad(CompressedCertificate(algorithm, len(body) + 1, data))
    assert is_bad(CompressedCertificate(algorithm, 0, data))
    assert is_bad(CompressedCertificate(algorithm, len(body), data + b"\0"))
    assert is_bad(CompressedCertificate(algorithm, len(body), b"\xff" + data[1:]))
    for end in range(0, len(data), 7):
        assert is_bad(CompressedCertificate(algorithm, len(body), data[:end]))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_of_large_certificates_none_is_too_large_for_a_buffer(algorithm: int) -> None:
    body = random.Random(1).randbytes(1 << 16) * 4
    assert decompress(compress(body, algorithm)) == body


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_bomb_costs_no_more_than_it_declares(algorithm: int) -> None:
    data = compress(bytes(64 << 20), algorithm).data
    tracemalloc.start()
    try:
        assert is_bad(CompressedCertificate(algorithm, 1 << 18, data))
        assert is_bad(CompressedCertificate(algorithm, (1 << 18) + 1, data))
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@given(st.sampled_from(ALGORITHMS), st.integers(0, 1 << 19), st.binary(min_size=1, max_size=200))
def test_any_bytes_are_a_certificate_or_an_error(algorithm: int, length: int, data: bytes) -> None:
    try:
        body = decompress(CompressedCertificate(algorithm, length, data))
    except TlsError:
        return
    assert len(body) == length


def test_an_algorithm_that_is_not_known_cannot_be_bridged() -> None:
    with pytest.raises(CannotBridge):
        decompress(CompressedCertificate(4, 1, b"x"))
