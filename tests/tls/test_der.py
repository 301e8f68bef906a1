"""Just enough DER: elements as they stand, lengths of every form, identifiers by their numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.tls.der import OCTET_STRING, OID, SEQUENCE, TRUE, Element, dotted, elements, tlv


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "0400"),
        (127, "047f"),
        (128, "048180"),
        (255, "0481ff"),
        (256, "04820100"),
        (65_536, "0483010000"),
    ],
)
def test_a_length_takes_as_few_octets_as_it_can(size: int, header: str) -> None:
    whole = tlv(OCTET_STRING, bytes(size))
    assert whole == bytes.fromhex(header) + bytes(size)
    assert list(elements(whole)) == [Element(OCTET_STRING, bytes(size), whole)]


@given(st.lists(st.tuples(st.sampled_from([OCTET_STRING, OID, SEQUENCE, 0xA3]), st.binary())))
def test_what_is_put_together_is_taken_apart_again(parts: list[tuple[int, bytes]]) -> None:
    found = elements(b"".join(tlv(tag, content) for tag, content in parts))
    assert [(each.tag, each.content) for each in found] == parts


def test_a_length_that_der_forbids_stays_as_it_stood() -> None:
    whole = bytes.fromhex("0482000161")
    assert list(elements(whole)) == [Element(OCTET_STRING, b"a", whole)]


@pytest.mark.parametrize(
    "broken",
    [
        "04",  # no length
        "1f8100",  # a tag of several octets
        "0480000000",  # an indefinite length
        "048201",  # a length that is cut short
        "04850000000001ff",  # one of five octets
        "0403ffff",  # contents that are cut short
    ],
)
def test_what_stands_before_the_damage_is_given(broken: str) -> None:
    found = elements(TRUE + bytes.fromhex(broken))
    assert next(found).raw == TRUE
    with pytest.raises(ValueError, match="DER"):
        next(found)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("813403", "2.100.3"),  # X.690 §8.19.5
        ("2a864886f70d01010b", "1.2.840.113549.1.1.11"),  # RFC 8017, sha256WithRSAEncryption
        ("00", "0.0"),
        ("4f", "1.39"),
        ("50", "2.0"),
        ("", "0x"),
        ("2a86", "0x2a86"),  # the last arc goes on
        ("2a" + "ff" * 31 + "01", "0x2a" + "ff" * 31),  # longer than anybody's
    ],
)
def test_an_identifier_is_dotted_or_hexadecimal(content: str, expected: str) -> None:
    assert dotted(bytes.fromhex(content)) == expected
