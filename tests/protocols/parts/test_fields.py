"""Fields from bytes that may end anywhere: short, wrong at the first wrong byte, or read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Verdict
from mitml4.protocols.parts.fields import Reader, Short, evaluate


def uint(data: bytes, low: int, high: int, little: bool) -> int | type[Exception]:
    try:
        return Reader(data).uint(2, low, high, little=little)
    except (Short, ProtocolError) as error:
        return type(error)


@given(
    data=st.binary(min_size=2, max_size=2),
    bounds=st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)).map(sorted),
    little=st.booleans(),
)
def test_a_number_is_wrong_as_soon_as_no_byte_behind_can_right_it(
    data: bytes, bounds: list[int], little: bool
) -> None:
    low, high = bounds
    order = "little" if little else "big"
    value = int.from_bytes(data, order)  # type: ignore[arg-type]
    assert uint(data, low, high, little) == (value if low <= value <= high else ProtocolError)
    endings = (int.from_bytes(data[:1] + bytes([last]), order) for last in range(256))  # type: ignore[arg-type]
    possible = any(low <= value <= high for value in endings)
    assert uint(data[:1], low, high, little) is (Short if possible else ProtocolError)


def test_a_reader_moves_behind_what_it_reads() -> None:
    reader = Reader(b"\x01\x02\x00\x04abcname\x00rest")
    assert (reader.uint(2), reader.uint(2, 4, 4)) == (0x0102, 4)
    assert reader.take(3) == b"abc"
    assert reader.until(b"\0", 4) == b"name"
    assert reader.one_of(b"rust", b"rest") == b"rest"
    assert reader.left == 0


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"", Verdict.NEED_MORE),
        (b"na", Verdict.NEED_MORE),
        (b"names", Verdict.REJECT),
        (b"na\x01", Verdict.REJECT),
        (b"n\x00", Verdict.MATCH),
    ],
)
def test_a_text_is_detected_by_length_and_alphabet(data: bytes, verdict: Verdict) -> None:
    assert evaluate(lambda reader: reader.until(b"\0", 4), data) is verdict


@pytest.mark.parametrize(
    ("data", "verdict"),
    [(b"", "n"), (b"one", "n"), (b"ones", "m"), (b"two", "m"), (b"tx", "r"), (b"onet", "r")],
)
def test_one_of_several_values(data: bytes, verdict: str) -> None:
    expected = {"n": Verdict.NEED_MORE, "m": Verdict.MATCH, "r": Verdict.REJECT}[verdict]
    assert evaluate(lambda reader: reader.one_of(b"ones", b"two"), data) is expected
