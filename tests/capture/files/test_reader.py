"""Capture files of every kind are read; broken ones give all before the fault, and one line."""

from __future__ import annotations

import gzip
import io
import random
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitml4.capture.files.reader import read_packets
from mitml4.capture.packet import Packet
from mitml4.errors import CaptureError
from mitml4.payload.codings import zstd_module

TIMES = (1_700_000_000.25, 1_700_000_001.125, 4_000_000_000.5)
FRAMES = (b"one", b"second frame", b"")


class Dripping(io.RawIOBase):
    """A pipe that gives one byte at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read1(self, _: int) -> bytes:
        return self._data.read(1)


Frame: TypeAlias = tuple[float, int, bytes]


def frames(packets: Iterable[Packet]) -> Iterator[Frame]:
    for time_s, link_type, data, start, end in packets:
        assert 0 <= start <= end <= len(data)
        yield time_s, link_type, data[start:end]


def read(data: bytes) -> list[Frame]:
    return list(frames(read_packets(io.BytesIO(data), "x.pcap")))


def read_until_fault(data: bytes) -> tuple[list[Frame], CaptureError | None]:
    packets: list[Frame] = []
    try:
        packets.extend(frames(read_packets(io.BytesIO(data), "x.pcap")))
    except CaptureError as error:
        return packets, error
    return packets, None


def expected(link_type: int = 1) -> list[Frame]:
    return [(time_s, link_type, frame) for time_s, frame in zip(TIMES, FRAMES, strict=True)]


def pcapng(blocks: Any) -> bytes:
    """Two sections: three packets of two interfaces with clocks of their own, then two more."""
    nanoseconds = blocks.option(9, b"\x09") + blocks.option(0, b"")
    binary = blocks.option(9, b"\x8a") + blocks.option(14, blocks.pack("q", 1_700_000_000))
    return b"".join(
        [
            blocks.section(),
            blocks.interface(1, nanoseconds),
            blocks.interface(101, binary),
            blocks.block(0x0BAD, b"a block that nobody knows"),
            blocks.secrets(b"CLIENT_RANDOM 1 2\n"),
            blocks.secrets(b"something else", kind=1),
            blocks.packet(b"first", ticks=1_700_000_000_500_000_000),
            blocks.packet(b"second", ticks=256, interface=1),
            blocks.simple_packet(b"third"),
            blocks.section(),
            blocks.interface(113, snap_length=4),
            blocks.old_packet(b"fourth", ticks=1_700_000_002_000_000),
            blocks.simple_packet(b"fift"),
        ]
    )


PCAPNG_PACKETS = [
    (1_700_000_000.5, 1, b"first"),
    (1_700_000_000.25, 101, b"second"),
    (1_700_000_000.25, 1, b"third"),
    (1_700_000_002.0, 113, b"fourth"),
    (1_700_000_002.0, 113, b"fift"),
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_a_pcap_of_either_byte_order_and_resolution_is_read(
    wire: Any, order: str, nanoseconds: bool
) -> None:
    data = wire.pcap(zip(TIMES, FRAMES, strict=True), order=order, nanoseconds=nanoseconds)
    assert read(data) == expected()


def test_the_length_of_the_frame_check_sequence_is_no_part_of_the_link_type(wire: Any) -> None:
    data = wire.pcap(zip(TIMES, FRAMES, strict=True), link_type=0x34000001)
    assert read(data) == expected()


def test_a_pcapng_of_several_sections_and_interfaces_is_read(blocks: Any) -> None:
    assert read(pcapng(blocks)) == PCAPNG_PACKETS


def test_sections_may_differ_in_byte_order(blocks: Any) -> None:
    other = type(blocks)(">" if blocks.order == "<" else "<")
    assert read(pcapng(blocks) + pcapng(other)) == PCAPNG_PACKETS * 2


def test_secrets_are_handed_over_before_the_packets_behind_them(blocks: Any) -> None:
    seen: list[bytes] = []
    packets = read_packets(io.BytesIO(pcapng(blocks)), "x", on_secrets=seen.append)
    next(packets)
    assert seen == [b"CLIENT_RANDOM 1 2\n"]


def test_a_dripping_pipe_gives_the_same_packets(wire: Any, blocks: Any) -> None:
    for data, packets in (
        (wire.pcap(zip(TIMES, FRAMES, strict=True)), expected()),
        (pcapng(blocks), PCAPNG_PACKETS),
    ):
        dripping: Any = Dripping(data)
        assert list(frames(read_packets(dripping, "-"))) == packets


def test_what_was_read_is_handed_on_before_the_stream_is_read_again(wire: Any) -> None:
    data = wire.pcap(list(zip(TIMES, FRAMES, strict=True)))
    told: list[object] = []
    dripping: Any = Dripping(data)
    packets = read_packets(dripping, "x.pcap", on_read=lambda: told.append("read"))
    told.extend(frame for _, _, frame in frames(packets))
    assert len(told) == len(data) + 1 + len(FRAMES)  # once more to see that it has ended
    told.clear()
    whole = read_packets(io.BytesIO(data), "x.pcap", on_read=lambda: told.append("read"))
    for _, _, frame in frames(whole):
        told.append(frame)
    assert told == ["read", *FRAMES, "read"]


def test_packets_are_the_same_wherever_the_buffer_ends(wire: Any, blocks: Any) -> None:
    frame = bytes(range(256)) * 33
    data = wire.pcap([(1.0, frame)] * 300)
    assert [packet for _, _, packet in read(data)] == [frame] * 300
    data = blocks.section() + blocks.interface() + blocks.packet(frame) * 300
    assert [packet for _, _, packet in read(data)] == [frame] * 300


def test_gzip_is_read_as_it_is(wire: Any) -> None:
    assert read(gzip.compress(wire.pcap(zip(TIMES, FRAMES, strict=True)))) == expected()


def test_zstd_is_read_as_it_is(wire: Any) -> None:
    data = wire.pcap(zip(TIMES, FRAMES, strict=True))
    half = len(data) // 2
    compress = zstd_module().compress
    assert read(compress(data)) == expected()
    assert read(compress(data[:half]) + compress(data[half:])) == expected()
    _, error = read_until_fault(compress(data)[:12] + bytes(40))
    assert error is not None
    assert "x.pcap" in error.message


def test_a_zstd_that_is_cut_off_gives_what_came_before(wire: Any) -> None:
    data = wire.pcap([(1.0, random.Random(4).randbytes(60_000))] * 2)
    compress = zstd_module().compress
    whole = compress(data[:60_040]) + compress(data[60_040:])
    assert len(read(whole)) == 2
    for cut in (6, 1000, len(whole) - 1):
        packets, error = read_until_fault(whole[:cut])
        assert len(packets) == (cut == len(whole) - 1)
        assert error is not None
        assert error.message.startswith("x.pcap cannot be read beyond offset ")


def test_a_gzip_that_is_cut_off_gives_what_came_before(wire: Any) -> None:
    data = wire.pcap([(1.0, bytes(60_000))] * 100)
    packets, error = read_until_fault(gzip.compress(data, mtime=0)[:-200])
    assert packets
    assert error is not None
    assert error.message.startswith("x.pcap cannot be read beyond offset ")


def test_every_cut_gives_the_packets_before_it_and_names_the_offset(wire: Any, blocks: Any) -> None:
    data = wire.pcap(zip(TIMES, FRAMES, strict=True))
    for cut in range(1, len(data)):
        packets, error = read_until_fault(data[:cut])
        assert packets == expected()[: len(packets)]
        assert (error is None) == (cut in (24, 24 + 16 + 3, 24 + 32 + 15))
        assert error is None or error.message.startswith("x.pcap")
    data = pcapng(blocks)
    clean = 0
    for cut in range(1, len(data)):
        packets, error = read_until_fault(data[:cut])
        assert packets == PCAPNG_PACKETS[: len(packets)]
        clean += error is None
    assert clean == 12  # after each block but the last


def test_what_is_no_capture_is_refused() -> None:
    for data, words in ((b"", "empty"), (b"\x7fELF\x02", "not a pcap"), (b"ab", "not a pcap")):
        _, error = read_until_fault(data)
        assert error is not None
        assert words in error.message
        assert error.hint


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda b: b.pack("II", 6, 0x80000000), "a block of 2147483648 bytes at offset 48"),
        (lambda b: b.pack("III", 6, 8, 0), "a block of 8 bytes"),
        (lambda b: b.pack("III", 6, 13, 0), "a block of 13 bytes"),
        (lambda b: b.interface(1, b.pack("HH", 9, 400)), "an option that runs over its block"),
        (lambda b: b.block(1, b.pack("H", 1)), "too short"),
        (lambda b: b.packet(b"x", interface=7), "a broken packet block"),
        (lambda b: b.block(6, b.pack("IIIII", 0, 0, 0, 99, 99)), "a broken packet block"),
        (lambda b: b.block(6, b""), "too short"),
        (lambda b: b.block(2, b.pack("HHIIII", 0, 0, 0, 0, 99, 99)), "too short"),
        (lambda b: b.old_packet(b"", interface=3), "not described"),
        (lambda b: b.secrets(b"")[:8] + b.pack("III", 0x544C534B, 99, 20), "too short"),
        (lambda b: b.block(0x0A0D0D0A, b"neither"), "neither byte order"),
    ],
)
def test_damage_is_told_with_its_offset_after_what_came_before(
    blocks: Any, damage: Any, words: str
) -> None:
    start = blocks.section() + blocks.interface() + blocks.packet(b"good")
    whole = blocks.section() + blocks.interface()
    data = (whole if "offset 48" in words else start) + damage(blocks)
    packets, error = read_until_fault(data + bytes(4 if "offset 48" in words else 0))
    assert packets == ([] if "offset 48" in words else [(0.0, 1, b"good")])
    assert error is not None
    assert words in error.message
    assert "at offset" in error.message


def test_a_packet_of_two_gibibytes_is_damage_and_not_waited_for(wire: Any) -> None:
    data = wire.pcap([(1.0, b"good")]) + b"\0" * 8 + b"\0\0\0\x80" * 2 + bytes(100)
    packets, error = read_until_fault(data)
    assert packets == [(1.0, 1, b"good")]
    assert error is not None
    assert "a packet of 2147483648 bytes at offset 44" in error.message


@settings(max_examples=150)
@given(st.data())
def test_mutated_files_raise_nothing_but_capture_errors(wire: Any, data: st.DataObject) -> None:
    from_blocks = _little_pcapng()
    whole = data.draw(st.sampled_from([wire.pcap(zip(TIMES, FRAMES, strict=True)), from_blocks]))
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 5))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    read_until_fault(bytes(broken[: data.draw(st.integers(0, len(broken)))]))


def _little_pcapng() -> bytes:
    return bytes.fromhex(
        "0a0d0d0a1c0000004d3c2b1a01000000ffffffffffffffff1c000000"
        "0100000020000000010000000000000009000100060000000000000020000000"
        "06000000240000000000000000000000010000000200000002000000abcd000024000000"
        "0a0000001800000053574b5404000000616263640a00000018000000"
    )
