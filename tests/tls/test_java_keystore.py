"""Java's key stores, read whatever is in them, and written so that they read the same.

What Java itself makes of them: tests/tls/stores/test_java.py.
"""

from __future__ import annotations

import contextlib
import struct

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from mitml4.tls.java_keystore import (
    jks_order,
    read_entries,
    read_truststore,
    reorder_jks,
    write_jks,
    write_truststore,
)

CERTIFICATES = (b"first", b"", b"x" * 300)  # in a JKS they are bytes


def with_a_key_first(jks: bytes) -> bytes:
    """The same JKS with a private key, and its chain of one, before everything else."""
    chain = struct.pack(">H5sI4s", 5, b"X.509", 4, b"leaf")
    key = struct.pack(">IH3sQI6sI", 1, 3, b"key", 0, 6, b"secret", 1) + chain
    (count,) = struct.unpack_from(">I", jks, 8)
    return jks[:8] + struct.pack(">I", count + 1) + key + jks[12:]


def test_a_jks_reads_as_it_was_written() -> None:
    jks = write_jks(CERTIFICATES)
    aliases = ["mitml4-0", "mitml4-1", "mitml4-2"]
    assert read_entries(jks) == list(zip(aliases, CERTIFICATES, strict=True))
    assert jks_order(jks) == aliases


def test_private_keys_are_passed_over_and_keep_their_place() -> None:
    jks = with_a_key_first(write_jks(CERTIFICATES))
    assert read_truststore(jks) == [*CERTIFICATES]
    assert jks_order(jks) == ["key", "mitml4-0", "mitml4-1", "mitml4-2"]


def test_entries_come_in_the_order_that_was_asked_for_and_others_behind() -> None:
    jks = reorder_jks(write_jks(CERTIFICATES), ["mitml4-2", "missing", "mitml4-0"])
    assert jks_order(jks) == ["mitml4-2", "mitml4-0", "mitml4-1"]
    assert reorder_jks(jks, ["mitml4-0", "mitml4-1"]) == write_jks(CERTIFICATES)


def test_a_broken_digest_is_not_mended() -> None:
    with pytest.raises(ValueError, match="another password"):
        reorder_jks(with_a_key_first(write_jks(CERTIFICATES)), [])


def test_a_jks_that_is_cut_short_is_refused_wherever_that_is() -> None:
    jks = with_a_key_first(write_jks(CERTIFICATES))
    digest = 20
    for cut in range(4, len(jks) - digest):
        with pytest.raises(ValueError, match="cut short"):
            read_entries(jks[:cut])


def test_another_version_is_refused() -> None:
    jks = write_jks(CERTIFICATES)
    with pytest.raises(ValueError, match="no JKS version 1"):
        read_entries(jks[:4] + b"\0\0\0\1" + jks[8:])


@given(st.binary())
def test_any_other_bytes_raise_nothing_but_a_value_error(data: bytes) -> None:
    for start in (b"", b"\xfe\xed\xfe\xed\0\0\0\2"):
        with contextlib.suppress(ValueError):
            read_entries(start + data)


def test_a_pkcs12_has_no_order_and_leaves_out_what_is_no_certificate() -> None:
    certificate = x509.load_pem_x509_certificate(trustme.CA().cert_pem.bytes())
    der = certificate.public_bytes(Encoding.DER)
    store = write_truststore([b"none", der])
    assert read_entries(store) == [("mitml4-1", der)]
    assert jks_order(store) is None
